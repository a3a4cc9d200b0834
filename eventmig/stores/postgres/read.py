"""Reading a PostgreSQL store (`EventReader`): pages of events, heads, counts.

Over one connection in autocommit that cannot write; each page is one or more short reads,
so that no transaction stays open between them. Where no end is given, reading ends at the
safe head (`tail`). Writing is in `store`.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import RLock
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from eventmig.errors import CapabilityError, DataError, StoreDamagedError, StoreError, Where
from eventmig.events import (
    CategoryCount,
    Event,
    Group,
    Origin,
    Page,
    StreamHead,
    Stretch,
    TypeCount,
)
from eventmig.stores.base import Capability, DataLines, DataRow, Members
from eventmig.stores.postgres import tail
from eventmig.stores.postgres.check import (
    Found,
    MovedError,
    check_sequence,
    damages,
    find_tables,
)
from eventmig.stores.postgres.failures import translated
from eventmig.stores.postgres.json_fit import compact, fits_jsonb
from eventmig.stores.postgres.location import Location, connect
from eventmig.stores.postgres.schema import FIRST_POSITION, SPELLED, Statements, Tables
from eventmig.stores.stream_cache import NAMES_KEPT

_PAGE_BYTES: Final = 16 * 1024 * 1024
_FETCH_ROWS: Final = 1_000
_FIRST_ROWS: Final = 100
_MOST_LINES: Final = 4_000
_LAST: Final = 2**63 - 1
_HEADS_PAGE: Final = 10_000
_STREAM_PAGE: Final = 1_000

_Bound: TypeAlias = Mapping[str, object]
_Row: TypeAlias = tuple[Any, ...]
_T = TypeVar("_T")


class PostgresReader:
    """The reading half of `PostgresStore`; several threads may share one."""

    first_position: int = FIRST_POSITION
    capabilities: frozenset[Capability] = frozenset(Capability)

    def __init__(self, location: Location) -> None:
        self.url = location.url
        self.namespace = location.namespace
        self.location = location
        self._guard = RLock()
        self._reader: psycopg.Connection | None = None
        self._names: dict[int, str] = {}
        self._origin_names: dict[int, str] = {}
        self._rows_that_fit = _FIRST_ROWS
        self._spelled: Callable[[bytes], bytes] = bytes
        self._found: Found
        self._tables: Tables
        self._sql: Statements

    def read_all(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[Event]]:
        """Batches in global order: `after` exclusive, `until` inclusive.

        None reads to the safe head as it is when the first batch is read. A batch ends
        early at 16 MiB of data.
        """

        def batches() -> Iterator[list[Event]]:
            last, alone = self._end(until)
            sql = self._sql.read_events if alone else self._sql.read_events_ours
            bound = self._span(last, types)
            for rows in self._pages(sql, bound, after, last, batch_size, 6):
                yield self._events(rows, bound)

        return self._steadily(batches)

    def read_pages(
        self, *, after: int = 0, until: int | None = None, batch_size: int = 5_000
    ) -> Iterator[Page]:
        """What `read_all` reads, column by column and without the events' own origins."""

        def pages() -> Iterator[Page]:
            last, alone = self._end(until)
            sql = self._sql.read_page if alone else self._sql.read_page_ours
            bound = self._span(last, None)
            for rows in self._pages(sql, bound, after, last, batch_size, 6):
                page = Page._make(zip(*rows, strict=True))
                keys: Sequence[Any] = page.streams
                names = self._names_of(keys, bound)
                yield page._replace(
                    streams=list(map(names.__getitem__, keys)),
                    data=list(map(self._spelled, page.data)),
                )

        return self._steadily(pages)

    def read_data(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[DataRow]]:
        """What `read_all` reads, as (global position, type, schema version, data) alone."""

        def batches() -> Iterator[list[DataRow]]:
            last, alone = self._end(until)
            sql = self._sql.read_data if alone else self._sql.read_data_ours
            for rows in self._pages(sql, self._span(last, types), after, last, batch_size, 3):
                spelled = self._spelled
                yield [(gp, type_, version, spelled(data)) for gp, type_, version, data in rows]

        return self._steadily(batches)

    def read_lines(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        members: Members,
        batch_size: int,
    ) -> Iterator[list[DataLines]]:
        """What `read_data` reads, put together by the server: see `ReadingLines`.

        Of `jsonb` the `members` alone come, where they are known. Each batch has as many events
        as are likely to hold 4 MiB of data.
        """

        def batches() -> Iterator[list[DataLines]]:
            last, alone = self._end(until)
            compose = self._sql.read_lines if alone else self._sql.read_lines_ours
            bound = self._span(last, types)
            fits, read = _FIRST_ROWS, after
            while read < last:
                known = _of_jsonb(members) if self._found.data == "jsonb" else {}
                page = {**bound, "after": read, "limit": min(batch_size, fits)}
                rows = self._rows_there(compose(known), page)
                if not rows:
                    return
                batch = [self._spelled_lines(DataLines._make(row), known) for row in rows]
                yield batch
                read = max(max(some.global_positions) for some in batch)
                events = sum(len(some.global_positions) for some in batch)
                mean = max(1, sum(len(some.lines) for some in batch) // events)
                fits = max(1, min(_MOST_LINES, _PAGE_BYTES // mean // 4))

        return self._steadily(batches)

    def _spelled_lines(self, found: DataLines, known: Members) -> DataLines:
        if self._found.data != "jsonb" or (found.type, found.schema_version) in known:
            return found
        spelled = [*map(self._spelled, found.lines.split(b"\n")[:-1]), b""]
        return found._replace(lines=b"\n".join(spelled))

    def read_grouped(
        self,
        *,
        after: int,
        until: int,
        batch_size: int,
        without: Collection[tuple[str, int]],
    ) -> Iterator[Stretch]:
        """What `read_data` reads, by type and version; of those in `without`, only counts.

        For tables of `jsonb` that hold streams of one release alone. A batch ends early when
        it passes 16 MiB of data.
        """

        def batches() -> Iterator[Stretch]:
            read = after
            while read < until:
                rows = self._grouped(read, until, batch_size, tuple(without))
                if not rows:
                    return
                yield _stretch(rows)
                read = max(row[4] for row in rows)

        return self._steadily(batches)

    def _grouped(
        self, after: int, until: int, batch_size: int, without: Sequence[tuple[str, int]]
    ) -> list[_Row]:
        """The rows of one batch of `read_grouped`, from as many reads as its data needs."""
        bound = self._span(until, None) | {
            "types": [type_ for type_, _ in without],
            "versions": [version for _, version in without],
        }
        rows: list[_Row] = []
        count = total = 0
        while count < batch_size and total <= _PAGE_BYTES:
            wanted = min(batch_size - count, self._rows_that_fit)
            page = bound | {"after": after, "limit": wanted}
            try:
                found = self._rows_there(self._sql.read_grouped, page)
            except DataError:  # together they are more than one value can hold
                if wanted == 1:
                    raise
                self._rows_that_fit = max(1, wanted // 8)
                continue
            rows += found
            read = sum(row[2] for row in found)
            count += read
            total += sum(len(row[6] or b"") for row in found)
            after = max((row[4] for row in found), default=after)
            if read < wanted:
                break
            mean = max(1, total // count)
            self._rows_that_fit = max(1, min(_FETCH_ROWS, _PAGE_BYTES // mean // 4))
        return rows

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive stream positions."""
        start = FIRST_POSITION if first is None else first
        for page in self._steadily(lambda: self._stream(stream, start, last)):
            yield from page

    def read_streams(self, streams: Collection[str]) -> Iterator[list[Event]]:
        """Batches of the events of these streams: stream after stream, by their keys."""

        def batches() -> Iterator[list[Event]]:
            bound = {**self._span(None, None), "names": list(filter(_storable, streams))}
            keys: dict[str, int] = dict(self._rows_there(self._sql.streams_of_names, bound))
            left = sorted(keys.values())

            def rows_of_those_left(_: int, limit: int) -> list[_Row]:
                return self._rows(self._sql.read_streams, {**bound, "ids": left, "limit": limit})

            while left:
                limit = self._rows_that_fit
                rows, _ = self._sized(rows_of_those_left, bound, 0, limit, place=0, size=6)
                if not rows:
                    return
                page = self._events(rows, bound)
                yield page
                last = page[-1]
                yield from self._stream(last.stream, last.stream_position + 1, None)
                left = left[bisect_right(left, keys[last.stream]) :]

        return self._steadily(batches)

    def _stream(self, stream: str, first: int, last: int | None) -> Iterator[list[Event]]:
        """Pages of one stream's events."""
        if not _storable(stream):
            return
        place = {"stream": stream, "last": _LAST if last is None else last}
        bound, ended = {**self._span(None, None), **place}, False

        def rows_from(first: int, limit: int) -> list[_Row]:
            return self._rows(self._sql.read_stream, {**bound, "first": first, "limit": limit})

        while not ended:
            rows, ended = self._sized(rows_from, bound, first, _STREAM_PAGE, place=2, size=6)
            if rows:
                yield self._events(rows, bound)
                first = rows[-1][2] + 1

    def event(self, event_id: str) -> Event | None:
        """The event with this id, or None."""
        if not _storable(event_id):
            return None

        def found() -> list[Event]:
            bound = {**self._span(None, None), "event_id": event_id}
            return self._events(self._rows_there(self._sql.event_by_id, bound), bound)

        return next(iter(self._anew(found)), None)

    def examples(self, type: str, schema_version: int, limit: int) -> list[Event]:
        """The first events of this type and schema version, at most `limit`."""
        if not _storable(type):
            return []
        wanted = {"after": 0, "limit": limit, "type": type, "schema_version": schema_version}

        def found() -> list[Event]:
            bound = {**self._span(None, None), **wanted}
            return self._events(self._rows_there(self._sql.examples, bound), bound)

        return self._anew(found)

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        """The extent of every stream that has events (or of those named), by stream name."""
        if streams is not None:
            named = {"release": self.location.release, "names": list(filter(_storable, streams))}
            yield from map(StreamHead._make, self._rows(self._sql.heads_named, named))
            return

        def pages() -> Iterator[list[_Row]]:
            bound, after = {**self._span(None, None), "limit": _HEADS_PAGE}, ""
            while True:
                page = self._rows_there(self._sql.heads_page, {**bound, "after": after})
                yield page
                if len(page) < _HEADS_PAGE:
                    return
                after = page[-1][0]

        for page in self._steadily(pages):
            yield from (StreamHead._make(row) for row in page if row[3])

    def categories(self) -> list[CategoryCount]:
        """Categories with their counts of streams and events, ordered by name."""
        bound = {"release": self.location.release}
        return [CategoryCount._make(row) for row in self._rows(self._sql.categories, bound)]

    def type_counts(self, *, until: int | None = None) -> list[TypeCount]:
        """Events per type and schema version up to a global position (inclusive), ordered."""
        rows = self._rows(self._sql.type_counts, self._span(until, None))
        return [TypeCount._make(row) for row in rows]

    def head_position(self) -> int:
        """The safe head: the last event's global position below which nothing can appear
        any more; 0 for an empty store.

        Raises `CapabilityError` on a replica, which does not know what is under way, and
        `StoreDamagedError` where the sequence caches values.
        """
        return self._anew(lambda: self._head(self._settled()))

    def count(self, *, until: int | None = None, types: Collection[str] | None = None) -> int:
        """How many events (of these types) lie at or before a global position."""
        bound = self._span(until, types)
        if until is not None and self._anew(lambda: self._end(until))[1]:
            return int(self._rows(self._sql.count_all_typed, bound)[0][0])
        sql = self._sql.count if types is None else self._sql.count_typed
        return int(self._rows(sql, bound)[0][0])

    def identity(self) -> str:
        """Equal for two URLs exactly when they name the same events: system, database, schema,
        tables and release.
        """
        return f"{self.id_scope()}&release={self.location.release or ''}"

    def id_scope(self) -> str:
        """Equal for two stores whose event ids must differ: the same tables."""
        return f"postgresql:{self._found.database}/{self._found.schema}?tables=" + (
            self.location.tables
        )

    def holds_releases(self) -> bool:
        """Whether any stream in these tables is a release's, this one's or another's."""
        return bool(self.location.release) or bool(
            self._rows(self._sql.other_release, {"release": None})[0][0]
        )

    def as_held(self, events: Sequence[Event]) -> list[Event]:
        """These events with their data as this store hands it back; reads only.

        Only `jsonb` spells its own way. Data that it would change or refuse stays as it is.
        """
        data = [event.data for event in events]
        if self._found.data != "jsonb":
            return list(events)
        fits = list(map(fits_jsonb, data))
        sent = [  # a line break stands between tokens, where a space means the same
            text.replace(b"\n", b" ").decode() for text, fit in zip(data, fits, strict=True) if fit
        ]
        spelled = iter(self._rows(SPELLED, {"lines": "\n".join(sent)}))
        return [
            event._replace(data=self._spelled(next(spelled)[0])) if fit else event
            for event, fit in zip(events, fits, strict=True)
        ]

    def preflight(self) -> Iterator[StoreDamagedError]:
        """What is damaged: the sequence, holes and repeated positions in streams. Reads only."""

        def found() -> list[StoreDamagedError]:
            with self._guard, translated(self.location), self._cursor() as cursor:
                return list(damages(cursor, self.location, self._found, self._sql))

        yield from self._anew(found)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only SQLAlchemy connection to the database: one snapshot for the block."""
        engine = self._reading_engine
        with translated(self.location), engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close the connection; harmless twice."""
        with self._guard:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    # --- below

    @cached_property
    def _reading_engine(self) -> Engine:
        """Connects anew each time, but asks only once what kind of server it is."""

        def connected() -> psycopg.Connection:
            connection = connect(self.location)
            connection.autocommit = False
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return connection

        return create_engine(
            "postgresql+psycopg://", creator=connected, poolclass=NullPool, hide_parameters=True
        )

    def _open_tables(self) -> None:
        """Find the tables, and learn what they hold; raises `NotAStoreError` and others."""
        with self._guard, translated(self.location), self._cursor() as cursor:
            self._found, self._tables, self._sql = find_tables(cursor, self.location)
            self._spelled = compact if self._found.data == "jsonb" else bytes

    def find_again(self) -> None:
        """Forget what was known of the tables, and learn it anew: others have the names now."""
        with self._guard:
            self._names, self._origin_names = {}, {}
            self._open_tables()

    def _check_same(self, bound: _Bound) -> None:
        """Raise `MovedError` where other tables have the names: what is empty says nothing."""
        if self._rows(self._sql.table_now, {})[0][0] != bound["table"]:
            raise MovedError

    def _anew(self, work: Callable[[], _T]) -> _T:
        """What `work` returns; done anew where the tables changed names before it ended."""
        while True:
            try:
                return work()
            except MovedError:
                self.find_again()

    def _steadily(self, read: Callable[[], Iterator[_T]]) -> Iterator[_T]:
        """What `read` yields, of one and the same tables: begun anew, but only while it can be."""
        begun = False
        while True:
            try:
                for page in read():
                    begun = True
                    yield page
                return
            except MovedError:
                self.find_again()
                if begun:
                    raise StoreError(
                        "the tables changed names while they were read: a cut-over, or its reverse",
                        where=Where(store=self.url),
                        remedy="read again from the start; global positions are others now",
                    ) from None

    def _end(self, until: int | None) -> tuple[int, bool]:
        """Where a read ends, and whether all rows up to there are this release's."""
        if self._found.replica and until is not None:
            return until, False
        settled = self._settled()
        bound = {"release": self.location.release}
        if until is None:
            until = self._head(settled)
        # Up to what was settled before, no stream of another release can appear any more.
        alone = until <= settled and not self._rows(self._sql.other_release, bound)[0][0]
        return until, alone

    def _head(self, until: int) -> int:
        """The last event's position up to `until`; 0 where there is none."""
        rows = self._rows_there(self._sql.head_position, self._span(until, None))
        return int(rows[0][0]) if rows else 0

    def _settled(self) -> int:
        found = self._found
        if found.replica:
            raise CapabilityError(
                "a replica does not know which transactions are under way, so it has no safe head",
                where=Where(store=self.url),
                remedy="name the primary server as the source",
            )
        with self._guard, translated(self.location), self._cursor() as cursor:
            check_sequence(cursor, self.location, found)
            return tail.settled(cursor, table=found.events, sequence=found.positions)

    def _pages(
        self, sql: str, bound: _Bound, after: int, last: int, limit: int, size: int
    ) -> Iterator[list[_Row]]:
        """Pages of rows in global order, each as `_sized` cuts it."""

        def rows_from(first: int, limit: int) -> list[_Row]:
            return self._rows(sql, {**bound, "after": first - 1, "limit": limit})

        ended = False
        while after < last and not ended:
            page, ended = self._sized(rows_from, bound, after + 1, limit, place=0, size=size)
            if page:
                yield page
                after = page[-1][0]

    def _sized(
        self,
        rows_from: Callable[[int, int], list[_Row]],
        bound: _Bound,
        first: int,
        limit: int,
        *,
        place: int,
        size: int,
    ) -> tuple[list[_Row], bool]:
        """Rows from the place `first` on: at most `limit`, and ending with the one that passes
        16 MiB of data (column `size`); and whether there are no more. `rows_from` binds `bound`.

        Fetched some at a time, as many as were small lately, so that a page of large
        events is not first held whole.
        """
        page: list[_Row] = []
        total = 0
        while len(page) < limit:
            wanted = min(limit - len(page), self._rows_that_fit)
            rows = rows_from(first, wanted)
            for number, row in enumerate(rows, 1):
                total += len(row[size])
                if total > _PAGE_BYTES:
                    page += rows[:number]
                    self._rows_that_fit = max(1, min(self._rows_that_fit, len(page)))
                    return page, False
            page += rows
            if not rows:
                self._check_same(bound)
            if len(rows) < wanted:
                return page, True
            first = rows[-1][place] + 1
            mean = max(1, total // len(page))
            self._rows_that_fit = max(1, min(_FETCH_ROWS, _PAGE_BYTES // mean // 4))
        return page, False

    def _events(self, rows: Sequence[_Row], bound: _Bound) -> list[Event]:
        """Rows of a whole event each, which a statement gave with `bound`, as events."""
        page: list[Event] = []
        merged: list[int] = []
        names = self._names_of([row[1] for row in rows], bound)
        origin_names = self._origin_names_of([row[9] for row in rows if row[9] is not None], bound)
        new, spelled = tuple.__new__, self._spelled
        origins: tuple[Origin, ...]
        for gp, key, sp, eid, type_, version, data, meta, at, o_key, o_sp, o_n in rows:
            stream = names[key]
            origins = ()
            if o_sp is not None:
                if o_n is None:
                    merged.append(gp)
                name = stream if o_key is None else origin_names[o_key]
                origins = (new(Origin, (name, o_sp, o_n)),)
            page.append(
                new(Event, (gp, stream, sp, eid, type_, version, spelled(data), meta, at, origins))
            )
        return self._with_all_origins(page, merged, bound) if merged else page

    def _with_all_origins(self, page: list[Event], merged: list[int], bound: _Bound) -> list[Event]:
        origins: dict[int, list[Origin]] = {}
        positions = {"positions": merged, "table": bound["table"]}
        for position, *origin in self._rows_there(self._sql.origins_of, positions):
            origins.setdefault(position, []).append(Origin._make(origin))
        return [
            event._replace(origins=tuple(origins[event.global_position]))
            if event.global_position in origins
            else event
            for event in page
        ]

    def _names_of(self, keys: Collection[int], bound: _Bound) -> dict[int, str]:
        """Names by key, at least of the streams with these keys; kept from page to page."""
        with self._guard:
            self._check_known(bound)
            return self._known(self._names, self._sql.stream_names, keys)

    def _origin_names_of(self, keys: Collection[int], bound: _Bound) -> dict[int, str]:
        with self._guard:
            self._check_known(bound)
            return self._known(self._origin_names, self._sql.origin_names, keys)

    def _check_known(self, bound: _Bound) -> None:
        """Raise `MovedError` unless what is known is of the tables that keys were read from."""
        if bound["table"] != self._found.events:  # another thread found out
            raise MovedError

    def _known(self, names: dict[int, str], sql: str, keys: Collection[int]) -> dict[int, str]:
        unknown = set(keys).difference(names)
        if unknown:
            if len(names) + len(unknown) > NAMES_KEPT:
                names.clear()
                unknown = set(keys)
            bound = {"ids": list(unknown), "table": self._found.events}
            names.update(self._rows_there(sql, bound))
        return names

    # A row is what its statement selects; its columns are named there.
    def _rows(self, sql: str, bound: _Bound) -> list[_Row]:
        with self._guard, translated(self.location), self._cursor() as cursor, _collector_paused():
            return cursor.execute(sql.encode(), bound).fetchall()

    def _rows_there(self, sql: str, bound: _Bound) -> list[_Row]:
        """Rows of a statement that has some, unless other tables have the names now."""
        rows = self._rows(sql, bound)
        if not rows:
            self._check_same(bound)
        return rows

    @contextmanager
    def _cursor(self) -> Iterator[tail.Cursor]:
        if self._reader is None or self._reader.closed:
            self._reader = connect(self.location, read_only=True)
        with self._reader.cursor(binary=True) as cursor:
            yield cursor

    def _span(self, until: int | None, types: Collection[str] | None) -> dict[str, object]:
        return {
            "until": _LAST if until is None else until,
            "release": self.location.release,
            "table": self._found.events,
            "types": None if types is None else list(filter(_storable, types)),
        }


def _of_jsonb(members: Members) -> Members:
    """The members that the server can be asked for; of other types and versions, data is whole."""
    return {
        kind: names
        for kind, names in dict(members).items()
        if _storable(kind[0]) and all(map(_storable, names))
    }


def _stretch(rows: Sequence[_Row]) -> Stretch:
    """Groups of successive reads as one."""
    groups: dict[tuple[str, int], Group] = {}
    for type_, version, count, _, _, positions, lines in rows:
        data = [] if lines is None else lines.split(b"\n")
        before = groups.get((type_, version))
        if before is not None:
            count += before.events
            positions = [*before.positions, *(positions or ())]
            data = [*before.data, *data]
        groups[type_, version] = Group(type_, version, count, positions or [], data)
    first, last = min(row[3] for row in rows), max(row[4] for row in rows)
    return Stretch(first, last, list(groups.values()), sound=True)


def _storable(name: str) -> bool:
    """Whether PostgreSQL's text could hold this: no NUL, no lone surrogate."""
    return "\0" not in name and name.encode(errors="replace").decode() == name


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No run of the garbage collector while rows are made: they are many, and no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
