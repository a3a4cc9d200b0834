"""When what has been folded is to be written: after so many events, so many rows, or so long.

The more events a batch has, the fewer rows are written twice. How long it takes bounds what is
done again after a kill, and how old the news of a rebuild's progress is, whatever a handler costs.
"""

from __future__ import annotations

import time
from typing import Final

BATCH_SIZE: Final = 2_000_000
"""Stored events folded before they are written, where nobody says otherwise."""

_SECONDS: Final = 5.0


class Batch:
    """The events folded since the last commit: `pending` of them.

    It is enough after `size` events, after five seconds, or with more than `max_rows` rows.
    """

    def __init__(self, size: int, max_rows: int) -> None:
        self._size = size
        self._max_rows = max_rows
        self.begin()

    def begin(self) -> None:
        """All that was folded has been written."""
        self.pending = 0
        self._until = time.monotonic() + _SECONDS

    def add(self, events: int, rows: int) -> bool:
        """So many events more are folded, and `rows` rows changed by all: whether it is enough."""
        self.pending += events
        return (
            self.pending >= self._size or rows > self._max_rows or time.monotonic() >= self._until
        )
