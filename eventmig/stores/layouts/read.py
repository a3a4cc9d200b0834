"""Reading the events of a described layout (`EventReader`), page by page.

Each page is one short read over a connection that cannot write. What the tables do
not carry of events a job wrote stands in the side tables (`lineage`).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Text, cast, func, inspect, select

from eventmig.errors import DataError, StoreDamagedError
from eventmig.events import CategoryCount, Event, Origin, Page, StreamHead, TypeCount
from eventmig.stores.base import Capability, DataRow, EventReader, one_by_one
from eventmig.stores.held_up import HeldUp, asking, oldest
from eventmig.stores.layouts import lineage, links
from eventmig.stores.layouts.checks import damages
from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.counting import Counting
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.late import Late
from eventmig.stores.layouts.place import Database, Place
from eventmig.stores.layouts.rows import Rows, derived_id
from eventmig.stores.layouts.tables import Tables

_PAGE_BYTES: Final = 16 * 1024 * 1024
_FETCHED: Final = 250  # rows at a time, at the most
_HEADS_PAGE: Final = 10_000
_STREAM_PAGE: Final = 1_000
_NAMED: Final = 500  # streams asked for in one statement
_LAST: Final = 2**63 - 1
_SHOWN: Final = 20  # faults
_PARTS: Final = 20  # of a store whose payloads are tried
_SAMPLE: Final = 200  # events


class LayoutReader:
    """The reading half of `LayoutStore`."""

    capabilities: frozenset[Capability]

    def __init__(self, place: Place, database: Database) -> None:
        self.url = place.url
        self.place = place
        self.namespace = place.namespace
        self.first_position: int = place.layout.stream.first
        self._database = database
        self._found: Tables | None = None
        self._late: Late | None = None
        self._beside = False

    @property
    def layout(self) -> Layout:
        """The description of the tables."""
        return self.place.layout

    def read_all(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[Event]]:
        """Batches in global order: `after` exclusive, `until` inclusive (None: the safe head).

        A batch ends early at 16 MiB of data. Raises `DataError` naming an event that is
        opaque, `StoreError`s of the database.
        """
        wanted = None if types is None else frozenset(types)
        for page, origins in self._batches(after, until, types, batch_size, origins=True):
            batch = list(map(Event, *page, origins))
            if wanted is not None:
                batch = [event for event in batch if event.type in wanted]
            if batch:
                yield batch

    def read_pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[Page]:
        """What `read_all` reads, column by column and without the events' own origins."""
        wanted = None if types is None else frozenset(types)
        for page, _ in self._batches(after, until, types, batch_size, origins=False):
            if wanted is None or wanted.issuperset(page.types):
                yield page
            elif rows := [row for row in zip(*page, strict=True) if row[4] in wanted]:
                yield Page._make(zip(*rows, strict=True))

    def read_data(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[DataRow]]:
        """What `read_all` reads, as (global position, type, schema version, data) alone."""
        wanted = None if types is None else frozenset(types)
        for page, _ in self._batches(after, until, types, batch_size, origins=False):
            positions, kinds, versions = page.global_positions, page.types, page.schema_versions
            rows = zip(positions, kinds, versions, page.data, strict=True)
            found = [row for row in rows if wanted is None or row[1] in wanted]
            if found:
                yield found

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive stream positions."""
        key = self._tables.key_of(stream)
        if key is None:
            return
        following = self.first_position if first is None else first
        until = _LAST if last is None else last
        while following <= until:
            with self._reading() as (connection, rows):
                statement = rows.events().where(self._tables.among([key]))
                statement = self._in_stream(statement, following, until)
                counting = self._counting(before={stream: following - self.first_position})
                found = self._fetch(connection, rows, statement, counting)
                page = self._events(connection, rows, found)
            yield from page
            if len(found) < _STREAM_PAGE and self._size(found) <= _PAGE_BYTES:
                return
            following = page[-1].stream_position + 1

    def _in_stream(self, statement: Select[Any], following: int, until: int) -> Select[Any]:
        """Rows of one stream, between these positions in it; at most a page."""
        if self.place.layout.stream.counted:
            wanted = min(until - following + 1, _STREAM_PAGE)
            rows = statement.order_by(self._tables.position)
            return rows.offset(following - self.first_position).limit(wanted)
        position = self._tables.stream_position
        rows = statement.where(position >= following, position <= until)
        return rows.order_by(position).limit(_STREAM_PAGE)

    def read_streams(self, streams: Collection[str]) -> Iterator[list[Event]]:
        """Batches of the events of these streams, asked for one stream at a time."""
        return one_by_one(self.read_stream, streams)

    def event(self, event_id: str) -> Event | None:
        """The event with this id, or None. Without a column for ids it reads all positions."""
        layout = self.place.layout
        if layout.id.column is not None:
            column = self._tables.column(layout.id.column)
            with self._reading() as (connection, rows):
                statement = rows.events().where(cast(column, Text) == event_id)
                if layout.links:
                    statement = statement.where(links.is_event(self._tables))
                row = self._fetch(connection, rows, statement.limit(1), self._counting())
                found = self._events(connection, rows, row)
            if found or not layout.links:
                return found[0] if found else None
            every = chain.from_iterable(self.read_all(types=[links.LINK]))
            return next((link for link in every if link.id == event_id), None)
        kept = self._kept(event_id)
        event = self._derived(event_id) if kept is None else kept
        return event if event is not None and event.id == event_id else None

    def _kept(self, event_id: str) -> Event | None:
        """The event whose id is in the side table."""
        if not self._beside:
            return None
        kept = lineage.origins.c
        with self._reading() as (connection, rows):
            place = connection.execute(
                select(kept.global_position).where(
                    kept.namespace == self.namespace, kept.event_id == event_id
                )
            ).scalar()
            statement = rows.events().where(self._tables.position == place)
            row = self._fetch(connection, rows, statement, self._counting())
            found = self._events(connection, rows, row)
        return found[0] if found else None

    def _derived(self, event_id: str) -> Event | None:
        """The event whose id comes from its stream and position: the one that has this id."""
        try:
            if uuid.UUID(event_id).version != 5:
                return None
        except ValueError:
            return None
        for head in self.heads():
            for position in range(head.first, head.last + 1):
                if derived_id(head.stream, position) == event_id:
                    events = self.read_stream(head.stream, first=position, last=position)
                    return next(events, None)
        return None

    def examples(self, type: str, schema_version: int, limit: int) -> list[Event]:
        """The first events of this type and schema version, at most `limit`."""
        found: list[Event] = []
        for batch in self.read_all(types=[type], batch_size=500):
            found += [event for event in batch if event.schema_version == schema_version]
            if len(found) >= limit:
                break
        return found[:limit]

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        """The extent of every stream that has events (or of those named), by its key."""
        if streams is not None:
            keys = [key for key in map(self._tables.key_of, streams) if key is not None]
            for at in range(0, len(keys), _NAMED):
                yield from self._heads(self._tables.among(keys[at : at + _NAMED]), None)
            return
        after: tuple[str, ...] | None = None
        while page := self._heads(
            None if after is None else self._tables.beyond(after), _HEADS_PAGE
        ):
            yield from page
            after = self._tables.key_of(page[-1].stream)

    def _heads(self, condition: Any, limit: int | None) -> list[StreamHead]:
        tables = self._tables
        with self._reading() as (connection, rows):
            statement = (
                select(
                    *(tables.plain(name) for name in self.place.layout.stream.columns),
                    *tables.extent(),
                    func.count(),
                )
                .select_from(tables.source)
                .where(*rows.ours(), *([] if condition is None else [condition]))
                .group_by(*tables.keys)
                .order_by(*tables.keys)
                .limit(limit)
            )
            return [
                StreamHead(tables.stream(row[:-3]), *row[-3:])
                for row in connection.execute(statement)
            ]

    def categories(self) -> list[CategoryCount]:
        """Categories (by the layout's rule) with their counts, ordered by name."""
        streams: Counter[str] = Counter()
        events: Counter[str] = Counter()
        for head in self.heads():
            category = self.place.layout.category(head.stream)
            streams[category] += 1
            events[category] += head.count
        return [CategoryCount(name, streams[name], events[name]) for name in sorted(streams)]

    def type_counts(self, *, until: int | None = None) -> list[TypeCount]:
        """Events per type and schema version up to a global position (inclusive), ordered.

        Reads every event where the schema version is inside of data or metadata.
        """
        counts: Counter[tuple[str, int]] = Counter()
        with self._reading() as (connection, rows):
            statement = rows.kinds()
            if statement is not None:
                if until is not None:
                    statement = statement.where(self._upto(connection, rows, until))
                for row in connection.execute(statement):
                    counts[rows.kind(row)] += row[-1]
        if statement is None:
            for batch in self.read_all(until=until):
                counts.update((event.type, event.schema_version) for event in batch)
        return [TypeCount(type_, version, n) for (type_, version), n in sorted(counts.items())]

    def head_position(self) -> int:
        """The last global position that no open transaction can precede; 0 for an empty store."""
        tables = self._tables
        if self._late is not None:
            with self._reading() as (connection, rows):
                return self._late.head(connection, rows)
        safe = self._database.safe_position(tables, self.place.layout.tail)
        with self._reading() as (connection, rows):
            ours = tables.order.last(tables.source).where(*rows.ours(), tables.position <= safe)
            return int(connection.execute(ours).scalar() or 0)

    def held_up(self, *, open_for_s: float = 0) -> HeldUp | None:
        """The oldest open transaction of the server, if stored events wait for it.

        Only where the order over streams is one by transactions. Reads only.
        """
        if self._late is None:
            return None
        with self.reading() as connection:
            by = oldest(asking(connection), open_for_s=open_for_s)
        if by is None:
            return None
        head = self.head_position()
        events = self.count() - self.count(until=head)
        return HeldUp(events=events, by=by) if events else None

    def count(self, *, until: int | None = None, types: Collection[str] | None = None) -> int:
        """How many events (of these types) lie at or before a global position."""
        if types is not None and self.place.layout.type.suffix is not None:
            return sum(c.count for c in self.type_counts(until=until) if c.type in set(types))
        with self._reading() as (connection, rows):
            statement = select(func.count()).select_from(self._tables.source).where(*rows.ours())
            if until is not None:
                statement = statement.where(self._upto(connection, rows, until))
            if types is not None:
                statement = statement.where(rows.of_types(sorted(types)))
            return int(connection.execute(statement).scalar_one())

    def identity(self) -> str:
        """Equal for two URLs exactly when they name the same events."""
        return self._rows_meant() + self._tables.order.name()

    def id_scope(self) -> str:
        """Equal for two stores in which one event id may stand only once together."""
        if self.place.layout.id.scope == "table":
            return self._scope()
        return f"{self._scope()}&release={self.place.release or ''}"

    def shares_streams(self, source: EventReader) -> bool:
        """Whether a source is the same rows, described otherwise."""
        return isinstance(source, LayoutReader) and source._rows_meant() == self._rows_meant()

    def _rows_meant(self) -> str:
        layout = self.place.layout
        rows = ",".join(f"{k}={v}" for k, v in sorted(layout.where.items()))
        return f"{self._scope()}?{rows}&release={self.place.release or ''}"

    def _scope(self) -> str:
        return f"{self._database.scope()}/{self.place.layout.table}"

    def preflight(self) -> Iterator[StoreDamagedError]:
        """What cannot be migrated: holes in streams, missing positions, opaque payloads.

        Payloads of a sample, from begin to end: a job reads each of them before it writes it.
        """
        yield from self._damages()
        if isinstance(last := self._end(), StoreDamagedError):
            yield last
            return
        for part in range(_PARTS):
            after, until = last * part // _PARTS, last * (part + 1) // _PARTS
            yield from self._unreadable(after, until, _SAMPLE)

    def faults(self, *, events: int) -> Iterator[StoreDamagedError]:
        """What `preflight` finds, with the payloads of the first so many events."""
        yield from self._damages()
        if isinstance(last := self._end(), StoreDamagedError):
            yield last
        else:
            yield from self._unreadable(0, last, events)

    def _end(self) -> int | StoreDamagedError:
        """The safe head, or what keeps it from being told."""
        try:
            return self.head_position()
        except StoreDamagedError as error:
            return error
        except DataError as error:
            return StoreDamagedError(error.what, where=error.where, remedy=error.remedy)

    def _damages(self) -> list[StoreDamagedError]:
        with self._reading() as (connection, rows):
            return list(damages(connection, self._tables, rows, self.url))

    def _unreadable(self, after: int, until: int, events: int) -> Iterator[StoreDamagedError]:
        """Which of the first so many events in these positions are opaque; at most 20."""
        found = tried = 0
        while after < until and found < _SHOWN and tried < events:
            size = min(events - tried, _SAMPLE)
            try:
                page = next(self.read_pages(after=after, until=until, batch_size=size), None)
            except DataError as error:
                found += 1
                yield StoreDamagedError(error.what, where=error.where, remedy=error.remedy)
                after = max(after + 1, error.where.global_position or until)
            else:
                if page is None:
                    return
                tried += len(page.ids)
                after = page.global_positions[-1]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only SQLAlchemy connection to the database: one snapshot for the block."""
        with self._database.reading() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection; harmless twice."""
        self._database.close()

    # --- below

    @property
    def _tables(self) -> Tables:
        if self._found is None:
            with self._database.reading() as connection:
                self._found = Tables(connection, self.place.layout, self.url)
            if self.place.layout.transaction is not None:
                self._late = Late(self._found, self.url)
        return self._found

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, Rows]]:
        tables = self._tables
        with self._database.reading() as connection:
            yield connection, self._rows(connection, tables)

    def _rows(self, connection: Connection, tables: Tables) -> Rows:
        if not self._beside:  # a job may have made them since the last look
            self._beside = inspect(connection).has_table(lineage.streams.name)
        return Rows(
            tables,
            url=self.url,
            namespace=self.namespace,
            release=self.place.release,
            beside=self._beside,
            late={} if self._late is None else self._late.places,
        )

    def _batches(
        self,
        after: int,
        until: int | None,
        types: Collection[str] | None,
        batch_size: int,
        *,
        origins: bool,
    ) -> Iterator[tuple[Page, list[tuple[Origin, ...]]]]:
        """Pages in global order, each with its events' origins if they are asked for.

        With `types` there may be events of others among them.
        """
        last = self.head_position() if until is None else until
        order = self._tables.order
        counting = self._counting(whole=types is None, complete=after == 0)
        if self._late is not None and after < last:
            with self._reading() as (connection, rows):
                self._late.look(connection, rows, last)
        while after < last:
            with self._reading() as (connection, rows):
                events = rows.events()
                if types is not None:
                    events = events.where(rows.of_types(sorted(types)))
                due = events.where(order.after(after), order.upto(last))
                due = order.ascending(due).limit(batch_size)
                found = self._fetch(connection, rows, due, counting)
                after, found = self._with_late(
                    connection, rows, events, found, after=after, last=last, limit=batch_size
                )
                if not found:
                    continue
                page = rows.page(found)
                lineages = self._lineage(connection, rows, page, found) if origins else []
            yield page, lineages

    def _with_late(
        self,
        connection: Connection,
        rows: Rows,
        events: Select[Any],
        found: Sequence[Sequence[Any]],
        *,
        after: int,
        last: int,
        limit: int,
    ) -> tuple[int, Sequence[Sequence[Any]]]:
        """The rows of a page in their order, and the global position that it goes up to.

        `found` are in the order of the columns.
        """
        until = last if not found or found[-1][0] is None else int(found[-1][0])
        late = self._late
        if late is None or not late.places:
            return until, found
        due = late.between(after, until, limit)
        if len(due) == limit:
            until = late.places[due[-1]]
        page = [row for row in found if row[0] not in late.places and row[0] <= until]
        if due:
            page += connection.execute(events.where(late.among(due)))
            page.sort(key=rows.place)
        return until, page

    def _upto(self, connection: Connection, rows: Rows, until: int) -> Expression:
        """The condition that a row stands at this global position, or before it."""
        if self._late is None:
            return self._tables.order.upto(until)
        self._late.look(connection, rows, until)
        return self._late.upto(until)

    def _events(
        self, connection: Connection, rows: Rows, found: Sequence[Sequence[Any]]
    ) -> list[Event]:
        if not found:
            return []
        if self._late is not None:
            self._late.look_at(connection, rows, found)
        page = rows.page(found)
        return list(map(Event, *page, self._lineage(connection, rows, page, found)))

    def _fetch(
        self,
        connection: Connection,
        rows: Rows,
        statement: Select[Any],
        counting: Counting | None,
    ) -> Sequence[Sequence[Any]]:
        """The rows of a statement of `Rows.events`, cut after 16 MiB of data."""
        found: list[Row[Any]] = []
        size, step = 0, 1  # few rows at first: each may be large
        with connection.execute(statement) as result:
            while size <= _PAGE_BYTES and (some := result.fetchmany(step)):
                found += some
                step = min(2 * step, _FETCHED)
                size += self._size(some)
        return found if counting is None else counting.placed(connection, rows, found)

    def _counting(
        self, *, whole: bool = True, complete: bool = False, before: dict[str, int] | None = None
    ) -> Counting | None:
        """What counts stream positions for one reading; None where the tables have them."""
        if not self.place.layout.stream.counted:
            return None
        return Counting(self._tables, whole=whole, complete=complete, before=before)

    def _size(self, found: Sequence[Sequence[Any]]) -> int:
        data = len(self.place.layout.stream.columns) + 3
        return sum(len(row[data] or b"") for row in found)

    def _lineage(
        self, connection: Connection, rows: Rows, page: Page, found: Sequence[Sequence[Any]]
    ) -> list[tuple[Origin, ...]]:
        firsts = rows.first_origins(found)
        if self._beside:
            places = [self._tables.order.column_value(row[0]) for row in found]
            lineage.add_others(connection, self.namespace, places, page.streams, firsts)
        return firsts
