"""Reading a SQLite store (`EventReader`): pages of events, heads, counts.

Over one connection that cannot write; each page is one short read, so that the
log can be checkpointed between them. Writing is in `sqlite`.
"""

from __future__ import annotations

import gc
import json
import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import repeat
from operator import itemgetter
from threading import RLock
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection
from sqlalchemy import event as sa_event
from sqlalchemy.pool import NullPool

from eventmig.errors import StoreDamagedError
from eventmig.events import (
    NO_ORIGIN,
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
from eventmig.stores.engines import create_engine
from eventmig.stores.sqlite.check import check_tables, damages
from eventmig.stores.sqlite.counting import Counting, counting
from eventmig.stores.sqlite.errors import translated
from eventmig.stores.sqlite.file import Location, connect_reader
from eventmig.stores.sqlite.schema import FIRST_POSITION, compose, define_tables
from eventmig.stores.stream_cache import NAMES_KEPT

_PAGE_BYTES: Final = 16 * 1024 * 1024
_DATA: Final = itemgetter(3)
_LAST: Final = 2**63 - 1
_HEADS_PAGE: Final = 10_000
_STREAM_PAGE: Final = 1_000
_PAGE: Final = 5_000

_Bound: TypeAlias = Mapping[str, "int | str | None"]
_Row: TypeAlias = tuple[Any, ...]
_Values: TypeAlias = dict[str, "int | str | None"]


class SqliteReader:
    """The reading half of `SqliteStore`; several threads may share one."""

    first_position: int = FIRST_POSITION
    capabilities: frozenset[Capability] = frozenset(Capability) - {Capability.SERVER}

    def __init__(self, location: Location) -> None:
        self.url = location.url
        self.namespace = location.namespace
        self.location = location
        self.tables = define_tables(location.tables)
        self._sql = compose(self.tables)
        self._guard = RLock()
        self._reader: sqlite3.Connection | None = None
        self._seen_stream = 0
        self._alone = True
        self._names: dict[int, str] = {}

    def read_all(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[Event]]:
        """Batches in global order: `after` exclusive, `until` inclusive.

        None reads to the head as it is when the first batch is read. A batch
        ends early at 16 MiB of data. Each batch is one short read.
        """
        last = self.head_position() if until is None else until
        sql = self._sql.read_all if types is None else self._sql.read_all_typed
        bound = self._span(last, types, batch_size)
        while after < last and (batch := self._page(sql, {**bound, "after": after})):
            yield batch
            after = batch[-1].global_position

    def read_held(self, *, after: int, until: int, batch_size: int = 5_000) -> Iterator[Held]:
        """What `read_all` reads, column by column."""
        bound = self._span(until, None, batch_size)
        while after < until and (page := self._held({**bound, "after": after})):
            yield page
            after = page.global_positions[-1]

    def read_pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[Page]:
        """What `read_all` reads, column by column and without the events' own origins."""
        last = self.head_position() if until is None else until
        bound = self._span(last, types, batch_size)
        sql = self._sql
        alone, shared = (
            (sql.read_page_alone, sql.read_page)
            if types is None
            else (sql.read_page_alone_typed, sql.read_page_typed)
        )
        while after < last and (page := self._columns(alone, shared, {**bound, "after": after})):
            yield page
            after = page.global_positions[-1]

    def read_data(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[DataRow]]:
        """What `read_all` reads, as (global position, type, schema version, data) alone."""
        last = self.head_position() if until is None else until
        bound = self._span(last, types, batch_size)
        sql = self._sql
        alone, shared = (
            (sql.read_data_alone, sql.read_data)
            if types is None
            else (sql.read_data_alone_typed, sql.read_data_typed)
        )
        while after < last and (batch := self._data(alone, shared, {**bound, "after": after})):
            yield batch
            after = batch[-1][0]

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive stream positions."""
        for page in self._stream(stream, FIRST_POSITION if first is None else first, last):
            yield from page

    def read_streams(self, streams: Collection[str]) -> Iterator[list[Event]]:
        """Batches of the events of these streams: stream after stream, by their keys.

        A batch ends early at 16 MiB of data.
        """
        release = self.location.release
        named = self._rows(self._sql.streams_named, {"names": json.dumps(list(streams))})
        keys = {name: key for name, key, of_release in named if of_release == release}
        left = sorted(keys.values())
        while left:
            page = self._page(self._sql.read_streams, {"ids": json.dumps(left), "limit": _PAGE})
            if not page:
                return
            yield page
            last = page[-1]
            yield from self._stream(last.stream, last.stream_position + 1, None)
            left = left[bisect_right(left, keys[last.stream]) :]

    def _stream(self, stream: str, first: int, last: int | None) -> Iterator[list[Event]]:
        bound: dict[str, int | str | None] = {
            "stream": stream,
            "release": self.location.release,
            "last": _LAST if last is None else last,
            "limit": _STREAM_PAGE,
        }
        while page := self._page(self._sql.read_stream, {**bound, "first": first}):
            yield page
            first = page[-1].stream_position + 1

    def event(self, event_id: str) -> Event | None:
        """The event with this id, or None."""
        found = self._page(
            self._sql.event_by_id, {"event_id": event_id, "release": self.location.release}
        )
        return found[0] if found else None

    def examples(self, type: str, schema_version: int, limit: int) -> list[Event]:
        """The first events of this type and schema version, at most `limit`."""
        bound = {
            **self._until(None),
            "after": 0,
            "limit": limit,
            "type": type,
            "schema_version": schema_version,
        }
        return self._page(self._sql.examples, bound)

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        """The extent of every stream that has events (or of those named), by stream name."""
        bound: dict[str, int | str | None] = {"release": self.location.release}
        if streams is not None:
            bound["names"] = json.dumps(list(streams))
            yield from map(StreamHead._make, self._rows(self._sql.heads_named, bound))
            return
        after = ""
        bound["limit"] = _HEADS_PAGE
        while page := self._rows(self._sql.heads_page, {**bound, "after": after}):
            yield from map(StreamHead._make, page)
            after = page[-1][0]

    def categories(self) -> list[CategoryCount]:
        """Categories with their counts of streams and events, ordered by name."""
        bound = {"release": self.location.release}
        return [CategoryCount._make(row) for row in self._rows(self._sql.categories, bound)]

    def type_counts(self, *, until: int | None = None) -> list[TypeCount]:
        """Events per type and schema version up to a global position (inclusive), ordered."""
        rows = self._rows(self._sql.type_counts, self._until(until))
        return [TypeCount._make(row) for row in rows]

    def head_position(self) -> int:
        """The last global position; 0 for an empty store."""
        rows = self._rows(self._sql.head_position, {"release": self.location.release})
        return int(rows[0][0]) if rows else 0

    def count(self, *, until: int | None = None, types: Collection[str] | None = None) -> int:
        """How many events (of these types) lie at or before a global position."""
        bound = self._until(until)
        if types is None:
            return int(self._rows(self._sql.count, bound)[0][0])
        bound["types"] = json.dumps(list(types))
        if self._alone:
            found = self._rows(self._sql.count_typed_alone, bound)
            if self.is_alone():
                return int(found[0][0])
        return int(self._rows(self._sql.count_typed, bound)[0][0])

    @contextmanager
    def counting(self, *, until: int, types: Collection[str] | None) -> Iterator[Counting]:
        """What `count` counts, over a connection of its own; given up at the end of the block."""
        with closing(SqliteReader(self.location)) as reader:
            count = partial(reader.count, until=until, types=types)
            with counting(count, reader.interrupt) as under_way:
                yield under_way

    def interrupt(self) -> None:
        """Have a statement that runs in another thread raise; harmless where none does."""
        if self._reader is not None:
            self._reader.interrupt()

    def identity(self) -> str:
        """Equal for two URLs exactly when they name the same events (symlinks resolved)."""
        return self.location.identity()

    def id_scope(self) -> str:
        """Equal for two stores whose event ids must differ: the same tables of one file."""
        return self.location.scope()

    def preflight(self) -> Iterator[StoreDamagedError]:
        """What is damaged: pages, holes and repeated positions in streams. Reads only."""
        with self._guard, translated(self.url):
            yield from list(damages(self._connected(), self.location, self._sql))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only SQLAlchemy connection to the file: one snapshot for the block."""
        engine = create_engine(
            "sqlite://", creator=lambda: connect_reader(self.location), poolclass=NullPool
        )
        sa_event.listen(engine, "begin", _begin)
        with translated(self.url), engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close the connection; harmless twice."""
        with self._guard:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    # --- below

    def _page(self, sql: str, bound: _Bound) -> list[Event]:
        """One page of events, shorter where it would pass 16 MiB."""
        with self._guard, translated(self.url), _collector_paused():
            rows = self._whole_rows(sql, bound)
            if not rows:
                return []
            *parts, names, positions, ordinals = zip(*rows, strict=True)
            origins = _origins(parts[1], names, positions, ordinals)
            made = zip(*parts, origins, strict=False)  # `origins` may have no end
            page = list(map(tuple.__new__, repeat(Event), made))
            if ordinals.count(None) == positions.count(None):
                return page
            several = self._all_origins(_merged(parts[0], positions, ordinals))
            return [
                event._replace(origins=several[event.global_position])
                if event.global_position in several
                else event
                for event in page
            ]

    def _held(self, bound: _Bound) -> Held | None:
        """What `_page` reads of all types, column by column; None: no more."""
        with self._guard, translated(self.url), _collector_paused():
            rows = self._whole_rows(self._sql.read_all, bound)
            if not rows:
                return None
            gps, streams, sps, *parts, names, positions, ordinals = zip(*rows, strict=True)
            firsts: Iterable[Sequence[Any]] = (streams, positions, ordinals)
            merged: dict[int, tuple[Origin, ...]] = {}
            if ordinals.count(None):  # an application's own, or merged
                some = _merged(gps, positions, ordinals)
                several = self._all_origins(some) if some else {}
                origins = _origins(streams, names, positions, ordinals)
                every = [several.get(gp, one) for gp, one in zip(gps, origins, strict=False)]
                firsts = zip(*(one[0] if one else NO_ORIGIN for one in every), strict=True)
                merged = {n: one for n, one in enumerate(every) if len(one) > 1}
            elif names.count(None) < len(names):
                pairs = zip(streams, names, strict=True)
                firsts = ([s if name is None else name for s, name in pairs], positions, ordinals)
            columns = (streams, *parts, *firsts, (0,) * len(gps))
            return Held(list(gps), list(sps), Columns._make([*map(list, columns), merged]))

    def _whole_rows(self, sql: str, bound: _Bound) -> list[_Row]:
        """Rows of a whole event each, up to 16 MiB of data."""
        rows: list[_Row] = []
        add, size = rows.append, 0
        cursor = self._connected().execute(sql, bound)
        try:
            for row in cursor:
                add(row)
                size += len(row[6])
                if size > _PAGE_BYTES:
                    break
        finally:
            cursor.close()  # ends the read, so that the log can be checkpointed
        return rows

    def _columns(self, alone_sql: str, shared_sql: str, bound: _Bound) -> Page | None:
        """One page column by column, shorter where it would pass 16 MiB; None: no more."""
        rows: list[_Row] = []
        add, size, alone = rows.append, 0, self._alone
        sql = alone_sql if alone else shared_sql
        with self._guard, translated(self.url), _collector_paused():
            cursor = self._connected().execute(sql, bound)
            try:
                for row in cursor:
                    add(row)
                    size += len(row[6])
                    if size > _PAGE_BYTES:
                        break
            finally:
                cursor.close()
            if alone and not self.is_alone():
                return self._columns(alone_sql, shared_sql, bound)
            if not rows:
                return None
            page = Page._make(zip(*rows, strict=True))
            return page._replace(streams=self._named(page.streams)) if alone else page

    def _named(self, keys: Sequence[Any]) -> list[str]:
        """The names of the streams with these keys, kept from page to page."""
        names, wanted = self._names, set(keys)
        unknown = wanted.difference(names)
        if len(names) + len(unknown) > NAMES_KEPT:
            names.clear()
            unknown = wanted
        if unknown:
            names.update(self._rows(self._sql.stream_names, {"ids": json.dumps(list(unknown))}))
        return list(map(names.__getitem__, keys))

    def _data(self, alone: str, shared: str, bound: _Bound) -> list[DataRow]:
        """One page of narrow rows, shorter where it would pass 16 MiB."""
        page: list[DataRow] = []
        size = 0
        with self._guard, translated(self.url), _collector_paused():
            cursor = self._connected().execute(alone if self._alone else shared, bound)
            try:
                while some := cursor.fetchmany(len(page) or 1):  # as many again as there are
                    page += some
                    size += sum(map(len, map(_DATA, some)))
                    if size > _PAGE_BYTES:
                        break
            finally:
                cursor.close()
            return page if not self._alone or self.is_alone() else self._data(alone, shared, bound)

    def is_alone(self) -> bool:
        """Whether these tables hold no streams but this release's; looks at new ones only.

        Streams are added with ever higher keys, never changed and never removed: what is
        true after a read was true of everything it saw.
        """
        if self._alone:
            bound = {"seen": self._seen_stream, "release": self.location.release}
            ((last, others),) = self._rows(self._sql.other_streams, bound)
            self._seen_stream = self._seen_stream if last is None else last
            self._alone = not others
        return self._alone

    def _all_origins(self, merged: list[int]) -> dict[int, tuple[Origin, ...]]:
        """The origins of these merged events, by global position."""
        origins: dict[int, list[Origin]] = {}
        for position, *origin in self._rows(
            self._sql.origins_of, {"positions": json.dumps(merged)}
        ):
            origins.setdefault(position, []).append(Origin._make(origin))
        return {position: tuple(several) for position, several in origins.items()}

    # A row is what its statement selects; its columns are named there.
    def _rows(self, sql: str, bound: _Bound) -> list[tuple]:  # type: ignore[type-arg]
        with self._guard, translated(self.url):
            return self._connected().execute(sql, bound).fetchall()

    def _until(self, until: int | None) -> _Values:
        return {
            "until": _LAST if until is None else until,
            "release": self.location.release,
        }

    def _span(self, last: int, types: Collection[str] | None, limit: int) -> _Values:
        bound = {**self._until(last), "limit": limit}
        return bound if types is None else {**bound, "types": json.dumps(list(types))}

    def _connected(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = connect_reader(self.location)
        return self._reader

    def _check_tables(self) -> None:
        with self._guard, translated(self.url):
            check_tables(self._connected(), self.location, self.tables)


def _merged(
    gps: Sequence[int], positions: Sequence[int | None], ordinals: Sequence[int | None]
) -> list[int]:
    """The global positions of the events with several origins."""
    return [
        gp
        for gp, position, ordinal in zip(gps, positions, ordinals, strict=True)
        if ordinal is None and position is not None
    ]


def _origins(
    streams: Sequence[str],
    names: Sequence[str | None],
    positions: Sequence[int | None],
    ordinals: Sequence[int | None],
) -> Iterable[tuple[Origin, ...]]:
    """The first origin of each event, where it has one; `names` are those of other streams."""
    if positions.count(None) == len(positions):
        return repeat(())
    new = tuple.__new__
    return [
        ()
        if position is None
        else (new(Origin, (stream if name is None else name, position, ordinal)),)
        for stream, name, position, ordinal in zip(streams, names, positions, ordinals, strict=True)
    ]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No run of the garbage collector while a page is made: rows are many, and no cycles.

    Measured: a third of the time of `read_all`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
