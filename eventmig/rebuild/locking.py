"""The lock of a swap: short, tried again, and with a word about who is in the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from eventmig.errors import RebuildError, Where
from eventmig.rebuild.bookkeeping import KeptTable

T = TypeVar("T")

LOCK_TIMEOUT = "1s"
"""How long a swap waits for its locks at a time: whoever comes meanwhile waits behind it."""

_PAUSES = (0.1, 0.5, 1, 2, 5, 5, 5, 5)  # seconds before each further attempt

_IN_THE_WAY = """
    SELECT a.pid, a.application_name, date_trunc('second', now() - a.xact_start)::text AS age,
           left(a.query, 80) AS query
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.relation = ANY(CAST(CAST(:names AS text[]) AS regclass[])) AND l.granted
      AND l.pid <> pg_backend_pid()
    ORDER BY a.xact_start LIMIT 1"""


def lock_tables(connection: Connection, tables: Sequence[KeptTable]) -> None:
    """Have these tables to oneself to the end of the transaction (PostgreSQL).

    SQLite locks the whole database by the first write.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    if tables:
        names = ", ".join(_name(connection, table) for table in tables)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")


def is_busy(error: DBAPIError) -> bool:
    """Whether a lock was not to be had (or given up to end a deadlock): try again."""
    code = getattr(error.orig, "sqlstate", None)
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    return code in ("55P03", "40P01") or name.startswith("SQLITE_BUSY")


def retried(connection: Connection, attempt: Callable[[], T], tables: Sequence[KeptTable]) -> T:
    """What `attempt` (a transaction) comes to, tried again while the tables are in use.

    Raises `RebuildError` naming who is in the way, when nothing helps.
    """
    for pause in _PAUSES:
        try:
            return attempt()
        except DBAPIError as error:
            if not is_busy(error):
                raise
        _take_back(connection)
        time.sleep(pause)
    try:
        return attempt()
    except DBAPIError as error:
        if not is_busy(error):
            raise
        _take_back(connection)
        raise RebuildError(
            f"the live tables are in use: {_who(connection, tables)}",
            where=Where(path=", ".join(table.name for table in tables)),
            remedy="wait for it or end it, then run the same command again: only the swap is "
            "left to do",
        ) from error


def _take_back(connection: Connection) -> None:
    """End the transaction of an attempt for good.

    A COMMIT that SQLite refuses while somebody reads leaves the transaction open, and
    SQLAlchemy takes it for ended.
    """
    if connection.dialect.name == "sqlite":
        connection.connection.rollback()


def _who(connection: Connection, tables: Sequence[KeptTable]) -> str:
    if connection.dialect.name != "postgresql":
        return "another process holds the database locked"
    names = [_name(connection, table) for table in tables]
    with connection.begin():
        found = connection.execute(text(_IN_THE_WAY), {"names": names}).first()
    if found is None:
        return "another session held them"
    name = f" ({found.application_name})" if found.application_name else ""
    return f"session {found.pid}{name}, in its transaction for {found.age}, runs: {found.query}"


def _name(connection: Connection, table: KeptTable) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return (
        quote(table.name) if table.schema is None else f"{quote(table.schema)}.{quote(table.name)}"
    )
