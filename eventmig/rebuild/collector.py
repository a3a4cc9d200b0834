"""Python's cycle collector, out of the way of a batch.

A batch makes a hundred thousand objects that are no garbage and hold no cycles;
looking through them again and again costs a third of the time of a rebuild
(measured). What cycles user code makes is collected between batches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def collector_paused() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Pause the collector, and leave it as it was; yields what lets it run for a while."""
    enabled = gc.isenabled()

    @contextmanager
    def let_run() -> Iterator[None]:
        if not enabled:
            yield
            return
        gc.enable()
        try:
            yield
        finally:
            gc.disable()

    gc.disable()
    try:
        yield let_run
    finally:
        if enabled:
            gc.enable()
