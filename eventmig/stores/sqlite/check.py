"""Is this a SQLite store, and is it whole? What is asked when one is opened, and by a job.

Reads only. `damages` yields errors instead of raising them, so that a report can show
all and a job can raise the first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from sqlalchemy import select

from eventmig.errors import NotAStoreError, StoreDamagedError, StoreError, Where
from eventmig.stores.sqlite.errors import from_driver
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import FIRST_POSITION, FORMAT, MARK, Statements, Tables, quote

_RESTORE = "restore the store from a backup; `sqlite3 FILE .recover` saves what can still be read"


def check_tables(connection: sqlite3.Connection, location: Location, tables: Tables) -> None:
    """Refuse a file without these tables, or of a newer format, by name.

    Raises `NotAStoreError`, `StoreError` or `StoreDamagedError`.
    """
    names = {n for (n,) in connection.execute("SELECT name FROM sqlite_master")}
    mark = tables.mark
    if mark.name not in names:
        others = sorted(n.removesuffix(MARK) for n in names if n.endswith(MARK))
        raise NotAStoreError(
            f"{location.path} holds no event store"
            + (f" with tables={location.tables}" if location.tables else ""),
            where=Where(store=location.url),
            remedy=f"it has one with {' or '.join(f'?tables={o}' for o in others)}"
            if any(others)
            else "name an event store; `eventmig import` makes one from JSON Lines",
        )
    row = connection.execute(str(select(mark.c.format).compile())).fetchone()
    if row is None or row[0] > FORMAT:
        raise StoreError(
            "the store was written by a newer eventmig: its format is "
            f"{row and row[0]}, this one knows {FORMAT}",
            where=Where(store=location.url),
            remedy="install the newer eventmig",
        )
    missing = {str(t.name) for t in tables.metadata.tables.values()} - names
    if missing:
        raise StoreDamagedError(
            f"the store lacks the tables {', '.join(map(quote, sorted(missing)))}",
            where=Where(store=location.url),
            remedy="restore the store from a backup",
        )


def damages(
    connection: sqlite3.Connection, location: Location, sql: Statements, *, limit: int = 100
) -> Iterator[StoreDamagedError]:
    """What is wrong with the store: its pages first, then its streams' positions.

    One read of every page (`PRAGMA quick_check`), one pass over the index of
    stream positions. At most `limit` of each. Pages that are damaged end it.
    """
    where = Where(store=location.url, file=str(location.path))
    try:
        pages = connection.execute(f"PRAGMA quick_check({limit:d})").fetchall()
        if pages != [("ok",)]:
            for (finding,) in pages:
                yield StoreDamagedError(
                    f"SQLite finds the file damaged: {finding}", where=where, remedy=_RESTORE
                )
            return
        yield from _damaged_streams(connection, location, sql, limit)
    except sqlite3.DatabaseError as error:
        meant = from_driver(error, location.url)
        if not isinstance(meant, StoreDamagedError):
            raise
        yield meant


def _damaged_streams(
    connection: sqlite3.Connection, location: Location, sql: Statements, limit: int
) -> Iterator[StoreDamagedError]:
    bound = {"first": FIRST_POSITION, "release": location.release, "limit": limit}
    for stream, position, previous in connection.execute(sql.gaps, bound).fetchall():
        if position == previous:
            what = f"the stream {stream!r} has more than one event at position {position}"
        elif position < FIRST_POSITION:
            what = f"the stream {stream!r} has an event at position {position}, before the first"
        else:
            missing = f"{previous + 1}" + (f" to {position - 1}" if position > previous + 2 else "")
            what = f"the stream {stream!r} has a hole: position {missing} is missing"
        yield StoreDamagedError(
            what,
            where=Where(store=location.url, stream=stream, stream_position=position),
            remedy="restore the missing events from a backup (export, mend, import into a new "
            "store); a copy of a damaged stream would hide the damage",
        )
    position, count = connection.execute(sql.orphans).fetchone()
    if count:
        yield StoreDamagedError(
            f"{count} events belong to no stream, the first at global position {position}",
            where=Where(store=location.url, global_position=position),
            remedy=_RESTORE,
        )
