"""Snapshots for the library that owns a store's tables: what a rebuild writes there, or why not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from eventmig.project import Project, opened, public
from eventmig.rebuild import Aggregate
from eventmig.rebuild.handing_over import HandedOver, hand_over
from eventmig.rebuild.owners import EventsourcingAggregate
from eventmig.stores.base import EventReader
from eventmig.stores.owned import OwnerSnapshots


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnersSnapshots:
    """What became of the owner's own snapshots in `store`.

    `astray` stood where no event is, and were deleted. `why_not` says of each aggregate that
    is not in `written` why nothing was written for it, and of other snapshots what they are.
    """

    store: str
    written: tuple[HandedOver, ...] = ()
    astray: int = 0
    why_not: tuple[str, ...] = ()


def hand_over_snapshots(
    project: Project,
    aggregates: Sequence[tuple[Aggregate[Any], Collection[str] | None]],
    *,
    store: EventReader,
    url: str,
    engine: Engine,
) -> OwnersSnapshots | None:
    """Write rebuilt snapshots (of these streams; None: all) in the form of the store's owner.

    `store` is that of `url`, opened for reading.

    Only into a store whose events a job of eventmig made: a source's are its owner's alone.
    None where the store is nobody else's and no aggregate names an owner. Raises
    `JobLockedError` while a job works on the store, else as `hand_over`.
    """
    form = store.snapshot_form if isinstance(store, OwnerSnapshots) else ""
    there = store.left_behind() if isinstance(store, OwnerSnapshots) else []
    made = bool(form) and project.made_by(store) is not None
    ready: list[tuple[Aggregate[Any], EventsourcingAggregate, Collection[str] | None]] = []
    why_not = []
    for aggregate, streams in aggregates:
        owner = aggregate.owner
        if owner is None:
            if form:
                why_not.append(f"{aggregate.name} has no `owner=`: who owns the tables got nothing")
        elif owner.form != form:
            why_not.append(f"{aggregate.name}: these are no tables of {owner.form}")
        elif not made:
            why_not.append(
                f"{aggregate.name}: no job made the events there, and a source's snapshots are its "
                "owner's alone"
            )
        else:
            ready.append((aggregate, owner, streams))
    if not form:
        why_not += [
            f"{one} are of a form that eventmig does not write: they stay, "
            "and the owner's library takes new ones"
            for one in there
        ]
    if not ready:
        return OwnersSnapshots(store=public(url), why_not=tuple(why_not)) if why_not else None
    with opened(url, "write") as target, target.lock():
        assert isinstance(target, OwnerSnapshots)
        written = [
            hand_over(
                aggregate,
                owner,
                target,
                identity=target.identity(),
                engine=engine,
                streams=streams,
            )
            for aggregate, owner, streams in ready
        ]
        return OwnersSnapshots(
            store=public(url),
            written=tuple(written),
            astray=target.drop_astray(),
            why_not=tuple(why_not),
        )
