"""Reading ahead: the next batch is fetched while this one is folded.

Worth it where a server makes the batch: it works while this process does. A thread, because
the driver lets others run while it waits.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

T = TypeVar("T")

_UNDER_WAY: Final = 2  # batches that wait to be taken


class _End:
    def __init__(self, error: Exception | None) -> None:
        self.error = error


@contextmanager
def ahead(batches: Iterable[T], *, wanted: bool = True) -> Iterator[Iterator[T]]:
    """The same batches in the same order, fetched in a thread for the length of a block.

    They raise what fetching raises. Where it is not `wanted`, they are the batches themselves.
    """
    if not wanted:
        yield iter(batches)
        return
    made: queue.Queue[T | _End] = queue.Queue(_UNDER_WAY)
    stopped = threading.Event()
    thread = threading.Thread(target=_fetch, args=(batches, made, stopped), daemon=True)
    thread.start()
    try:
        yield _taken(made)
    finally:
        stopped.set()
        thread.join()


def _fetch(batches: Iterable[T], made: queue.Queue[T | _End], stopped: threading.Event) -> None:
    def put(item: T | _End) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                made.put(item, timeout=0.1)
                return

    try:
        for batch in batches:
            put(batch)
            if stopped.is_set():
                return
    except Exception as error:  # noqa: BLE001 - raised again where the batches are taken
        put(_End(error))
    else:
        put(_End(None))


def _taken(made: queue.Queue[T | _End]) -> Iterator[T]:
    while not isinstance(item := made.get(), _End):
        yield item
    if item.error is not None:
        raise item.error
