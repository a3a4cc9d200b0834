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
from eventmig.stores.pushing import Change, cases
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import Tables, quote

_SOURCE: Final = "eventmig_source"
_KEYS: Final = "temp.eventmig_keys"
_NEW_DATA: Final = "eventmig_data(e.global_position)"


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
        self._new_data: dict[int, bytes] = {}
        driver.create_function("eventmig_data", 1, self._data)
        self.location = source
        self._driver = driver
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
        self._into = f"""INSERT INTO {events} (global_position, stream_id, stream_position,
            event_id, type, schema_version, data, metadata, recorded_at,
            origin_stream, origin_position, origin_ordinal)"""
        self._from = f"""FROM {their_events} e CROSS JOIN {_KEYS} k ON k.theirs = e.stream_id
            WHERE {span} ORDER BY e.global_position"""
        self._whole = f"""SELECT s.name, e.stream_position, e.event_id, e.type, e.schema_version,
                CAST(e.data AS BLOB), CAST(e.metadata AS BLOB), e.recorded_at
            FROM {their_events} e CROSS JOIN {their_streams} s ON s.stream_id = e.stream_id
            WHERE {span} ORDER BY e.global_position"""

    def copy(self, kept: Kept, before: int) -> int:
        """Write the events after global position `before`; returns the last one's.

        Raises what the driver raises for ids or positions that are taken.
        """
        span = {"first": kept.first, "last": kept.last}
        self.learn_streams(**span)
        place, shift = "e.global_position + :shift", before + 1 - kept.first
        if kept.last - kept.first + 1 != kept.events:
            place, shift = ":shift + row_number() OVER (ORDER BY e.global_position)", before
        changes = [Change(r.source, r.target, _NEW_DATA) for r in kept.renewed]
        type_, version, data, values = cases(changes, otherwise="e.data")
        self._new_data.clear()
        for renewed in kept.renewed:
            self._new_data.update(zip(renewed.positions, renewed.data, strict=True))
        copied = self._driver.execute(
            f"""{self._into}
            SELECT {place}, k.ours, e.stream_position, e.event_id, {type_}, {version}, {data},
                e.metadata, e.recorded_at, NULL, e.stream_position, 0
            {self._from}""",
            {**values, **span, "shift": shift},
        ).rowcount
        if copied != kept.events:
            raise StoreDamagedError(
                f"{kept.events} events were read from global position {kept.first} on, and then "
                f"{copied}",
                where=Where(store=self.location.url, global_position=kept.first),
                remedy="does anything but appending write to the source? the same command resumes",
            )
        return before + copied

    def learn_streams(self, first: int, last: int) -> None:
        """Know the keys of the streams of these source events; new streams are added."""
        span = {"first": first, "last": last}
        if new := [key for (key,) in self._driver.execute(self._new_keys, span)]:
            keys = {"keys": json.dumps(new)}
            self._driver.execute(self._add_streams, keys)
            self._driver.execute(self._add_keys, keys)

    def events(self, kept: Kept) -> list[Event]:
        """The same events as whole ones, to say which of them was refused."""
        rows = self._driver.execute(self._whole, {"first": kept.first, "last": kept.last})
        return [Event(0, *row) for row in rows]

    def _data(self, global_position: int) -> str | None:
        data = self._new_data.get(global_position)
        return None if data is None else data.decode()
