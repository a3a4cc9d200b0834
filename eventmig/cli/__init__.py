"""The command line: argv → command → text or JSON, and an exit code. The only printer.

Nothing is imported here: whatever takes time is imported where a Ctrl-C is seen to.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which is not imported for that
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (`ExitCode`). Prints, and nothing else does.

    `argv` is without the program's name; None takes the process's own.
    """
    try:
        return _loaded()(argv)
    except KeyboardInterrupt:
        return _interrupted()


def _loaded() -> Callable[[Sequence[str] | None], int]:
    """`app.main`: half a second of imports."""
    import gc

    collects = gc.isenabled()
    gc.disable()  # what is imported stays: the collector would look through it again and again
    try:
        from eventmig.cli.app import main as run
    finally:
        if collects:
            gc.enable()
    return run


def _interrupted() -> int:
    import sys

    from eventmig.cli.exits import INTERRUPTED, ExitCode

    print(f"\n{INTERRUPTED}", file=sys.stderr)
    return ExitCode.INTERRUPTED
