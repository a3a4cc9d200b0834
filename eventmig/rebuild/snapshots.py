"""Rebuild snapshots beside the live ones, and switch over in one transaction.

    plan a generation ─▶ fold in global order (snapshots + checkpoint together)
        ─▶ compare a sample with full replays ─▶ the new generation is live

All generations live in one table, told apart by number; which is live is one
row of the bookkeeping. Killed anywhere, the same call goes on from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Engine

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, snapshot_rows
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.batching import BATCH_SIZE
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.hold import held
from eventmig.rebuild.progress import (
    DataUpcaster,
    Progress,
    RebuildResult,
    SourceTypes,
    Upcast,
)
from eventmig.rebuild.refresh import refresh
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.sharing import FoldHelpers
from eventmig.rebuild.snapshot_building import SnapshotBuilding
from eventmig.stores.base import EventReader

_KIND = Kind.AGGREGATE


def rebuild_snapshots(
    aggregates: Sequence[Aggregate[Any]],
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    release: str,
    source_types: SourceTypes | None = None,
    data_upcaster: DataUpcaster | None = None,
    upto: int | None = None,
    streams: Collection[str] | None = None,
    every: int | None = None,
    batch_size: int = BATCH_SIZE,
    max_states: int = 100_000,
    sample: int | None = 100,
    helpers: FoldHelpers | None = None,
    read_ahead: bool = False,
    progress: Progress | None = None,
) -> list[RebuildResult]:
    """Fold every stream of these aggregates anew; each has a snapshot at its head then.

    Reads `source` up to the global position `upto` (inclusive; None: its head now);
    writes `engine`'s database. With `every`, a snapshot is written after each so many
    handled events of a stream as well, for loading what was before. With `streams`,
    the snapshots of these alone are renewed, in place. `sample` streams
    per aggregate (None: all) are compared with a full replay before they go live.
    States are held in memory up to `max_states`; one that was put out is read back from its
    snapshot, which every batch brings to the last event folded. `helpers` read and upcast
    beside this process, which folds. The other parameters are those of `rebuild_read_models`.

    Raises `RebuildError` (a handler, a snapshot that does not lead to the state of a
    full replay; the live snapshots are as before), `JobLockedError`, `JobLostError`.
    """
    _distinct(aggregates)
    tell = progress or (lambda _: None)
    limit = source.head_position() if upto is None else upto
    results: list[RebuildResult] = []
    with held(engine, _KIND, {a.name for a in aggregates}), engine.connect() as connection:
        for aggregate in aggregates:
            if streams is not None:
                results.append(
                    refresh(
                        aggregate,
                        sorted(set(streams)),
                        connection=connection,
                        source=source,
                        upcast=upcast,
                        release=release,
                        tell=tell,
                    )
                )
                continue
            types = None if source_types is None else frozenset(source_types(aggregate.types))
            plan = Replay(
                source=source,
                upcast=upcast,
                types=types,
                upto=limit,
                batch_size=batch_size,
                max_rows=max_states,
                data_upcaster=data_upcaster,
                read_ahead=read_ahead,
            )
            building = SnapshotBuilding(aggregate, connection, plan, release, every, tell, helpers)
            results.append(building.run(sample))
    return results


def rollback_snapshots(names: Sequence[str], *, engine: Engine) -> dict[str, int]:
    """Bring back the generation before, of all these aggregates in one transaction.

    Returns each name's live generation. Raises `RebuildError` when one has no earlier
    generation. Writes `engine`'s database.
    """
    result: dict[str, int] = {}
    with held(engine, _KIND, names), engine.begin() as connection:
        for name in names:
            hold = bookkeeping.take(connection, _KIND, name)
            live = bookkeeping.generation(connection, _KIND, name, State.LIVE)
            kept = bookkeeping.generation(connection, _KIND, name, State.KEPT)
            if live is None or kept is None:
                raise RebuildError(
                    f"the aggregate {name} has no earlier generation of snapshots",
                    where=Where(path=name),
                    remedy="only the generation before the live one is kept; rebuild it",
                )
            bookkeeping.become(connection, hold, live.number, State.KEPT)
            bookkeeping.become(connection, hold, kept.number, State.LIVE)
            result[name] = kept.number
    return result


def drop_kept_snapshots(names: Sequence[str], *, engine: Engine) -> list[str]:
    """Delete the snapshots from before the last rebuild; returns who had some.

    Raises `JobLockedError` when one is being rebuilt. Writes `engine`'s database.
    """
    dropped: list[str] = []
    with held(engine, _KIND, names), engine.begin() as connection:
        for name in names:
            hold = bookkeeping.take(connection, _KIND, name)
            kept = bookkeeping.generation(connection, _KIND, name, State.KEPT)
            if kept is not None:
                snapshot_rows.discard(connection, name, kept.number)
                bookkeeping.remove(connection, hold, kept.number)
                dropped.append(name)
    return dropped


def _distinct(aggregates: Sequence[Aggregate[Any]]) -> None:
    names = [aggregate.name for aggregate in aggregates]
    for aggregate in aggregates:
        if names.count(aggregate.name) > 1:
            raise RebuildError(
                f"the aggregate {aggregate.name} is named twice",
                remedy="every aggregate has its own name",
            )
        if not aggregate.types:
            raise RebuildError(
                f"the aggregate {aggregate.name} folds no event type",
                remedy=f"declare handlers with @{aggregate.name}.on(…)",
            )
