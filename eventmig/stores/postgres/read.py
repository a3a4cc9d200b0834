"""Reading a PostgreSQL store (`EventReader`): pages of events, heads, counts.

Each page is one or more short reads of the `session`. Where no end is given, reading ends at
the safe head (`tail`). Writing is in `store`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import psycopg

from eventmig.errors import StoreDamagedError
from eventmig.events import (
    CategoryCount,
    Columns,
    Event,
    Held,
    Origin,
    Page,
    StreamHead,
    TypeCount,
)
from eventmig.stores.base import Capability, DataRow
from eventmig.stores.postgres.check import MovedError, damages
from eventmig.stores.postgres.failures import translated
from eventmig.stores.postgres.grouped import GroupedReader
from eventmig.stores.postgres.json_fit import fits_jsonb, storable
from eventmig.stores.postgres.location import Location, connect
from eventmig.stores.postgres.schema import FIRST_POSITION, SPELLED
from eventmig.stores.postgres.sent import Sent
from eventmig.stores.postgres.session import (
    FETCH_ROWS,
    LAST,
    PAGE_BYTES,
    Bound,
    Row,
)
from eventmig.stores.postgres.summed import SummingReader
from eventmig.stores.stream_cache import NAMES_KEPT

_HEADS_PAGE: Final = 10_000
_STREAM_PAGE: Final = 1_000


class _Counting:
    """A count that is under way (`Count`)."""

    def __init__(self, location: Location, sent: Sent) -> None:
        self._location = location
        self._sent = sent

    def there(self) -> bool:
        with translated(self._location):
            return self._sent.there()

    def wait(self) -> int:
        with translated(self._location):
            return int(self._sent.rows()[0][0])


class PostgresReader(GroupedReader, SummingReader):
    """The reading half of `PostgresStore`; several threads may share one."""

    first_position: int = FIRST_POSITION
    capabilities: frozenset[Capability] = frozenset(Capability)

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._names: dict[int, str] = {}
        self._origin_names: dict[int, str] = {}

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

    def read_held(self, *, after: int, until: int, batch_size: int = 5_000) -> Iterator[Held]:
        """What `read_all` reads, column by column."""

        def pages() -> Iterator[Held]:
            last, alone = self._end(until)
            sql = self._sql.read_events if alone else self._sql.read_events_ours
            bound = self._span(last, None)
            for rows in self._pages(sql, bound, after, last, batch_size, 6):
                yield self._held(rows, bound)

        return self._steadily(pages)

    def read_pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[Page]:
        """What `read_all` reads, column by column and without the events' own origins."""

        def pages() -> Iterator[Page]:
            last, alone = self._end(until)
            sql = self._sql.read_page if alone else self._sql.read_page_ours
            bound = self._span(last, types)
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
            bound = {**self._span(None, None), "names": list(filter(storable, streams))}
            keys: dict[str, int] = dict(self._rows_there(self._sql.streams_of_names, bound))
            left = sorted(keys.values())

            def rows_of_those_left(_: int, limit: int) -> list[Row]:
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
        if not storable(stream):
            return
        place = {"stream": stream, "last": LAST if last is None else last}
        bound, ended = {**self._span(None, None), **place}, False

        def rows_from(first: int, limit: int) -> list[Row]:
            return self._rows(self._sql.read_stream, {**bound, "first": first, "limit": limit})

        while not ended:
            rows, ended = self._sized(rows_from, bound, first, _STREAM_PAGE, place=2, size=6)
            if rows:
                yield self._events(rows, bound)
                first = rows[-1][2] + 1

    def event(self, event_id: str) -> Event | None:
        """The event with this id, or None."""
        if not storable(event_id):
            return None

        def found() -> list[Event]:
            bound = {**self._span(None, None), "event_id": event_id}
            return self._events(self._rows_there(self._sql.event_by_id, bound), bound)

        return next(iter(self._anew(found)), None)

    def examples(self, type: str, schema_version: int, limit: int) -> list[Event]:
        """The first events of this type and schema version, at most `limit`."""
        if not storable(type):
            return []
        wanted = {"after": 0, "limit": limit, "type": type, "schema_version": schema_version}

        def found() -> list[Event]:
            bound = {**self._span(None, None), **wanted}
            return self._events(self._rows_there(self._sql.examples, bound), bound)

        return self._anew(found)

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        """The extent of every stream that has events (or of those named), by stream name."""
        if streams is not None:
            named = {"release": self.location.release, "names": list(filter(storable, streams))}
            yield from map(StreamHead._make, self._rows(self._sql.heads_named, named))
            return

        def pages() -> Iterator[list[Row]]:
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
        return int(self._rows(self._counted(until, types), self._span(until, types))[0][0])

    @contextmanager
    def counting(self, *, until: int, types: Collection[str] | None) -> Iterator[_Counting]:
        """What `count` counts, over a connection of its own; given up at the end of the block."""
        sql = self._counted(until, types)
        with closing(connect(self.location, read_only=True)) as connection:
            with translated(self.location):
                sent = Sent(connection, sql, self._span(until, types))
            try:
                yield _Counting(self.location, sent)
            finally:
                with suppress(psycopg.Error):  # where it is lost there is nothing to give up
                    sent.give_up()

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

    def find_again(self) -> None:
        """Forget what was known of the tables, and learn it anew: others have the names now."""
        with self._guard:
            self._names, self._origin_names = {}, {}
            super().find_again()

    # --- below

    def _counted(self, until: int | None, types: Collection[str] | None) -> str:
        if until is not None and self._anew(lambda: self._end(until))[1]:
            return self._sql.count_all_typed
        return self._sql.count if types is None else self._sql.count_typed

    def _pages(
        self, sql: str, bound: Bound, after: int, last: int, limit: int, size: int
    ) -> Iterator[list[Row]]:
        """Pages of rows in global order, each as `_sized` cuts it."""

        def rows_from(first: int, limit: int) -> list[Row]:
            return self._rows(sql, {**bound, "after": first - 1, "limit": limit})

        ended = False
        while after < last and not ended:
            page, ended = self._sized(rows_from, bound, after + 1, limit, place=0, size=size)
            if page:
                yield page
                after = page[-1][0]

    def _sized(
        self,
        rows_from: Callable[[int, int], list[Row]],
        bound: Bound,
        first: int,
        limit: int,
        *,
        place: int,
        size: int,
    ) -> tuple[list[Row], bool]:
        """Rows from the place `first` on: at most `limit`, and ending with the one that passes
        16 MiB of data (column `size`); and whether there are no more. `rows_from` binds `bound`.

        Fetched some at a time, as many as were small lately, so that a page of large
        events is not first held whole.
        """
        page: list[Row] = []
        total = 0
        while len(page) < limit:
            wanted = min(limit - len(page), self._rows_that_fit)
            rows = rows_from(first, wanted)
            for number, row in enumerate(rows, 1):
                total += len(row[size])
                if total > PAGE_BYTES:
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
            self._rows_that_fit = max(1, min(FETCH_ROWS, PAGE_BYTES // mean // 4))
        return page, False

    def _events(self, rows: Sequence[Row], bound: Bound) -> list[Event]:
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

    def _held(self, rows: Sequence[Row], bound: Bound) -> Held:
        """Rows of a whole event each, which a statement gave with `bound`, column by column."""
        gps, keys, sps, ids, types, versions, data, metadata, times, o_keys, o_sps, o_ns = zip(
            *rows, strict=True
        )
        if o_ns.count(None):  # an application's own, or merged
            return Held.of(self._events(rows, bound))
        streams = list(map(self._names_of(keys, bound).__getitem__, keys))
        froms = streams
        if o_keys.count(None) < len(rows):
            names = self._origin_names_of([key for key in o_keys if key is not None], bound)
            pairs = zip(streams, o_keys, strict=True)
            froms = [stream if key is None else names[key] for stream, key in pairs]
        spelled = map(self._spelled, data)
        columns = (streams, ids, types, versions, spelled, metadata, times, froms, o_sps, o_ns)
        made = Columns._make([*map(list, columns), [0] * len(rows), {}])
        return Held(list(gps), list(sps), made)

    def _with_all_origins(self, page: list[Event], merged: list[int], bound: Bound) -> list[Event]:
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

    def _names_of(self, keys: Collection[int], bound: Bound) -> dict[int, str]:
        """Names by key, at least of the streams with these keys; kept from page to page."""
        with self._guard:
            self._check_known(bound)
            return self._known(self._names, self._sql.stream_names, keys)

    def _origin_names_of(self, keys: Collection[int], bound: Bound) -> dict[int, str]:
        with self._guard:
            self._check_known(bound)
            return self._known(self._origin_names, self._sql.origin_names, keys)

    def _check_known(self, bound: Bound) -> None:
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
