"""Derivation: what the source yields now, event by event, compared with what the target holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from eventmig import codec
from eventmig.errors import CodecError, UpcastError
from eventmig.events import Event, Origin, part_id
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.verify.findings import Mismatch, Verification, mismatch_at, short
from eventmig.stores.base import (
    Capability,
    EventReader,
    JobTarget,
    SpellingTarget,
    TracingTarget,
)
from eventmig.transform import Pipeline, StreamCache


class Derivation:
    """Derives what each batch of a job must have become, and compares. Reads both sides.

    By the slow, obvious reading of the steps, not by the compiled one. `touched`, if given,
    collects the target streams that the batches compared so far wrote to.
    """

    def __init__(
        self,
        source: EventReader,
        target: JobTarget,
        pipeline: Pipeline,
        job: Job,
        *,
        touched: set[str] | None = None,
    ) -> None:
        self._touched = touched
        self._source = source
        self._target = target
        self._pipeline = pipeline
        self._keep_ids = source.id_scope() != target.id_scope()

        def read_stream(stream: str) -> list[Event]:
            events = source.read_stream(stream)
            return [e for e in events if e.global_position <= job.source_until]

        self._streams = StreamCache(pipeline, read_stream, walk=True)

    def check(self, mark: Batch) -> Verification:
        """Compare one recorded batch; in any order."""
        found = Verification()
        target = self._target
        read = _between(self._source, mark.source_after, mark.source_until)
        expected, untouched, traced = self._derived(read)
        if isinstance(target, SpellingTarget):
            expected = target.as_held(expected)
        if isinstance(target, TracingTarget):
            both = list(target.read_traced(after=mark.target_after, until=mark.target_until))
            held = [event for event, _ in both]
            wanted = {e.id: at for e, at in zip(expected, traced, strict=True)}
            for mismatch in _misplaced(both, wanted):
                found.add(mismatch)
        else:
            held = _between(target, mark.target_after, mark.target_until)
        if Capability.GLOBAL_ORDER not in target.capabilities:
            expected, untouched, held = _by_stream(expected, untouched, held)
        if self._touched is not None:
            self._touched.update([event.stream for event in held])
        found.source_events = len(read)
        found.target_events = len(held)
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
        if not _equal(expected, held, untouched):
            exact = {event.id for event, same in zip(expected, untouched, strict=True) if same}
            for mismatch in _differences(expected, held, exact, _Places(target, mark)):
                found.add(mismatch)
        return found

    def _derived(self, events: list[Event]) -> tuple[list[Event], list[bool], list[int]]:
        """The events; for each whether its data must be the very bytes of the source, and the
        global position of the last event it came from.
        """
        out: list[Event] = []
        untouched: list[bool] = []
        traced: list[int] = []
        pipeline = self._pipeline
        straight, renamed = pipeline.chains.walker.straight, pipeline.renamed
        one_by_one = not pipeline.renames_alone
        keep_ids, with_stream_steps = self._keep_ids, bool(pipeline.stream_steps)
        add, same, new = out.append, untouched.append, tuple.__new__
        for event in events:
            at, stream, position, id_, type_, version, data, metadata, recorded_at, _ = event
            way = None if one_by_one else straight((type_, version))
            if way is None or (with_stream_steps and pipeline.needs_stream(stream)):
                self._derive(event, out, untouched, traced)
                continue
            type_, version, new_data = way
            if new_data is not None:
                try:
                    data = new_data(event)
                except Exception:  # noqa: BLE001 - step by step it is found out
                    self._derive(event, out, untouched, traced)
                    continue
            same(new_data is None)
            traced.append(at)
            id_ = id_ if keep_ids else part_id(id_, 0)
            origins = (new(Origin, (stream, position, 0)),)
            to = renamed(stream)
            row = (0, to, 0, id_, type_, version, data, metadata, recorded_at, origins)
            add(new(Event, row))
        return out, untouched, traced

    def _derive(
        self, event: Event, out: list[Event], untouched: list[bool], traced: list[int]
    ) -> None:
        """Add what one event becomes, whatever the steps are; nothing where one refuses it."""
        try:
            if self._pipeline.needs_stream(event.stream):
                drafts, _ = self._streams.due(event)
            else:
                drafts = self._pipeline.chains.plain(event)
            streams = [self._pipeline.target_stream(d) for d in drafts]
        except UpcastError:
            return
        for stream, draft in zip(streams, drafts, strict=True):
            untouched.append(draft.data is draft.sources[0].data)
            traced.append(max(source.global_position for source in draft.sources))
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


def check_beyond(target: JobTarget, job: Job, found: Verification) -> None:
    """Find events after the job's last batch; for a target that nobody else may write yet."""
    for batch in target.read_all(after=job.target_position):
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


def _misplaced(held: list[tuple[Event, int]], wanted: dict[str, int]) -> Iterator[Mismatch]:
    """The events that do not name the place in the source that they came from."""
    for event, at in held:
        right = wanted.get(event.id, at)  # one that must not be there is found otherwise
        if at != right:
            yield mismatch_at(
                event,
                kind="differs",
                field="origin_global_position",
                expected=str(right),
                found=str(at),
            )


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


def _equal(expected: list[Event], held: list[Event], untouched: list[bool]) -> bool:
    """Everything but the positions, which part 1 and the order of part 2 prove.

    Column by column, and the data as they are spelled; only what is spelled otherwise, and
    was not to stay byte for byte, is compared by its values.
    """
    if not expected or not held:
        return not expected and not held
    ours, theirs = list(zip(*expected, strict=True)), list(zip(*held, strict=True))
    if any(ours[n] != theirs[n] for n in _PARTS):
        return False
    return ours[_DATA] == theirs[_DATA] or all(
        one == other or (not same and _canonical(one) == _canonical(other))
        for one, other, same in zip(ours[_DATA], theirs[_DATA], untouched, strict=True)
    )


_DATA = Event._fields.index("data")
_PARTS = [
    n
    for n, name in enumerate(Event._fields)
    if name not in ("global_position", "stream_position", "data")
]


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
            yield mismatch_at(event, kind="unexpected", found=_name(event))
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
            yield mismatch_at(
                found, kind="moved", found=f"place {n}", expected=f"a place after {last}"
            )
        last = max(last, n)
        for name in _FIELDS:
            ours, theirs = getattr(event, name), getattr(found, name)
            if name == "data" and ours != theirs and event.id not in exact:
                ours, theirs = _canonical(ours), _canonical(theirs)
            if ours != theirs:
                yield mismatch_at(
                    found, kind="differs", field=name, expected=short(ours), found=short(theirs)
                )


def _name(event: Event) -> str:
    origin = event.origins[0] if event.origins else None
    source = f", from {origin.stream} at {origin.stream_position}" if origin else ""
    return f"{event.type} v{event.schema_version}{source}"
