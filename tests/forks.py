"""A process forked for one run: its imports are there already."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def forked(run: Callable[..., object], *arguments: object) -> int:
    """Its exit code, or minus the signal that killed it; 8 where `run` raised or returned."""
    return os.waitstatus_to_exitcode(os.waitpid(started(run, *arguments), 0)[1])


def started(run: Callable[..., object], *arguments: object) -> int:
    """The id of such a process, for which nobody has waited yet."""
    child = os.fork()
    if child == 0:
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 - a fork ends here, whatever it was
            print(repr(error), file=sys.stderr)
        os._exit(8)
    return child
