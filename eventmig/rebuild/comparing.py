"""What a rebuild would change, row by row, before it does.

A generation is built beside the live one, as by a rebuild, up to the very position of the
live rows; both are compared in the database, while whoever keeps the live rows up to date
waits. The generation stays: a rebuild of the same making goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    cast,
    false,
    func,
    inspect,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, swap
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.building import ModelBuilding
from eventmig.rebuild.sharing import FoldHelpers

_ROUNDS = 5
_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDifference:
    """One row that is not the same: `live` or `rebuilt` is None where it is not there.

    Where both are there, they hold the columns alone that differ.
    """

    key: str
    live: Mapping[str, Any] | None
    rebuilt: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDifference:
    """What a rebuild would change in one table: rows added, removed, changed, and left.

    `columns` are those that only one side has: they are not compared. `examples` are the
    first few of each kind.
    """

    table: str
    added: int
    removed: int
    changed: int
    same: int
    columns: tuple[str, ...] = ()
    examples: tuple[RowDifference, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether a rebuild would leave the table as it is."""
        return not (self.added or self.removed or self.changed or self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDifference:
    """What a rebuild of one read model would change, compared at a global position."""

    name: str
    position: int
    tables: tuple[TableDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether a rebuild would change nothing."""
        return all(table.equal for table in self.tables)


def compare_with_live(one: ModelBuilding, helpers: FoldHelpers | None) -> ModelDifference:
    """Build one generation to where the live rows are, and compare; reads the live tables.

    Raises `RebuildError` where there are no live tables, and as a rebuild does.
    """
    connection, name, rounds = one.connection, one.model.name, _ROUNDS
    missing = [table.name for table in one.model.tables if not swap.exists(connection, table)]
    connection.rollback()
    if missing:
        raise RebuildError(
            f"{name} has no live table {missing[0]} to compare with",
            where=Where(path=name),
            remedy=f"run `eventmig rebuild {name}`: there is nothing it could change for the worse",
        )
    one.run(helpers)
    while True:
        with connection.begin():
            one.hold.fence(connection)
            bookkeeping.lock_live(connection, one.hold)
            live = bookkeeping.generation(connection, Kind.READ_MODEL, name, State.LIVE)
            followed = live is not None and live.source == one.at.source
            position = live.position if live is not None and followed else one.at.position
            rounds -= 1
            if position > one.at.position and not rounds:  # a follower stays ahead: it waits now
                one.last_increment(position)
            if position <= one.at.position:
                tables = [
                    _difference(connection, table, target)
                    for table, target in zip(one.model.tables, one.shadow.tables, strict=True)
                ]
                return ModelDifference(name=name, position=one.at.position, tables=tuple(tables))
        one.catch_up(position)


def _difference(connection: Connection, live: Table, rebuilt: Table) -> TableDifference:
    there = {column["name"] for column in inspect(connection).get_columns(live.name, live.schema)}
    declared = {column.name for column in live.columns}
    keys = [(live.c[c.key], rebuilt.c[c.key]) for c in live.primary_key.columns]
    pairs = [
        (live.c[c.key], rebuilt.c[c.key])
        for c in live.columns
        if not c.primary_key and c.name in there
    ]
    joined = and_(*(one == other for one, other in keys))
    differs = or_(false(), *(_distinct(connection, *pair) for pair in pairs))
    both = select(func.count()).select_from(live.join(rebuilt, joined))
    added = select(func.count()).select_from(rebuilt.outerjoin(live, joined))
    removed = select(func.count()).select_from(live.outerjoin(rebuilt, joined))
    in_both = connection.execute(both).scalar_one()
    changed = connection.execute(both.where(differs)).scalar_one()
    order = [other for _, other in keys]
    examples: list[RowDifference] = []
    columns = [column for pair in pairs for column in pair]
    for row in connection.execute(
        select(*order, *columns)
        .select_from(live.join(rebuilt, joined))
        .where(differs)
        .order_by(*order)
        .limit(_EXAMPLES)
    ):
        examples.append(_changed(row, [key.name for key in order], pairs))
    for mine, other, is_live in ((rebuilt, live, False), (live, rebuilt, True)):
        at = [mine.c[c.key] for c in live.primary_key.columns]
        found = [mine.c[one.key] for one, _ in pairs]
        alone = other.c[order[0].key].is_(None)
        for row in connection.execute(
            select(*at, *found)
            .select_from(mine.outerjoin(other, joined))
            .where(alone)
            .order_by(*at)
            .limit(_EXAMPLES)
        ):
            values = dict(zip((c.name for c in found), row[len(at) :], strict=True))
            key = _key([c.name for c in at], row)
            examples.append(
                RowDifference(key=key, live=values, rebuilt=None)
                if is_live
                else RowDifference(key=key, live=None, rebuilt=values)
            )
    return TableDifference(
        table=live.name,
        added=connection.execute(added.where(keys[0][0].is_(None))).scalar_one(),
        removed=connection.execute(removed.where(keys[0][1].is_(None))).scalar_one(),
        changed=changed,
        same=in_both - changed,
        columns=tuple(sorted(there ^ declared)),
        examples=tuple(examples),
    )


def _distinct(connection: Connection, one: Column[Any], other: Column[Any]) -> ColumnElement[bool]:
    if isinstance(one.type, JSON) and connection.dialect.name == "postgresql":
        return cast(one, JSONB).is_distinct_from(cast(other, JSONB))  # json has no equality
    return one.is_distinct_from(other)


def _changed(
    row: Sequence[Any], names: Sequence[str], pairs: Sequence[tuple[Column[Any], Column[Any]]]
) -> RowDifference:
    values = row[len(names) :]
    before, after = values[::2], values[1::2]
    changed = [
        (pair[0].name, old, new)
        for pair, old, new in zip(pairs, before, after, strict=True)
        if old != new
    ]
    return RowDifference(
        key=_key(names, row),
        live={name: old for name, old, _ in changed},
        rebuilt={name: new for name, _, new in changed},
    )


def _key(names: Sequence[str], row: Sequence[Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in zip(names, row, strict=False))
