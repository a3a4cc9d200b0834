"""The SQL reading of ops run on real databases, for tests: one event's data at a time."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import psycopg

from eventmig.ops import Op
from eventmig.ops.sql import Reading, read


class Database(Protocol):
    """Somewhere to run the SQL reading of ops."""

    dialect: str

    def stored(self, data: bytes) -> bytes | None:
        """The data as the database holds it; None where it refuses it."""
        ...

    def select(self, reading: Reading, data: bytes) -> bytes | None:
        """The reading's value for stored data; None where it is NULL."""
        ...


def rewritten(database: Database, ops: tuple[Op, ...], data: bytes) -> bytes | None:
    """Data after ops as the database makes it; None: this event goes the Python way."""
    return database.select(read(ops, database.dialect, data="s.data"), data)


class InSqlite:
    """A database in memory."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def stored(self, data: bytes) -> bytes | None:
        return data

    def select(self, reading: Reading, data: bytes) -> bytes | None:
        # Two rows, so that what is worked out for one is not kept for the next.
        text = f"SELECT {reading.text} FROM (SELECT '[]' AS data UNION ALL SELECT :data) s"
        bound = {**reading.values, "data": data.decode()}
        _, (found,) = self._connection.execute(text, bound).fetchall()
        return None if found is None else str(found).encode()


class InPostgres:
    """A server; nothing is made in it."""

    dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection[tuple[str | None]]) -> None:
        self._connection = connection

    def stored(self, data: bytes) -> bytes | None:
        try:
            found = self._one("SELECT CAST(CAST(%(data)s AS jsonb) AS text)", {}, data)
        except psycopg.DataError:  # NUL, half a surrogate, numbers beyond `numeric`
            return None
        assert found is not None
        return found.encode()

    def select(self, reading: Reading, data: bytes) -> bytes | None:
        text = re.sub(r":(v[0-9]+)\b", r"%(\1)s", reading.text)
        rows = "(SELECT '[]'::jsonb AS data UNION ALL SELECT CAST(%(data)s AS jsonb) OFFSET 1)"
        found = self._one(f"SELECT CAST({text} AS text) FROM {rows} s", reading.values, data)
        return None if found is None else found.encode()

    def _one(self, text: str, values: Mapping[str, str | int], data: bytes) -> str | None:
        cursor = self._connection.execute(text.encode(), {**values, "data": data.decode()})
        row = cursor.fetchone()
        assert row is not None
        return row[0]


@contextmanager
def in_sqlite() -> Iterator[InSqlite]:
    """SQLite, for the length of a block."""
    connection = sqlite3.connect(":memory:")
    try:
        yield InSqlite(connection)
    finally:
        connection.close()


@contextmanager
def in_postgres(url: str) -> Iterator[InPostgres]:
    """A PostgreSQL server, for the length of a block."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield InPostgres(connection)
