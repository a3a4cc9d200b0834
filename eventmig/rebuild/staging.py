"""Many rows at once on PostgreSQL: COPY into a staging table, and one statement from there.

Into a table that holds no rows yet, COPY alone. A statement is written once, over values that
are `Given`: as parameters, or as columns of a staging table. Runs inside the caller's
transaction; never begins or commits one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    MetaData,
    Table,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from eventmig.rebuild.statements import Insert, Statement, insert_into, parameter

FEW: Final = 100
"""So many rows are sent one by one faster than a staging table is filled."""


class Given:
    """The values a statement is given: its parameters, or the columns `p0`, … of a stage."""

    def __init__(self, stage: Table | None = None) -> None:
        self._stage = stage

    def __call__(self, index: int, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """The `index`-th value, of the type of a column."""
        return parameter(index, column) if self._stage is None else self._stage.c[f"p{index}"]

    def values(self, columns: Sequence[Column[Any]]) -> dict[Column[Any], Any]:
        """The first values, by the columns they are for."""
        return {column: self(index, column) for index, column in enumerate(columns)}

    def insert(self, table: Table, values: dict[Column[Any], Any], dialect: Dialect) -> Insert:
        """An INSERT of these values."""
        clause = insert_into(table, dialect)
        if self._stage is None:
            return clause.values(values).inline()
        return clause.from_select(list(values), select(*values.values()), include_defaults=False)


def stage_of(target: Table, sql: str, columns: Sequence[Column[Any]]) -> Table:
    """The staging table of one statement on `target`, with a column per value."""
    digest = hashlib.sha256(f"{target.fullname}\x1f{sql}".encode()).hexdigest()[:16]
    return Table(
        f"eventmig_stage_{digest}",
        MetaData(),
        *(
            Column(f"p{index}", column.type, autoincrement=False)
            for index, column in enumerate(columns)
        ),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DELETE ROWS",
    )


class Staged:
    """A statement in two forms: `alone` row by row, and over a filled `stage`."""

    def __init__(
        self, alone: Statement, stage: Table, clause: ClauseElement, dialect: Dialect
    ) -> None:
        self._alone = alone
        self._clause: Any = clause
        self._create = CreateTable(stage, if_not_exists=True)
        self._delete = stage.delete()
        names = ", ".join(column.name for column in stage.columns)
        name = dialect.identifier_preparer.quote(stage.name)
        self._copy = f"COPY {name} ({names}) FROM STDIN"

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run for every row; returns how many rows of the table it changed."""
        if len(rows) <= FEW:
            return self._alone.run(connection, rows)
        connection.execute(self._create)
        _copy(connection, self._copy, self._alone.processed(rows))
        changed = connection.execute(self._clause).rowcount
        connection.execute(self._delete)
        return changed


class Copied:
    """New rows of a table that holds none of their keys: `alone` row by row, or copied."""

    def __init__(
        self, alone: Statement, table: Table, columns: Sequence[Column[Any]], dialect: Dialect
    ) -> None:
        quote = dialect.identifier_preparer
        names = ", ".join(quote.format_column(column) for column in columns)
        self._alone = alone
        self._copy = f"COPY {quote.format_table(table)} ({names}) FROM STDIN"

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run for every row; returns how many rows of the table that made."""
        if len(rows) <= FEW:
            return self._alone.run(connection, rows)
        _copy(connection, self._copy, self._alone.processed(rows))
        return len(rows)


def _copy(connection: Connection, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
    driver: Any = connection.dialect.loaded_dbapi
    cursor: Any = connection.connection.cursor()  # SQLAlchemy has no COPY of its own
    try:
        with cursor.copy(sql) as copy:
            for row in rows:
                copy.write_row(row)
    except driver.Error as error:
        raise DBAPIError.instance(
            sql, None, error, driver.Error, dialect=connection.dialect
        ) from error
    finally:
        cursor.close()
