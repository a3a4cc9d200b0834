"""Rewriting a source's events without taking them out of SQLite (`PushingTransaction`).

The source is the one a `Keeper` has attached. One statement copies a run of events; new
data is made by the JSON functions of SQLite. What SQLite refuses on the way (a row, text
that is no JSON, a statement too deep for its parser) is `NotPushedError`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from eventmig.stores.pushing import Change, Extent, NotPushedError, Values, Version, cases
from eventmig.stores.sqlite.keep import Keeper


class Pusher:
    """Copies runs of events of one attached source; `target` is the target's table of events."""

    def __init__(self, driver: sqlite3.Connection, keeper: Keeper, target: str) -> None:
        self._driver = driver
        self._keeper = keeper
        self._target = target

    def extent(self, *, after: int, until: int, limit: int) -> Extent:
        """The next events of the source."""
        rows = self._driver.execute(
            f"""SELECT type, schema_version, count(*), max(global_position)
            FROM (SELECT type, schema_version, global_position FROM {self._keeper.source_events}
                WHERE global_position > :after AND global_position <= :until
                ORDER BY global_position LIMIT :limit)
            GROUP BY type, schema_version ORDER BY type, schema_version""",
            {"after": after, "until": until, "limit": limit},
        ).fetchall()
        counts = {(type_, version): count for type_, version, count, _ in rows}
        return Extent(max((last for *_, last in rows), default=after), counts)

    def copy(
        self, after: int, extent: Extent, changes: Sequence[Change], values: Values, before: int
    ) -> int:
        """Write a run after the target's global position `before`; returns the last one's."""
        new_type, new_version, new_data, named = cases(changes)
        self._keeper.learn_streams(after + 1, extent.until)
        statement = f"""INSERT INTO {self._target} (global_position, stream_id, stream_position,
                event_id, type, schema_version, data, metadata, recorded_at,
                origin_stream, origin_position, origin_ordinal)
            SELECT :before + row_number() OVER (ORDER BY e.global_position), k.ours,
                e.stream_position, e.event_id, {new_type}, {new_version}, {new_data},
                e.metadata, e.recorded_at, NULL, e.stream_position, 0
            FROM {self._keeper.source_events} e CROSS JOIN {self._keeper.keys} k
                ON k.theirs = e.stream_id
            WHERE e.global_position > :after AND e.global_position <= :until
            ORDER BY e.global_position"""
        bound = {**values, **named, "before": before, "after": after, "until": extent.until}
        try:
            copied = self._driver.execute(statement, bound).rowcount
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_NOTNULL:
                raise NotPushedError("SQLite would read an event's data otherwise") from error
            raise NotPushedError(f"SQLite refuses an event ({error})") from error
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            raise NotPushedError(f"SQLite cannot run the expression ({error})") from error
        if copied != sum(extent.counts.values()):
            raise NotPushedError("the source changed while it was read")
        return before + copied

    def data(
        self, after: int, until: int, versions: Collection[Version]
    ) -> Iterator[tuple[str, int, Sequence[bytes]]]:
        """Data of the target's events of these versions, some at a time."""
        for type_, version in versions:
            cursor = self._driver.execute(
                f"""SELECT CAST(data AS BLOB) FROM {self._target}
                WHERE global_position > ? AND global_position <= ?
                    AND type = ? AND schema_version = ?""",
                [after, until, type_, version],
            )
            while rows := list(islice(cursor, 1_000)):
                yield type_, version, [data for (data,) in rows]
