"""Hashes: one chained per stream over what was found right, kept in the ledger.

`beside` is the store whose ledger that is: the target itself, but where tables changed names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, groupby
from operator import attrgetter

from eventmig.events import Event
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Job
from eventmig.migrate.verify.findings import Mismatch, Verification, mismatch_at
from eventmig.stores.base import JobTarget

_STREAMS = 20_000


def chained(previous: bytes, event: Event) -> bytes:
    """SHA-256 over the previous hash and everything an event is, parts told apart by length."""
    _, _, position, id_, type_, version, data, metadata, recorded_at, origins = event
    place = f"{position}\x1f{id_}\x1f{type_}\x1f{version}\x1f{recorded_at}".encode()
    origin = ";".join([f"{stream}\x1f{at}\x1f{n}" for stream, at, n in origins]).encode()
    rest = b"\x00" if metadata is None else b"\x01" + metadata
    return sha256(
        b"".join(
            (
                previous,
                len(place).to_bytes(8, "big"),
                place,
                len(origin).to_bytes(8, "big"),
                origin,
                len(data).to_bytes(8, "big"),
                data,
                len(rest).to_bytes(8, "big"),
                rest,
            )
        )
    ).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """The hashes of some streams that are not recorded as they are: (stream position, hash).

    `known` of the streams have a hash recorded.
    """

    known: int
    hashes: dict[str, tuple[int, bytes]]
    found: Verification


def blocks(target: JobTarget, events: int) -> Iterator[list[str]]:
    """The names of the target's streams, as many at a time as hold so many events.

    Never more names than a tenth of that: they are sent to another process at once.
    """
    names: list[str] = []
    size = 0
    for head in target.heads():
        names.append(head.stream)
        size += head.count
        if size >= events or len(names) >= events // 10:
            yield names
            names, size = [], 0
    if names:
        yield names


def check_vanished(target: JobTarget, beside: JobTarget, job: Job, known: int) -> Verification:
    """Look for streams that had a recorded hash and are gone; `known` are there."""
    found = Verification()
    with beside.reading() as connection:
        recorded = ledger.hashed_streams(connection, job)
    if known < recorded:
        for stream, position in _vanished(target, beside, job):
            found.add(
                Mismatch(
                    kind="hash",
                    stream=stream,
                    stream_position=position,
                    expected=f"{position} events, as when last verified",
                    found="no such stream",
                )
            )
    return found


def _vanished(target: JobTarget, beside: JobTarget, job: Job) -> Iterator[tuple[str, int]]:
    """Streams with a recorded hash that the target has no more."""
    with beside.reading() as connection:
        for names in ledger.hashed_names(connection, job):
            there = {head.stream for head in target.heads(list(names))}
            yield from ((name, names[name]) for name in names if name not in there)


def hash_block(target: JobTarget, beside: JobTarget, job: Job, streams: Sequence[str]) -> Hashed:
    """Hash streams anew, and compare with what is recorded of them. Reads only."""
    found = Verification()
    with beside.reading() as connection:
        recorded = ledger.hashes(connection, job, streams)
    none = (target.first_position - 1, b"")
    fresh = dict.fromkeys(streams, none)
    all_events = chain.from_iterable(target.read_streams(streams))
    for stream, events in groupby(all_events, attrgetter("stream")):
        old_position, old = recorded.get(stream, none)
        (position, value), last_global = none, 0
        for event in events:
            position, value = event.stream_position, chained(value, event)
            if event.global_position <= last_global:
                found.add(
                    mismatch_at(
                        event,
                        kind="moved",
                        expected=f"a global position after {last_global}",
                        found=f"global position {event.global_position}",
                    )
                )
            last_global = event.global_position
            if position == old_position and value != old:
                found.add(
                    Mismatch(
                        kind="hash",
                        stream=stream,
                        stream_position=position,
                        expected=old.hex()[:16],
                        found=value.hex()[:16],
                    )
                )
        fresh[stream] = position, value
    for stream, (old_position, _) in recorded.items():
        if fresh[stream][0] < old_position:
            found.add(
                Mismatch(
                    kind="hash",
                    stream=stream,
                    stream_position=fresh[stream][0],
                    expected=f"events up to {old_position}",
                    found=f"events up to {fresh[stream][0]}",
                )
            )
    found.streams_hashed = len(fresh)
    new = {stream: now for stream, now in fresh.items() if recorded.get(stream) != now}
    return Hashed(known=len(recorded), hashes=new, found=found)


def extend_hashes(target: JobTarget, beside: JobTarget, job: Job, streams: Collection[str]) -> int:
    """Chain on the hashes of these streams over what was found right; returns how many.

    Reads only what came after the recorded positions.
    """
    names = sorted(streams)
    for start in range(0, len(names), _STREAMS):
        some = names[start : start + _STREAMS]
        with beside.reading() as connection:
            recorded = ledger.hashes(connection, job, some)
        fresh: dict[str, tuple[int, bytes]] = {}
        for stream in some:
            position, value = recorded.get(stream, (target.first_position - 1, b""))
            for event in target.read_stream(stream, first=position + 1):
                position, value = event.stream_position, chained(value, event)
            fresh[stream] = (position, value)
        with beside.begin() as tx:
            ledger.store_hashes(tx.connection, job, fresh)
    return len(names)
