"""Which layout a database has: a preset that fits its tables, or a description to begin with.

Looks at names and types of columns alone; whether the rows are what they seem is found
out by reading some (`eventmig inspect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, inspect

from eventmig.stores.layouts.columns import Found, columns_of
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Dialect
from eventmig.stores.layouts.presets import presets

_SYSTEM_SCHEMAS: Final = ("information_schema", "pg_catalog", "pg_toast")
_OWN: Final = "eventmig_"
_MARK: Final = "eventmig_store"
_OF_A_STORE: Final = ("events", "streams", "origins", "origin_streams", _MARK)
"""What stands behind the same prefix in a store that eventmig made itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A table as the database has it; `schema` is None in SQLite."""

    schema: str | None
    name: str
    columns: Mapping[str, Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A layout that fits a table of this schema.

    `elsewhere`: the table has another name than the preset's; `proposed`: it is no preset.
    """

    layout: Layout
    schema: str | None
    elsewhere: bool = False
    proposed: bool = False


def seen_in(connection: Connection, schema: str | None) -> list[Seen]:
    """The tables of a database (of one schema, if given), without eventmig's own."""
    sqlite = connection.dialect.name == "sqlite"
    inspector = inspect(connection)
    schemas: Sequence[str | None] = [None]
    if not sqlite:
        every = [s for s in inspector.get_schema_names() if s not in _SYSTEM_SCHEMAS]
        schemas = [schema] if schema else every
    found = []
    for name in schemas:
        names = inspector.get_table_names(schema=name)
        stores = [table.removesuffix(_MARK) for table in names if table.endswith(_MARK)]
        own = {prefix + table for prefix in stores for table in _OF_A_STORE}
        for table in names:
            if table not in own and not table.startswith(_OWN):
                columns = columns_of(connection, table, name)
                found.append(Seen(schema=name, name=table, columns=columns))
    return found


def matches(seen: Sequence[Seen], dialect: Dialect) -> list[Match]:
    """The presets that fit, best first: those that name most of a table's columns.

    One match for each preset and schema (a partitioned table is seen with its partitions).
    """
    found: list[tuple[int, Match]] = []
    for preset in presets():
        if preset.dialect != dialect:
            continue
        for table in seen:
            layout = preset.model_copy(update={"table": table.name})
            if not _fits(layout, table, seen) or _is_snapshot(table.name, seen):
                continue
            elsewhere = table.name != preset.table
            match = Match(layout=layout, schema=table.schema, elsewhere=elsewhere)
            found.append((2 * len(layout.columns()) - elsewhere, match))
    found.sort(key=lambda one: -one[0])
    best: dict[tuple[str, str | None], Match] = {}
    for _, match in found:
        best.setdefault((match.layout.name, match.schema), match)
    return list(best.values())


def _fits(layout: Layout, table: Seen, seen: Sequence[Seen]) -> bool:
    there = {other.name: set(other.columns) for other in seen if other.schema == table.schema}
    rowid = {"rowid"} if layout.dialect == "sqlite" else set()
    there[table.name] |= rowid
    for name in layout.columns():
        owner, dot, column = name.rpartition(".")
        if dot and owner in {join.table for join in layout.joins}:
            if column not in there.get(owner, ()):
                return False
        elif name not in there[table.name]:
            return False
    beside = {layout.heads.table} if layout.heads else set()
    return beside <= there.keys()


def _is_snapshot(name: str, seen: Sequence[Seen]) -> bool:
    stems = {other.name.removesuffix("_events") for other in seen}
    return name.endswith("_snapshots") and (
        name.removesuffix("_snapshots") in stems or name == "stored_snapshots"
    )
