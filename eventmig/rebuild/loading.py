"""Load an aggregate: its snapshot and the events after it, or all events.

A snapshot is used only when it is surely of this making: the fingerprint of
state schema, fold and release, the source it was folded from, and the very event
it stands at must all be as they were. Otherwise it counts as absent, and the
caller is told. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from eventmig.errors import RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.progress import Upcast
from eventmig.rebuild.snapshot_rows import Snapshot, live_snapshot, read_heads, sample_of
from eventmig.stores.base import EventReader

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Generic[S]):
    """An aggregate's state after the event at `stream_position`.

    `state` is None before the first event (then `stream_position` is one less than
    the store's first). `events_replayed` counts stored events read after the
    snapshot, or all. `stale` says why a snapshot that was there was not used.
    """

    state: S | None
    stream_position: int
    from_snapshot: bool
    events_replayed: int
    stale: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMismatch:
    """A stream whose snapshot does not lead to the state that a full replay gives."""

    stream: str
    stream_position: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotComparison:
    """What comparing one aggregate's snapshots with full replays gave.

    `checked` streams, of which `stale` had a snapshot that is not used.
    """

    aggregate: str
    checked: int
    stale: int
    mismatches: tuple[SnapshotMismatch, ...]


def load(
    aggregate: Aggregate[S],
    stream: str,
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    release: str,
    upto: int | None = None,
) -> Loaded[S]:
    """The state of one stream, from its snapshot and the events after it.

    `upto` is a stream position, inclusive (None: the head). Reads `source` and
    `engine`'s database. Raises `RebuildError` when a handler raises, or the stream is
    not of the aggregate's category.
    """
    check_streams(aggregate, [stream])
    with engine.connect() as connection:
        snapshot = live_snapshot(connection, aggregate.name, stream, upto)
    stale = None
    if snapshot is not None:
        stale = _stale(snapshot, aggregate.fingerprint(release), source)
        if stale is None:
            events = list(source.read_stream(stream, first=snapshot.stream_position, last=upto))
            stale = _misplaced(snapshot, events)
            if stale is None:
                return _replayed(aggregate, snapshot, events[1:], upcast)
    events = list(source.read_stream(stream, last=upto))
    return Loaded(
        state=aggregate.fold(upcast(events)),
        stream_position=events[-1].stream_position if events else source.first_position - 1,
        from_snapshot=False,
        events_replayed=len(events),
        stale=stale,
    )


def compare_snapshots(
    aggregates: Sequence[Aggregate[Any]],
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    release: str,
    sample: int | None = 100,
) -> list[SnapshotComparison]:
    """Compare loading by the live snapshots with full replays (reads only).

    `sample` streams per aggregate, evenly spread over their names; None: all.
    """
    found: list[SnapshotComparison] = []
    with engine.connect() as connection:
        known = bookkeeping.is_there(connection)
        for aggregate in aggregates:
            name = aggregate.name
            live = (
                bookkeeping.generation(connection, Kind.AGGREGATE, name, State.LIVE)
                if known
                else None
            )
            if live is None:
                raise RebuildError(
                    f"the aggregate {name} has no snapshots",
                    where=Where(path=name),
                    remedy="rebuild them first",
                )
            found.append(
                compare_generation(
                    aggregate,
                    connection,
                    live.number,
                    source=source,
                    upcast=upcast,
                    fingerprint=aggregate.fingerprint(release),
                    sample=sample,
                    from_here=live.source == source.identity(),
                    unused_is_stale=True,
                )
            )
    return found


def compare_generation(
    aggregate: Aggregate[Any],
    connection: Connection,
    generation: int,
    *,
    source: EventReader,
    upcast: Upcast,
    fingerprint: str,
    sample: int | None,
    from_here: bool = True,
    unused_is_stale: bool = False,
) -> SnapshotComparison:
    """Compare the snapshots of one generation with full replays (reads only).

    `from_here`: they were folded from this source. One whose event is elsewhere by now is a
    mismatch; with `unused_is_stale` it is stale, for `load` does not use it.
    """
    streams = sample_of(connection, aggregate.name, generation, sample)
    stale = 0
    mismatches: list[SnapshotMismatch] = []
    for snapshot in read_heads(connection, aggregate.name, generation, streams):
        if snapshot.fingerprint != fingerprint or not from_here:
            stale += 1
            continue
        events = list(source.read_stream(snapshot.stream))
        after = [event for event in events if event.stream_position >= snapshot.stream_position]
        reason = _misplaced(snapshot, after)
        if reason is not None and unused_is_stale:
            stale += 1
            continue
        if reason is None:
            reason = _differs(aggregate, snapshot, events, after[1:], upcast)
        if reason is not None:
            mismatches.append(
                SnapshotMismatch(
                    stream=snapshot.stream,
                    stream_position=snapshot.stream_position,
                    reason=reason,
                )
            )
    return SnapshotComparison(
        aggregate=aggregate.name,
        checked=len(streams),
        stale=stale,
        mismatches=tuple(mismatches),
    )


def check_streams(aggregate: Aggregate[Any], streams: Sequence[str]) -> None:
    """Raises `RebuildError` for a stream that is not of the aggregate's category."""
    for stream in streams:
        if not aggregate.covers(stream):
            raise RebuildError(
                f"the stream {stream} is not of the category {aggregate.category}",
                where=Where(stream=stream),
                remedy=f"{aggregate.name} is the state of streams called {aggregate.category}-…",
            )


def _differs(
    aggregate: Aggregate[Any],
    snapshot: Snapshot,
    events: list[Event],
    after: list[Event],
    upcast: Upcast,
) -> str | None:
    full = aggregate.fold(upcast(events))
    loaded = _replayed(aggregate, snapshot, after, upcast).state
    if full == loaded:
        return None
    wanted, got = aggregate.encode(full), aggregate.encode(loaded)
    if wanted == got:
        return None
    return f"a full replay gives {_short(wanted)}, the snapshot {_short(got)}"


def _replayed(
    aggregate: Aggregate[S], snapshot: Snapshot, events: list[Event], upcast: Upcast
) -> Loaded[S]:
    return Loaded(
        state=aggregate.fold(upcast(events), aggregate.decode(snapshot.state)),
        stream_position=events[-1].stream_position if events else snapshot.stream_position,
        from_snapshot=True,
        events_replayed=len(events),
    )


def _stale(snapshot: Snapshot, fingerprint: str, source: EventReader) -> str | None:
    if snapshot.fingerprint != fingerprint:
        return "its state, fold or release is another"
    if snapshot.source != source.identity():
        return "it was folded from another source"
    return None


def _misplaced(snapshot: Snapshot, events: list[Event]) -> str | None:
    """Whether the first of `events` is not the one the snapshot stands at."""
    at = (snapshot.stream_position, snapshot.event_id)
    if not events or (events[0].stream_position, events[0].id) != at:
        return f"the event it stands at ({snapshot.event_id}) is not at its position any more"
    return None


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"
