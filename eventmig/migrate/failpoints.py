"""Named points before and after every durable write of a job, where tests stop or kill it.

In production a point is a call that does nothing. A test sets `handler` and is told each
name; `NAMES` lists them all, and no other can be reached.
"""

from __future__ import annotations

from collections.abc import Callable

NAMES = (
    "begin: before",
    "begin: after",
    "batch: before",
    "batch: after",
    "indexes: before",
    "indexes: after",
    "announce: before",
    "announce: after",
    "close: before",
    "close: after",
    "drain: before",
    "drain: after",
    "prove: before",
    "prove: after",
    "prepare: before",
    "prepare: after",
    "mark: before",
    "mark: after",
    "switch: before",
    "switch: after",
    "open: before",
    "open: after",
    "publish: before",
    "publish: after",
    "fall back: before",
    "fall back: after",
    "reopen: before",
    "reopen: after",
    "complete: before",
    "complete: after",
    "drop kept: before",
    "drop kept: after",
    "cancel: before",
    "cancel: after",
)

handler: Callable[[str], None] | None = None
"""Told the name of each point that is reached; None in production."""


def reached(name: str) -> None:
    """Say that the job is at this point."""
    if handler is not None:
        assert name in NAMES, name
        handler(name)
