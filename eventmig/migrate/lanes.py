"""Transactions side by side that take their places and commit one after the other.

What a database does inside itself keeps one connection busy and leaves the other cores
idle. So each of several connections has a lane: the next run of events starts in the next
lane as soon as the run before has its places, and commits only after that has. If one is
undone, so are all that came after it: nothing can stand there without what is before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeAlias

from eventmig.stores.base import JobTarget


class UndoneError(Exception):
    """The run before this one was undone, and this one with it. Never reaches a user."""


class Turn:
    """One run's place in the order. `until` is where it ends, set by `placed`."""

    def __init__(self, before: Turn | None, until: int) -> None:
        self.until = until
        self._before = before
        self._placed = Event()
        self._ended = Event()
        self._undone = False

    def wait_for_place(self) -> int:
        """Wait until the run before has its places; returns where it ends."""
        if self._before is None:
            return self.until
        until = self._before.wait_for_next()
        self._before._check()
        return until

    def wait_for_next(self) -> int:
        """Wait until this run has its places, or is undone; returns where it ends."""
        self._placed.wait()
        return self.until

    def placed(self, until: int) -> None:
        """This run has its places: the next may take theirs."""
        self.until = until
        self._placed.set()

    def wait_to_commit(self) -> None:
        """Wait until the run before is committed; raises `UndoneError` where it was undone."""
        if self._before is not None:
            self._before._ended.wait()
            self._before._check()
            self._before = None

    def end(self, *, undone: bool) -> None:
        """This run is committed, or undone."""
        self._undone = undone
        self._ended.set()
        self._placed.set()

    def _check(self) -> None:
        if self._undone:
            raise UndoneError


Run: TypeAlias = Callable[[JobTarget, Turn], None]
"""One run in a lane: begins a transaction, keeps to its turn, and commits."""


def side_by_side(stores: Sequence[JobTarget], after: int, until: int, run: Run) -> Iterator[None]:
    """Run after run from a source position on (exclusive) to another (inclusive).

    Yields after each that is committed, and raises the error of the first that is not, when
    all have ended. With one store nothing runs in another thread.
    """
    if len(stores) == 1:
        while after < until:
            turn = Turn(None, after)
            run(stores[0], turn)
            after = turn.until
            yield
        return
    under_way: deque[tuple[Future[None], JobTarget]] = deque()
    idle = deque(stores)
    last = Turn(None, after)
    last.end(undone=False)
    with ThreadPoolExecutor(len(stores)) as pool:
        while True:
            while idle and last.wait_for_next() < until:
                last, store = Turn(last, after), idle.popleft()
                under_way.append((pool.submit(_ended, run, store, last), store))
            if not under_way:
                return
            future, store = under_way.popleft()
            future.result()
            idle.append(store)
            yield


def _ended(run: Run, store: JobTarget, turn: Turn) -> None:
    undone = True
    try:
        run(store, turn)
        undone = False
    finally:
        turn.end(undone=undone)
