"""Drafts: target events on their way, between the upcasters and the renumbering.

A draft has everything but a place: which stream it goes to, at which position.
Pure values, pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eventmig import codec
from eventmig.codec import Value
from eventmig.events import Event, Origin, merged_id, part_id
from eventmig.steps import Version


class Draft(NamedTuple):
    """One target event without its place.

    - `sources`: the source events it is made from, in source order; at least one.
    - `ordinal`: 0-based, which of the events made from the same sources it is.
    - `split`: whether its source became several events (which decides its id).
    - `data`: JSON bytes; where nothing changed, the very bytes of the source.
    """

    sources: tuple[Event, ...]
    type: str
    schema_version: int
    data: bytes
    metadata: bytes | None
    recorded_at: int
    ordinal: int = 0
    split: bool = False

    @property
    def version(self) -> Version:
        """Its type and schema version."""
        return (self.type, self.schema_version)

    @property
    def stream(self) -> str:
        """The stream of its first source."""
        return self.sources[0].stream

    @property
    def origin_global(self) -> int:
        """The source's global position of the last event it is made from."""
        return max(source.global_position for source in self.sources)

    @property
    def changed(self) -> bool:
        """Whether it differs from its one source in anything but its place."""
        source = self.sources[0]
        return (
            len(self.sources) > 1
            or self.split
            or self.data is not source.data
            or self.type != source.type
            or self.schema_version != source.schema_version
            or self.metadata != source.metadata
            or self.recorded_at != source.recorded_at
        )

    def values(self) -> Value:
        """The data as values; raises `CodecError`."""
        return codec.decode(self.data)

    def with_values(self, values: object) -> Draft:
        """This draft with other data; the same bytes where the values are the same."""
        data = codec.encode_checked(values)
        if codec.same(codec.decode(data), codec.decode(self.data)):
            return self
        return self._replace(data=data)

    def merged_with(
        self, *others: Draft, type: str, schema_version: int = 1, values: object
    ) -> Draft:
        """One draft out of several: metadata and time are this one's, sources all of theirs.

        Its sources stand in the order of the source stream.
        """
        sources = {s.global_position: s for d in (self, *others) for s in d.sources}
        return Draft(
            sources=tuple(sources[p] for p in sorted(sources)),
            type=type,
            schema_version=schema_version,
            data=codec.encode_checked(values),
            metadata=self.metadata,
            recorded_at=self.recorded_at,
        )

    def id(self, *, keep_source_id: bool) -> str:
        """Its deterministic id.

        The source's own where it is made from one event alone, is that event's first,
        and the target allows the same id again; else UUIDv5 over its sources.
        """
        if len(self.sources) > 1:
            return merged_id([s.id for s in self.sources], self.ordinal)
        if keep_source_id and self.ordinal == 0:
            return self.sources[0].id
        return part_id(self.sources[0].id, self.ordinal)

    def origins(self) -> tuple[Origin, ...]:
        """Where it came from, in source order."""
        return tuple([Origin(s.stream, s.stream_position, self.ordinal) for s in self.sources])


def unchanged(event: Event) -> Draft:
    """The event as it is."""
    return Draft(
        (event,), event.type, event.schema_version, event.data, event.metadata, event.recorded_at
    )


def renumber(
    drafts: Sequence[tuple[str, Draft]], heads: dict[str, int], *, keep_source_ids: bool
) -> list[Event]:
    """Give drafts their places: the last step, and the only one that counts positions.

    `drafts` are (target stream, draft) in target order; `heads` holds each stream's
    last position and is brought up to date in place. Global positions are 0: the
    target assigns them.
    """
    events: list[Event] = []
    for stream, draft in drafts:
        position = heads[stream] + 1
        heads[stream] = position
        events.append(
            Event(
                0,
                stream,
                position,
                draft.id(keep_source_id=keep_source_ids),
                draft.type,
                draft.schema_version,
                draft.data,
                draft.metadata,
                draft.recorded_at,
                draft.origins(),
            )
        )
    return events
