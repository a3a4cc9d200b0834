"""A process forked for one run: its imports are there already."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

_OWN_FILES = Path("/proc/self/fd")
_DATABASE = (".db", ".db-wal", ".db-shm")


def forked(run: Callable[..., object], *arguments: object) -> int:
    """Its exit code, or minus the signal that killed it; 8 where `run` raised or returned."""
    return os.waitstatus_to_exitcode(os.waitpid(started(run, *arguments), 0)[1])


def started(run: Callable[..., object], *arguments: object) -> int:
    """The id of such a process, for which nobody has waited yet."""
    child = fork()
    if child == 0:
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 - a fork ends here, whatever it was
            print(repr(error), file=sys.stderr)
        os._exit(8)
    return child


def fork() -> int:
    """`os.fork`, refused while this process has a SQLite database open.

    No connection may be carried across a fork (sqlite.org/howtocorrupt.html, 2.6): the child has
    the file, but none of the locks that the connection believes it has.
    """
    assert_no_database_open()
    return os.fork()


def assert_no_database_open() -> None:
    """What `fork` asserts, for those who fork otherwise."""
    held = open_databases()
    assert not held, f"close before the fork: {', '.join(held)}"


def open_databases() -> list[str]:
    """The files of SQLite databases (`*.db`, with logs) that this process has open.

    Empty where the system does not tell (it has no /proc).
    """
    found: set[str] = set()
    for handle in _OWN_FILES.iterdir() if _OWN_FILES.is_dir() else ():
        try:
            name = os.readlink(handle).removesuffix(" (deleted)")
        except FileNotFoundError:  # the one that lists them
            continue
        if name.endswith(_DATABASE):
            found.add(name)
    return sorted(found)
