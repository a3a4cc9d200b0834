"""Derivation: what the source yields now, column by column, compared with what the target holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eventmig import codec
from eventmig.errors import UpcastError
from eventmig.events import Columns, Event, Held, part_id
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.verify.chaining import Links
from eventmig.migrate.verify.comparison import (
    Places,
    by_stream,
    differences,
    equal,
    misplaced,
)
from eventmig.migrate.verify.findings import Mismatch, Verification
from eventmig.stores.base import Capability, EventReader, JobTarget
from eventmig.stores.faster import HeldReader, SpellingTarget, TracingTarget
from eventmig.transform import Pipeline, StreamCache
from eventmig.walk import Straight


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What comparing some batches came to, and the links of their events, where asked for."""

    found: Verification
    links: list[Links]


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

    def compare(self, marks: Iterable[Batch], *, linking: bool) -> Compared:
        """Compare recorded batches; `linking` makes links of what is held of them."""
        found, links = Verification(), list[Links]()
        for mark in marks:
            part = self._compare(mark, linking)
            found.include(part.found)
            links += part.links
        return Compared(found=found, links=links)

    def check(self, mark: Batch) -> Verification:
        """Compare one recorded batch; in any order."""
        return self._compare(mark, linking=False).found

    def _compare(self, mark: Batch, linking: bool) -> Compared:
        found = Verification()
        target = self._target
        read = _between(self._source, mark.source_after, mark.source_until)
        expected, exact = self._derived(read)
        if isinstance(target, SpellingTarget):
            expected = _as_held(target, expected)
        if isinstance(target, TracingTarget):
            both = list(target.read_traced(after=mark.target_after, until=mark.target_until))
            held = Held.of([event for event, _ in both])
            wanted = dict(zip(expected.ids, expected.origin_globals, strict=True))
            for mismatch in misplaced(both, wanted):
                found.add(mismatch)
        else:
            held = _between(target, mark.target_after, mark.target_until)
        links = [Links.of(held)] if linking else []
        found.source_events = len(read.global_positions)
        found.target_events = len(held.global_positions)
        if found.source_events != mark.tally.read:
            found.add(
                Mismatch(
                    kind="count",
                    global_position=mark.source_until,
                    expected=f"{mark.tally.read} source events after {mark.source_after} and up "
                    f"to {mark.source_until}, as when they were read",
                    found=f"{found.source_events} events",
                )
            )
        if self._touched is not None:
            self._touched.update(held.columns.streams)
        there = held.columns
        if Capability.GLOBAL_ORDER not in target.capabilities:
            expected, exact, there = by_stream(expected, exact, there)
        if not equal(expected, there, exact):
            bytewise = {id_ for id_, same in zip(expected.ids, exact, strict=True) if same}
            wanted_events = expected.events([0] * len(expected.ids))
            events = held.events()
            if there is not held.columns:
                events.sort(key=lambda event: event.stream)
            for mismatch in differences(wanted_events, events, bytewise, Places(target, mark)):
                found.add(mismatch)
        return Compared(found=found, links=links)

    def _derived(self, read: Held) -> tuple[Columns, list[bool]]:
        """The events, with the source's global positions; for each whether its data must be the
        very bytes of the source.
        """
        pipeline, source = self._pipeline, read.columns
        kinds = list(zip(source.types, source.schema_versions, strict=True))
        ways = {kind: pipeline.chains.walker.straight(kind) for kind in set(kinds)}
        if not pipeline.renames_alone:
            ways = dict.fromkeys(ways)
        odd = self._not_straight(source.streams, kinds, ways)
        data = list(source.data)
        for kind, way in ways.items():
            if way is not None and way.new_data is not None:
                of_kind = [n for n, one in enumerate(kinds) if one == kind]
                for start in range(0, len(of_kind), codec.AT_ONCE):
                    odd |= _renew(way, read, of_kind[start : start + codec.AT_ONCE], data)
        ends = {
            kind: kind if way is None else (way.type, way.schema_version)
            for kind, way in ways.items()
        }
        names = {stream: pipeline.renamed(stream) for stream in set(source.streams)}
        straight = Columns(
            [names[stream] for stream in source.streams],
            source.ids if self._keep_ids else [part_id(id_, 0) for id_ in source.ids],
            [ends[kind][0] for kind in kinds],
            [ends[kind][1] for kind in kinds],
            data,
            source.metadata,
            source.recorded_at,
            source.streams,
            list(read.stream_positions),
            [0] * len(kinds),
            read.global_positions,
            {},
        )
        stays = {kind: way is not None and way.new_data is None for kind, way in ways.items()}
        exact = [stays[kind] for kind in kinds]
        if not odd:
            return straight, exact
        out, out_exact, start = Columns.of(()), list[bool](), 0
        for n in sorted(odd):
            out.extend(straight, start, n)
            out_exact += exact[start:n]
            self._derive(read.event(n), out, out_exact)
            start = n + 1
        out.extend(straight, start, len(kinds))
        return out, out_exact + exact[start:]

    def _not_straight(
        self,
        streams: Sequence[str],
        kinds: Sequence[tuple[str, int]],
        ways: dict[tuple[str, int], Straight | None],
    ) -> set[int]:
        """The places of the events whose steps are not just taken one after the other."""
        odd: set[int] = set()
        if None in ways.values():
            odd.update(n for n, kind in enumerate(kinds) if ways[kind] is None)
        if self._pipeline.stream_steps:
            needy = {stream for stream in set(streams) if self._pipeline.needs_stream(stream)}
            odd.update(n for n, stream in enumerate(streams) if stream in needy)
        return odd

    def _derive(self, event: Event, out: Columns, exact: list[bool]) -> None:
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
            exact.append(draft.data is draft.sources[0].data)
            id_ = draft.id(keep_source_id=self._keep_ids)
            place = (0, stream, 0, id_, draft.type, draft.schema_version)
            rest = (draft.data, draft.metadata, draft.recorded_at, draft.origins())
            out.add(Event(*place, *rest), draft.origin_global)


def _renew(way: Straight, read: Held, places: list[int], data: list[bytes]) -> set[int]:
    """Put the new data at these places; returns those where it takes looking step by step."""
    old = read.columns.data
    try:
        if way.many is not None:
            for n, new in zip(places, way.many([old[n] for n in places]), strict=True):
                data[n] = new
            return set()
    except Exception:  # noqa: BLE001 - one by one it is found out which
        pass
    assert way.new_data is not None
    odd: set[int] = set()
    for n in places:
        try:
            data[n] = way.new_data(read.event(n))
        except Exception:  # noqa: BLE001 - step by step it is found out
            odd.add(n)
    return odd


def _as_held(target: SpellingTarget, columns: Columns) -> Columns:
    events = target.as_held(columns.events([0] * len(columns.ids)))
    return columns._replace(
        data=[event.data for event in events], metadata=[event.metadata for event in events]
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


def _between(store: EventReader, after: int, until: int) -> Held:
    """What a store holds after one global position, and up to another."""
    if not isinstance(store, HeldReader):
        return Held.of([e for batch in store.read_all(after=after, until=until) for e in batch])
    whole, *rest = list(store.read_held(after=after, until=until)) or [Held.of(())]
    for page in rest:
        whole.extend(page)
    return whole
