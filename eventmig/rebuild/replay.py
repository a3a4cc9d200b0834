"""Events into shadow tables: the fold of one read model, batch by batch.

Reads the source, upcasts, calls the handlers, and writes what a batch comes to
together with its checkpoint in one transaction. The handlers run between
transactions: no lock is held while user code runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Table

from eventmig.errors import RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Generation, Hold
from eventmig.rebuild.bulk import TableWriter
from eventmig.rebuild.collector import collector_paused
from eventmig.rebuild.faults import handler_error, where_of, with_handler
from eventmig.rebuild.fold import TableFold
from eventmig.rebuild.handlers import call
from eventmig.rebuild.progress import Upcast
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.rows import Rows
from eventmig.rebuild.shadow import Shadow
from eventmig.stores.base import EventReader, all_events

READ_AT_ONCE = 5_000
"""Stored events read and decoded at a time; a batch is several of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What one read model's replay reads, and how much it folds before it writes.

    `types` are stored event types (None: all); `upto` is inclusive. A batch ends
    after `batch_size` stored events, or when more than `max_rows` rows are folded.
    """

    source: EventReader
    upcast: Upcast
    types: Collection[str] | None
    upto: int
    batch_size: int
    max_rows: int

    def expected(self) -> int:
        """How many stored events there are to read, from the start (reads the source)."""
        if self.types is None:
            return self.source.count(until=self.upto)
        counts = self.source.type_counts(until=self.upto)
        return sum(count.count for count in counts if count.type in self.types)


def folds_of(
    model: ReadModel, shadow: Shadow, connection: Connection
) -> tuple[dict[Table, TableFold], list[tuple[TableWriter, TableFold]]]:
    """Per table of a model, an empty fold and the writer of its shadow table."""
    folds: dict[Table, TableFold] = {}
    writers: list[tuple[TableWriter, TableFold]] = []
    for shape, target in zip(model.shapes, shadow.tables, strict=True):
        writer = TableWriter(shape, target, connection.dialect)
        fold = TableFold(shape, writer.fetcher(connection), writer.stored())
        folds[shape.table] = fold
        writers.append((writer, fold))
    return folds, writers


def replay(
    model: ReadModel,
    shadow: Shadow,
    connection: Connection,
    hold: Hold,
    start: Generation,
    plan: Replay,
) -> Iterator[Generation]:
    """Fold events after the checkpoint into the shadow tables; yields after each commit.

    Raises `RebuildError` naming event, handler and row; `JobLostError` when another
    process took over. Nothing of the batch that failed is written.
    """
    folds, writers = folds_of(model, shadow, connection)
    names = {type_: handler.name for type_, handler in model.handlers.items()}
    handle = {type_: call(handler, "rows") for type_, handler in model.handlers.items()}
    rows = Rows(folds)
    at = start
    pending = 0
    batches = plan.source.read_all(
        after=start.position,
        until=plan.upto,
        types=plan.types,
        batch_size=min(plan.batch_size, READ_AT_ONCE),
    )
    try:
        with collector_paused() as let_run:
            for stored in batches:
                events = plan.upcast(stored)
                try:
                    folded = _fold(events, handle, rows, names)
                except RebuildError:
                    _try_writing(connection, hold, writers)
                    raise
                finally:
                    connection.rollback()  # what `get` began by reading
                at = replace(
                    at,
                    position=stored[-1].global_position,
                    events_read=at.events_read + len(stored),
                    events_folded=at.events_folded + folded,
                )
                pending += len(stored)
                if pending < plan.batch_size and sum(map(len, folds.values())) <= plan.max_rows:
                    continue
                _commit(connection, hold, at, writers, plan.max_rows)
                pending = 0
                with let_run():
                    yield at
            if pending:
                _commit(connection, hold, at, writers, plan.max_rows)
        if pending:
            yield at
    except RebuildError as error:
        error.where = with_handler(_whole(error.where, plan), names)
        raise


def _fold(
    events: Sequence[Event],
    handle: Mapping[str, Callable[[Event, object], object]],
    rows: Rows,
    names: Mapping[str, str],
) -> int:
    """Call the handlers of these events; returns how many had one."""
    event: Event | None = None
    folded = 0
    try:
        for event in events:
            handler = handle.get(event.type)
            if handler is not None:
                rows.event = event
                handler(event, rows)
                folded += 1
    except Exception as error:
        if event is None:
            raise
        raise handler_error(error, event, names) from error
    return folded


def _try_writing(
    connection: Connection, hold: Hold, writers: list[tuple[TableWriter, TableFold]]
) -> None:
    """Raise for what the batch did wrong before the event that failed, if anything.

    A patch of a row that is not there shows when it is written; an insert of the same
    row after it fails at once, and would be named for the patch's fault.
    """
    connection.rollback()
    with connection.begin() as transaction:
        try:
            hold.fence(connection)  # begins a transaction where the driver begins late
            for writer, fold in writers:
                writer.write(connection, fold)
        finally:
            transaction.rollback()


def _whole(where: Where, plan: Replay) -> Where:
    """A place of which only position and type were kept, read again from the source."""
    position = where.global_position
    if position is None or where.event_id is not None:
        return where
    stored = all_events(plan.source.read_all(after=position - 1, until=position, batch_size=1))
    found = next(iter(plan.upcast(list(stored))), None)
    return where if found is None else where.within(where_of(found))


def _commit(
    connection: Connection,
    hold: Hold,
    at: Generation,
    writers: list[tuple[TableWriter, TableFold]],
    max_rows: int,
) -> None:
    with connection.begin():
        hold.fence(connection)
        bookkeeping.checkpoint(
            connection,
            hold,
            at.number,
            position=at.position,
            events_read=at.events_read,
            events_folded=at.events_folded,
        )
        for writer, fold in writers:
            writer.write(connection, fold)
    for _, fold in writers:
        fold.settle(max_rows)
