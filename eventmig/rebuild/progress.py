"""What a rebuild tells while it runs, and what it returns. Values only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from eventmig.chains import DataChain
from eventmig.events import Event
from eventmig.rebuild.bookkeeping import Generation, SetAside
from eventmig.stores.faster import Count

Upcast: TypeAlias = Callable[[Sequence[Event]], list[Event]]
"""Stored events to events of the release, in order; `list` where none is needed."""

DataUpcaster: TypeAlias = Callable[[str, int], DataChain | None]
"""A stored type and schema version to what upcasts its data; None where `Upcast` needs the whole
event."""

SourceTypes: TypeAlias = Callable[[Collection[str]], Collection[str]]
"""Event types of the release to the stored types that can become them."""


class Phase(StrEnum):
    """Where a rebuild is: replaying → checking → (catching up →) swapped."""

    REPLAYING = "replaying"
    CHECKING = "checking"
    CATCHING_UP = "catching_up"
    SWAPPED = "swapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildProgress:
    """How far one read model or aggregate is; told after each commit.

    `position` is a global position, `upto` the last one to be read (inclusive).
    `events_read` of `events_expected` counts stored events, also those of earlier
    runs when this one was `resumed`; while the store still counts them, so many are expected as
    there can be at the most.
    """

    name: str
    phase: Phase
    generation: int
    position: int
    upto: int
    events_read: int
    events_expected: int
    resumed: bool = False


def events_expected(count: Count, at: Generation, upto: int) -> int:
    """How many events there are in all, of which a generation has the first (see above)."""
    return count.wait() if count.there() else at.events_read + upto - at.position


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """One read model or aggregate, rebuilt and (if `swapped`) live.

    `generation` is live now; `kept` the one before it, which a rollback brings back
    (None: there was none). `events_summed` counts the events of this run that the store summed;
    the others went through the handlers. `rows` counts the rows per table. `restarted` says why a
    half-built generation was thrown away, `resumed` that one was gone on with. `stale` counts
    the snapshots replaced that nobody used any more: of another state, fold, release or source.
    `quarantined` are events that were set aside; with any, it is not live (`swapped` is
    False) unless that was asked for.
    """

    name: str
    generation: int
    kept: int | None
    position: int
    events_read: int
    events_folded: int
    events_summed: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    resumed: bool = False
    restarted: str | None = None
    quarantined: Sequence[SetAside] = ()
    swapped: bool = True
    stale: int = 0


Progress: TypeAlias = Callable[[RebuildProgress], None]
