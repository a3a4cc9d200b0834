"""One item ahead: a thread makes the next item while the caller works on this one.

Where a server reads or writes, this process would wait for it: with a batch under way here
and another there, neither waits. Python's own work does not get faster.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items in the same order, each asked for while the one before is in use.

    What making an item raises is raised where that item would have come. An iterator that
    is closed early waits for the item under way.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="eventmig-ahead") as ahead:
        under_way = ahead.submit(next, items, None)
        while (item := under_way.result()) is not None:
            under_way = ahead.submit(next, items, None)
            yield item
