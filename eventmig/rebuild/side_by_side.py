"""A replay by several processes: ranges of events folded side by side, written in order.

    ranges ─▶ folded by helpers, and by this process ─▶ composed in order ─▶ written
                                                        (rows + checkpoint together)

Where a handler reads rows, events must be folded one after the other: then ranges are only
gathered side by side (read, upcast), and folded in order by this process. That needs no claim
about the order of events, and cannot be wrong where a claim is.

Ends early, at its last checkpoint, where something is wrong with an event, or an event has to
be whole. `replay` then goes on from there, and its errors are the ones that name event, handler
and row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import Connection, Table

from eventmig.errors import EventmigError, JobLostError
from eventmig.rebuild import gathering
from eventmig.rebuild.batching import Batch
from eventmig.rebuild.bookkeeping import Generation, Writing
from eventmig.rebuild.collector import Paused, collector_paused
from eventmig.rebuild.handlers import OnData
from eventmig.rebuild.narrow import HandlerFailedError, data_handlers
from eventmig.rebuild.ranges import FoldedRange, NeedsRowsError, add_fold, fold_range, unpacked
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Reads, Replay, commit, folds_of, reads, replay
from eventmig.rebuild.rows import Rows
from eventmig.rebuild.sharing import (
    FoldHelpers,
    Ranges,
    Work,
    in_order,
    is_little,
    worth_sharing,
)
from eventmig.stores.faster import ReadingLines

_FEWEST_FOLDED: Final = 20_000
_MOST_FOLDED: Final = 500_000
_SAMPLE: Final = 100  # events, the next ones, that tell whether any are upcast


def of_use(
    helpers: FoldHelpers | None, model: ReadModel, plan: Replay, after: int
) -> FoldHelpers | None:
    """The helpers; None where they would surely be of no use (reads).

    Of none they are where there is too little to do, and where a server on this machine does as
    much for each process as that does itself, and there are no cores for all of them.
    """
    if helpers is None or is_little(after, plan.upto):
        return None
    crowded = _cores() < 2 * (helpers.count + 1) and _server_works(model, plan, after)
    return None if crowded else helpers


def _server_works(model: ReadModel, plan: Replay, after: int) -> bool:
    """Whether a server beside this process puts the data together, and nothing is upcast."""
    source, chain_of = plan.source, plan.data_upcaster
    if not isinstance(source, ReadingLines) or not source.shares_cores():
        return False
    if chain_of is None or data_handlers(model.handlers, "rows") is None:
        return False
    rows = source.read_data(after=after, until=plan.upto, types=plan.types, batch_size=_SAMPLE)
    chains = [chain_of(type_, version) for _, type_, version, _ in next(iter(rows), ())]
    return all(chain is not None and chain.new_data is None for chain in chains)


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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

    What is left when it ends (all, where there is little) is for `replay`. Raises `JobLostError`
    when another process took over, and what the database raises.
    """
    folds, writers = folds_of(model, targets, connection)
    at = committed = start
    batch = Batch(plan.batch_size, plan.max_rows)
    try:
        with collector_paused() as paused:
            for found in _in_order(model, plan, start.position, helpers, paused):
                for shape, later in zip(model.shapes, found.tables, strict=True):
                    add_fold(folds[shape.table], later)
                at = replace(
                    at,
                    position=found.until,
                    events_read=at.events_read + found.events_read,
                    events_folded=at.events_folded + found.events_folded,
                )
                enough = batch.add(found.events_read, sum(map(len, folds.values())))
                if found.until < plan.upto and not enough:
                    continue
                commit(connection, hold, at, writers, plan.max_rows)
                committed = at
                with paused.let_run():
                    yield at
                batch.begin()
        return
    except JobLostError:
        raise
    except EventmigError:
        connection.rollback()
        return
    except NeedsRowsError:
        connection.rollback()
    reading = partial(_gathered, helpers)
    try:
        yield from replay(model, targets, connection, hold, committed, plan, reading)
    except JobLostError:
        raise
    except (EventmigError, HandlerFailedError, _AloneError):
        connection.rollback()


def _in_order(
    model: ReadModel, plan: Replay, after: int, helpers: FoldHelpers, paused: Paused
) -> Iterator[FoldedRange]:
    """Every range's fold, in order; raises where one must be folded after those before it.

    Ranges are long, since what each comes to has to be put together with what the others come to.
    """
    spacing = worth_sharing(plan, after)
    if spacing is None:
        return
    events = _FEWEST_FOLDED, min(_MOST_FOLDED, plan.batch_size)
    fewest, most = (math.ceil(some * spacing) for some in events)
    ranges = Ranges(after, plan.upto, helpers.count + 1, fewest=fewest, most=most)

    def here(after: int, until: int, meanwhile: Callable[[], None]) -> tuple[int, FoldedRange]:
        def each(events: int) -> None:
            paused.folded(events)
            meanwhile()

        found = fold_range(model, plan, after, until, each)
        return found.until, found

    def unpack(message: bytes) -> FoldedRange:
        return unpacked(model, message)

    for made in in_order(Work.FOLD, model.name, ranges, helpers, here, unpack):
        if made.found is None:
            raise NeedsRowsError
        yield made.found


class _AloneError(Exception):
    """These events are not to be gathered by several processes: one does it all as fast."""


def _gathered(
    helpers: FoldHelpers,
    model: ReadModel,
    rows: Rows,
    names: Mapping[str, str],
    after: int,
    plan: Replay,
) -> Reads:
    """`replay.reads`, where helpers read and upcast, too; raises where that is of no use."""
    handlers = data_handlers(model.handlers, "rows")
    if handlers is None or plan.data_upcaster is None:
        raise _AloneError
    pages = partial(gathering.gather_data, handlers, plan)
    gathered = gathering.gather_together(Work.GATHER, model.name, pages, plan, after, helpers)
    if gathered is None:
        raise _AloneError
    for made in gathered:
        if made.found is None:
            yield from reads(model, rows, names, made.after, replace(plan, upto=made.until))
        else:
            for page in made.found:
                yield page.events_read, page.until, _folded(handlers, page, rows)


def _folded(handlers: Mapping[str, OnData], page: gathering.Gathered, rows: Rows) -> int:
    events = gathering.handled(handlers, page)
    rows.type = None  # found out for an error alone
    at = 0
    try:
        for at, call, value in events:
            rows.position = page.global_positions[at]
            call(value, rows)
    except Exception as error:
        raise HandlerFailedError(page.global_positions[at]) from error
    return len(events)
