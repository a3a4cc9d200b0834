"""How the library that owns a store's tables knows an aggregate, for its own snapshots. Values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class EventsourcingAggregate:
    """An aggregate's class in an application of the Python library `eventsourcing`.

    `topic` names it (`shop.domain:Order`), `class_version` is its own. `kind` is the topic of
    the class of its snapshots, where that is not the library's.
    """

    form: ClassVar[str] = "eventsourcing"

    topic: str
    class_version: int = 1
    kind: str = "eventsourcing.domain:Snapshot"
