"""Events one at a time: where one may be set aside, and where handlers run SQL.

With quarantine, a batch that fails is gone through again from its checkpoint, each event
in a savepoint of its own: what fails leaves nothing behind but its row in the quarantine,
which is committed together with the rows of the others and with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from sqlalchemy import Connection, Table

from eventmig.errors import DataError, EventmigError, RebuildError, UpcastError
from eventmig.events import Event
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Generation, SetAside, Writing
from eventmig.rebuild.faults import handler_error, where_of, with_handler
from eventmig.rebuild.handlers import call
from eventmig.rebuild.progress import Upcast
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, folds_of
from eventmig.rebuild.rows import Rows
from eventmig.rebuild.sql import Sql
from eventmig.stores.base import all_events

BATCH = 5_000
"""Stored events per transaction where events may be set aside: a failure costs no more."""

OF_ONE_EVENT = (RebuildError, UpcastError, DataError)
"""Errors that are an event's own, and not the store's or the job's."""


def one_by_one(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
    *,
    quarantine: bool,
) -> Generation:
    """Apply the next `BATCH` stored events, one after the other; commits once.

    With `quarantine`, those that fail are set aside. Raises what `one_by_one_within` does.
    """
    with connection.begin():
        hold.fence(connection)
        return one_by_one_within(
            model, targets, connection, hold, start, plan, quarantine=quarantine
        )


def all_one_by_one(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
) -> Iterator[Generation]:
    """Apply everything after the checkpoint, one after the other; yields after each commit."""
    while True:
        at = one_by_one(model, targets, connection, hold, start, plan, quarantine=False)
        if at == start:
            return
        yield at
        start = at


def one_by_one_within(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
    *,
    quarantine: bool = False,
) -> Generation:
    """`one_by_one` in the caller's transaction, after its fence.

    Raises `RebuildError` or `UpcastError` naming the event that failed (without
    `quarantine`), and what the source and the database raise.
    """
    stored = _next_events(start, plan)
    one = OneAtATime(model, targets, connection, plan.upcast)
    at = start
    for event in stored:
        savepoint = connection.begin_nested()
        folded = 0
        try:
            folded = one.apply(event)
        except OF_ONE_EVENT as error:
            savepoint.rollback()
            if not quarantine:
                raise
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


class OneAtATime:
    """A model's handlers and tables, for one event at a time in the caller's transaction."""

    def __init__(
        self,
        model: ReadModel,
        targets: Sequence[Table],
        connection: Connection,
        upcast: Upcast,
    ) -> None:
        self._connection = connection
        self._upcast = upcast
        self._handle = {type_: call(handler, "rows") for type_, handler in model.handlers.items()}
        self._names = {type_: handler.name for type_, handler in model.handlers.items()}
        folds, self._writers = folds_of(model, targets, connection)
        tables = dict(zip(model.tables, targets, strict=True))
        self._rows = Rows(folds, Sql(tables, connection, self._write))

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
                self._write()
            except RebuildError as error:
                place = error.where.within(where_of(event))
                error.where = with_handler(place, self._names)
                raise
            folded += 1
        return folded

    def _write(self) -> None:
        for writer, fold in self._writers:
            writer.write(self._connection, fold, alone=False)
            fold.discard()

    def discard(self) -> None:
        """Forget what a failed event left in the folds, and what they know of its rows."""
        for _, fold in self._writers:
            fold.discard()
