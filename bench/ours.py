"""What is measured of eventmig: the commands as a user calls them, on a real project."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import by_hand
from bench.domain import activity_per_customer, registry
from bench.workspace import Workspace, url_of
from eventmig import commands
from eventmig.events import Event
from eventmig.migrate.job import Phase, Progress
from eventmig.stores.open import open_store


@dataclass(slots=True)
class Watch:
    """How long each phase of a job took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)

    def __call__(self, progress: Progress) -> None:
        """Note a report of progress."""
        now = time.perf_counter()
        began = self._began.setdefault(progress.phase.value, now)
        self.seconds[progress.phase.value] = now - began


def upcast(workspace: Workspace, target: Path, *, workers: int, batch_size: int) -> Watch:
    """Run the job, without its verification; returns how long its phases took."""
    watch = Watch()
    commands.upcast(
        workspace.project(),
        target=url_of(target),
        workers=workers,
        batch_size=batch_size,
        verify=False,
        on_progress=watch,
    )
    watch.seconds.setdefault(Phase.CHECKING.value, 0.0)
    return watch


def verify(workspace: Workspace, target: Path, *, workers: int) -> int:
    """Verify a job's target; returns how many events were compared."""
    found = commands.verify(
        workspace.project(), target=url_of(target), workers=workers
    ).verification
    if found is None or not found.right:
        raise SystemExit(f"the target is not right: {found}")
    return found.target_events


def finish(workspace: Workspace, target: Path) -> None:
    """Have the job verify its target and be ready, as a rebuild from it asks for."""
    commands.upcast(workspace.project(), target=url_of(target), workers=1)


def rebuild(workspace: Workspace, source: Path, read_models: Path, *, workers: int) -> int:
    """Rebuild the read model from a store; returns how many events it read."""
    report = commands.rebuild(
        workspace.project(),
        [activity_per_customer.name],
        source=url_of(source),
        read_models=url_of(read_models),
        workers=workers,
    )
    return sum(result.events_read for result in report.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRead:
    """Microseconds per event of one type: upcast, loaded as a model, and both by hand."""

    type: str
    upcast: float
    load: float
    by_hand: float


def on_read(source: Path, *, sample: int, rounds: int) -> list[OnRead]:
    """Upcasting on read, per type, on the first events of a store."""
    by_type: dict[str, list[Event]] = {}
    with open_store(url_of(source), mode="read") as store:
        for batch in store.read_all(until=sample):
            for event in batch:
                by_type.setdefault(event.type, []).append(event)
    return [
        OnRead(
            type=type_,
            upcast=_microseconds(registry.upcast, events, rounds),
            load=_microseconds(registry.load, events, rounds),
            by_hand=_microseconds(lambda e: by_hand.load(e.type, e.data), events, rounds),
        )
        for type_, events in sorted(by_type.items())
    ]


def _microseconds(work: Callable[[Event], object], events: list[Event], rounds: int) -> float:
    found: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        for event in events:
            work(event)
        found.append((time.perf_counter() - began) / len(events) * 1e6)
    return statistics.median(found)
