"""A count that runs beside what is read (`CountingAhead`).

In a thread, over a reader of its own: SQLite lets others run while it looks for rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, NamedTuple

_PATIENCE_S: Final = 0.05


class Counting(NamedTuple):
    """A count that is under way (`Count`)."""

    future: Future[int]

    def there(self) -> bool:
        return self.future.done()

    def wait(self) -> int:
        return self.future.result()


@contextmanager
def counting(count: Callable[[], int], interrupt: Callable[[], None]) -> Iterator[Counting]:
    """Have `count` run for the length of a block; `interrupt` stops it where it still does."""
    with ThreadPoolExecutor(1, "eventmig-count") as executor:
        future = executor.submit(count)
        try:
            yield Counting(future)
        finally:
            while not future.done():  # it may not have come to what can be interrupted
                interrupt()
                wait([future], _PATIENCE_S)
