"""Reading the events of a described layout (`EventReader`): what is asked, and in which form.

The tables and their connections are `Access`', the way of a page is `Pages`'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, func, select

from eventmig.errors import DataError, StoreDamagedError
from eventmig.events import CategoryCount, Event, Page, StreamHead, TypeCount
from eventmig.stores.base import Capability, DataRow, EventReader, one_by_one
from eventmig.stores.held_up import HeldUp, asking, oldest
from eventmig.stores.layouts.access import Access
from eventmig.stores.layouts.by_id import event_by_id
from eventmig.stores.layouts.checks import damages
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.opaque import opaque
from eventmig.stores.layouts.pages import Pages
from eventmig.stores.layouts.place import Database, Place

_HEADS_PAGE: Final = 10_000
_NAMED: Final = 500  # streams asked for in one statement
_LAST: Final = 2**63 - 1
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
        self._access = Access(place, database)
        self._pages = Pages(self._access)

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
        last = self.head_position() if until is None else until
        wanted = None if types is None else frozenset(types)
        for page, origins in self._pages.between(after, last, types, batch_size, origins=True):
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
        last = self.head_position() if until is None else until
        wanted = None if types is None else frozenset(types)
        for page, _ in self._pages.between(after, last, types, batch_size, origins=False):
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
        last = self.head_position() if until is None else until
        wanted = None if types is None else frozenset(types)
        for page, _ in self._pages.between(after, last, types, batch_size, origins=False):
            positions, kinds, versions = page.global_positions, page.types, page.schema_versions
            rows = zip(positions, kinds, versions, page.data, strict=True)
            found = [row for row in rows if wanted is None or row[1] in wanted]
            if found:
                yield found

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive stream positions."""
        begin = self.first_position if first is None else first
        return self._pages.of_stream(stream, begin, _LAST if last is None else last)

    def read_streams(self, streams: Collection[str]) -> Iterator[list[Event]]:
        """Batches of the events of these streams, asked for one stream at a time."""
        return one_by_one(self.read_stream, streams)

    def event(self, event_id: str) -> Event | None:
        """The event with this id, or None. Without a column for ids it reads all positions."""
        return event_by_id(self, self._access, self._pages, event_id)

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
            keys = [key for key in map(self._access.tables.key_of, streams) if key is not None]
            for at in range(0, len(keys), _NAMED):
                yield from self._heads(self._access.tables.among(keys[at : at + _NAMED]), None)
            return
        after: tuple[str, ...] | None = None
        while page := self._heads(
            None if after is None else self._access.tables.beyond(after), _HEADS_PAGE
        ):
            yield from page
            after = self._access.tables.key_of(page[-1].stream)

    def _heads(self, condition: Any, limit: int | None) -> list[StreamHead]:
        tables = self._access.tables
        with self._access.reading() as (connection, rows):
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
        with self._access.reading() as (connection, rows):
            statement = rows.kinds()
            if statement is not None:
                if until is not None:
                    statement = statement.where(self._access.upto(connection, rows, until))
                for row in connection.execute(statement):
                    counts[rows.kind(row)] += row[-1]
        if statement is None:
            for batch in self.read_all(until=until):
                counts.update((event.type, event.schema_version) for event in batch)
        return [TypeCount(type_, version, n) for (type_, version), n in sorted(counts.items())]

    def head_position(self) -> int:
        """The last global position that no open transaction can precede; 0 for an empty store."""
        tables, late = self._access.tables, self._access.late
        if late is not None:
            with self._access.reading() as (connection, rows):
                return late.head(connection, rows)
        safe = self._database.safe_position(tables, self.place.layout.tail)
        with self._access.reading() as (connection, rows):
            ours = tables.order.last(tables.source).where(*rows.ours(), tables.position <= safe)
            return int(connection.execute(ours).scalar() or 0)

    def held_up(self, *, open_for_s: float = 0) -> HeldUp | None:
        """The oldest open transaction of the server, if stored events wait for it.

        Only where the order over streams is one by transactions. Reads only.
        """
        if self._access.late is None:
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
        with self._access.reading() as (connection, rows):
            statement = (
                select(func.count()).select_from(self._access.tables.source).where(*rows.ours())
            )
            if until is not None:
                statement = statement.where(self._access.upto(connection, rows, until))
            if types is not None:
                statement = statement.where(rows.of_types(sorted(types)))
            return int(connection.execute(statement).scalar_one())

    def identity(self) -> str:
        """Equal for two URLs exactly when they name the same events."""
        return self._rows_meant() + self._access.tables.order.name()

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
            yield from opaque(self, after, until, at_most=_SAMPLE)

    def faults(self, *, events: int) -> Iterator[StoreDamagedError]:
        """What `preflight` finds, with the payloads of the first so many events."""
        yield from self._damages()
        if isinstance(last := self._end(), StoreDamagedError):
            yield last
        else:
            yield from opaque(self, 0, last, at_most=events)

    def _end(self) -> int | StoreDamagedError:
        """The safe head, or what keeps it from being told."""
        try:
            return self.head_position()
        except StoreDamagedError as error:
            return error
        except DataError as error:
            return StoreDamagedError(error.what, where=error.where, remedy=error.remedy)

    def _damages(self) -> list[StoreDamagedError]:
        with self._access.reading() as (connection, rows):
            return list(damages(connection, self._access.tables, rows, self.url))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only SQLAlchemy connection to the database: one snapshot for the block."""
        with self._database.reading() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection; harmless twice."""
        self._database.close()
