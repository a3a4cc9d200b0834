"""Hashes: one chained per stream over what was found right, kept in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from eventmig.events import Event
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Job
from eventmig.migrate.verify.findings import Mismatch, Verification, mismatch_at
from eventmig.stores.base import JobTarget

_STREAMS = 20_000


def chained(previous: bytes, event: Event) -> bytes:
    """SHA-256 over the previous hash and everything an event is, parts told apart by length."""
    digest = hashlib.sha256(previous)
    origins = ";".join(f"{o.stream}\x1f{o.stream_position}\x1f{o.ordinal}" for o in event.origins)
    for part in (
        f"{event.stream_position}\x1f{event.id}\x1f{event.type}\x1f{event.schema_version}"
        f"\x1f{event.recorded_at}".encode(),
        origins.encode(),
        event.data,
        b"\x00" if event.metadata is None else b"\x01" + event.metadata,
    ):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """The present hashes of some streams, by name: (stream position, hash).

    `known` of them were recorded before.
    """

    known: int
    hashes: dict[str, tuple[int, bytes]]
    found: Verification


def blocks(target: JobTarget, size: int) -> Iterator[list[str]]:
    """The target's streams, so many at a time, ordered by name."""
    names: list[str] = []
    for head in target.heads():
        names.append(head.stream)
        if len(names) == size:
            yield names
            names = []
    if names:
        yield names


def check_vanished(target: JobTarget, job: Job, known: int) -> Verification:
    """Look for streams that had a recorded hash and are gone; `known` are there."""
    found = Verification()
    with target.reading() as connection:
        recorded = ledger.hashed_streams(connection, job)
    if known < recorded:
        for stream, position in _vanished(target, job):
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


def _vanished(target: JobTarget, job: Job) -> Iterator[tuple[str, int]]:
    """Streams with a recorded hash that the target has no more."""
    with target.reading() as connection:
        for names in ledger.hashed_names(connection, job):
            there = {head.stream for head in target.heads(list(names))}
            yield from ((name, names[name]) for name in names if name not in there)


def hash_block(target: JobTarget, job: Job, streams: Sequence[str]) -> Hashed:
    """Hash streams anew, and compare with what is recorded of them. Reads only."""
    found = Verification()
    with target.reading() as connection:
        recorded = ledger.hashes(connection, job, streams)
    fresh: dict[str, tuple[int, bytes]] = {}
    for stream in streams:
        none = target.first_position - 1
        old_position, old = recorded.get(stream, (none, b""))
        position, value, last_global = none, b"", 0
        for event in target.read_stream(stream):
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
        if position < old_position:
            found.add(
                Mismatch(
                    kind="hash",
                    stream=stream,
                    stream_position=position,
                    expected=f"events up to {old_position}",
                    found=f"events up to {position}",
                )
            )
        fresh[stream] = (position, value)
    found.streams_hashed = len(fresh)
    return Hashed(known=len(recorded), hashes=fresh, found=found)


def extend_hashes(target: JobTarget, job: Job, streams: Collection[str]) -> int:
    """Chain on the hashes of these streams over what was found right; returns how many.

    Reads only what came after the recorded positions.
    """
    names = sorted(streams)
    for start in range(0, len(names), _STREAMS):
        some = names[start : start + _STREAMS]
        with target.reading() as connection:
            recorded = ledger.hashes(connection, job, some)
        fresh: dict[str, tuple[int, bytes]] = {}
        for stream in some:
            position, value = recorded.get(stream, (target.first_position - 1, b""))
            for event in target.read_stream(stream, first=position + 1):
                position, value = event.stream_position, chained(value, event)
            fresh[stream] = (position, value)
        with target.begin() as tx:
            ledger.store_hashes(tx.connection, job, fresh)
    return len(names)
