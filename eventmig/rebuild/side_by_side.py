"""A replay by several processes: ranges of events folded side by side, written in order.

    ranges ─▶ folded by helpers, and by this process ─▶ composed in order ─▶ written
                                                        (rows + checkpoint together)

Ends early, at its last checkpoint, where events must be folded one after the other after
all: a handler reads rows, or something is wrong with an event. `replay` then goes on from
there, and its errors are the ones that name event, handler and row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Table

from eventmig.errors import EventmigError, JobLostError
from eventmig.rebuild.bookkeeping import Generation, Writing
from eventmig.rebuild.collector import collector_paused
from eventmig.rebuild.ranges import FoldedRange, NeedsRowsError, add_fold, fold_range, unpacked
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, commit, folds_of

_AHEAD = 2
"""Ranges that a helper has been given and not answered: it must never wait for the next."""

_WORTH_IT = 50_000
"""Fewer events are folded alone in less time than a process takes to start."""

_FIRST_EVENTS = 25_000
_MOST_EVENTS = 150_000
_FEWEST_EVENTS = 5_000
_RANGES_LEFT = 2  # per process: ranges get shorter, so that all end at about the same time


class Answer(NamedTuple):
    """What a helper says of a range: its fold as bytes, or None where it could not fold it."""

    helper: int
    ticket: int
    message: bytes | None


class FoldHelpers(Protocol):
    """Processes that fold ranges of read models' events; `count` of them, from 0.

    They start when the first is asked for: nothing is lost where none is.
    """

    count: int

    def ready(self, helper: int) -> bool:
        """Whether this one is there; until then the others do its work."""
        ...

    def ask(self, helper: int, model: str, after: int, until: int) -> int:
        """Have one fold a range of global positions; returns the ticket of its answer."""
        ...

    def answer(self, *, wait: bool) -> Answer | None:
        """The next answer, in any order; None where there is none yet.

        Raises `JobError` where a helper is gone.
        """
        ...


def start_helpers(helpers: FoldHelpers, plan: Replay, start: Generation) -> None:
    """Have the helpers start already, unless there is surely too little for them."""
    if plan.upto - start.position >= _WORTH_IT:
        for helper in range(helpers.count):
            helpers.ready(helper)


def replay_side_by_side(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
    expected: int,
    helpers: FoldHelpers,
) -> Iterator[Generation]:
    """Fold events after the checkpoint into `targets`; yields after each commit.

    `expected` counts the stored events from the first to the plan's last. What is left when
    it ends (all, where there is little) is for `replay`. Raises `JobLostError` when another
    process took over, and what the database raises.
    """
    left = expected - start.events_read
    if left < _WORTH_IT:
        return
    folds, writers = folds_of(model, targets, connection)
    at = start
    pending = 0
    try:
        with collector_paused() as let_run:
            for found in _in_order(model, plan, start.position, left, helpers):
                for shape, later in zip(model.shapes, found.tables, strict=True):
                    add_fold(folds[shape.table], later)
                at = replace(
                    at,
                    position=found.until,
                    events_read=at.events_read + found.events_read,
                    events_folded=at.events_folded + found.events_folded,
                )
                pending += found.events_read
                if (
                    found.until < plan.upto
                    and pending < plan.batch_size
                    and sum(map(len, folds.values())) <= plan.max_rows
                ):
                    continue
                commit(connection, hold, at, writers, plan.max_rows)
                pending = 0
                with let_run():
                    yield at
    except JobLostError:
        raise
    except (NeedsRowsError, EventmigError):
        connection.rollback()


def _in_order(
    model: ReadModel, plan: Replay, after: int, left: int, helpers: FoldHelpers
) -> Iterator[FoldedRange]:
    """Every range's fold, in order; raises where one must be folded after those before it."""
    ranges = _Ranges(plan, after, left, helpers.count + 1)
    taken = 0
    tickets: dict[int, int] = {}
    under_way = [0] * helpers.count
    done: dict[int, FoldedRange] = {}
    while ranges.left or taken < ranges.given:
        for helper in filter(helpers.ready, range(helpers.count)):
            while under_way[helper] < _AHEAD and ranges.left:
                number = ranges.given
                tickets[helpers.ask(helper, model.name, *ranges.give())] = number
                under_way[helper] += 1
        if taken in done:
            ranges.learn(done[taken])
            yield done.pop(taken)
            taken += 1
            continue
        mine = ranges.left and len(done) <= helpers.count
        if mine:
            number = ranges.given
            done[number] = fold_range(model, plan, *ranges.give())
        wait = taken not in done and not mine
        while (answer := helpers.answer(wait=wait)) is not None:
            if answer.ticket not in tickets:  # of an earlier call
                continue
            if answer.message is None:
                raise NeedsRowsError
            under_way[answer.helper] -= 1
            done[tickets.pop(answer.ticket)] = unpacked(model, answer.message)
            wait = wait and taken not in done


class _Ranges:
    """The ranges of global positions that are left to be folded; cut as they are given out.

    Long ones, since what each comes to has to be put together with what the others come to;
    short ones towards the end. No longer than that half the rows that may be kept in memory
    change, as far as the ranges before can tell.
    """

    def __init__(self, plan: Replay, after: int, left: int, processes: int) -> None:
        self.given = 0
        self._plan = plan
        self._after = after
        self._span = (plan.upto - after) / left  # global positions per event
        self._shares = processes * _RANGES_LEFT
        self._most = _FIRST_EVENTS

    @property
    def left(self) -> bool:
        """Whether there is one more."""
        return self._after < self._plan.upto

    def give(self) -> tuple[int, int]:
        """The next range: after a global position, and until one (inclusive)."""
        left = (self._plan.upto - self._after) / self._span
        events = min(self._most, max(_FEWEST_EVENTS, left / self._shares))
        after, self.given = self._after, self.given + 1
        self._after = min(self._plan.upto, after + max(1, int(events * self._span)))
        return after, self._after

    def learn(self, found: FoldedRange) -> None:
        """Take in how many rows a range's events changed."""
        rows = max(1, sum(map(len, found.tables)))
        self._most = min(_MOST_EVENTS, self._plan.max_rows * found.events_read // (2 * rows))
