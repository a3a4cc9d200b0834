"""Chaining: the hashes of streams, carried on from event to event. Pure.

A hash is SHA-256(hash before, digest of the event). So the digests, which are the work, can be
made anywhere and in any order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from eventmig.events import Event, Held
from eventmig.migrate.verify.findings import Mismatch, Verification

STREAMS_KEPT = 100_000
"""Of so many streams the hashes are kept in memory (about 300 bytes each) while batches come in."""

_EVENTS_WAITING = 300_000  # whose digests (about 150 bytes each) wait for batches before them
_SIZE = 32  # bytes of a SHA-256
_MARK = b"\x02"  # before a recorded hash of this form; the first form has none

_encode = msgspec.msgpack.Encoder().encode


def is_linked(recorded: bytes) -> bool:
    """Whether a recorded hash is one over digests, not one of the first form."""
    return len(recorded) > _SIZE


def chained(previous: bytes, digest: bytes) -> bytes:
    """The hash of a stream after one more event, as it is recorded; b"" before the first."""
    return _MARK + sha256(previous[1:] + digest).digest()


def first_form(previous: bytes, event: Event) -> bytes:
    """The hash of a stream as it was chained at first: over the events themselves."""
    _, _, position, id_, type_, version, data, metadata, recorded_at, origins = event
    place = f"{position}\x1f{id_}\x1f{type_}\x1f{version}\x1f{recorded_at}".encode()
    origin = ";".join([f"{stream}\x1f{at}\x1f{n}" for stream, at, n in origins]).encode()
    rest = b"\x00" if metadata is None else b"\x01" + metadata
    parts = [
        part for one in (place, origin, data, rest) for part in (len(one).to_bytes(8, "big"), one)
    ]
    return sha256(b"".join((previous, *parts))).digest()


def digests(held: Held) -> list[bytes]:
    """For each event the SHA-256 over everything that it is, but for its stream.

    Over an array in MessagePack, which tells the parts apart: stream position, id, type, schema
    version, time, data, metadata, and its first origin's stream, position and ordinal; in an
    event merged from several, all origins once more.
    """
    columns = held.columns
    rows = zip(
        held.stream_positions,
        columns.ids,
        columns.types,
        columns.schema_versions,
        columns.recorded_at,
        columns.data,
        columns.metadata,
        columns.origin_streams,
        columns.origin_positions,
        columns.origin_ordinals,
        strict=True,
    )
    if not columns.merged:
        return [sha256(_encode(row)).digest() for row in rows]
    merged = columns.merged
    return [
        sha256(_encode((*row, merged[n]) if n in merged else row)).digest()
        for n, row in enumerate(rows)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """The hashes of some streams that are not recorded as they are: (stream position, hash).

    `known` of the streams have a hash recorded.
    """

    known: int
    hashes: dict[str, tuple[int, bytes]]
    found: Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Events of the target, in its order: what the hashes of their streams go on with.

    All columns are of one length; `digests` holds 32 bytes for each.
    """

    streams: list[str]
    positions: list[int]
    global_positions: list[int]
    digests: bytes

    @classmethod
    def of(cls, held: Held) -> Links:
        """The links of these events."""
        return cls(
            streams=held.columns.streams,
            positions=held.stream_positions,
            global_positions=held.global_positions,
            digests=b"".join(digests(held)),
        )

    def each(self) -> Iterator[tuple[str, int, int, bytes]]:
        """Stream, stream position, global position and digest of each event."""
        cut = [self.digests[n : n + _SIZE] for n in range(0, len(self.digests), _SIZE)]
        return zip(self.streams, self.positions, self.global_positions, cut, strict=True)


class Chaining:
    """Goes on with the hashes of streams as their events come, each stream's in its order.

    `recorded` are the hashes in the ledger, which are compared on the way.
    """

    def __init__(self, first_position: int, recorded: Mapping[str, tuple[int, bytes]]) -> None:
        self._none = (first_position - 1, b"")
        self._recorded = recorded
        self.found = Verification()
        self.fresh: dict[str, tuple[int, bytes]] = {}

    def add(self, links: Links) -> None:
        """Go on with these events."""
        fresh, recorded, none = self.fresh, self._recorded, self._none
        for stream, position, at, digest in links.each():
            last, value = fresh.get(stream, none)
            value = sha256(value + digest).digest()
            fresh[stream] = position, value
            if position <= last:
                self.found.add(
                    Mismatch(
                        kind="moved",
                        stream=stream,
                        stream_position=position,
                        global_position=at,
                        expected=f"after stream position {last}",
                        found=f"behind the event at stream position {last}",
                    )
                )
            if recorded and stream in recorded:
                old_position, old = recorded[stream]
                if position == old_position and is_linked(old) and _MARK + value != old:
                    self.found.add(unlike(stream, position, old, value))

    def end(self, streams: Collection[str]) -> Hashed:
        """What it came to, once these streams have been seen to their ends."""
        for stream, (old_position, _) in self._recorded.items():
            position = self.fresh[stream][0] if stream in self.fresh else None
            if position is None or position < old_position:
                self.found.add(_shorter(stream, old_position, position))
        none, recorded = self._none, self._recorded
        ends = ((stream, *self.fresh.get(stream, none)) for stream in streams)
        fresh = {stream: (position, _MARK + value) for stream, position, value in ends}
        self.found.streams_hashed = len(fresh)
        new = {stream: now for stream, now in fresh.items() if recorded.get(stream) != now}
        return Hashed(known=len(recorded), hashes=new, found=self.found)


def unlike(stream: str, position: int, old: bytes, new: bytes) -> Mismatch:
    """A hash that is not the recorded one."""
    return Mismatch(
        kind="hash",
        stream=stream,
        stream_position=position,
        expected=old[-_SIZE:].hex()[:16],
        found=new[-_SIZE:].hex()[:16],
    )


def _shorter(stream: str, old_position: int, position: int | None) -> Mismatch:
    """A stream that had more events when its hash was recorded; None: it is gone."""
    if position is None:
        return Mismatch(
            kind="hash",
            stream=stream,
            stream_position=old_position,
            expected=f"{old_position} events, as when last verified",
            found="no such stream",
        )
    return Mismatch(
        kind="hash",
        stream=stream,
        stream_position=position,
        expected=f"events up to {old_position}",
        found=f"events up to {position}",
    )


class Along:
    """Hashes chained while batches are compared, which come in in any order.

    What waits for batches before it, and what is known of streams, is kept in memory: where
    either would be too much, it gives up, and the streams must be read by themselves.
    """

    def __init__(self, first_position: int, recorded: Mapping[str, tuple[int, bytes]]) -> None:
        self._chaining = Chaining(first_position, recorded)
        self._waiting: dict[int, list[Links]] = {}
        self._next = 0
        self.given_up = False

    def add(self, number: int, links: list[Links]) -> None:
        """Add the events of the part of this number (0-based; each number once)."""
        if self.given_up:
            return
        self._waiting[number] = links
        while self._next in self._waiting:
            for some in self._waiting.pop(self._next):
                self._chaining.add(some)
            self._next += 1
        waiting = sum(len(one.streams) for some in self._waiting.values() for one in some)
        if waiting > _EVENTS_WAITING or len(self._chaining.fresh) > STREAMS_KEPT:
            self.given_up = True
            self._waiting.clear()
            self._chaining.fresh.clear()

    def end(self) -> Hashed:
        """What it came to, once all parts are there."""
        return self._chaining.end(self._chaining.fresh.keys())
