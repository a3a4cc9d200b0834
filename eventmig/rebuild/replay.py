"""Events into shadow tables: the fold of one read model, batch by batch.

Reads the source, upcasts, calls the handlers, and writes what a batch comes to
together with its checkpoint in one transaction. The handlers run between
transactions: no lock is held while user code runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Table

from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Generation, Hold
from eventmig.rebuild.bulk import TableWriter
from eventmig.rebuild.faults import handler_error, with_handler
from eventmig.rebuild.handlers import call
from eventmig.rebuild.progress import Upcast
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.rows import Rows, TableFold
from eventmig.rebuild.shadow import Shadow
from eventmig.stores.base import EventReader

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
    for stored in batches:
        event: Event | None = None
        events = plan.upcast(stored)
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
        finally:
            connection.rollback()  # what `get` began by reading
        at = replace(
            at,
            position=stored[-1].global_position,
            events_read=at.events_read + len(stored),
            events_folded=at.events_folded + folded,
        )
        pending += len(stored)
        if pending >= plan.batch_size or sum(len(f.effects) for _, f in writers) > plan.max_rows:
            _commit(connection, hold, at, writers, names, plan.max_rows)
            pending = 0
            yield at
    if pending:
        _commit(connection, hold, at, writers, names, plan.max_rows)
        yield at


def _commit(
    connection: Connection,
    hold: Hold,
    at: Generation,
    writers: list[tuple[TableWriter, TableFold]],
    names: dict[str, str],
    max_rows: int,
) -> None:
    try:
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
        with connection.begin():
            for _, fold in writers:
                fold.settle(max_rows)
    except RebuildError as error:
        error.where = with_handler(error.where, names)
        raise
