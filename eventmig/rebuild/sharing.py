"""Ranges of events shared out among processes, and taken back in the order of the events.

Knows nothing of what becomes of a range: `side_by_side` has read models folded so, or their
events gathered, and `snapshot_building` has events gathered.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from eventmig.rebuild.replay import Replay

T = TypeVar("T")

WORTH_IT: Final = 50_000
"""Fewer events are folded alone in less time than a process takes to start."""

_KEPT: Final = 3
"""Ranges per process that may be answered and not taken, or under way."""

_SHARE: Final = 1.1
"""A range is so much less than its process's part of what is left: no two are as quick."""


class Work(StrEnum):
    """What is made of a range of events."""

    FOLD = "fold"  # what they do to a read model's rows
    GATHER = "gather"  # the data that a read model's handlers take
    GATHER_STREAMS = "gather_streams"  # the data that an aggregate's handlers take, by stream


class Answer(NamedTuple):
    """What a helper says of a range: what it made of it as bytes, or None where it could not.

    `reached` is the last global position it worked on: it may end before the range does.
    """

    helper: int
    ticket: int
    reached: int
    message: bytes | None


class FoldHelpers(Protocol):
    """Processes that work on ranges of a projection's events; `count` of them, from 0.

    They start when the first is asked for: nothing is lost where none is.
    """

    count: int

    def ready(self, helper: int) -> bool:
        """Whether this one is there; until then the others do its work."""
        ...

    def ask(self, helper: int, work: Work, name: str, after: int, until: int) -> int:
        """Have one work on a range of global positions; returns the ticket of its answer.

        `name` is the read model's or aggregate's.
        """
        ...

    def answer(self, *, wait: bool) -> Answer | None:
        """The next answer, in any order; None where there is none yet.

        Raises `JobError` where a helper is gone.
        """
        ...


def is_little(after: int, until: int) -> bool:
    """Whether there are surely too few events between two global positions to share them."""
    return until - after < WORTH_IT


def start_helpers(helpers: FoldHelpers, after: int, until: int) -> None:
    """Have the helpers start already, unless there is surely too little for them."""
    if not is_little(after, until):
        for helper in range(helpers.count):
            helpers.ready(helper)


def worth_sharing(plan: Replay, after: int) -> float | None:
    """How many global positions there are to an event of any type, if there are enough (reads).

    None: what is left after `after` is done by this process in less time than it takes another
    to begin.
    """
    spacing = plan.spacing(after)
    left = 0 if spacing is None else (plan.upto - after) / spacing
    return spacing if left >= WORTH_IT else None


class Ranges:
    """The ranges of global positions that are left: those after `after` up to `until` (inclusive).

    Each that is given out is a share of what is left, so that all processes end at about the
    same time; of `fewest` to `most` positions. `most` may be changed at any time.
    """

    def __init__(self, after: int, until: int, processes: int, *, fewest: int, most: int) -> None:
        self.most = most
        self._fewest = fewest
        self._shares = processes * _SHARE
        self._left = [(after, until)] if after < until else []  # ascending, and apart

    @property
    def left(self) -> bool:
        """Whether there is one more."""
        return bool(self._left)

    @property
    def first(self) -> int | None:
        """The position after which the first that is left begins."""
        return self._left[0][0] if self._left else None

    def give(self) -> tuple[int, int]:
        """The next range: after a global position, and until one (inclusive)."""
        left = sum(until - after for after, until in self._left)
        size = max(1, min(self.most, max(self._fewest, int(left / self._shares))))
        (after, until), *rest = self._left
        end = min(until, after + size)
        self._left = [(end, until), *rest] if end < until else rest
        return after, end

    def put_back(self, after: int, reached: int, until: int) -> None:
        """What is left of a range that ended early; those to come are no longer than it was."""
        self.most = reached - after
        insort(self._left, (reached, until))


class Made(NamedTuple, Generic[T]):
    """A range (after a global position, until one), and what was made of it, if it could be."""

    after: int
    until: int
    found: T | None


Here: TypeAlias = "Callable[[int, int, Callable[[], None]], tuple[int, T] | None]"
"""Work on a range: how far it came, and what it made; None where it could not.

It may call its last argument as often as it likes: that keeps the helpers busy meanwhile.
"""


def in_order(
    work: Work,
    name: str,
    ranges: Ranges,
    helpers: FoldHelpers,
    here: Here[T],
    unpack: Callable[[bytes], T],
    *,
    queued: int = 1,
) -> Iterator[Made[T]]:
    """Every range in order, made by the helpers, and by this process (`here`) when it is free.

    Up to `queued` ranges are with a helper at a time: two, where it would often have to wait
    for the next. Raises `JobError` where a helper is gone.
    """
    at = ranges.first
    asked: dict[int, tuple[int, int]] = {}
    with_helper = [0] * helpers.count
    done: dict[int, tuple[int, Callable[[], T | None]]] = {}  # stays packed until its turn
    most = _KEPT * (helpers.count + 1)

    def keep(after: int, until: int, reached: int, found: Callable[[], T | None]) -> None:
        if reached < until:
            ranges.put_back(after, reached, until)
        done[after] = reached, found

    def collect(*, wait: bool) -> None:
        while (answer := helpers.answer(wait=wait)) is not None:
            if answer.ticket in asked:  # else of an earlier call
                after, until = asked.pop(answer.ticket)
                with_helper[answer.helper] -= 1
                message = answer.message
                found = partial(_same, None) if message is None else partial(unpack, message)
                keep(after, until, until if message is None else answer.reached, found)
                wait = False

    def meanwhile() -> None:
        if asked:
            collect(wait=False)
        for helper in filter(helpers.ready, range(helpers.count)):
            while ranges.left and with_helper[helper] < queued and len(asked) + len(done) < most:
                after, until = ranges.give()
                asked[helpers.ask(helper, work, name, after, until)] = after, until
                with_helper[helper] += 1

    while at is not None:
        meanwhile()
        if at in done:
            until, found = done.pop(at)
            yield Made(at, until, found())
            at = until if done or asked or ranges.left else None
        elif ranges.first == at or (ranges.left and len(done) <= helpers.count):
            after, until = ranges.give()
            made = here(after, until, meanwhile)
            reached = until if made is None else made[0]
            keep(after, until, reached, partial(_same, None if made is None else made[1]))
        else:
            collect(wait=True)


def _same(found: T) -> T:
    return found
