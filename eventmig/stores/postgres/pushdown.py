"""Rewriting a source's events inside PostgreSQL (`PushingTransaction`): one statement a run.

Source and target are two sets of tables in one database, both with `jsonb` data. The
target gives streams the keys that they have in the source, so that events need no look-up
by name; where it has given others already, names are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from eventmig.stores.postgres.schema import Tables
from eventmig.stores.postgres.tail import Cursor
from eventmig.stores.pushing import Change, Extent, NotPushedError, Values, Version, cases

_PARAMETER: Final = re.compile(r":([a-z][0-9]+)\b")
_FETCH_ROWS: Final = 1_000

# A row without data, or one that is there already; what an expression cannot work out.
_REFUSED = (
    psycopg.IntegrityError,
    psycopg.DataError,
    psycopg.errors.StatementTooComplex,
    psycopg.errors.ProgramLimitExceeded,
)


@dataclass(slots=True)
class Pairing:
    """A source's tables, and what is known of its streams in the target.

    `learned` is the highest key of a stream that both have; `same_keys` whether all have the
    same keys in both.
    """

    tables: Tables
    learned: int = 0
    same_keys: bool = True

    def forget(self) -> None:
        """Know nothing of the streams: a transaction was undone, or they are more."""
        self.learned, self.same_keys = 0, True


class Pusher:
    """Copies runs of events from one set of tables to another within a transaction."""

    def __init__(self, cursor: Cursor, source: Pairing, target: Tables) -> None:
        self._cursor = cursor
        self._source = source
        self._names = {
            name: sql.Identifier(str(table.schema).replace("%", "%%"), table.name)
            for name, table in (
                ("their_events", source.tables.events),
                ("their_streams", source.tables.streams),
                ("events", target.events),
                ("streams", target.streams),
            )
        }

    def extent(self, *, after: int, until: int, limit: int) -> Extent:
        """The next events of the source."""
        rows = self._run(
            """SELECT type, schema_version, count(*), max(global_position)
            FROM (SELECT type, schema_version, global_position FROM {their_events}
                WHERE global_position > %(after)s::bigint AND global_position <= %(until)s::bigint
                ORDER BY global_position LIMIT %(limit)s::bigint) run
            GROUP BY type, schema_version ORDER BY type, schema_version""",
            {"after": after, "until": until, "limit": limit},
        ).fetchall()
        counts = {(type_, version): count for type_, version, count, _ in rows}
        return Extent(max((last for *_, last in rows), default=after), counts)

    def copy(
        self, after: int, extent: Extent, changes: Sequence[Change], values: Values, before: int
    ) -> None:
        """Write a run of events at the positions that follow `before`."""
        new_type, new_version, new_data, named = cases(changes)
        count = sum(extent.counts.values())
        place = "e.global_position + %(shift)s::bigint"  # needs no sort
        if extent.until - after != count:  # positions that a rolled back writer left empty
            place = "%(before)s::bigint + row_number() OVER (ORDER BY e.global_position)"
        streams = "{streams} k ON k.stream_id = e.stream_id"
        if not self._source.same_keys:
            streams = """{their_streams} s ON s.stream_id = e.stream_id
                JOIN {streams} k ON k.name = s.name"""
        bound = {"after": after, "until": extent.until, "before": before, "shift": before - after}
        try:
            copied = self._run(
                f"""INSERT INTO {{events}} (global_position, stream_id, stream_position,
                    recorded_at, origin_stream, origin_position, origin_ordinal, schema_version,
                    event_id, type, data, metadata)
                SELECT {place}, k.stream_id, e.stream_position, e.recorded_at, NULL,
                    e.stream_position, 0, {_bindable(new_version)}, e.event_id,
                    {_bindable(new_type)}, {_bindable(new_data)}, e.metadata
                FROM {{their_events}} e JOIN {streams}
                WHERE e.global_position > %(after)s::bigint
                    AND e.global_position <= %(until)s::bigint""",
                {**values, **named, **bound},
            ).rowcount
        except psycopg.errors.NotNullViolation as error:
            raise NotPushedError("an event's data is none that SQL reads as Python does") from error
        except _REFUSED as error:
            raise NotPushedError(
                f"PostgreSQL refuses an event ({error.diag.message_primary})"
            ) from error
        if copied != count:
            raise NotPushedError("the source changed while it was read")

    def data(self, after: int, versions: Collection[Version]) -> Iterator[tuple[str, int, bytes]]:
        """Type, version and data of the target's events of these versions, some at a time."""
        self._run(
            """SELECT e.type, e.schema_version, convert_to(e.data::text, 'UTF8')
            FROM {events} e
            JOIN unnest(%(types)s::text[], %(versions)s::int[]) w (type, schema_version)
                ON w.type = e.type AND w.schema_version = e.schema_version
            WHERE e.global_position > %(after)s::bigint""",
            {
                "after": after,
                "types": [type_ for type_, _ in versions],
                "versions": [version for _, version in versions],
            },
        )
        while rows := self._cursor.fetchmany(_FETCH_ROWS):
            yield from rows

    def learn_streams(self) -> None:
        """Let the target have every stream the source has by now, under the same key if free.

        Before the run has its places: whoever comes after waits for these rows, and must
        not be waited for. Should it come to that all the same, this transaction gives up.
        """
        self._run("SET LOCAL lock_timeout = '60s'")
        source = self._source
        rows = self._run("SELECT max(stream_id) FROM {their_streams}").fetchall()
        last = int(rows[0][0] or 0)
        if last <= source.learned:
            return
        span = {"first": source.learned, "last": last}
        new = """FROM {their_streams} s
            WHERE s.stream_id > %(first)s::bigint AND s.stream_id <= %(last)s::bigint"""
        self._run(
            f"""INSERT INTO {{streams}} (stream_id, name) SELECT s.stream_id, s.name {new}
            ORDER BY s.stream_id ON CONFLICT DO NOTHING""",
            span,
        )
        self._run(
            """SELECT setval(q, greatest(%(last)s::bigint, coalesce(pg_sequence_last_value(q), 0)))
            FROM CAST(pg_get_serial_sequence(%(table)s, 'stream_id') AS regclass) q""",
            {"last": last, "table": self._names["streams"].as_string().replace("%%", "%")},
        )
        differ = self._run(
            f"""SELECT EXISTS (SELECT {new} AND NOT EXISTS (SELECT FROM {{streams}} k
                WHERE k.stream_id = s.stream_id AND k.name = s.name))""",
            span,
        ).fetchall()
        if differ[0][0]:
            source.same_keys = False
            self._run(
                f"""INSERT INTO {{streams}} (name) SELECT s.name {new} ORDER BY s.stream_id
                ON CONFLICT DO NOTHING""",
                span,
            )
        source.learned = last

    def _run(self, statement: str, bound: Mapping[str, object] | None = None) -> Cursor:
        text = sql.SQL(statement).format(**self._names).as_string()
        return self._cursor.execute(text.encode(), bound or {})


def _bindable(expression: str) -> str:
    """An expression with its parameters as the driver names them, its braces doubled."""
    return _PARAMETER.sub(r"%(\1)s", expression).replace("{", "{{").replace("}", "}}")
