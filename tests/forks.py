"""A process forked for one run: its imports are there already."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def forked(run: Callable[..., object], *arguments: object) -> int:
    """Its exit code, or minus the signal that killed it; 8 where `run` raised or returned."""
    child = os.fork()
    if child == 0:
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 - a fork ends here, whatever it was
            print(repr(error), file=sys.stderr)
        os._exit(8)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
