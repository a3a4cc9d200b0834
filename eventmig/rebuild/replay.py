"""Events into tables: the fold of one read model, batch by batch.

Reads the source, upcasts, calls the handlers, and writes what a batch comes to
together with its checkpoint in one transaction. The handlers run between
transactions: no lock is held while user code runs. Where data is all that handlers
and upcasters look at, whole events are not read at all (`narrow`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.schema import sort_tables_and_constraints

from eventmig.errors import RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.adding import adders
from eventmig.rebuild.ahead import ahead
from eventmig.rebuild.batching import Batch
from eventmig.rebuild.bookkeeping import Generation, Writing
from eventmig.rebuild.bulk import TableWriter
from eventmig.rebuild.collector import collector_paused
from eventmig.rebuild.faults import handler_error, where_of, with_handler
from eventmig.rebuild.fold import TableFold
from eventmig.rebuild.handlers import call
from eventmig.rebuild.narrow import HandlerFailedError, NarrowFold, data_handlers
from eventmig.rebuild.progress import DataUpcaster, Upcast
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.rows import Rows
from eventmig.stores.base import EventReader, all_events
from eventmig.stores.faster import Count, CountingAhead, ReadingLines

READ_AT_ONCE = 500
"""Stored events read and decoded at a time: they fit into a processor's cache."""

READ_AHEAD_AT_ONCE = 8000
"""The same where they are read ahead, from a server that is asked for each page."""

_SAMPLE = 100  # events that tell how far apart those after them are

Read: TypeAlias = tuple[int, int, int]
"""Stored events read and folded: how many, the last one's global position, how many folded."""


Reads: TypeAlias = Generator[Read, None, None]

Reading: TypeAlias = "Callable[[ReadModel, Rows, Mapping[str, str], int, Replay], Reads]"
"""What `reads` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What one read model's replay reads, and how much it folds before it writes.

    `types` are stored event types (None: all); `upto` is inclusive. A batch ends
    after `batch_size` stored events at the latest, or when more than `max_rows` rows are folded.
    `data_upcaster` may say what `upcast` does to data alone. `read_ahead`: fetch in a thread.
    """

    source: EventReader
    upcast: Upcast
    types: Collection[str] | None
    upto: int
    batch_size: int
    max_rows: int
    data_upcaster: DataUpcaster | None = None
    read_ahead: bool = False

    def expected(self) -> int:
        """How many stored events there are to read, from the start (reads the source)."""
        return self.source.count(until=self.upto, types=self.types)

    def counting(self) -> AbstractContextManager[Count]:
        """The same, counted beside what is read, where the source can."""
        if isinstance(self.source, CountingAhead):
            return self.source.counting(until=self.upto, types=self.types)
        return nullcontext(_Counted(self.expected()))

    @property
    def read_at_once(self) -> int:
        """How many stored events are read at a time."""
        return min(self.batch_size, READ_AHEAD_AT_ONCE if self.read_ahead else READ_AT_ONCE)

    def spacing(self, after: int) -> float | None:
        """How many global positions there are to an event of any type, by the next ones (reads).

        None: there is none after `after`.
        """
        rows = self.source.read_data(after=after, until=self.upto, batch_size=_SAMPLE)
        some = next(iter(rows), ())
        return (some[-1][0] - after) / len(some) if some else None

    def event_at(self, position: int) -> Event | None:
        """The first event of the release that the one at a global position becomes (reads)."""
        batches = self.source.read_all(after=position - 1, until=position, batch_size=1)
        return next(iter(self.upcast(list(all_events(batches)))), None)


class _Counted(NamedTuple):
    """A count that is known (`Count`)."""

    events: int

    def there(self) -> bool:
        return True

    def wait(self) -> int:
        return self.events


def folds_of(
    model: ReadModel, targets: Sequence[Table], connection: Connection
) -> tuple[dict[Table, TableFold], list[tuple[TableWriter, TableFold]]]:
    """Per table of a model, an empty fold and the writer of the table that takes its rows.

    The writers of tables that others refer to come first.
    """
    folds: dict[Table, TableFold] = {}
    writers: list[tuple[TableWriter, TableFold]] = []
    for shape, target in zip(model.shapes, targets, strict=True):
        writer = TableWriter(shape, target, connection.dialect)
        fold = TableFold(shape, writer.fetcher(connection), writer.stored())
        folds[shape.table] = fold
        writers.append((writer, fold))
    order = [table for table, _ in sort_tables_and_constraints(folds)]  # type: ignore[no-untyped-call]
    writers.sort(key=lambda pair: order.index(pair[0].shape.table))
    return folds, writers


def replay(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
    reading: Reading | None = None,
) -> Iterator[Generation]:
    """Fold events after the checkpoint into `targets`; yields after each commit.

    `reading` reads and folds instead of `reads`. Raises `RebuildError` naming event, handler
    and row; `JobLostError` when another process took over. Nothing of the batch that failed is
    written.
    """
    folds, writers = folds_of(model, targets, connection)
    names = {type_: handler.name for type_, handler in model.handlers.items()}
    at = start
    batch = Batch(plan.batch_size, plan.max_rows)
    batches = (reading or reads)(model, Rows(folds), names, start.position, plan)
    try:
        with collector_paused() as paused, closing(batches):
            while (read := _next(batches, connection, hold, writers)) is not None:
                count, position, folded = read
                at = replace(
                    at,
                    position=position,
                    events_read=at.events_read + count,
                    events_folded=at.events_folded + folded,
                )
                paused.folded(count)
                if not batch.add(count, sum(map(len, folds.values()))):
                    continue
                commit(connection, hold, at, writers, plan.max_rows)
                with paused.let_run():
                    yield at
                batch.begin()
            if batch.pending:
                commit(connection, hold, at, writers, plan.max_rows)
        if batch.pending:
            yield at
    except RebuildError as error:
        error.where = with_handler(_whole(error.where, plan), names)
        raise


def replay_within(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
) -> Generation:
    """`replay` within the caller's transaction: for the few events that are left.

    Raises `RebuildError`; nothing was written then, when the caller rolls back.
    """
    folds, writers = folds_of(model, targets, connection)
    names = {type_: handler.name for type_, handler in model.handlers.items()}
    at = start
    try:
        for count, position, folded in reads(model, Rows(folds), names, start.position, plan):
            at = replace(
                at,
                position=position,
                events_read=at.events_read + count,
                events_folded=at.events_folded + folded,
            )
        if at is not start:
            _write(connection, hold, at, writers)
    except RebuildError as error:
        error.where = with_handler(_whole(error.where, plan), names)
        raise
    return at


def _next(
    batches: Iterator[Read],
    connection: Connection,
    hold: Writing,
    writers: list[tuple[TableWriter, TableFold]],
) -> Read | None:
    try:
        return next(batches, None)
    except RebuildError:
        _try_writing(connection, hold, writers)
        raise
    finally:
        connection.rollback()  # what `get` began by reading


def reads(
    model: ReadModel, rows: Rows, names: Mapping[str, str], after: int, plan: Replay
) -> Reads:
    """Read and fold everything after a position: narrow rows as long as they will do.

    Raises `RebuildError` naming the event that could not be handled.
    """
    handlers = None if plan.data_upcaster is None else data_handlers(model.handlers, "rows")
    if handlers is not None and plan.data_upcaster is not None:
        narrow = NarrowFold(handlers, plan.data_upcaster, rows, adders(model, rows))
        reading = _lines if isinstance(plan.source, ReadingLines) else _rows
        try:
            left = yield from reading(narrow, plan, after, plan.upto)
        except HandlerFailedError as failed:
            cause = failed.__cause__
            event = plan.event_at(failed.position)
            if event is None or not isinstance(cause, Exception):
                raise
            raise handler_error(cause, event, names) from cause
        if left is None:
            return
        after = left
    whole = {type_: call(handler, "rows") for type_, handler in model.handlers.items()}
    events = plan.source.read_all(
        after=after, until=plan.upto, types=plan.types, batch_size=plan.read_at_once
    )
    with ahead(events, wanted=plan.read_ahead) as pages:
        for stored in pages:
            folded = _fold(plan.upcast(stored), whole, rows, names)
            yield len(stored), stored[-1].global_position, folded


def _rows(
    narrow: NarrowFold, plan: Replay, after: int, until: int
) -> Generator[Read, None, int | None]:
    """Fold narrow rows; returns where whole events have to go on after, if anywhere."""
    data = plan.source.read_data(
        after=after, until=until, types=plan.types, batch_size=plan.read_at_once
    )
    with ahead(data, wanted=plan.read_ahead) as batches:
        for batch in batches:
            done, folded = narrow.fold(batch)
            if done:
                after = batch[done - 1][0]
                yield done, after, folded
            if done < len(batch):
                return after
    return None


def _lines(
    narrow: NarrowFold, plan: Replay, after: int, until: int
) -> Generator[Read, None, int | None]:
    """`_rows`, where the store puts data together; rows only where something is wrong with it."""
    assert isinstance(plan.source, ReadingLines)
    data = plan.source.read_lines(
        after=after,
        until=until,
        types=plan.types,
        members=narrow.members,
        batch_size=plan.read_at_once,
    )
    for batch in data:
        last = max(max(some.global_positions) for some in batch)
        found = narrow.fold_lines(batch)
        if found is not None:
            yield found[0], last, found[1]
        elif (left := (yield from _rows(narrow, plan, after, last))) is not None:
            return left
        after = last
    return None


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
                rows.position, rows.type = event.global_position, event.type
                handler(event, rows)
                folded += 1
    except Exception as error:
        if event is None:
            raise
        raise handler_error(error, event, names) from error
    return folded


def _try_writing(
    connection: Connection, hold: Writing, writers: list[tuple[TableWriter, TableFold]]
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
                writer.write(connection, fold, alone=hold.alone)
        finally:
            transaction.rollback()


def _whole(where: Where, plan: Replay) -> Where:
    """A place of which only position and type were kept, read again from the source."""
    position = where.global_position
    if position is None or where.event_id is not None:
        return where
    found = plan.event_at(position)
    return where if found is None else where.within(where_of(found))


def commit(
    connection: Connection,
    hold: Writing,
    at: Generation,
    writers: list[tuple[TableWriter, TableFold]],
    max_rows: int,
) -> None:
    """Write what the folds hold together with its checkpoint, and begin them anew."""
    with connection.begin():
        hold.fence(connection)
        _write(connection, hold, at, writers)
    for _, fold in writers:
        fold.settle(max_rows)


def _write(
    connection: Connection,
    hold: Writing,
    at: Generation,
    writers: list[tuple[TableWriter, TableFold]],
) -> None:
    bookkeeping.checkpoint(connection, hold, at)
    for writer, fold in writers:
        writer.write(connection, fold, alone=hold.alone)
