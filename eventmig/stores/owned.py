"""What the library that owns a store's tables keeps beside its events: snapshots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """Something of the owner's that stands beside the events, and that a job does not copy.

    So many snapshots in a `table`, or events of `streams` that are left out (a LIKE pattern).
    """

    number: int
    table: str = ""
    streams: str = ""

    def __str__(self) -> str:
        if self.table:
            return f"{self.number:,} snapshots in {self.table}"
        return f"{self.number:,} events of streams like {self.streams}"


class OwnerSnapshot(NamedTuple):
    """A snapshot for the library that owns a store's tables.

    It stands at the event `event_id`. `topic` and `class_version` are those of the aggregate's
    class, `kind` the topic of the snapshot's own class. `state`: what the class holds, by
    attribute; Decimals, UUIDs and times are written as the library does, `msgspec.Raw` is
    JSON already.
    """

    stream: str
    stream_position: int
    event_id: str
    topic: str
    class_version: int
    kind: str
    state: Mapping[str, object]


@runtime_checkable
class OwnerSnapshots(Protocol):
    """A store beside whose events their owner keeps snapshots.

    `snapshot_form` is the library whose snapshots can be written; empty where none can.
    """

    snapshot_form: str

    def left_behind(self) -> list[LeftBehind]:
        """What a copy of the events leaves behind, where there is some. Reads only."""
        ...

    def replace_snapshots(
        self, streams: Collection[str], snapshots: Sequence[OwnerSnapshot]
    ) -> tuple[str, int]:
        """Give these streams these snapshots and no others, in one transaction.

        Returns the table, and how many older ones went. Raises `StoreDamagedError` where a
        snapshot's event is not where it was folded, `DataError` for a state that the owner's
        form cannot hold.
        """
        ...

    def snapshot_places(self, streams: Collection[str]) -> list[tuple[str, int]]:
        """Stream and position of each of the owner's snapshots of these streams. Reads only."""
        ...

    def unlike_snapshots(self, snapshots: Sequence[OwnerSnapshot]) -> list[tuple[str, int, str]]:
        """Stream, position and what is wrong, of those that are not stored so. Reads only."""
        ...

    def drop_astray(self) -> int:
        """Delete snapshots that stand where no event is; returns how many."""
        ...
