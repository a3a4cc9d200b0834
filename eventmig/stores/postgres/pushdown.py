"""Copying a source's events inside PostgreSQL, one statement a run (`PushingTransaction`,
`KeepingTransaction`).

Source and target are two sets of tables in one database, both with `jsonb` data. New data
comes from SQL expressions, or from Python as one array of documents, by global position;
all else never leaves the server. The target gives streams the keys that they have in the
source, so that events need no look-up by name; where it has given others already, names are
looked up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from eventmig.events import Kept
from eventmig.stores.postgres.schema import Tables
from eventmig.stores.postgres.tail import Cursor
from eventmig.stores.pushing import Change, Extent, NotPushedError, Values, Version, cases

_PARAMETER: Final = re.compile(r":([a-z][0-9]+)\b")
_NEW: Final = """
    LEFT JOIN ROWS FROM (unnest(%(positions)s::bigint[]), jsonb_array_elements(%(documents)s))
        n (position, data) ON n.position = e.global_position"""

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

    `settled` is a position below which no event can appear any more. `learned` says whether
    the target has the streams of all events up to there, `same_keys` whether all streams
    learned have the same keys in both.
    """

    tables: Tables
    settled: int
    learned: bool = False
    same_keys: bool = True

    def forget(self) -> None:
        """Know nothing of the streams: a transaction was undone."""
        self.learned, self.same_keys = False, True


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
        count = sum(extent.counts.values())
        places = before if extent.until - after == count else range(before + 1, before + 1 + count)
        try:
            copied = self._insert(after, extent.until, places, changes, values)
        except psycopg.errors.NotNullViolation as error:
            raise NotPushedError("an event's data is none that SQL reads as Python does") from error
        except _REFUSED as error:
            raise NotPushedError(
                f"PostgreSQL refuses an event ({error.diag.message_primary})"
            ) from error
        if copied != count:
            raise NotPushedError("the source changed while it was read")

    def keep(self, kept: Kept, taken: Sequence[int]) -> int:
        """Write a run of events at the positions `taken`; returns how many those were.

        Raises what the driver raises for data, ids and positions that do not fit.
        """
        changes = [Change(r.source, r.target, "n.data") for r in kept.renewed]
        even = isinstance(taken, range) and kept.last - kept.first + 1 == kept.events
        documents = b",".join([b",".join(r.data) for r in kept.renewed if r.data])
        positions = ",".join([",".join(map(str, r.positions)) for r in kept.renewed])
        new = {
            "positions": f"{{{positions}}}",
            "documents": Jsonb(b"[%b]" % documents, dumps=_same),
        }
        if changes:  # whatever the planner thinks of a list that it cannot see
            self._run("SET LOCAL enable_nestloop = off")
        return self._insert(
            kept.first - 1,
            kept.last,
            taken[0] - 1 if even else taken,
            changes,
            new if changes else {},
            otherwise="e.data",
            joined=_NEW if changes else "",
        )

    def kept_events(self, kept: Kept) -> tuple[str, dict[str, object]]:
        """What reads the same events whole from the source, to say which was refused."""
        statement = """SELECT e.global_position, s.name, e.stream_position, e.event_id, e.type,
                e.schema_version, convert_to(e.data::text, 'UTF8'),
                convert_to(e.metadata::text, 'UTF8'), e.recorded_at
            FROM {their_events} e JOIN {their_streams} s ON s.stream_id = e.stream_id
            WHERE e.global_position BETWEEN %(first)s::bigint AND %(last)s::bigint
            ORDER BY e.global_position"""
        return self._composed(statement), {"first": kept.first, "last": kept.last}

    def _insert(
        self,
        after: int,
        until: int,
        places: int | Sequence[int],
        changes: Sequence[Change],
        values: Mapping[str, object],
        *,
        otherwise: str = "NULL",
        joined: str = "",
    ) -> int:
        """Copy the source's events after one position up to another; returns how many.

        `places` are theirs in the target; a number, where neither side has a hole: the one
        before the first.
        """
        type_, version, data, named = cases(changes, otherwise=otherwise)
        bound: dict[str, object] = {**values, **named, "after": after, "until": until}
        if isinstance(places, int):
            place = "e.global_position + %(shift)s::bigint"  # needs no sort
            bound["shift"] = places - after
        else:
            place = "(%(places)s::bigint[])[row_number() OVER (ORDER BY e.global_position)]"
            bound["places"] = list(places)
        key, streams = "e.stream_id", ""
        if not self._source.same_keys:
            key = "k.stream_id"
            streams = """JOIN {their_streams} s ON s.stream_id = e.stream_id
                JOIN {streams} k ON k.name = s.name"""
        return self._run(
            f"""INSERT INTO {{events}} (global_position, stream_id, stream_position,
                recorded_at, origin_stream, origin_position, origin_ordinal, schema_version,
                event_id, type, data, metadata)
            SELECT {place}, {key}, e.stream_position, e.recorded_at, NULL,
                e.stream_position, 0, {_bindable(version)}, e.event_id,
                {_bindable(type_)}, {_bindable(data)}, e.metadata
            FROM {{their_events}} e {streams} {joined}
            WHERE e.global_position > %(after)s::bigint
                AND e.global_position <= %(until)s::bigint""",
            bound,
        ).rowcount

    def data(
        self, after: int, until: int, versions: Collection[Version]
    ) -> Iterator[tuple[str, int, Sequence[bytes]]]:
        """Data of the target's events of these versions, those of each at once."""
        wanted = list(versions)
        bound: dict[str, object] = {"after": after, "until": until}
        columns = []
        for number, (type_, version) in enumerate(wanted):
            bound |= {f"t{number}": type_, f"n{number}": version}
            columns.append(
                f"""convert_to(string_agg(e.data::text, E'\\n') FILTER (WHERE
                    e.type = %(t{number})s::text
                    AND e.schema_version = %(n{number})s::int), 'UTF8')"""
            )
        try:
            found = self._run(
                f"""SELECT {", ".join(columns)} FROM {{events}} e
                WHERE e.global_position > %(after)s::bigint
                    AND e.global_position <= %(until)s::bigint""",
                bound,
            ).fetchall()
        except psycopg.errors.ProgramLimitExceeded as error:
            raise NotPushedError("its new data is too large to be validated at once") from error
        for (type_, version), lines in zip(wanted, found[0], strict=True):
            if lines is not None:
                yield type_, version, lines.split(b"\n")

    def learn_streams(self, after: int, until: int) -> None:
        """Let the target have the streams of these source events, under the same key if free.

        At first all streams of the source: those of every event up to `Pairing.settled` are
        there by now. Of events after that, the streams are looked up run by run. To be called
        before the run has its places: whoever comes after waits for these rows, and must
        not be waited for. Should it come to that all the same, this transaction gives up.
        """
        source = self._source
        if source.learned and until <= source.settled:
            return
        self._run("SET LOCAL lock_timeout = '60s'")
        new = "FROM {their_streams} s"
        span: dict[str, object] = {}
        if source.learned:
            new += """ WHERE s.stream_id IN (SELECT e.stream_id FROM {their_events} e
                WHERE e.global_position > %(after)s::bigint
                    AND e.global_position <= %(until)s::bigint)"""
            span = {"after": after, "until": until}
        self._run(
            f"""INSERT INTO {{streams}} (stream_id, name) SELECT s.stream_id, s.name {new}
            ORDER BY s.stream_id ON CONFLICT DO NOTHING""",
            span,
        )
        self._run(
            f"""SELECT setval(q, greatest((SELECT max(s.stream_id) {new}),
                coalesce(pg_sequence_last_value(q), 0), 1))
            FROM CAST(pg_get_serial_sequence(%(table)s, 'stream_id') AS regclass) q""",
            {**span, "table": self._names["streams"].as_string().replace("%%", "%")},
        )
        differ = self._run(
            f"""SELECT EXISTS (SELECT {new} {"AND" if source.learned else "WHERE"} NOT EXISTS
                (SELECT FROM {{streams}} k WHERE k.stream_id = s.stream_id AND k.name = s.name))""",
            span,
        ).fetchall()
        if differ[0][0]:
            source.same_keys = False
            self._run(
                f"""INSERT INTO {{streams}} (name) SELECT s.name {new} ORDER BY s.stream_id
                ON CONFLICT DO NOTHING""",
                span,
            )
        source.learned = True

    def _run(self, statement: str, bound: Mapping[str, object] | None = None) -> Cursor:
        return self._cursor.execute(self._composed(statement).encode(), bound or {})

    def _composed(self, statement: str) -> str:
        return sql.SQL(statement).format(**self._names).as_string()


def _same(documents: bytes) -> bytes:
    return documents


def _bindable(expression: str) -> str:
    """An expression with its parameters as the driver names them, its braces doubled."""
    return _PARAMETER.sub(r"%(\1)s", expression).replace("{", "{{").replace("}", "}}")
