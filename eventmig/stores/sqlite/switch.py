"""Two sets of tables in one SQLite file change names, in one transaction; and what is left goes.

`ALTER TABLE … RENAME` moves no row and rewrites what refers to the table
(sqlite.org/lang_altertable.html). An index keeps its name there; so the indexes of
exchanged tables bear each other's names, and are told by their columns, not by name.

What refers to a table is rewritten with it: it stays with the table, not with the name. So the
tables are only exchanged where nothing does but their own foreign keys.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import cast

from sqlalchemy import Connection

from eventmig.errors import CrossingError, Where
from eventmig.stores.sqlite.fence import (
    drop_trigger,
    is_trigger,
    move_fences,
    put_trigger,
    remove_fence,
)
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import Statements, Tables, quote

Place = tuple[Location, Tables]
"""Where a set of tables is, and its definitions."""

_PASSING = "eventmig_passing_"


def check_nothing_left(driver: sqlite3.Connection, first: Place, second: Place) -> None:
    """Raise `CrossingError` for what would not follow a name. Reads only.

    SQLite has no catalogue of what refers to what. So a copy of the schema, in memory and without
    rows, has its tables renamed; what is rewritten with one hangs on it.
    """
    sets = (first[1], second[1])
    own = {_PASSING + name for tables in sets for name in _names(tables)}
    own |= {name for tables in sets for name in _names(tables)}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        whole = _copy_schema(driver, copy)
        before = _definitions(copy)
        for location, tables in (first, second):
            for table in _names(tables):
                try:
                    passing = quote(_PASSING + table)
                    copy.execute(f"ALTER TABLE {quote(table)} RENAME TO {passing}")
                except sqlite3.Error as error:
                    if whole:
                        raise CrossingError(
                            f"the table {table} cannot change its name ({error})",
                            where=Where(store=location.url),
                            remedy="put away what is in the way, or cross by a route",
                        ) from error
                    continue  # something that cannot be made in memory stands beside them
                after = _definitions(copy)
                for (kind, name), text in sorted(after.items()):
                    fence = any(is_trigger(name, tables) for tables in sets)
                    if before.get((kind, name), text) != text and name not in own and not fence:
                        raise _hanging(kind, name, table, location)
                before = after


def _copy_schema(driver: sqlite3.Connection, copy: sqlite3.Connection) -> bool:
    """Make what a database has in another one; False where some of it cannot be made there."""
    whole = True
    found = driver.execute(
        """SELECT sql FROM sqlite_master
        WHERE type IN ('table', 'view', 'trigger') AND sql IS NOT NULL
          AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
        ORDER BY type = 'trigger', type = 'view'"""
    )
    for (text,) in found.fetchall():
        try:
            copy.execute(text)
        except sqlite3.Error:
            whole = False
    return whole


def _definitions(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view', 'trigger')"
    )
    return {(kind, name): text for kind, name, text in rows}


def _hanging(kind: str, name: str, table: str, location: Location) -> CrossingError:
    what = f"foreign key of {name}" if kind == "table" else f"{kind} {name}"
    return CrossingError(
        f"the {what} hangs on the table {table}, and would not go to the table that gets its name",
        where=Where(store=location.url),
        remedy="drop it, and make it anew after the crossing; or cross by a route",
    )


def exchange_tables(connection: Connection, first: Place, second: Place) -> None:
    """Give the tables of each place the other's names, fences included.

    Raises `CrossingError`, and has changed nothing then.
    """
    driver = cast(sqlite3.Connection, connection.connection.driver_connection)
    check_nothing_left(driver, first, second)
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
