"""Verification: is the target what the source and the registry say it must be?

It does not trust the copier. It reads both sides back; it derives the target anew by
the slow, obvious reading of the steps (`Chains.walk`), not the compiled one; it counts
stream positions itself. Three parts:

1. heads: the target's streams have no holes, its events are as many as the accounting
   says, and the recorded batches tile both sides without gap or overlap;
2. derivation: batch by batch, what the source yields now, compared with what the
   target holds: stream, position, id, type, version, data (canonical), metadata, time,
   origins, in order;
3. hashes: a hash chained per stream over what was found right, recorded in the ledger;
   a later verification recomputes it and finds any change since.

Reads only, but for the hashes, which go into the ledger when everything was right.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from eventmig import codec
from eventmig.errors import CodecError, UpcastError
from eventmig.events import Event
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.tally import Tally
from eventmig.stores.base import Capability, EventReader, JobTarget, SpellingTarget
from eventmig.transform import Pipeline, StreamCache

SHOWN = 20
_HASH_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that is not as it must be, and where in the target.

    `kind` is one of: missing, unexpected, moved, differs, hole, count, tiling, hash.
    `field` names the part of the event that differs.
    """

    kind: str
    stream: str = ""
    stream_position: int | None = None
    global_position: int | None = None
    field: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        place = f"{self.stream} at {self.stream_position}" if self.stream else "the target"
        if self.kind == "differs":
            return f"{place}: {self.field} is {self.found}, must be {self.expected}"
        if self.kind in ("missing", "unexpected", "moved"):
            what = {
                "missing": f"is missing ({self.expected})",
                "unexpected": f"must not be there ({self.found})",
                "moved": f"stands in another order ({self.found}, must be {self.expected})",
            }[self.kind]
            return f"{place}: the event {what}"
        return f"{place}: {self.kind}: {self.found}, must be {self.expected}"


@dataclass(slots=True, kw_only=True)
class Verification:
    """What a verification found. `mismatches` are counted; the first are kept in `shown`."""

    source_events: int = 0
    target_events: int = 0
    streams_hashed: int = 0
    mismatches: int = 0
    shown: list[Mismatch] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing was found wrong."""
        return self.mismatches == 0

    def add(self, mismatch: Mismatch) -> None:
        """Count a mismatch, and keep it if it is among the first."""
        self.mismatches += 1
        if len(self.shown) < SHOWN:
            self.shown.append(mismatch)


OnVerified = Callable[[int, int], None]
"""Called with (target events compared, target events in all)."""


def verify_job(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    *,
    derive: bool = True,
    on_progress: OnVerified | None = None,
) -> Verification:
    """Verify a job's target, by all three parts; without `derive`, heads and hashes only.

    Hashes are recorded only when everything else was right.
    """
    report = on_progress or (lambda done, total: None)
    found = Verification()
    with target.reading() as connection:
        marks = list(ledger.batches(connection, job))
    _check_heads(target, job, marks, found)
    if derive:
        _check_derivation(source, target, pipeline, job, marks, found, report)
    _check_hashes(target, job, found, record=derive)
    return found


# 1. heads ----------------------------------------------------------------------------------


def _check_heads(target: JobTarget, job: Job, marks: list[Batch], found: Verification) -> None:
    for damage in target.preflight():
        where = damage.where
        found.add(
            Mismatch(
                kind="hole",
                stream=where.stream or "",
                stream_position=where.stream_position,
                expected="positions without holes or repeats",
                found=damage.what,
            )
        )
    written = target.count()
    if written != job.tally.written:
        found.add(
            Mismatch(
                kind="count", expected=f"{job.tally.written} events", found=f"{written} events"
            )
        )
    for before, after in itertools.pairwise(marks):
        whole = before.source_until == after.source_after
        if not whole or before.target_until != after.target_after:
            found.add(
                Mismatch(
                    kind="tiling",
                    expected=f"batch {after.number} to begin where batch {before.number} ended",
                    found=f"source {before.source_until} and {after.source_after}, "
                    f"target {before.target_until} and {after.target_after}",
                )
            )
    recorded = sum((mark.tally for mark in marks), Tally())
    if recorded != job.tally:
        found.add(
            Mismatch(
                kind="count",
                expected=f"{job.tally.read} events read and {job.tally.written} written",
                found=f"{recorded.read} and {recorded.written} in the recorded batches",
            )
        )


# 2. derivation -----------------------------------------------------------------------------


def _check_derivation(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    marks: list[Batch],
    found: Verification,
    report: OnVerified,
) -> None:
    derive = _Derivation(source, target, pipeline, job)
    for mark in marks:
        read = _between(source, mark.source_after, mark.source_until)
        expected, untouched = derive.batch(read)
        if isinstance(target, SpellingTarget):
            expected = target.as_held(expected)
        held = _between(target, mark.target_after, mark.target_until)
        if Capability.GLOBAL_ORDER not in target.capabilities:
            expected, untouched, held = _by_stream(expected, untouched, held)
        found.source_events += len(read)
        found.target_events += len(held)
        if len(read) != mark.tally.read:
            found.add(
                Mismatch(
                    kind="count",
                    global_position=mark.source_until,
                    expected=f"{mark.tally.read} source events after {mark.source_after} and up "
                    f"to {mark.source_until}, as when they were read",
                    found=f"{len(read)} events",
                )
            )
        if len(expected) != len(held) or not all(map(_equal, expected, held, untouched)):
            exact = {event.id for event, same in zip(expected, untouched, strict=True) if same}
            for mismatch in _differences(expected, held, exact, _Places(target, mark)):
                found.add(mismatch)
        report(found.target_events, job.tally.written)
    first = marks[0].target_after if marks else 0
    last = marks[-1].target_until if marks else 0
    for batch in target.read_all(after=max(last, first)):
        for event in batch:
            found.add(
                Mismatch(
                    kind="unexpected",
                    stream=event.stream,
                    stream_position=event.stream_position,
                    global_position=event.global_position,
                    found=f"{event.type}, after the job's last batch",
                )
            )


class _Derivation:
    """Derives what a batch of source events must have become, but for the places."""

    def __init__(
        self, source: EventReader, target: JobTarget, pipeline: Pipeline, job: Job
    ) -> None:
        self._pipeline = pipeline
        self._keep_ids = source.id_scope() != target.id_scope()

        def read_stream(stream: str) -> list[Event]:
            events = source.read_stream(stream)
            return [e for e in events if e.global_position <= job.source_until]

        self._streams = StreamCache(pipeline, read_stream, walk=True)

    def batch(self, events: list[Event]) -> tuple[list[Event], list[bool]]:
        """The events, and for each whether its data must be the very bytes of the source."""
        out: list[Event] = []
        untouched: list[bool] = []
        for event in events:
            try:
                if self._pipeline.needs_stream(event.stream):
                    drafts, _ = self._streams.due(event)
                else:
                    drafts = self._pipeline.chains.plain(event)
                streams = [self._pipeline.target_stream(d) for d in drafts]
            except UpcastError:
                continue
            for stream, draft in zip(streams, drafts, strict=True):
                untouched.append(draft.data is draft.sources[0].data)
                out.append(
                    Event(
                        0,
                        stream,
                        0,
                        draft.id(keep_source_id=self._keep_ids),
                        draft.type,
                        draft.schema_version,
                        draft.data,
                        draft.metadata,
                        draft.recorded_at,
                        draft.origins(),
                    )
                )
        return out, untouched


def _by_stream(
    expected: list[Event], untouched: list[bool], held: list[Event]
) -> tuple[list[Event], list[bool], list[Event]]:
    """The same stream by stream, for a target that keeps no order over streams."""
    order = sorted(range(len(expected)), key=lambda n: expected[n].stream)
    return (
        [expected[n] for n in order],
        [untouched[n] for n in order],
        sorted(held, key=lambda event: event.stream),
    )


def _between(store: EventReader, after: int, until: int) -> list[Event]:
    return [e for batch in store.read_all(after=after, until=until) for e in batch]


def _equal(expected: Event, held: Event, untouched: bool) -> bool:
    """Everything but the positions, which part 1 and the order of part 2 prove."""
    if expected.data != held.data and (
        untouched or _canonical(expected.data) != _canonical(held.data)
    ):
        return False
    return (
        expected.id == held.id
        and expected.stream == held.stream
        and expected.type == held.type
        and expected.schema_version == held.schema_version
        and expected.metadata == held.metadata
        and expected.recorded_at == held.recorded_at
        and expected.origins == held.origins
    )


def _canonical(data: bytes) -> bytes:
    try:
        return codec.canonical(codec.decode_strict(data))
    except CodecError:
        return data


_FIELDS = ("stream", "type", "schema_version", "data", "metadata", "recorded_at", "origins")


class _Places:
    """The stream positions that a batch's events must have, counted when first asked for."""

    def __init__(self, target: JobTarget, mark: Batch) -> None:
        self._target = target
        self._mark = mark
        self._before: dict[str, int] = {}

    def first(self, stream: str) -> int:
        """The position of the batch's first event in this stream."""
        if stream not in self._before:
            last = self._target.first_position - 1
            for event in self._target.read_stream(stream):
                if event.global_position > self._mark.target_after:
                    break
                last = event.stream_position
            self._before[stream] = last
        return self._before[stream] + 1


def _differences(
    expected: list[Event], held: list[Event], exact: set[str], places: _Places
) -> Iterator[Mismatch]:
    """Every difference between two lists of events, matched by id.

    The data of those in `exact` must be equal byte for byte.
    """
    at: dict[str, int] = {}
    wanted = {event.id for event in expected}
    for number, event in enumerate(held):
        if event.id not in wanted or event.id in at:
            yield _at(event, kind="unexpected", found=_name(event))
        at.setdefault(event.id, number)
    last = -1
    counted: Counter[str] = Counter()
    for event in expected:
        index = counted[event.stream]
        counted[event.stream] += 1
        n = at.get(event.id)
        if n is None:
            yield Mismatch(
                kind="missing",
                stream=event.stream,
                stream_position=places.first(event.stream) + index,
                expected=_name(event),
            )
            continue
        found = held[n]
        if n < last:
            yield _at(found, kind="moved", found=f"place {n}", expected=f"a place after {last}")
        last = max(last, n)
        for name in _FIELDS:
            ours, theirs = getattr(event, name), getattr(found, name)
            if name == "data" and ours != theirs and event.id not in exact:
                ours, theirs = _canonical(ours), _canonical(theirs)
            if ours != theirs:
                yield _at(
                    found, kind="differs", field=name, expected=_short(ours), found=_short(theirs)
                )


def _name(event: Event) -> str:
    origin = event.origins[0] if event.origins else None
    source = f", from {origin.stream} at {origin.stream_position}" if origin else ""
    return f"{event.type} v{event.schema_version}{source}"


def _at(
    event: Event, *, kind: str, field: str = "", expected: str = "", found: str = ""
) -> Mismatch:
    return Mismatch(
        kind=kind,
        stream=event.stream,
        stream_position=event.stream_position,
        global_position=event.global_position,
        field=field,
        expected=expected,
        found=found,
    )


def _short(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 120 else text[:117] + "…"


# 3. hashes ---------------------------------------------------------------------------------


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


def _check_hashes(target: JobTarget, job: Job, found: Verification, *, record: bool) -> None:
    """Compare every recorded stream hash; record the present ones if all was right."""
    fresh: dict[str, tuple[int, bytes]] = {}
    right = found.right
    known = 0
    with target.reading() as connection:
        recorded = ledger.hashed_streams(connection, job)
    for head in target.heads():
        fresh[head.stream] = (0, b"")
        if len(fresh) >= _HASH_ROWS:
            known += _compare_hashes(target, job, fresh, found, record=record and right)
            fresh = {}
    known += _compare_hashes(target, job, fresh, found, record=record and right)
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


def _vanished(target: JobTarget, job: Job) -> Iterator[tuple[str, int]]:
    """Streams with a recorded hash that the target has no more."""
    with target.reading() as connection:
        for names in ledger.hashed_names(connection, job):
            there = {head.stream for head in target.heads(list(names))}
            yield from ((name, names[name]) for name in names if name not in there)


def _compare_hashes(
    target: JobTarget,
    job: Job,
    streams: dict[str, tuple[int, bytes]],
    found: Verification,
    *,
    record: bool,
) -> int:
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
                    _at(
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
    found.streams_hashed += len(fresh)
    if record and found.right and fresh:
        with target.begin() as tx:
            ledger.store_hashes(tx.connection, job, fresh)
    return len(recorded)
