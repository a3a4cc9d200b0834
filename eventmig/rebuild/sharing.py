"""Ranges of events shared out among processes, and taken back in the order of the events.

Knows nothing of what becomes of a range: `side_by_side` has read models folded so, or their
events gathered, and `snapshot_building` has events gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

WORTH_IT: Final = 50_000
"""Fewer events are folded alone in less time than a process takes to start."""

_AHEAD: Final = 2
"""Ranges that a helper has been given and not answered: it must never wait for the next."""

_KEPT: Final = 3
"""Ranges per process that may be answered and not taken, or under way."""

AT_ONCE: Final = 5_000
"""Events in a range that is gathered: its data is kept until it is its turn."""

FEWEST_EVENTS: Final = 5_000
_RANGES_LEFT: Final = 2  # per process: ranges get shorter, so that all end at about the same time


class Work(StrEnum):
    """What is made of a range of events."""

    FOLD = "fold"  # what they do to a read model's rows
    GATHER = "gather"  # the data that a read model's handlers take
    GATHER_STREAMS = "gather_streams"  # the data that an aggregate's handlers take, by stream


class Answer(NamedTuple):
    """What a helper says of a range: what it made of it as bytes, or None where it could not."""

    helper: int
    ticket: int
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


def start_helpers(helpers: FoldHelpers, after: int, until: int) -> None:
    """Have the helpers start already, unless there is surely too little for them."""
    if until - after >= WORTH_IT:
        for helper in range(helpers.count):
            helpers.ready(helper)


class Ranges:
    """The ranges of global positions that are left; cut as they are given out.

    Of `most` events (which may be changed while they are given out), and shorter towards the
    end. `left` events are after the global position `after` and up to `until` (inclusive).
    """

    def __init__(self, after: int, until: int, left: int, processes: int, most: int) -> None:
        self.given = 0
        self.most = most
        self._after = after
        self._until = until
        self._span = (until - after) / left  # global positions per event
        self._shares = processes * _RANGES_LEFT

    @property
    def left(self) -> bool:
        """Whether there is one more."""
        return self._after < self._until

    def were_too_long(self) -> None:
        """Make those to come half as long."""
        self.most = max(1, self.most // 2)

    def give(self) -> tuple[int, int]:
        """The next range: after a global position, and until one (inclusive)."""
        left = (self._until - self._after) / self._span
        events = min(self.most, max(FEWEST_EVENTS, left / self._shares))
        after, self.given = self._after, self.given + 1
        self._after = min(self._until, after + max(1, int(events * self._span)))
        return after, self._after


class Made(NamedTuple, Generic[T]):
    """A range (after a global position, until one), and what was made of it, if it could be."""

    after: int
    until: int
    found: T | None


def in_order(
    work: Work,
    name: str,
    ranges: Ranges,
    helpers: FoldHelpers,
    here: Callable[[int, int], T | None],
    unpack: Callable[[bytes], T],
) -> Iterator[Made[T]]:
    """Every range in order, made by the helpers, and by this process (`here`) when it is free."""
    taken = 0
    spans: dict[int, tuple[int, int]] = {}
    tickets: dict[int, int] = {}
    under_way = [0] * helpers.count
    done: dict[int, Callable[[], T | None]] = {}  # what others made stays packed until its turn
    most = _KEPT * (helpers.count + 1)

    def give() -> tuple[int, int]:
        number = ranges.given
        spans[number] = ranges.give()
        return spans[number]

    while ranges.left or taken < ranges.given:
        for helper in filter(helpers.ready, range(helpers.count)):
            while under_way[helper] < _AHEAD and ranges.left and ranges.given - taken < most:
                number = ranges.given
                tickets[helpers.ask(helper, work, name, *give())] = number
                under_way[helper] += 1
        if taken in done:
            yield Made(*spans.pop(taken), done.pop(taken)())
            taken += 1
            continue
        mine = ranges.left and len(done) <= helpers.count
        if mine:
            number = ranges.given
            done[number] = partial(_same, here(*give()))
        wait = taken not in done and not mine
        while (answer := helpers.answer(wait=wait)) is not None:
            if answer.ticket not in tickets:  # of an earlier call
                continue
            under_way[answer.helper] -= 1
            message = answer.message
            found = partial(_same, None) if message is None else partial(unpack, message)
            done[tickets.pop(answer.ticket)] = found
            wait = wait and taken not in done


def _same(found: T) -> T:
    return found
