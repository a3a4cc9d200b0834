"""Reading a KurrentDB store (`EventReader`): one filtered read of `$all` at a time.

What belongs to the store is in `rules`; what a copy keeps in the metadata, in
`envelope`. A read that breaks off goes on from the last event it yielded.
Counts, heads and types are not kept by the server: they are counted in one pass, which
the next question continues. Writing is in `store`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from threading import RLock
from typing import Final

from eventmig.errors import StoreDamagedError
from eventmig.events import (
    CategoryCount,
    Event,
    Origin,
    Page,
    StreamHead,
    TypeCount,
    category_of,
)
from eventmig.stores.base import Capability, DataRow, one_by_one
from eventmig.stores.kurrent.client import Connection, Message
from eventmig.stores.kurrent.envelope import Envelope, is_json, schema_version, seal, unseal
from eventmig.stores.kurrent.log import END, Log, created, is_system, name_of
from eventmig.stores.kurrent.rules import METADATA, MOVED, TOMBSTONE, Rules, Visible
from eventmig.stores.kurrent.subscription import KurrentSubscription
from eventmig.stores.kurrent.url import Location, Order

FIRST_POSITION: Final = 0
JSON: Final = "application/json"
_PAGE_BYTES: Final = 16 * 1024 * 1024
_CAPABILITIES: Final = frozenset({Capability.APPEND, Capability.TARGET, Capability.LINEAGE})
_ALL_SEEN: Final = Visible(0, -(2**63))


class KurrentReader:
    """The reading half of `KurrentStore`; several threads may share one."""

    first_position: int = FIRST_POSITION

    def __init__(self, location: Location, connection: Connection) -> None:
        self.url = location.url
        self.namespace = location.namespace
        self.capabilities = _CAPABILITIES | (
            {Capability.GLOBAL_ORDER} if location.order is Order.GLOBAL else set()
        )
        self.location = location
        self._connection = connection
        self._log = Log(connection)
        self._guard = RLock()
        self._census = _Census()
        self._learned = Rules(location)

    # --- events

    def read_all(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[Event]]:
        """Batches in the order of the log: `after` exclusive, `until` inclusive.

        None reads to the head as it is when the first batch is read. A batch ends early
        at 16 MiB of data, and never between events of one commit position.
        """
        last = self.head_position() if until is None else until
        batch: list[Event] = []
        size = 0
        with closing(self._events(after=after, until=last, types=types)) as events:
            for event in events:
                full = len(batch) >= batch_size or size > _PAGE_BYTES
                if full and event.global_position != batch[-1].global_position:
                    yield batch
                    batch, size = [], 0
                batch.append(event)
                size += len(event.data)
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
        for batch in self.read_all(after=after, until=until, types=types, batch_size=batch_size):
            *columns, _ = zip(*batch, strict=True)
            yield Page._make(columns)

    def read_traced(self, *, after: int, until: int) -> Iterator[tuple[Event, int]]:
        """What `read_all` reads, each event with its origin's global position (`TracingTarget`)."""
        with closing(self._stored(after=after, until=until)) as stored_events:
            for stored in stored_events:
                envelope = unseal(stored.custom_metadata)[1]
                known = None if envelope is None else envelope.global_position
                yield self._event(stored), known or 0

    def read_data(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[DataRow]]:
        """What `read_all` reads, as (global position, type, schema version, data) alone."""
        for batch in self.read_all(after=after, until=until, types=types, batch_size=batch_size):
            yield [(e.global_position, e.type, e.schema_version, e.data) for e in batch]

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive revisions."""
        end = END if last is None else last
        name = self.location.prefix + stream
        with closing(self._log.of_stream(name, first or 0)) as stored_events:
            for stored in stored_events:
                if stored.stream_revision > end:
                    return
                if not is_system(stored) and stored.metadata["type"] != MOVED:
                    yield self._event(stored)

    def read_streams(self, streams: Collection[str]) -> Iterator[list[Event]]:
        """Batches of the events of these streams, asked for one stream at a time."""
        return one_by_one(self.read_stream, streams)

    def event(self, event_id: str) -> Event | None:
        """The first event with this id, or None; reads the whole store."""
        with closing(self._events()) as events:
            return next((event for event in events if event.id == event_id), None)

    def examples(self, type: str, schema_version: int, limit: int) -> list[Event]:
        """The first events of this type and schema version, at most `limit`."""
        found: list[Event] = []
        with closing(self._events(types=[type])) as events:
            for event in events:
                if len(found) >= limit:
                    break
                if event.schema_version == schema_version:
                    found.append(event)
        return found

    # --- counts

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        """The extent of every stream that has events (or of those named), by stream name."""
        extents = self._counted(None).extents
        names = extents if streams is None else set(streams).intersection(extents)
        for name in sorted(names):
            yield StreamHead(name, *extents[name])

    def categories(self) -> list[CategoryCount]:
        """Categories with their counts of streams and events, ordered by name."""
        streams: Counter[str] = Counter()
        events: Counter[str] = Counter()
        for name, (_, _, count) in self._counted(None).extents.items():
            streams[category_of(name)] += 1
            events[category_of(name)] += count
        return [CategoryCount(name, streams[name], events[name]) for name in sorted(streams)]

    def type_counts(self, *, until: int | None = None) -> list[TypeCount]:
        """Events per type and schema version up to a global position (inclusive), ordered."""
        types = self._counted(until).types
        return [TypeCount(*version, types[version]) for version in sorted(types)]

    def head_position(self) -> int:
        """The last global position; 0 for an empty store."""
        with closing(self._events(backwards=True)) as events:
            return next((event.global_position for event in events), 0)

    def count(self, *, until: int | None = None, types: Collection[str] | None = None) -> int:
        """How many events (of these types) lie at or before a global position."""
        counted = self._counted(until).types
        wanted = None if types is None else set(types)
        return sum(n for (name, _), n in counted.items() if wanted is None or name in wanted)

    @contextmanager
    def subscribed(self, *, after: int) -> Iterator[KurrentSubscription]:
        """A catch-up subscription to the store's streams (`Subscribing`)."""
        subscription = KurrentSubscription(self.location, self._connection, after=after)
        try:
            yield subscription
        finally:
            subscription.close()

    # --- the store itself

    def identity(self) -> str:
        """Equal for two URLs exactly when servers, prefix and categories are."""
        return self.location.identity()

    def id_scope(self) -> str:
        """An id may stand once in each stream: so this is the store's own."""
        return self.identity()

    def preflight(self) -> Iterator[StoreDamagedError]:
        """Nothing: the server keeps its streams without holes, and checks its own files."""
        yield from ()

    def rules_of_streams(self) -> set[str]:
        """The streams that have metadata of their own, by their names in KurrentDB."""
        return {name for name in self._rules().metadata if self.location.holds(name)}

    def metadata_of(self, name: str) -> tuple[dict[str, object], int]:
        """A stream's metadata, and the revision it has; nothing and -1 where there is none."""
        with closing(self._log.of_stream_backwards(f"$${name}")) as versions:
            for stored in versions:
                return json.loads(stored.data or b"{}"), stored.stream_revision
        return {}, -1

    # --- below

    def _events(
        self,
        *,
        after: int = 0,
        until: int = END,
        types: Collection[str] | None = None,
        backwards: bool = False,
    ) -> Generator[Event, None, None]:
        """The store's events between two positions: those that a reader of a stream sees."""
        span = self._stored(after=after, until=until, types=types, backwards=backwards)
        with closing(span) as stored_events:
            for stored in stored_events:
                yield self._event(stored)

    def _stored(
        self,
        *,
        after: int = 0,
        until: int = END,
        types: Collection[str] | None = None,
        backwards: bool = False,
    ) -> Generator[Message, None, None]:
        """The same, as the server gives them."""
        if types is not None and not types:
            return
        visible = self._rules().visible
        wanted = None if types is None else frozenset(types)
        span = self._log.of_location(
            self.location, after=after, until=until, types=types, backwards=backwards
        )
        with closing(span) as stored_events:
            for stored in stored_events:
                type_ = stored.metadata["type"]
                if type_ != MOVED and (wanted is None or type_ in wanted):
                    first, oldest = visible.get(name_of(stored), _ALL_SEEN)
                    if stored.stream_revision >= first and created(stored) >= oldest:
                        yield stored

    def _event(self, stored: Message) -> Event:
        """A stored event as eventmig's."""
        content = stored.metadata
        metadata, envelope = unseal(stored.custom_metadata)
        data = stored.data
        if content["content-type"] != JSON and is_json(data):
            # The data does not show what it is marked as: say so, for any target.
            told = Envelope(format=1, content_type=content["content-type"])
            metadata = seal(metadata, told)
        name = name_of(stored)[len(self.location.prefix) :]
        if envelope is None:
            version, id_, recorded_at = schema_version(metadata), None, None
            origins: tuple[Origin, ...] = ()
        else:
            version, id_, recorded_at = (
                envelope.schema_version,
                envelope.id,
                envelope.recorded_at,
            )
            origins = _origins(envelope)
        return Event(
            stored.commit_position,
            name,
            stored.stream_revision,
            stored.id.string if id_ is None else id_,
            content["type"],
            version,
            data,
            metadata,
            created(stored) if recorded_at is None else recorded_at,
            origins,
        )

    def _rules(self) -> Rules:
        """The rules as they stand now."""
        with self._guard:
            rules, head = self._learned, self._log.head()
            if head > rules.position:
                changed = rules.learn(self._log.of_types(METADATA, TOMBSTONE, after=rules.position))
                for name in changed:
                    found = rules.metadata.get(name)
                    if found is not None and found.max_count is not None:
                        rules.count_from(name, self._log.last_revision(name))
                rules.position = head
                if changed:
                    self._census = _Census()
            return rules

    def _counted(self, until: int | None) -> _Census:
        with self._guard:
            self._rules()  # where they changed, what was counted is void
            census = self._census
            if until is not None and until < census.position:
                census = _Census()
            with closing(
                self._events(after=census.position, until=END if until is None else until)
            ) as events:
                for event in events:
                    census.add(event)
            return census


class _Census:
    """What was counted, up to a global position."""

    def __init__(self) -> None:
        self.position = 0
        self.extents: dict[str, tuple[int, int, int]] = {}
        self.types: Counter[tuple[str, int]] = Counter()

    def add(self, event: Event) -> None:
        at = event.stream_position
        first, _, count = self.extents.get(event.stream, (at, at, 0))
        self.extents[event.stream] = (first, at, count + 1)
        self.types[event.type, event.schema_version] += 1
        self.position = event.global_position


def _origins(envelope: Envelope) -> tuple[Origin, ...]:
    if envelope.merged is not None:
        return tuple(Origin(*origin) for origin in envelope.merged)
    if envelope.stream is None or envelope.stream_position is None:
        return ()
    return (Origin(envelope.stream, envelope.stream_position, envelope.ordinal),)
