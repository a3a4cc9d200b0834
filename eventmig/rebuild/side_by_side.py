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
from typing import Final

from sqlalchemy import Connection, Table

from eventmig.errors import EventmigError, JobLostError
from eventmig.rebuild.bookkeeping import Generation, Kind, Writing
from eventmig.rebuild.collector import collector_paused
from eventmig.rebuild.ranges import FoldedRange, NeedsRowsError, add_fold, fold_range, unpacked
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, commit, folds_of
from eventmig.rebuild.sharing import WORTH_IT, FoldHelpers, Ranges, in_order

_FIRST_EVENTS: Final = 25_000
_MOST_EVENTS: Final = 150_000


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
    if left < WORTH_IT:
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
    """Every range's fold, in order; raises where one must be folded after those before it.

    Ranges are long, since what each comes to has to be put together with what the others come
    to; no longer than that half the rows that may be kept in memory change, as far as the
    ranges before can tell.
    """
    ranges = Ranges(after, plan.upto, left, helpers.count + 1, _FIRST_EVENTS)

    def here(after: int, until: int) -> FoldedRange:
        return fold_range(model, plan, after, until)

    def unpack(message: bytes) -> FoldedRange:
        return unpacked(model, message)

    for made in in_order(Kind.READ_MODEL, model.name, ranges, helpers, here, unpack):
        if made.found is None:
            raise NeedsRowsError
        rows = max(1, sum(map(len, made.found.tables)))
        ranges.most = min(_MOST_EVENTS, plan.max_rows * made.found.events_read // (2 * rows))
        yield made.found
