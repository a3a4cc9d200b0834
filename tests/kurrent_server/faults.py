"""What goes wrong, on command: planned by a test, met by the service once each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Fault(Enum):
    """What a client meets."""

    DROPPED = "dropped"  # the connection breaks before anything happened
    ANSWER_LOST = "answer lost"  # the write took effect, then the connection breaks
    TIMEOUT = "timeout"  # the write took effect, the server answers that it does not know
    NOT_LEADER = "not leader"  # another node is the leader now
    NO_LEADER = "no leader"  # the cluster elects one
    DELETED = "deleted"  # somebody soft-deletes the stream just before
    SILENT = "silent"  # the write took effect, and no answer ever comes
    BUSY = "busy"  # the server is too busy, or not ready, or has no leader yet


@dataclass(slots=True)
class Faults:
    """Planned faults by the number of the request (or event read, or told) they come at, from 1."""

    appends: dict[int, Fault | Callable[[], None]] = field(default_factory=dict)
    reads: dict[int, Fault] = field(default_factory=dict)
    told: dict[int, Fault] = field(default_factory=dict)
    appended: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read: int = 0
    _told: int = 0

    def on_append(self, number: int, fault: Fault | Callable[[], None]) -> None:
        """Plan a fault, or something to do, for the number-th append request from now."""
        with self._lock:
            self.appends[self.appended + number] = fault

    def on_read(self, number: int, fault: Fault = Fault.DROPPED) -> None:
        """Plan a fault before the number-th event that is read from now."""
        with self._lock:
            self.reads[self._read + number] = fault

    def on_told(self, number: int, fault: Fault = Fault.DROPPED) -> None:
        """Plan a fault before the number-th answer of a subscription from now."""
        with self._lock:
            self.told[self._told + number] = fault

    def next_append(self) -> Fault | None:
        """The fault of the append request that came in now."""
        with self._lock:
            self.appended += 1
            fault = self.appends.pop(self.appended, None)
        if fault is None or isinstance(fault, Fault):
            return fault
        fault()
        return None

    def next_read(self) -> Fault | None:
        """The fault before the event that goes out now."""
        with self._lock:
            self._read += 1
            return self.reads.pop(self._read, None)

    def next_told(self) -> Fault | None:
        """The fault before the answer of a subscription that goes out now."""
        with self._lock:
            self._told += 1
            return self.told.pop(self._told, None)
