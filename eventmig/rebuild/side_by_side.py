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

_MOST_EVENTS = 50_000
_FEWEST_EVENTS = 2_000
_RANGES_EACH = 8  # per process, so that all end at about the same time


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


def replay_side_by_side(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
    helpers: FoldHelpers,
) -> Iterator[Generation]:
    """Fold events after the checkpoint into `targets`; yields after each commit.

    What is left when it ends (all, where there is little) is for `replay`. Raises
    `JobLostError` when another process took over, and what the database raises.
    """
    expected = plan.expected() - start.events_read
    if expected < _WORTH_IT:
        return
    folds, writers = folds_of(model, targets, connection)
    at = start
    pending = 0
    try:
        with collector_paused() as let_run:
            for found in _in_order(model, plan, start.position, expected, helpers):
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
    model: ReadModel, plan: Replay, after: int, expected: int, helpers: FoldHelpers
) -> Iterator[FoldedRange]:
    """Every range's fold, in order; raises where one must be folded after those before it."""
    ranges = _ranges(plan, after, expected, helpers.count + 1)
    given = taken = 0
    tickets: dict[int, int] = {}
    under_way = [0] * helpers.count
    done: dict[int, FoldedRange] = {}
    while taken < len(ranges):
        for helper in filter(helpers.ready, range(helpers.count)):
            while under_way[helper] < _AHEAD and given < len(ranges):
                tickets[helpers.ask(helper, model.name, *ranges[given])] = given
                under_way[helper] += 1
                given += 1
        if taken in done:
            yield done.pop(taken)
            taken += 1
            continue
        mine = given < len(ranges) and len(done) <= helpers.count
        if mine:
            done[given] = fold_range(model, plan, *ranges[given])
            given += 1
        wait = taken not in done and not mine
        while (answer := helpers.answer(wait=wait)) is not None:
            if answer.ticket not in tickets:  # of an earlier call
                continue
            if answer.message is None:
                raise NeedsRowsError
            under_way[answer.helper] -= 1
            done[tickets.pop(answer.ticket)] = unpacked(model, answer.message)
            wait = wait and taken not in done


def _ranges(plan: Replay, after: int, expected: int, processes: int) -> list[tuple[int, int]]:
    each = min(_MOST_EVENTS, max(_FEWEST_EVENTS, expected // (processes * _RANGES_EACH)))
    span = max(1, (plan.upto - after) * each // max(1, expected))
    starts = range(after, plan.upto, span)
    return [(start, min(start + span, plan.upto)) for start in starts]
