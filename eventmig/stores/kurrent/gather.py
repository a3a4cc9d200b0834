"""Answers that come one by one, taken many at once.

A process that waits for each answer is woken for each: 30 to 40 µs of CPU time, where one
that is there already costs 5 to 10. So who is to take many, and had to wait for one, lets
some time go by before it looks again. Nothing waits for that: a server goes on with what
it has.
"""

from __future__ import annotations

import time
from typing import Final

_REST: Final = 0.002
_WAITED: Final = 10e-6
"""Seconds off the processor, in taking an answer, from which on it was waited for."""
_BETWEEN: Final = 8
"""Answers between two rests, at least: where a clock misleads, that is all it costs."""


class Gather:
    """When to let answers gather. `first`: so many are taken as they come before the first rest."""

    def __init__(self, first: int = _BETWEEN) -> None:
        self._left = first
        self._waited = False
        self._off = 0.0

    def rest(self) -> None:
        """Before an answer is taken: rest, where the last one was waited for."""
        if self._waited and self._left <= 0:
            time.sleep(_REST)
            self._left = _BETWEEN
        self._off = _off()

    def took(self) -> None:
        """After it was taken."""
        self._waited = _off() - self._off > _WAITED
        self._left -= 1


def _off() -> float:
    """Seconds that this thread was off the processor, from some point on."""
    return time.perf_counter() - time.thread_time()
