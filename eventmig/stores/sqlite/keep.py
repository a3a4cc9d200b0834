"""Copying what does not change of a source's events without taking it out of SQLite.

The source's file is attached to the writer's connection, read-only. One statement copies a
run of events; what is new of them comes from Python by their global position. Source and
target count streams with their own keys: a temporary table says which is which.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Final

from eventmig.errors import StoreDamagedError, Where
from eventmig.events import Event, Kept
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import Tables, quote

_SOURCE: Final = "eventmig_source"
_KEYS: Final = "temp.eventmig_keys"


class Keeper:
    """One attached source, for one writing connection."""

    def __init__(
        self, driver: sqlite3.Connection, source: Location, theirs: Tables, ours: Tables
    ) -> None:
        """Attach, unless source and target are in one file.

        Raises `sqlite3.OperationalError` where the file cannot be read so.
        """
        (_, _, file), *_ = driver.execute("PRAGMA database_list")
        database = "main"
        if not os.path.samefile(file, source.path):
            database = _SOURCE
            uri = Path(os.path.realpath(source.path)).as_uri()
            driver.execute(f"ATTACH ? AS {database}", (f"{uri}?mode=ro",))
        driver.execute(
            f"CREATE TEMP TABLE {_KEYS.split('.')[1]} (theirs INTEGER PRIMARY KEY, ours INTEGER)"
        )
        for name in ("type", "schema_version", "data"):
            driver.create_function(f"eventmig_{name}", 1, getattr(self, f"_{name}"))
        self.location = source
        self._driver = driver
        self._kept = Kept(0, (), (), ())
        self.keys = _KEYS
        self.source_events = their_events = f"{database}.{quote(theirs.events.name)}"
        their_streams = f"{database}.{quote(theirs.streams.name)}"
        events, streams = (f"main.{quote(t.name)}" for t in (ours.events, ours.streams))
        span = "e.global_position BETWEEN :first AND :last"
        keys = "(SELECT value FROM json_each(:keys))"
        self._new_keys = f"""SELECT DISTINCT e.stream_id FROM {their_events} e
            WHERE {span} AND e.stream_id NOT IN (SELECT theirs FROM {_KEYS})"""
        self._add_streams = f"""INSERT INTO {streams} (name)
            SELECT name FROM {their_streams} WHERE stream_id IN {keys}
            ON CONFLICT (name) DO NOTHING"""
        self._add_keys = f"""INSERT INTO {_KEYS}
            SELECT t.stream_id, o.stream_id FROM {their_streams} t
            CROSS JOIN {streams} o ON o.name = t.name WHERE t.stream_id IN {keys}"""
        self._copy = f"""INSERT INTO {events} (global_position, stream_id, stream_position,
                event_id, type, schema_version, data, metadata, recorded_at,
                origin_stream, origin_position, origin_ordinal)
            SELECT e.global_position + :shift, k.ours, e.stream_position, e.event_id,
                eventmig_type(e.global_position), eventmig_schema_version(e.global_position),
                coalesce(eventmig_data(e.global_position), e.data), e.metadata, e.recorded_at,
                NULL, e.stream_position, 0
            FROM {their_events} e CROSS JOIN {_KEYS} k ON k.theirs = e.stream_id
            WHERE {span} ORDER BY e.global_position"""

        self._whole = f"""SELECT s.name, e.stream_position, e.event_id, e.type, e.schema_version,
                CAST(e.data AS BLOB), CAST(e.metadata AS BLOB), e.recorded_at
            FROM {their_events} e CROSS JOIN {their_streams} s ON s.stream_id = e.stream_id
            WHERE {span} ORDER BY e.global_position"""

    def copy(self, kept: Kept, before: int) -> int:
        """Write the events after global position `before`; returns the last one's.

        Raises what the driver raises for ids or positions that are taken.
        """
        self._kept = kept
        count = len(kept.types)
        span = {"first": kept.first, "last": kept.first + count - 1}
        self.learn_streams(**span)
        shift = before + 1 - kept.first
        copied = self._driver.execute(self._copy, {**span, "shift": shift}).rowcount
        if copied != count:
            raise StoreDamagedError(
                f"{count} events were read from global position {kept.first} on, and then {copied}",
                where=Where(store=self.location.url, global_position=kept.first),
                remedy="does anything but appending write to the source? the same command resumes",
            )
        return before + count

    def learn_streams(self, first: int, last: int) -> None:
        """Know the keys of the streams of these source events; new streams are added."""
        span = {"first": first, "last": last}
        if new := [key for (key,) in self._driver.execute(self._new_keys, span)]:
            keys = {"keys": json.dumps(new)}
            self._driver.execute(self._add_streams, keys)
            self._driver.execute(self._add_keys, keys)

    def events(self, kept: Kept) -> list[Event]:
        """The same events as whole ones, to say which of them was refused."""
        last = kept.first + len(kept.types) - 1
        rows = self._driver.execute(self._whole, {"first": kept.first, "last": last})
        return [Event(0, *row) for row in rows]

    def _type(self, global_position: int) -> str:
        return self._kept.types[global_position - self._kept.first]

    def _schema_version(self, global_position: int) -> int:
        return self._kept.schema_versions[global_position - self._kept.first]

    def _data(self, global_position: int) -> str | None:
        data = self._kept.data[global_position - self._kept.first]
        return None if data is None else data.decode()
