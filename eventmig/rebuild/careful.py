"""Events one at a time, those that fail set aside: what a rebuild with quarantine does.

A batch that fails is gone through again from its checkpoint, each event in a savepoint of
its own: what fails leaves nothing behind but its row in the quarantine, which is committed
together with the rows of the others and with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from sqlalchemy import Connection, Table

from eventmig.errors import DataError, EventmigError, RebuildError, UpcastError
from eventmig.events import Event
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Generation, Hold, SetAside
from eventmig.rebuild.faults import handler_error, where_of, with_handler
from eventmig.rebuild.handlers import call
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, folds_of
from eventmig.rebuild.rows import Rows
from eventmig.stores.base import all_events

BATCH = 5_000
"""Stored events per transaction where events may be set aside: a failure costs no more."""

OF_ONE_EVENT = (RebuildError, UpcastError, DataError)
"""Errors that are an event's own, and not the store's or the job's."""


def one_by_one(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Hold,
    start: Generation,
    plan: Replay,
) -> Generation:
    """Apply the next `BATCH` stored events, one after the other; commits once.

    Those that fail are in the quarantine then. Raises `JobLostError` when another process
    took over, and what the source and the database raise.
    """
    stored = _next_events(start, plan)
    one = _One(model, targets, connection, plan)
    at = start
    with connection.begin():
        hold.fence(connection)
        for event in stored:
            savepoint = connection.begin_nested()
            folded = 0
            try:
                folded = one.apply(event)
            except OF_ONE_EVENT as error:
                savepoint.rollback()
                one.discard()
                bookkeeping.set_aside(connection, hold, start.number, _aside(event, error))
            else:
                savepoint.commit()
            at = replace(
                at,
                position=event.global_position,
                events_read=at.events_read + 1,
                events_folded=at.events_folded + folded,
            )
        bookkeeping.checkpoint(connection, hold, at)
    return at


def _next_events(start: Generation, plan: Replay) -> list[Event]:
    batches = plan.source.read_all(
        after=start.position, until=plan.upto, types=plan.types, batch_size=plan.read_at_once
    )
    return list(islice(all_events(batches), BATCH))


def _aside(event: Event, error: EventmigError) -> SetAside:
    return SetAside(
        global_position=event.global_position,
        stream=event.stream,
        stream_position=event.stream_position,
        event_id=event.id,
        type=event.type,
        schema_version=event.schema_version,
        reason=error.what,
        handler=error.where.handler,
        key=error.where.key,
    )


class _One:
    """A model's handlers and tables, for one stored event at a time."""

    def __init__(
        self, model: ReadModel, targets: Sequence[Table], connection: Connection, plan: Replay
    ) -> None:
        self._connection = connection
        self._upcast = plan.upcast
        self._handle = {type_: call(handler, "rows") for type_, handler in model.handlers.items()}
        self._names = {type_: handler.name for type_, handler in model.handlers.items()}
        folds, self._writers = folds_of(model, targets, connection)
        self._rows = Rows(folds)

    def apply(self, stored: Event) -> int:
        """Upcast, handle and write one stored event; returns how many events were handled."""
        folded = 0
        for event in self._upcast([stored]):
            handle = self._handle.get(event.type)
            if handle is None:
                continue
            self._rows.position, self._rows.type = event.global_position, event.type
            try:
                handle(event, self._rows)
            except Exception as error:
                raise handler_error(error, event, self._names) from error
            try:
                for writer, fold in self._writers:
                    writer.write(self._connection, fold)
                    fold.settle(0)
            except RebuildError as error:
                place = error.where.within(where_of(event))
                error.where = with_handler(place, self._names)
                raise
            folded += 1
        return folded

    def discard(self) -> None:
        """Forget what a failed event left in the folds, and what they know of its rows."""
        for _, fold in self._writers:
            fold.discard()
