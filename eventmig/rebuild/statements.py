"""Statements compiled once, and run in bulk over rows of plain values.

Rows go to the driver as it takes them (`exec_driver_sql`): SQLAlchemy's own
handling of parameters costs more than a fold. Runs inside the caller's
transaction; never begins or commits one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, TypeAlias, cast

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    ColumnElement,
    Connection,
    Dialect,
    Table,
    bindparam,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from eventmig.errors import CapabilityError

Insert: TypeAlias = "sqlite.Insert | postgresql.Insert"


def insert_into(table: Table, dialect: Dialect) -> Insert:
    """The dialect's own INSERT, which has ON CONFLICT; raises `CapabilityError` for others."""
    if dialect.name == "sqlite":
        return sqlite.insert(table)
    if dialect.name == "postgresql":
        return postgresql.insert(table)
    raise CapabilityError(
        f"read models and snapshots cannot be rebuilt in {dialect.name}",
        remedy="use a SQLite or PostgreSQL database for them",
    )


class Statement:
    """One compiled statement, which takes rows of values: its parameters `p0`, `p1`, ….

    Literals in the clause are the same for every row.
    """

    def __init__(self, clause: ClauseElement, parameters: int, dialect: Dialect) -> None:
        compiled = cast(SQLCompiler, clause.compile(dialect=dialect))
        names = [f"p{index}" for index in range(parameters)]
        others = [name for name in compiled.binds if name not in names]
        self.sql = str(compiled)
        self._processors: list[tuple[int, Callable[[Any], Any]]] = []
        for index, name in enumerate(names):
            processor = _processor(compiled.binds[name], dialect)
            if processor is not None:
                self._processors.append((index, processor))
        constants: list[object] = []
        for name in others:
            bind = compiled.binds[name]
            processor = _processor(bind, dialect)
            constants.append(bind.value if processor is None else processor(bind.value))
        self._constants = tuple(constants)
        # Drivers with positional parameters may want them in another order, or twice.
        names += others
        self._names = None if compiled.positional else names
        order = [names.index(name) for name in compiled.positiontup or ()]
        straight = not compiled.positional or order == list(range(len(names)))
        self._pick = None if straight else itemgetter(*order)

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run once per row, in bulk; returns how many rows of the table it changed."""
        if not rows:
            return 0
        result = connection.exec_driver_sql(self.sql, self.bound(rows))
        return result.rowcount

    def bound(self, rows: Sequence[tuple[Any, ...]]) -> Any:
        """The rows as the driver takes them."""
        rows = self.processed(rows)
        if self._constants:
            rows = [(*row, *self._constants) for row in rows]
        if self._names is not None:
            names = self._names
            return [dict(zip(names, row, strict=True)) for row in rows]
        if self._pick is not None:
            pick = self._pick
            return [pick(row) for row in rows]
        return rows

    def processed(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """The rows with their values as the driver takes them."""
        return [self._processed(row) for row in rows] if self._processors else rows

    def _processed(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for index, processor in self._processors:
            values[index] = processor(values[index])
        return tuple(values)


def _processor(bind: BindParameter[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return bind.type.dialect_impl(dialect).bind_processor(dialect)


def parameter(index: int, column: ColumnElement[Any]) -> BindParameter[Any]:
    """The parameter of a statement's `index`-th value, typed as the column."""
    return bindparam(f"p{index}", type_=column.type)
