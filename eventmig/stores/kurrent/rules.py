"""Which events of a KurrentDB log are the store's: what a reader of a stream would see.

`$all` shows more than the streams do: system streams, links, metadata, and what was
deleted or truncated but not scavenged yet. The rules, as they stand when a read begins:

- streams whose names begin with `$` and events whose types do (links `$>`, metadata) are
  not events of an application: skipped;
- the marks of a crossing (`eventmig.StreamMoved`): skipped, though they have a revision;
- an event below its stream's `$tb`, older than its `$maxAge` or pushed out by its
  `$maxCount`, and every event of a deleted or tombstoned stream: skipped;
- everything else is read, in the order of the log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from eventmig.stores.kurrent.client import Message
from eventmig.stores.kurrent.log import END
from eventmig.stores.kurrent.url import Location

METADATA: Final = "$metadata"
TOMBSTONE: Final = "$streamDeleted"
MOVED: Final = "eventmig.StreamMoved"
"""The mark that a crossing puts at the end of the streams that are left (see `fence`)."""


class StreamMetadata(msgspec.Struct, frozen=True):
    """What a stream's metadata says of its events; other members are left alone."""

    truncate_before: int | None = msgspec.field(default=None, name="$tb")
    max_count: int | None = msgspec.field(default=None, name="$maxCount")
    max_age: int | None = msgspec.field(default=None, name="$maxAge")


class Visible(NamedTuple):
    """From which revision and time (microseconds since 1970) on a stream's events are seen."""

    first: int
    oldest: int


class Rules:
    """The rules of every stream of a location that has any, by its name in KurrentDB."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._now = time.time_ns() // 1_000
        self.position = 0
        self.metadata: dict[str, StreamMetadata] = {}
        self._tombstoned: set[str] = set()
        self.visible: dict[str, Visible] = {}

    def learn(self, events: Iterator[Message]) -> set[str]:
        """Take in the log's metadata events and tombstones; returns the streams they are of."""
        changed: set[str] = set()
        for event in events:
            name = event.stream_identifier.stream_name.decode()
            if event.metadata["type"] == TOMBSTONE:
                self._tombstoned.add(name)
            elif name.startswith("$$"):
                name = name[2:]
                self._take(name, event.data)
            if self._location.holds(name):
                changed.add(name)
        self.visible.update(dict.fromkeys(self._tombstoned, Visible(END, 0)))
        return changed

    def count_from(self, stream: str, last: int) -> None:
        """Apply a stream's `$maxCount`, now that its last revision is known."""
        count = self.metadata[stream].max_count or 0
        old = self.visible.get(stream, Visible(0, 0))
        self.visible[stream] = old._replace(first=max(old.first, last + 1 - count))

    def next_revision(self, stream: str) -> int:
        """The revision from which a stream without visible events goes on; `END`: from none."""
        return self.visible.get(stream, Visible(0, 0)).first

    def _take(self, stream: str, data: bytes) -> None:
        try:
            found = msgspec.json.decode(data or b"{}", type=StreamMetadata)
        except msgspec.DecodeError:
            return  # not JSON: the server makes nothing of it either
        self.metadata[stream] = found
        oldest = 0 if found.max_age is None else self._now - found.max_age * 1_000_000
        self.visible[stream] = Visible(found.truncate_before or 0, oldest)
