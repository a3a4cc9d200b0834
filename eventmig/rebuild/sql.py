"""Plain SQL in handlers: the slow way, for what row operations cannot say.

A handler that takes `sql` runs its statements at once, in the transaction of its event. A
read model with such a handler is replayed one event at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table
from sqlalchemy.sql import ClauseElement, visitors
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.elements import TextClause

from eventmig.errors import RebuildError


class Sql:
    """Statements on one read model's tables, as its handlers run them.

    `sql[table]` is the table to use for a declared one: which that is changes from rebuild
    to rebuild. Raises `RebuildError` for text, and for statements on other tables of the
    model than those.
    """

    def __init__(
        self, tables: Mapping[Table, Table], connection: Connection, flush: Callable[[], None]
    ) -> None:
        self._tables = tables
        self._connection = connection
        self._flush = flush

    def __getitem__(self, table: Table) -> Table:
        try:
            return self._tables[table]
        except KeyError:
            raise RebuildError(
                f"the table {getattr(table, 'name', table)} is not one of this read model",
                remedy="name it in ReadModel(…, tables=[…])",
            ) from None

    def execute(self, statement: Executable) -> Sequence[Row[Any]]:
        """Run a SQLAlchemy Core statement; returns its rows, if it has any.

        Sees what row operations and statements did before it.
        """
        if isinstance(statement, TextClause) or not isinstance(statement, ClauseElement):
            raise RebuildError(
                "a handler runs SQLAlchemy Core statements, not text",
                remedy="write it with insert, update, delete and select on sql[table]",
            )
        targets = {*self._tables.values()}
        for element in visitors.iterate(statement):
            if isinstance(element, Table) and element in self._tables and element not in targets:
                raise RebuildError(
                    f"a handler's statement names {element.name} itself: that is the live table",
                    remedy=f"use sql[{element.name}] in its place",
                )
        self._flush()
        result = self._connection.execute(statement)
        return result.all() if result.returns_rows else ()
