"""SQLite's errors as eventmig's: the one place where they are told apart.

By result code (sqlite.org/rescode.html), never by message text. An error with no
rule here passes unchanged: it is a bug, not a state of the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError

from eventmig.errors import (
    DataError,
    NotAStoreError,
    ReadOnlyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    Where,
)

_RULES: Final[dict[int, tuple[type[StoreError], str, str]]] = {
    sqlite3.SQLITE_FULL: (
        StoreFullError,
        "there is no room left for the store",
        "free some space on the disk (nothing of the batch was kept), then run it again",
    ),
    sqlite3.SQLITE_READONLY: (
        ReadOnlyError,
        "the store cannot be written",
        "give this user write permission on the file and on its folder, or name another store",
    ),
    sqlite3.SQLITE_NOTADB: (
        NotAStoreError,
        "the file is not a SQLite database",
        "name an event store; `eventmig import` makes one from JSON Lines",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreDamagedError,
        "the store's file is damaged",
        "restore it from a backup; `sqlite3 FILE .recover` saves what can still be read",
    ),
    sqlite3.SQLITE_BUSY: (
        StoreError,
        "another process kept the store locked",
        "let the other writer finish (nothing of the batch was kept), then run it again",
    ),
    sqlite3.SQLITE_LOCKED: (
        StoreError,
        "another connection of this process keeps a table locked",
        "finish reading from the store before changing its tables, then run it again",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreError,
        "the store's file, or one of the files beside it (-wal, -shm), cannot be opened",
        "check that the file and its folder exist and that this user may read and write both",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreError,
        "the system could not read or write the store's file",
        "check the disk and its mount (nothing of the batch was kept), then run it again",
    ),
}

# A quota or a file size limit (EDQUOT, EFBIG) comes back as a failed write.
_WRITE_FAILED: Final = frozenset((sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE))


def from_driver(error: sqlite3.Error, store: str) -> StoreError | DataError | None:
    """What a driver's error means for this store (its URL), or None where no rule knows it."""
    code = getattr(error, "sqlite_errorcode", None)
    where = Where(store=store)
    if code is None:
        if isinstance(error, sqlite3.DataError):
            return _too_big(where)
        return None
    if code == sqlite3.SQLITE_TOOBIG:
        return _too_big(where)
    rule = _RULES.get(
        sqlite3.SQLITE_FULL if code in _WRITE_FAILED else code & 0xFF  # primary result code
    )
    if rule is None:
        return None
    kind, what, remedy = rule
    return kind(f"{what} ({error})", where=where, remedy=remedy)


def _too_big(where: Where) -> DataError:
    return DataError(
        "an event is larger than SQLite can hold in one value (1,000,000,000 bytes)",
        where=where,
        remedy="keep such data outside of the event and store a reference to it",
    )


@contextmanager
def translated(store: str) -> Iterator[None]:
    """Raise the store's errors in place of the driver's and SQLAlchemy's inside the block."""
    try:
        yield
    except sqlite3.Error as error:
        meant = from_driver(error, store)
        if meant is None:
            raise
        raise meant from error
    except DBAPIError as error:
        meant = from_driver(error.orig, store) if isinstance(error.orig, sqlite3.Error) else None
        if meant is None:
            raise
        raise meant from error
