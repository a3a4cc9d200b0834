"""Snapshots handed over to the library that owns a store's tables, in its own form.

    live generation ─▶ chunks of streams ─▶ the owner's table (each chunk in one transaction)

A stream's old snapshots go in the transaction that brings its new ones. Killed in between,
the rebuild done again ends it; what is there meanwhile is right, stream by stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Engine

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, snapshot_rows
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.loading import SnapshotComparison, SnapshotMismatch
from eventmig.rebuild.owners import EventsourcingAggregate
from eventmig.rebuild.progress import Upcast
from eventmig.stores.base import EventReader
from eventmig.stores.owned import OwnerSnapshot, OwnerSnapshots

_STREAMS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """The snapshots of one aggregate in the table of a store's owner.

    `written` are there now, of `streams` streams; `replaced` older ones went. `table` is empty
    where there were none to write.
    """

    name: str
    table: str
    streams: int
    written: int
    replaced: int


def hand_over(
    aggregate: Aggregate[Any],
    owner: EventsourcingAggregate,
    target: OwnerSnapshots,
    *,
    identity: str,
    engine: Engine,
    streams: Collection[str] | None = None,
) -> HandedOver:
    """Write an aggregate's live snapshots (of these streams; None: all) into the owner's table.

    `identity` is the store's. Reads `engine`'s database, writes `target`, which the caller
    holds. Raises `RebuildError` where the live snapshots are of another store, and what
    `OwnerSnapshots.replace_snapshots` raises.
    """
    with engine.connect() as connection:
        live = bookkeeping.generation(connection, Kind.AGGREGATE, aggregate.name, State.LIVE)
    if live is None or live.source != identity:
        raise RebuildError(
            f"the live snapshots of {aggregate.name} were folded from another store",
            where=Where(path=aggregate.name),
            remedy="rebuild them from this one",
        )
    table, many, written, replaced = "", 0, 0, 0
    for names in _chunks(engine, aggregate.name, live.number, streams):
        with engine.connect() as connection:  # closed before the owner's table is written
            found = list(snapshot_rows.of_streams(connection, aggregate.name, live.number, names))
        made = [
            _for_owner(aggregate, owner, one.stream, one.stream_position, one.event_id, one.state)
            for one in found
            if one.state != "null"
        ]
        own = {one.stream for one in found}  # a stream that was named may be another's
        if not own:
            continue
        table, gone = target.replace_snapshots(own, made)
        many += len({one.stream for one in made})
        written += len(made)
        replaced += gone
    return HandedOver(
        name=aggregate.name, table=table, streams=many, written=written, replaced=replaced
    )


def compare_handed_over(
    aggregate: Aggregate[Any],
    owner: EventsourcingAggregate,
    store: OwnerSnapshots,
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    sample: int | None,
) -> SnapshotComparison:
    """Compare the owner's snapshots with full replays, up to where each stands (reads only).

    Of `sample` streams of the aggregate's live generation (None: all). `source` is the store.
    All that are not as they would be written are mismatches, for the library uses them.
    """
    with engine.connect() as connection:
        live = bookkeeping.generation(connection, Kind.AGGREGATE, aggregate.name, State.LIVE)
        number = 0 if live is None else live.number
        streams = snapshot_rows.sample_of(connection, aggregate.name, number, sample)
    checked, wrong = 0, []
    for at in range(0, len(streams), _STREAMS_AT_ONCE):
        wanted = []
        for stream, places in groupby(
            store.snapshot_places(streams[at : at + _STREAMS_AT_ONCE]), key=itemgetter(0)
        ):
            events = list(source.read_stream(stream))
            for _, position in places:
                checked += 1
                until = [event for event in events if event.stream_position <= position]
                if not until or until[-1].stream_position != position:
                    wrong.append((stream, position, "it stands where no event is"))
                    continue
                state = aggregate.encode(aggregate.fold(upcast(until)))
                id_ = until[-1].id
                wanted.append(_for_owner(aggregate, owner, stream, position, id_, state))
        wrong += store.unlike_snapshots(wanted)
    return SnapshotComparison(
        aggregate=aggregate.name,
        checked=checked,
        stale=0,
        mismatches=tuple(
            SnapshotMismatch(stream=stream, stream_position=position, reason=reason)
            for stream, position, reason in wrong
        ),
    )


def _chunks(
    engine: Engine, name: str, generation: int, streams: Collection[str] | None
) -> Iterator[list[str]]:
    if streams is not None:
        every = sorted(set(streams))
        for at in range(0, len(every), _STREAMS_AT_ONCE):
            yield every[at : at + _STREAMS_AT_ONCE]
        return
    after = ""
    while True:
        with engine.connect() as connection:
            found = snapshot_rows.names_after(connection, name, generation, after, _STREAMS_AT_ONCE)
        if not found:
            return
        yield found
        after = found[-1]


def _for_owner(
    aggregate: Aggregate[Any],
    owner: EventsourcingAggregate,
    stream: str,
    position: int,
    event_id: str,
    state: str,
) -> OwnerSnapshot:
    return OwnerSnapshot(
        stream=stream,
        stream_position=position,
        event_id=event_id,
        topic=owner.topic,
        class_version=owner.class_version,
        kind=owner.kind,
        state=aggregate.members(state),
    )
