"""The event values: what a store hands out and what a job writes.

First station of the flow; imports nothing but the standard library. Data and
metadata stay the stored bytes until somebody needs their values (see `codec`).

They are named tuples, not dataclasses: a reader makes one per stored row, and
`Event._make(row)` costs 0.2 µs where a frozen dataclass of this width costs 1.5.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Origin(NamedTuple):
    """Where a target event came from: one source event, or one part of it.

    `stream` and `stream_position` are the source's own (position base as the
    source counts). `ordinal` is 0-based: the n-th event made from that one.
    """

    stream: str
    stream_position: int
    ordinal: int = 0


class Event(NamedTuple):
    """One stored fact, exactly as a store holds it.

    - `stream_position`: counted by the store, 0- or 1-based as its layout says.
    - `global_position`: order over all streams; compared only by the store that
      made it; 0 while it has none yet.
    - `schema_version`: integer >= 1 of this event type's data.
    - `data`: the stored JSON bytes (UTF-8); `metadata` likewise, or None where
      nothing was stored (which is not the same as `{}`).
    - `recorded_at`: microseconds since 1970-01-01T00:00:00 UTC.
    - `origins`: for events a job wrote, the source events it was made from, in
      order; empty for events an application appended.
    """

    global_position: int
    stream: str
    stream_position: int
    id: str
    type: str
    schema_version: int
    data: bytes
    metadata: bytes | None
    recorded_at: int
    origins: tuple[Origin, ...] = ()

    @property
    def recorded_time(self) -> datetime:
        """`recorded_at` as an aware UTC datetime."""
        return EPOCH + timedelta(microseconds=self.recorded_at)

    @property
    def recorded_text(self) -> str:
        """`recorded_time` in ISO 8601; `recorded_at` as it is beyond the years 1 to 9999."""
        try:
            return self.recorded_time.isoformat()
        except OverflowError:
            return str(self.recorded_at)


class Page(NamedTuple):
    """Stored events column by column, as a copy reads them: without the origins they have.

    All columns are of one length, at least 1; what stands at one index of each is one
    event. The names are those of `Event`.
    """

    global_positions: Sequence[int]
    streams: Sequence[str]
    stream_positions: Sequence[int]
    ids: Sequence[str]
    types: Sequence[str]
    schema_versions: Sequence[int]
    data: Sequence[bytes]
    metadata: Sequence[bytes | None]
    recorded_at: Sequence[int]

    def events(self) -> list[Event]:
        """The same as events."""
        return [Event(*row) for row in zip(*self, strict=True)]


class Columns(NamedTuple):
    """Events without their places, column by column: how many of them are written at once.

    All lists are of one length; what stands at one index of each is one event. An
    event's first origin is in three columns: `origin_streams` (which may be the list
    `streams` itself), `origin_positions` (None: it has no origin) and
    `origin_ordinals`. `merged` holds all origins of those that have several, by index.
    `origin_globals` has the source's global position of the event's last origin, for a store
    that keeps it; 0: not known.
    """

    streams: list[str]
    ids: list[str]
    types: list[str]
    schema_versions: list[int]
    data: list[bytes]
    metadata: list[bytes | None]
    recorded_at: list[int]
    origin_streams: list[str]
    origin_positions: list[int | None]
    origin_ordinals: list[int]
    origin_globals: list[int]
    merged: dict[int, tuple[Origin, ...]]

    @classmethod
    def of(cls, events: Sequence[Event]) -> Columns:
        """The columns of these events; their positions are left out."""
        columns = cls([], [], [], [], [], [], [], [], [], [], [], {})
        for event in events:
            columns.add(event)
        return columns

    def add(self, event: Event, origin_global: int = 0) -> None:
        """Add one event at the end; its last origin is at this global position of the source."""
        _, stream, _, id_, type_, version, data, metadata, recorded_at, origins = event
        if len(origins) > 1:
            self.merged[len(self.ids)] = origins
        origin_stream, position, ordinal = origins[0] if origins else NO_ORIGIN
        self.streams.append(stream)
        self.ids.append(id_)
        self.types.append(type_)
        self.schema_versions.append(version)
        self.data.append(data)
        self.metadata.append(metadata)
        self.recorded_at.append(recorded_at)
        self.origin_streams.append(origin_stream)
        self.origin_positions.append(position)
        self.origin_ordinals.append(ordinal)
        self.origin_globals.append(origin_global)

    def extend(self, other: Columns, start: int, stop: int) -> None:
        """Add others at the end: those from `start` (inclusive) to `stop` (exclusive)."""
        moved = len(self.ids) - start
        mine: list[Any]
        theirs: list[Any]
        (*mine, _), (*theirs, _) = self, other
        for column, more in zip(mine, theirs, strict=True):
            column.extend(more[start:stop])
        for n, origins in other.merged.items():
            if start <= n < stop:
                self.merged[n + moved] = origins

    def taken(self, order: Sequence[int]) -> Columns:
        """The events at these indexes, in this order."""
        merged = {to: self.merged[n] for to, n in enumerate(order) if n in self.merged}
        columns: list[Any]
        (*columns, _) = self
        return Columns._make([*([column[n] for n in order] for column in columns), merged])

    def events(self, positions: Sequence[int]) -> list[Event]:
        """The events again, at these stream positions; their global positions are 0."""
        firsts = zip(self.origin_streams, self.origin_positions, self.origin_ordinals, strict=True)
        origins = [
            self.merged.get(n) or _origin(stream, at, ordinal)
            for n, (stream, at, ordinal) in enumerate(firsts)
        ]
        rows = zip(self.streams, positions, *self[1:7], origins, strict=True)
        return [Event(0, *row) for row in rows]


NO_ORIGIN = ("", None, 0)
"""What the three columns of an event's first origin hold where it has none."""


class Held(NamedTuple):
    """Stored events column by column, with all that a store holds of them, origins included.

    `global_positions` and `stream_positions` belong to `columns` by index.
    """

    global_positions: list[int]
    stream_positions: list[int]
    columns: Columns

    @classmethod
    def of(cls, events: Sequence[Event]) -> Held:
        """The same of events."""
        if not events:
            return cls([], [], Columns.of(()))
        gps, streams, positions, ids, types, versions, data, metadata, times, origins = map(
            list, zip(*events, strict=True)
        )
        firsts = [several[0] if several else NO_ORIGIN for several in origins]
        columns = [streams, ids, types, versions, data, metadata, times]
        columns += map(list, zip(*firsts, strict=True))
        merged = {n: several for n, several in enumerate(origins) if len(several) > 1}
        return cls(gps, positions, Columns._make([*columns, [0] * len(gps), merged]))

    def event(self, n: int) -> Event:
        """The event at one index."""
        _, ids, types, versions, data, metadata, times, froms, places, ordinals, _, merged = (
            self.columns
        )
        origins = merged.get(n) or _origin(froms[n], places[n], ordinals[n])
        stream, position = self.columns.streams[n], self.stream_positions[n]
        rest = (ids[n], types[n], versions[n], data[n], metadata[n], times[n], origins)
        return Event(self.global_positions[n], stream, position, *rest)

    def extend(self, other: Held) -> None:
        """Add others at the end."""
        self.global_positions.extend(other.global_positions)
        self.stream_positions.extend(other.stream_positions)
        self.columns.extend(other.columns, 0, len(other.global_positions))

    def events(self) -> list[Event]:
        """All of them as events."""
        return list(map(self.event, range(len(self.global_positions))))


def _origin(stream: str, position: int | None, ordinal: int) -> tuple[Origin, ...]:
    return () if position is None else (Origin(stream, position, ordinal),)


class Group(NamedTuple):
    """The events of one type and schema version in a stretch of the global order.

    `positions` (global ones) and `data` belong together by index, in any order; both are
    empty where they were not asked for, and `events` says how many there are.
    """

    type: str
    schema_version: int
    events: int
    positions: Sequence[int]
    data: Sequence[bytes]


class Stretch(NamedTuple):
    """Successive events, at least one, by type and schema version.

    `first` and `last` are the global positions of the first and the last; there may be holes
    between. `sound`: the data is JSON in UTF-8, on one line, with no key twice in an object.
    """

    first: int
    last: int
    groups: Sequence[Group]
    sound: bool


class Renewed(NamedTuple):
    """What becomes of the events of one type and schema version, where their data changes.

    `positions` are their global ones in the source, and belong to `data` by index.
    """

    source: tuple[str, int]
    target: tuple[str, int]
    positions: Sequence[int]
    data: Sequence[bytes]


class Kept(NamedTuple):
    """A run of source events that each stay one event at the same place of the same stream.

    `first` and `last` are their first and last global positions in the source, `events` is how
    many there are. What is new of them is in `renewed`; those of other types and versions
    stay as they are stored, and of all of them id, place, metadata and time do. So a
    target that can look into the source need not be given them.
    """

    first: int
    last: int
    events: int
    renewed: Sequence[Renewed]


class NewEvent(NamedTuple):
    """What an application appends; the store adds position and, if None, id and time.

    `recorded_at` is in microseconds since the Unix epoch (UTC).
    """

    type: str
    data: bytes
    schema_version: int = 1
    metadata: bytes | None = None
    id: str | None = None
    recorded_at: int | None = None


class StreamHead(NamedTuple):
    """One stream's extent: first and last stream position (both inclusive) and count."""

    stream: str
    first: int
    last: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class TypeCount(NamedTuple):
    """How many stored events have this type and schema version."""

    type: str
    schema_version: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class CategoryCount(NamedTuple):
    """A category (the stream's name up to its first `-`), its streams and events."""

    category: str
    streams: int
    events: int


def category_of(stream: str) -> str:
    """The category of a stream: its name up to the first `-` (the whole name without one).

    The rule is Message DB's and KurrentDB's.
    """
    return stream.split("-", 1)[0]


def microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since the Unix epoch (UTC), exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


_NAMESPACE = uuid.UUID("6f1e1a52-9c1c-5d0e-8a55-6f0b7d1b6a11")


def part_id(source_id: str, ordinal: int) -> str:
    """The id of the `ordinal`-th (0-based) event made from one source event.

    UUIDv5 over the source id and the ordinal (RFC 9562, 5.5): the same event
    yields the same ids in every run.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{source_id}\x1f{ordinal}"))


def merged_id(source_ids: list[str], ordinal: int = 0) -> str:
    """The id of an event made from several: UUIDv5 over their ids, in order."""
    return str(uuid.uuid5(_NAMESPACE, "\x1e".join(source_ids) + f"\x1f{ordinal}"))
