"""The two unique indexes of a store's events, told by their table and not by their name.

They stand apart from the table, so that a job that fills an empty one can build them after
the load (measured: 1.7 to 3 times as fast). SQLite cannot rename an index: after two sets of
tables changed names, each has indexes that bear the other's.
"""

from __future__ import annotations

import itertools
import sqlite3

from eventmig.stores.sqlite.schema import Tables, quote

_COLUMNS = {"by_id": "event_id", "by_stream": "stream_id, stream_position"}


def index_names(driver: sqlite3.Connection, tables: Tables) -> list[str]:
    """The names of the unique indexes that stand apart on this store's events."""
    found = driver.execute(
        """SELECT name FROM pragma_index_list(?) WHERE "unique" AND origin = 'c'""",
        (tables.events.name,),
    )
    return [name for (name,) in found]


def indexes_missing(driver: sqlite3.Connection, tables: Tables) -> bool:
    """Whether they are left off."""
    return len(index_names(driver, tables)) < len(_COLUMNS)


def drop_indexes(driver: sqlite3.Connection, tables: Tables) -> None:
    """Leave them off."""
    for name in index_names(driver, tables):
        driver.execute(f"DROP INDEX {quote(name)}")


def build_indexes(driver: sqlite3.Connection, tables: Tables) -> None:
    """Build both, under the first names that are free; raises `sqlite3.IntegrityError`."""
    drop_indexes(driver, tables)
    taken = {n for (n,) in driver.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    events = str(tables.events.name)
    for kind, columns in _COLUMNS.items():
        names = (f"{events}_{kind}{n or ''}" for n in itertools.count())
        name = next(n for n in names if n not in taken)
        driver.execute(f"CREATE UNIQUE INDEX {quote(name)} ON {quote(events)} ({columns})")
