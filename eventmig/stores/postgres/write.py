"""One write transaction on a PostgreSQL store: the hot path of a job.

The ledger writes through `connection` (SQLAlchemy); event rows go through the driver's own
connection below it, in the same transaction, by COPY. What the store learned of streams is
kept between transactions in a `StreamCache`.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, DropIndex

from eventmig.errors import ConflictError, DataError, StoreDamagedError, Where
from eventmig.events import Columns, Event, Kept
from eventmig.stores.postgres import refusals, tail
from eventmig.stores.postgres.check import Found, MovedError
from eventmig.stores.postgres.copying import event_rows
from eventmig.stores.postgres.json_fit import changed_by_jsonb, compact, signed_zeros
from eventmig.stores.postgres.location import Location
from eventmig.stores.postgres.pushdown import Pairing, Pusher
from eventmig.stores.postgres.refusals import Ask
from eventmig.stores.postgres.schema import FIRST_POSITION, Statements, Tables
from eventmig.stores.pushing import Change, Extent, NotPushedError, Values, Version
from eventmig.stores.stream_cache import NAMES_KEPT, StreamCache

_COPY_BYTES = 1 << 18

# A load into a new target. A crash of the server may take the last batches back, each with its
# checkpoint: commits are lost from the end only. The one that builds the indexes waits for the
# disk, and with it for all that were before it; until then the job is not ready, and nobody
# else appends.
_NO_WAIT = "SET LOCAL synchronous_commit = off"

# What the client cannot encode, what the server cannot read, and what is too large for it.
_UNFIT = (
    UnicodeError,
    psycopg.DataError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every transaction of one store stands on; `ask` reads beside it, `pairing` is
    with the source that it can copy from.
    """

    location: Location
    found: Found
    tables: Tables
    sql: Statements
    cache: StreamCache
    ask: Ask
    pairing: Pairing | None = None


class PostgresTransaction:
    """An open write transaction (`TargetTransaction`); ended by `PostgresStore.begin`.

    The tables keep their names until it ends. Raises `MovedError` where others have them.
    """

    connection: Connection

    def __init__(self, connection: Connection, ground: Ground) -> None:
        self.connection = connection
        driver = cast(psycopg.Connection, connection.connection.driver_connection)
        self._cursor: tail.Cursor = driver.cursor(binary=True)
        self._location = ground.location
        self._found = ground.found
        self._tables = ground.tables
        self._sql = ground.sql
        self._cache = ground.cache
        self._ask = ground.ask
        self._pairing = ground.pairing
        self._announced: int | None = None
        self._last_global: int | None = None
        self._run(ground.sql.hold_tables)
        self.deferred = not self._indexes_present()
        if self._cache.data_version != ground.found.events:  # it is of other tables, or new
            self._cache.clear()
            self._cache.data_version = ground.found.events
            if self._pairing is not None:
                self._pairing.forget()
        if not self.deferred:  # anybody may have appended
            self._cache.forget_heads()

    # --- heads

    def heads(self, streams: Collection[str]) -> dict[str, int]:
        """Last stream position of each named stream; 0 where it has no events."""
        self._learn_streams(streams)
        ids = self._cache.ids
        keys = list(map(ids.get, streams))
        self._learn_heads([key for key in keys if key is not None])
        known = self._cache.heads
        none = FIRST_POSITION - 1
        return dict(
            zip(streams, [none if key is None else known[key] for key in keys], strict=True)
        )

    def head_alone(self, stream: str) -> int:
        """The last position of a stream (made if need be) that nobody else appends to until
        this transaction ends.
        """
        self._stream_ids([stream])
        self._run(self._sql.stream_locked, {"name": stream})
        key = self._cache.ids[stream]
        rows = self._run(self._sql.heads_of_ids, {"ids": [key]}).fetchall()
        head = FIRST_POSITION - 1 if rows[0][1] is None else int(rows[0][1])
        self._cache.set_heads([key], [head])
        return head

    def _learn_heads(self, stream_ids: Sequence[int]) -> None:
        cache = self._cache
        unknown = cache.unknown_heads(stream_ids)
        if not unknown:
            return
        rows: Iterable[tuple[int, int | None]] = []
        if not self.deferred:
            rows = self._run(self._sql.heads_of_ids, {"ids": unknown}).fetchall()
        elif not cache.all_heads_known:  # no index to ask: one pass over the events
            rows = self._run(self._sql.heads_all).fetchall()
            cache.all_heads_known = True
        heads = dict.fromkeys(unknown, FIRST_POSITION - 1)
        heads.update((key, at) for key, at in rows if at is not None)
        cache.set_heads(list(heads), list(heads.values()))

    # --- events

    def append_copied(self, events: Sequence[Event]) -> int:
        """Write events as they are; returns the last global position.

        Raises `DuplicateIdError`, `ConflictError` (a position that is taken, a stream of
        another release) and `DataError` (what the columns cannot hold). While the
        indexes are deferred, ids and positions are not looked at before
        `build_indexes`.
        """
        positions = [event.stream_position for event in events]
        return self.append_columns(Columns.of(events), positions)

    def append_columns(self, columns: Columns, positions: Sequence[int]) -> int:
        """`append_copied`, column by column."""
        if columns.ids:
            self._last_global = self._write(columns, positions)[-1]
        return self._last_position()

    def extent(self, *, after: int, until: int, limit: int) -> Extent:
        """The next events of the source that `PostgresStore.why_not_pushed` has nothing against."""
        return self._pusher().extent(after=after, until=until, limit=limit)

    def append_kept(self, kept: Kept) -> int:
        """Copy events of the source that `PostgresStore.keeps`, with what is new of them.

        Raises as `append_copied` does, and `StoreDamagedError` where the source lost some.
        """
        pusher = self._pusher()
        pusher.learn_streams(kept.first - 1, kept.last)
        taken = self._take_positions(kept.events)
        try:
            if any(signed_zeros(renewed.data) for renewed in kept.renewed):
                raise refusals.unfit(self._kept_events(kept), "jsonb", self._location.url)
            copied = pusher.keep(kept, taken)
        except _UNFIT as error:
            events, url = self._kept_events(kept), self._location.url
            said = self._location.scrubbed(str(error))
            raise refusals.unfit(events, "jsonb", url, said) from error
        except psycopg.errors.UniqueViolation as error:
            events, url = self._kept_events(kept), self._location.url
            raise refusals.taken(error, events, self._sql, self._ask, url) from error
        except psycopg.errors.NotNullViolation as error:
            raise self._others(kept, "others") from error
        if copied != kept.events:
            raise self._others(kept, str(copied))
        self._cache.forget_heads()
        self._last_global = taken[-1]
        return self._last_global

    def _others(self, kept: Kept, found: str) -> StoreDamagedError:
        return StoreDamagedError(
            f"{kept.events} events were read from global position {kept.first} on, and then "
            f"{found}",
            where=Where(store=self._location.url, global_position=kept.first),
            remedy="does anything but appending write to the source, or do its row security "
            "policies hide some? the same command resumes",
        )

    def _kept_events(self, kept: Kept) -> list[Event]:
        """These events as they were to be written, to say which of them was refused."""
        events = {row[0]: Event(*row) for row in self._ask(*self._pusher().kept_events(kept))}
        for (type_, version), positions, data in (renewed[1:] for renewed in kept.renewed):
            for at, new in zip(positions, data, strict=True):
                if at in events:
                    events[at] = events[at]._replace(type=type_, schema_version=version, data=new)
        return [event._replace(global_position=0) for event in events.values()]

    def take_positions(self, after: int, extent: Extent) -> int:
        """The positions of a run, from the sequence; returns the one before its first."""
        self._pusher().learn_streams(after, extent.until)
        taken = self._take_positions(sum(extent.counts.values()))
        if not isinstance(taken, range):
            raise NotPushedError("positions of another writer stand between")
        self._last_global = taken[-1]
        return taken[0] - 1

    def append_pushed(
        self, after: int, extent: Extent, before: int, changes: Sequence[Change], values: Values
    ) -> None:
        """Copy a run of that source, new data by SQL expressions."""
        self._pusher().copy(after, extent, changes, values, before)
        self._cache.forget_heads()

    def pushed_data(
        self, after: int, until: int, versions: Collection[Version]
    ) -> Iterator[tuple[str, int, Sequence[bytes]]]:
        """What `append_pushed` wrote of these versions at some global positions."""
        return self._pusher().data(after, until, versions)

    def _pusher(self) -> Pusher:
        assert self._pairing is not None
        return Pusher(self._cursor, self._pairing, self._tables)

    def append_stored(self, events: Sequence[Event]) -> list[Event]:
        """`append_copied`; returns the events as they are read back."""
        if not events:
            return []
        columns = Columns.of(events)
        taken = self._write(columns, [event.stream_position for event in events])
        rows = self._run(self._sql.data_at, {"positions": list(taken)}).fetchall()
        spelled = compact if self._found.data == "jsonb" else bytes
        return [
            event._replace(global_position=at, data=spelled(data), metadata=metadata)
            for event, at, (data, metadata) in zip(events, taken, rows, strict=True)
        ]

    def _write(self, columns: Columns, positions: Sequence[int]) -> Sequence[int]:
        """Write the events; returns their global positions, rising."""
        try:
            self._check(columns, positions)
            keys = self._keys(columns.streams)
            taken = self._take_positions(len(columns.ids))
            self._copy(
                self._sql.copy_events,
                event_rows(
                    taken,
                    keys,
                    positions,
                    columns.schema_versions,
                    columns.recorded_at,
                    self._lineage(columns),
                    [name.encode() for name in columns.ids],
                    columns.types,
                    columns.data,
                    columns.metadata,
                    jsonb=self._found.data == "jsonb",
                ),
            )
            if columns.merged:
                self._copy_merged(taken, columns)
        except _UNFIT as error:
            events = columns.events(positions)
            refusals.check_names(events, self._location.url)
            said = self._location.scrubbed(str(error))
            raise refusals.unfit(events, self._found.data, self._location.url, said) from error
        except struct.error as error:
            raise DataError(
                "a batch holds a number that its column cannot hold "
                "(schema versions have 32 bits, positions and times 64)",
                where=Where(store=self._location.url, stream=columns.streams[0]),
                remedy="look at the schema versions and times of the batch's events",
            ) from error
        except psycopg.errors.UniqueViolation as error:
            events, url = columns.events(positions), self._location.url
            raise refusals.taken(error, events, self._sql, self._ask, url) from error
        self._cache.set_heads(keys, positions)
        return taken

    def _check(self, columns: Columns, positions: Sequence[int]) -> None:
        """Refuse, before anything is sent, what the server would change or misname."""
        several = {origin.stream for origins in columns.merged.values() for origin in origins}
        names = {*columns.streams, *columns.types, *several, *columns.origin_streams} - {""}
        text = "\n".join((*columns.ids, *names))
        if (
            "\0" in text
            or not all(columns.ids)
            or not all(columns.types)
            or not all(columns.streams)
            or max(map(len, columns.ids)) > refusals.SHORT
            or max(map(len, names)) > refusals.SHORT
            or min(columns.schema_versions) < 1
        ):
            refusals.check_names(columns.events(positions), self._location.url)
        text.encode()
        joined = b"\n".join((*columns.data, b""))
        joined.decode()
        b"\n".join(text for text in columns.metadata if text is not None).decode()
        if self._found.data == "jsonb":
            index = changed_by_jsonb(columns.data, joined)
            if index is not None:
                event = columns.events(positions)[index]
                raise refusals.unfit([event], "jsonb", self._location.url)

    def _take_positions(self, count: int) -> Sequence[int]:
        """The next global positions of the sequence, announced to readers first (`tail`)."""
        table, sequence = self._found.events, self._found.positions
        if self.deferred:
            self._run(_NO_WAIT)
        if self._announced is None:
            self._announced = tail.announce(self._cursor, table=table, sequence=sequence)
        bound = {"sequence": sequence, "count": count}
        first, scattered = self._run(self._sql.take_positions, bound).fetchall()[0]
        if first <= self._announced:
            raise StoreDamagedError(
                f"the sequence {self._tables.positions.name} gave the position {first}, and "
                f"{self._announced} was taken before: it caches values, or was set back",
                where=Where(store=self._location.url),
                remedy=f"ALTER SEQUENCE {self._tables.positions.name} CACHE 1, and let every "
                "writer connect anew; nothing was written",
            )
        return range(first, first + count) if scattered is None else cast(list[int], scattered)

    def _copy(self, statement: str, rows: bytes) -> None:
        view = memoryview(rows)
        with self._cursor.copy(statement.encode()) as copy:
            for at in range(0, len(view), _COPY_BYTES):
                copy.write(view[at : at + _COPY_BYTES])

    def _lineage(self, columns: Columns) -> Iterable[tuple[int | None, int | None, int | None]]:
        """The three origin columns of a batch, as `schema` describes them."""
        streams, names, positions = (
            columns.streams,
            columns.origin_streams,
            columns.origin_positions,
        )
        ordinals: list[int | None] = [*columns.origin_ordinals]
        for index in columns.merged:
            ordinals[index] = None
        keys: list[int | None] = [None] * len(names)
        if names is not streams and names != streams:
            known = self._origin_ids(dict.fromkeys(names))
            keys = [
                None if name == stream else known.get(name)
                for name, stream in zip(names, streams, strict=True)
            ]
        return zip(keys, positions, ordinals, strict=True)

    def _copy_merged(self, taken: Sequence[int], columns: Columns) -> None:
        """All origins of the events that have several."""
        merged = columns.merged
        known = self._origin_ids({o.stream: None for origins in merged.values() for o in origins})
        with self._cursor.copy(self._sql.copy_origins.encode()) as copy:
            for index, origins in merged.items():
                for number, origin in enumerate(origins):
                    same = origin.stream == columns.streams[index]
                    key = None if same else known[origin.stream]
                    copy.write_row((taken[index], number, key, *origin[1:]))

    def truncate_after(self, global_position: int) -> int:
        """Delete this release's events after a global position; returns how many."""
        bound = {"after": global_position, "release": self._location.release}
        self._run(self._sql.delete_origins_after, bound)
        deleted = self._run(self._sql.delete_events_after, bound).rowcount
        self._cache.clear()
        return deleted

    # --- indexes

    def defer_indexes(self) -> bool:
        """Drop the unique indexes if the tables hold no event yet; True if they are off.

        For a load into a new target. Until `build_indexes`, duplicate ids and positions
        are not seen and applications cannot append. Safe to repeat and to be killed in:
        it is part of the transaction.
        """
        if not self.deferred and not self._run(self._sql.any_event).fetchall()[0][0]:
            for index in (self._tables.by_id, self._tables.by_stream):
                self.connection.execute(DropIndex(index, if_exists=True))
            # The drop waited for whoever was appending just now.
            if self._run(self._sql.any_event).fetchall()[0][0]:
                self._create_indexes()
            else:
                self.deferred = True
        return self.deferred

    def build_indexes(self) -> None:
        """Build the unique indexes where they are missing; harmless otherwise.

        Raises `DuplicateIdError` or `ConflictError` naming the first offender.
        """
        if not self.deferred:
            return
        try:
            with self.connection.begin_nested():
                self._create_indexes()
        except IntegrityError as error:
            url = self._location.url
            raise refusals.doubled(self._rows, self._sql, url, error) from error
        self._run(self._sql.analyze)
        self.deferred = False

    def _create_indexes(self) -> None:
        for index in (self._tables.by_id, self._tables.by_stream):
            self.connection.execute(CreateIndex(index, if_not_exists=True))

    def _indexes_present(self) -> bool:
        names = [str(index.name) for index in (self._tables.by_id, self._tables.by_stream)]
        bound = {"schema": self._found.schema, "names": names}
        present, table = self._run(self._sql.held, bound).fetchall()[0]
        if table != self._found.events:
            raise MovedError
        return bool(present)

    # --- keys of streams

    def _keys(self, streams: Sequence[str]) -> list[int]:
        try:
            return list(map(self._cache.ids.__getitem__, streams))
        except KeyError:
            return list(map(self._stream_ids(streams).__getitem__, streams))

    def _stream_ids(self, streams: Sequence[str]) -> dict[str, int]:
        """The keys of all these streams; new ones are added, marked with the release."""
        if self._pairing is not None and not self._pairing.learned:  # while their keys are free
            self._pusher().learn_streams(0, 0)
        self._learn_streams(streams)
        ids = self._cache.ids
        # In one order everywhere, so that two writers do not wait for each other.
        if new := sorted(set(streams).difference(ids)):
            self._run(self._sql.insert_streams, {"names": new, "release": self._location.release})
            self._learn_streams(new)
        return ids

    def _learn_streams(self, streams: Iterable[str]) -> None:
        """Look up the keys of those streams that exist and are not known yet."""
        ids = self._cache.ids
        wanted = set(streams)
        unknown = wanted.difference(ids)  # not `- ids.keys()`: that walks over all known names
        if not unknown:
            return
        if len(ids) + len(unknown) > NAMES_KEPT:
            ids.clear()
            unknown = wanted
        for name, stream_id, release in self._run(
            self._sql.streams_named, {"names": list(unknown)}
        ).fetchall():
            if release != self._location.release:
                raise ConflictError(
                    f"the stream {name!r} is in these tables already, "
                    + (f"as one of release {release}" if release else "as one of no release"),
                    where=Where(store=self._location.url, stream=name),
                    remedy="name the new streams differently (a template with the release in it)",
                )
            ids[name] = stream_id

    def _origin_ids(self, names: dict[str, None]) -> dict[str, int]:
        """The keys of these origin streams; new ones are added."""
        known = self._cache.origin_ids
        names.pop("", None)
        unknown = sorted(set(names).difference(known))
        if unknown:
            if len(known) + len(unknown) > NAMES_KEPT:
                known.clear()
                unknown = sorted(names)
            named = {"names": unknown}
            known.update(self._run(self._sql.origin_streams_named, named).fetchall())
            if new := [name for name in unknown if name not in known]:
                self._run(self._sql.insert_origin_streams, {"names": new})
                known.update(self._run(self._sql.origin_streams_named, {"names": new}).fetchall())
        return known

    def _last_position(self) -> int:
        if self._last_global is None:
            self._last_global = tail.last_value(self._cursor, self._found.positions)
        return self._last_global

    def _run(self, statement: str, bound: Mapping[str, object] | None = None) -> tail.Cursor:
        return self._cursor.execute(statement.encode(), bound or {})

    def _rows(self, statement: str, bound: dict[str, object]) -> Sequence[tuple[object, ...]]:
        return self._run(statement, bound).fetchall()
