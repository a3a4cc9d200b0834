"""The command line: argv → command → text or JSON, and an exit code. The only printer."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from eventmig.cli.exits import INTERRUPTED, ExitCode

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (`ExitCode`). Prints, and nothing else does.

    `argv` is without the program's name; None takes the process's own.
    """
    collects = gc.isenabled()
    gc.disable()  # what is imported stays: the collector would look through it again and again
    try:
        # Half a second of imports: Ctrl-C finds a program here that knows how to end.
        from eventmig.cli.app import main as run
    except KeyboardInterrupt:
        print(f"\n{INTERRUPTED}", file=sys.stderr)
        return ExitCode.INTERRUPTED
    finally:
        if collects:
            gc.enable()
    return run(argv)
