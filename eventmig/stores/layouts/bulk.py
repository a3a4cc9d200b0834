"""Many rows with few statements: an INSERT of many rows, or PostgreSQL's COPY.

Rows come as columns. `COPY` is used where it does what an INSERT does: not for views, nor
tables with rules or row-level security.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Insert
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of many rows, by the name of their parameter; all of one length."""

_BOUND: Final = 900  # parameters of one statement: every SQLite takes so many
_COPY_CHARACTERS: Final = 1 << 20
_ESCAPES: Final = (("\\", r"\\"), ("\n", r"\n"), ("\t", r"\t"), ("\r", r"\r"))


def insert_rows(connection: Connection, statement: Insert, columns: Columns) -> None:
    """Insert rows with a statement of one row, whose parameters `columns` name.

    Raises SQLAlchemy's errors.
    """
    compiled = statement.compile(dialect=connection.dialect)
    order = compiled.positiontup
    if order is None:  # the driver names its parameters
        rows = zip(*columns.values(), strict=True)
        named = [dict(zip(columns, row, strict=True)) for row in rows]
        connection.exec_driver_sql(str(compiled), named)
        return
    width = len(order)
    count = len(columns[order[0]])
    values: list[Any] = [None] * (width * count)
    for number, name in enumerate(order):
        values[number::width] = columns[name]
    head, mark, row = str(compiled).rpartition(" VALUES ")
    at_once = max(1, _BOUND // width)
    for at in range(0, count, at_once):
        some = min(at_once, count - at)
        given = tuple(values[at * width : (at + some) * width])
        connection.exec_driver_sql(f"{head}{mark}{', '.join([row] * some)}", given)


def copy_rows(connection: Connection, table: str, columns: Columns) -> None:
    """Copy rows into a table of PostgreSQL; `columns` by their names. Raises as `insert_rows`."""
    names = ", ".join(map(_quoted, columns))
    statement = f"COPY {_quoted(table)} ({names}) FROM STDIN"
    lines = map("\t".join, zip(*map(_texts, columns.values()), strict=True))
    data = "\n".join(lines) + "\n"
    driver: Any = connection.connection.driver_connection
    dbapi: Any = connection.dialect.dbapi
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for at in range(0, len(data), _COPY_CHARACTERS):
                copy.write(data[at : at + _COPY_CHARACTERS])
    except dbapi.Error as error:
        raise DBAPIError.instance(
            statement, None, error, dbapi.Error, dialect=connection.dialect
        ) from error


def copies(connection: Connection, table: str) -> bool:
    """Whether `copy_rows` does with this table what an INSERT does. Reads only."""
    if connection.dialect.name != "postgresql":
        return False
    plain = sql(
        "SELECT relkind IN ('r', 'p') AND NOT relhasrules AND NOT row_security_active(oid) "
        "FROM pg_class WHERE oid = to_regclass(:name)"
    )
    return bool(connection.execute(plain, {"name": _quoted(table)}).scalar())


def _quoted(name: str) -> str:
    # SQLAlchemy's own would double a %, for statements that have parameters.
    return '"' + name.replace('"', '""') + '"'


def _texts(values: Sequence[Any]) -> list[str]:
    """One column in COPY's text format (PostgreSQL's manual, COPY)."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(str, values))
    if kinds == {bytes}:
        return [rf"\\x{value.hex()}" for value in values]
    return list(map(_text, values))


def _text(value: Any) -> str:
    if isinstance(value, str):
        text = value
        for character, escape in _ESCAPES:
            if character in text:
                text = text.replace(character, escape)
        return text
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return rf"\\x{value.hex()}"
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
