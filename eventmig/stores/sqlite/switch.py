"""Two sets of tables in one SQLite file change names, in one transaction; and what is left goes.

`ALTER TABLE … RENAME` moves no row and rewrites what refers to the table
(sqlite.org/lang_altertable.html). An index keeps its name there; so the indexes of
exchanged tables bear each other's names, and are told by their columns, not by name.
"""

from __future__ import annotations

from sqlalchemy import Connection

from eventmig.stores.sqlite.fence import (
    drop_trigger,
    move_fences,
    put_trigger,
    remove_fence,
)
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import Statements, Tables, quote

Place = tuple[Location, Tables]
"""Where a set of tables is, and its definitions."""

_PASSING = "eventmig_passing_"


def exchange_tables(connection: Connection, first: Place, second: Place) -> None:
    """Give the tables of each place the other's names, fences included."""
    for place in (first, second):
        drop_trigger(connection, *place)
    ours, theirs = _names(first[1]), _names(second[1])
    passing = [_PASSING + name for name in ours]
    for before, after in ((ours, passing), (theirs, ours), (passing, theirs)):
        for old, new in zip(before, after, strict=True):
            connection.exec_driver_sql(f"ALTER TABLE {quote(old)} RENAME TO {quote(new)}")
    move_fences(connection, first, second[0])
    for place in (first, second):
        put_trigger(connection, *place)


def drop_events(connection: Connection, place: Place, sql: Statements) -> int:
    """Drop a store's tables, or, where others share them, delete its own streams."""
    location, tables = place
    remove_fence(connection, location, tables)
    streams, events = quote(tables.streams.name), quote(tables.events.name)
    mine = f"stream_id IN (SELECT stream_id FROM {streams} WHERE release IS ?)"
    (count,) = connection.exec_driver_sql(
        f"SELECT count(*) FROM {events} WHERE {mine}", (location.release,)
    ).one()
    (others,) = connection.exec_driver_sql(
        f"SELECT count(*) FROM {streams} WHERE release IS NOT ?", (location.release,)
    ).one()
    if others:
        bound = {"after": 0, "release": location.release}
        connection.exec_driver_sql(sql.delete_origins_after, bound)
        connection.exec_driver_sql(sql.delete_events_after, bound)
        return int(count)
    for name in reversed(_names(tables)):
        connection.exec_driver_sql(f"DROP TABLE {quote(name)}")
    return int(count)


def _names(tables: Tables) -> list[str]:
    return [str(table.name) for table in tables.metadata.sorted_tables]
