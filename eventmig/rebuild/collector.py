"""Python's cycle collector, out of the way of a batch.

A batch makes a hundred thousand objects that are no garbage and hold no cycles;
looking through them again and again costs a third of the time of a rebuild
(measured). What cycles user code makes is collected time and again among the new objects, and
between batches among all.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_EVENTS: Final = 100_000  # between two looks at the new objects: less than a millisecond


class Paused:
    """The collector while it is paused; where it was off before, it stays so."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._events = 0

    def folded(self, events: int) -> None:
        """So many events more were folded: look for cycles among the new objects, if it is time."""
        self._events += events
        if self._enabled and self._events >= _EVENTS:
            self._events = 0
            gc.collect(0)

    @contextmanager
    def let_run(self) -> Iterator[None]:
        """Let it run for the length of a block."""
        if not self._enabled:
            yield
            return
        gc.enable()
        try:
            yield
        finally:
            gc.disable()


@contextmanager
def collector_paused() -> Iterator[Paused]:
    """Pause the collector, and leave it as it was."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield Paused(enabled=enabled)
    finally:
        if enabled:
            gc.enable()
