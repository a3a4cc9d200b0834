"""Hashes: one chained per stream over what was found right, kept in the ledger.

Two ways lead to the same: along with the comparison, which sees each stream's events in their
order (`along`), and by reading stream after stream (`hash_block`). `beside` is the store whose
ledger that is: the target itself, but where tables changed names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, pairwise

from eventmig.events import Event, Held
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.verify.chaining import (
    STREAMS_KEPT,
    Along,
    Chaining,
    Hashed,
    Links,
    chained,
    digests,
    first_form,
    is_linked,
    unlike,
)
from eventmig.migrate.verify.findings import Mismatch, Verification, mismatch_at
from eventmig.stores.base import JobTarget

_STREAMS = 20_000
_STREAM_PAGE = 1_000
_AT_ONCE = 2_500  # hashes that are recorded in one transaction


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
    with beside.reading() as connection:
        recorded = ledger.hashes(connection, job, streams)
    chaining = Chaining(target.first_position, recorded)
    older = {stream: b"" for stream, (_, value) in recorded.items() if not is_linked(value)}
    before: Event | None = None
    for batch in target.read_streams(streams):
        chaining.add(Links.of(Held.of(batch)))
        for event in batch:
            if before and before.stream == event.stream:
                _check_order(before.global_position, event, chaining.found)
            before = event
        if older:
            _compare_first_forms(batch, recorded, older, chaining.found)
    return chaining.end(streams)


def _check_order(last: int, event: Event, found: Verification) -> None:
    """Find an event that stands before the one before it in its stream."""
    if event.global_position <= last:
        found.add(
            mismatch_at(
                event,
                kind="moved",
                expected=f"a global position after {last}",
                found=f"global position {event.global_position}",
            )
        )


def _compare_first_forms(
    batch: Sequence[Event],
    recorded: Mapping[str, tuple[int, bytes]],
    hashes: dict[str, bytes],
    found: Verification,
) -> None:
    """Carry `hashes` of the first form on, and compare them with what is recorded."""
    for event in batch:
        stream, position = event.stream, event.stream_position
        if stream in hashes:
            value = hashes[stream] = first_form(hashes[stream], event)
            old_position, old = recorded[stream]
            if position == old_position and value != old:
                found.add(unlike(stream, position, old, value))


def along(target: JobTarget, beside: JobTarget, job: Job, marks: Sequence[Batch]) -> Along | None:
    """What chains the hashes along with the comparison of these batches.

    None where the batches are not all that the target holds, where there are too many
    streams to keep, or where some are recorded in the first form.
    """
    whole = marks and marks[-1].target_until == job.target_position
    tiled = all(a.target_until == b.target_after for a, b in pairwise(marks))
    if not whole or not tiled or target.count(until=marks[0].target_after):
        return None
    with beside.reading() as connection:
        if ledger.hashed_streams(connection, job) > STREAMS_KEPT:
            return None
        recorded = ledger.all_hashes(connection, job)
    if not all(is_linked(value) for _, value in recorded.values()):
        return None
    return Along(target.first_position, recorded)


def record(beside: JobTarget, job: Job, hashes: Mapping[str, tuple[int, bytes]]) -> None:
    """Record hashes in the ledger, some in each transaction."""
    left = iter(hashes.items())
    while some := dict(islice(left, _AT_ONCE)):
        with beside.begin() as tx:
            ledger.store_hashes(tx.connection, job, some)


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
            events = target.read_stream(stream, first=position + 1)
            while batch := list(islice(events, _STREAM_PAGE)):
                if value and not is_linked(value):
                    for event in batch:
                        value = first_form(value, event)
                else:
                    for digest in digests(Held.of(batch)):
                        value = chained(value, digest)
                position = batch[-1].stream_position
            fresh[stream] = (position, value)
        with beside.begin() as tx:
            ledger.store_hashes(tx.connection, job, fresh)
    return len(names)
