"""Renew the snapshots of named streams, in place.

No shadow is needed: a stream's snapshots are replaced in one transaction, and a
reader finds the old or the new, either of which it checks before use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, snapshot_rows
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.loading import check_streams
from eventmig.rebuild.progress import Phase, Progress, RebuildProgress, RebuildResult, Upcast
from eventmig.rebuild.snapshot_rows import HEAD, SnapshotWriter
from eventmig.stores.base import EventReader

_STREAMS_AT_ONCE = 500


def refresh(
    aggregate: Aggregate[Any],
    streams: Sequence[str],
    *,
    connection: Connection,
    source: EventReader,
    upcast: Upcast,
    release: str,
    tell: Progress,
) -> RebuildResult:
    """Fold these streams anew and replace their snapshots; periodic ones go.

    Raises `RebuildError` for a stream of another category, and when there is no live
    generation folded from this source.
    """
    check_streams(aggregate, streams)
    name = aggregate.name
    with connection.begin():
        hold = bookkeeping.take(connection, Kind.AGGREGATE, name)
        live = bookkeeping.generation(connection, Kind.AGGREGATE, name, State.LIVE)
    if live is None or live.source != source.identity():
        raise RebuildError(
            f"the aggregate {name} has no snapshots of this source",
            where=Where(path=name),
            remedy="rebuild all of them first, without naming streams",
        )
    expected = sum(head.count for head in source.heads(streams))
    fingerprint = aggregate.fingerprint(release)
    writer = SnapshotWriter(name, live.number, fingerprint, connection.dialect)
    read = folded = written = stale = 0
    for start in range(0, len(streams), _STREAMS_AT_ONCE):
        chunk = streams[start : start + _STREAMS_AT_ONCE]
        rows: list[tuple[Any, ...]] = []
        for stream in chunk:
            stored = list(source.read_stream(stream))
            if not stored:
                continue
            events = [event for event in upcast(stored) if event.type in aggregate.types]
            if aggregate.category is None and not events:
                continue
            state = aggregate.encode(aggregate.fold(events))
            last = stored[-1]
            rows.append(writer.row(stream, HEAD, last.stream_position, last.id, len(events), state))
            read += len(stored)
            folded += len(events)
        with connection.begin():
            hold.fence(connection)
            stale += snapshot_rows.count_others(connection, name, live.number, fingerprint, chunk)
            snapshot_rows.discard(connection, name, live.number, chunk)
            writer.write(connection, rows)
        written += len(rows)
        done = start + len(chunk) >= len(streams)
        tell(
            RebuildProgress(
                name=name,
                phase=Phase.SWAPPED if done else Phase.REPLAYING,
                generation=live.number,
                position=live.position,
                upto=live.position,
                events_read=read,
                events_expected=expected,
            )
        )
    return RebuildResult(
        name=name,
        generation=live.number,
        kept=None,
        position=live.position,
        events_read=read,
        events_folded=folded,
        rows={bookkeeping.snapshots.name: written},
        stale=stale,
    )
