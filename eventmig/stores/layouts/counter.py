"""The row in which an owner counts all events: positions are drawn from it, without gaps.

Its update locks it until the transaction ends, as the owner's own appends do.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, column, func, select, table, update

from eventmig.errors import NotAStoreError
from eventmig.stores.layouts.parts import Counter
from eventmig.stores.layouts.tables import Tables


class CounterRow:
    """The row of a layout's `counter`, within the caller's transaction."""

    def __init__(self, connection: Connection, counter: Counter) -> None:
        self._connection = connection
        self._counter = counter
        self._table = table(counter.table, *map(column, {counter.column, *counter.where}))

    def draw(self, count: int) -> list[int]:
        """So many positions after the last, which the row then holds. Raises `NotAStoreError`."""
        counted = self._table.c[self._counter.column]
        self._set(counted + count)
        last = self._connection.execute(select(counted).where(*self._which())).scalar()
        if last is None:
            where = ", ".join(f"{name} = {v!r}" for name, v in self._counter.where.items())
            raise NotAStoreError(
                f"the table {self._counter.table!r} has no row with {where}, in which all events "
                "are counted",
                remedy="let the library that owns the tables make them",
            )
        return list(range(last + 1 - count, last + 1))

    def set_back(self, tables: Tables) -> None:
        """Let it count the events that are there."""
        left = select(func.coalesce(func.max(tables.position), 0)).select_from(tables.source)
        self._set(left.where(*tables.ours()).scalar_subquery())

    def _set(self, value: Any) -> None:
        change = update(self._table).where(*self._which()).values({self._counter.column: value})
        self._connection.execute(change)

    def _which(self) -> list[Any]:
        return [self._table.c[name] == value for name, value in self._counter.where.items()]
