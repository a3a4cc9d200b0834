"""Is a SQLite store whole? The check a job makes of its source before it writes.

Reads only. Yields errors instead of raising them, so that a report can show all
and a job can raise the first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from eventmig.errors import StoreDamagedError, Where
from eventmig.stores.sqlite_errors import from_driver
from eventmig.stores.sqlite_file import Location
from eventmig.stores.sqlite_schema import FIRST_POSITION, Statements

_RESTORE = "restore the store from a backup; `sqlite3 FILE .recover` saves what can still be read"


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
