"""What the tests of jobs with KurrentDB share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventmig import Registry, commands
from eventmig.errors import JobError, StoreError
from eventmig.events import Event, NewEvent, Origin
from eventmig.project import Project
from eventmig.stores.base import ANY
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate
from tests import kurrent
from tests.acceptance.support import fill, project, read, steps

if TYPE_CHECKING:  # its messages are those of one client, and the tests may run with the other
    from tests.kurrent_server.faults import Fault
    from tests.kurrent_server.server import Node


def job(folder: Path, source: str, target: str, **config: Any) -> Project:
    registry = Registry(steps())
    return project(folder, registry, source=source, target=target, **{"batch_size": 7, **config})


def everything(url: str) -> list[Event]:
    with KurrentStore(locate(url), mode="read") as store:
        return [event for batch in store.read_all() for event in batch]


def essence(events: list[Event], first: int) -> list[Event]:
    """The events with what two stores need not agree on taken out."""
    return [
        e._replace(
            global_position=0,
            stream_position=e.stream_position - first,
            origins=tuple(Origin(o.stream, 0, o.ordinal) for o in e.origins),
        )
        for e in events
    ]


def into_kurrent(url: str, events: list[Event]) -> list[Event]:
    """Append as an application does that keeps times of its own; returns what is read back."""
    with KurrentStore(locate(url), mode="write") as store:
        for e in events:
            new = NewEvent(e.type, e.data, e.schema_version, e.metadata, e.id, e.recorded_at)
            store.append(e.stream, [new], expected=ANY)
    return everything(url)


def reference(folder: Path, events: list[Event]) -> list[Event]:
    """What the job makes of these in SQLite."""
    folder.mkdir()
    fill(folder / "source.db", events)
    assert commands.upcast(project(folder, Registry(steps()))).ready
    return read(folder / "target.db")


def cut_off_and_resumed(
    folder: Path, node: Node, fault: Fault, appends: Iterable[int], wanted: list[Event]
) -> int:
    """Run a job from `source.db` anew for each of these appends, meet the fault there, and resume.

    Each must end as wanted. Returns how many of the runs were cut off.
    """
    cut = 0
    for at in appends:
        its = job(folder, "sqlite:///source.db", kurrent.fresh(node.url))
        node.faults.on_append(at, fault)
        try:
            commands.upcast(its)
        except (StoreError, JobError):
            cut += 1
        node.faults.appends.clear()
        assert commands.upcast(its).ready, at
        assert essence(everything(its.config.target or ""), 0) == wanted, at
    return cut
