"""The owner's table of stream heads, kept in step with the events a job writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    Connection,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from eventmig.stores.layouts.columns import Expression, columns_of, parameter
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Heads

Key: TypeAlias = tuple[str, ...]
_CATEGORY: Final = "{category}"
_NAMED: Final = 200  # streams in one statement


class StreamHeads:
    """One row per stream, with the position of its last event."""

    def __init__(self, connection: Connection, layout: Layout, heads: Heads) -> None:
        self._connection = connection
        self._layout = layout
        self._heads = heads
        self._sqlite = connection.dialect.name == "sqlite"
        self._found = columns_of(connection, heads.table)
        self._table = table(heads.table, *map(column, self._found))

    def keep(self, last: Mapping[Key, tuple[str, int]]) -> None:
        """Write the last position of streams, by key: (name, position)."""
        heads = self._heads
        names = [*heads.columns, heads.position, *heads.constants]
        dialect: Any = sqlite if self._sqlite else postgresql
        statement = dialect.insert(self._table).values(
            {name: self._bound(name, n) for n, name in enumerate(names)}
        )
        statement = statement.on_conflict_do_update(
            index_elements=[*heads.columns, *heads.key_constants],
            set_={heads.position: statement.excluded[heads.position]},
        )
        rows = []
        for key, (stream, position) in last.items():
            category = self._layout.category(stream)
            constants = (
                category if value == _CATEGORY else value for value in heads.constants.values()
            )
            values = [*key, position, *constants]
            rows.append({f"h{n}": value for n, value in enumerate(values)})
        self._connection.execute(statement, rows)

    def numbers(self, keys: Sequence[Key]) -> dict[Key, int]:
        """The numbers that the database gave these streams, where it gives some."""
        names = self._heads.columns
        own = [cast(self._table.c[name], Text) for name in names]
        number = self._table.c[self._heads.number]
        found: dict[Key, int] = {}
        for at in range(0, len(keys), _NAMED):
            among = or_(*map(self._is, keys[at : at + _NAMED]))
            for *key, its in self._connection.execute(select(*own, number).where(among)):
                found[tuple(key)] = its
        return found

    def set_back(self, key: Key, position: int | None) -> None:
        """Set one stream's head back; None: the stream is gone, and its row with it."""
        which = self._is(key)
        if position is None:
            self._connection.execute(delete(self._table).where(which))
            return
        change = update(self._table).where(which).values({self._heads.position: position})
        self._connection.execute(change)

    def _is(self, key: Sequence[str]) -> Expression:
        conditions = [
            self._table.c[name] == parameter(self._found[name], None, self._sqlite, value)
            for name, value in zip(self._heads.columns, key, strict=True)
        ]
        constants = self._heads.constants
        conditions += [self._table.c[n] == constants[n] for n in self._heads.key_constants]
        return and_(*conditions)

    def _bound(self, name: str, number: int) -> Expression:
        if name == self._heads.position:
            return bindparam(f"h{number}")
        return parameter(self._found[name], f"h{number}", self._sqlite)
