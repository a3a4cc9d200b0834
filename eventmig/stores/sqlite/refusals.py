"""Which event of a batch the store refused, and why: asked after the fact.

The hot path checks nothing twice; when SQLite refuses a batch, the questions
here find the event to name. They run inside the same, doomed transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from eventmig.errors import (
    ConflictError,
    DataError,
    DuplicateIdError,
    FencedError,
    StoreDamagedError,
    StoreError,
    Where,
)
from eventmig.events import Event
from eventmig.stores import fences
from eventmig.stores.sqlite.schema import Statements

T = TypeVar("T", bound=Hashable)


def refused_batch(
    driver: sqlite3.Connection,
    sql: Statements,
    url: str,
    events: Sequence[Event],
    before: int,
    error: sqlite3.IntegrityError,
) -> StoreError:
    """The event a unique index refused; `before` is the last global position without the batch."""
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        return FencedError(
            fences.WHAT,
            where=Where(store=url),
            remedy="ask again which side is live (`eventmig.live`), and append there",
        )
    present = driver.execute(
        sql.ids_present, {"ids": json.dumps([event.id for event in events]), "until": before}
    ).fetchone()
    if present:
        event_id, stream, position, global_position = present
        return _duplicate(
            f"an event with the id {event_id} is stored already",
            Where(
                store=url,
                stream=stream,
                stream_position=position,
                global_position=global_position,
                event_id=event_id,
            ),
        )
    if event_id := _twice(event.id for event in events):
        return _duplicate(
            f"the id {event_id} stands twice in one append", Where(store=url, event_id=event_id)
        )
    places = [[event.stream, event.stream_position] for event in events]
    place = driver.execute(
        sql.positions_present, {"places": json.dumps(places), "until": before}
    ).fetchone() or _twice((event.stream, event.stream_position) for event in events)
    if place:
        return _position_taken(place, url)
    return StoreError(f"the store refused a batch of events ({error})", where=Where(store=url))


def doubled(driver: sqlite3.Connection, sql: Statements, url: str, error: Exception) -> StoreError:
    """The first event that keeps a unique index from being built."""
    if row := driver.execute(sql.doubled_id).fetchone():
        event_id, first, second = row
        return _duplicate(
            f"the id {event_id} stands at the global positions {first} and {second}",
            Where(store=url, event_id=event_id, global_position=second),
        )
    if row := driver.execute(sql.doubled_position).fetchone():
        return _position_taken(row, url)
    return StoreDamagedError(
        f"the store's indexes cannot be built ({error})",
        where=Where(store=url),
        remedy="restore the store from a backup, or run the job anew",
    )


def not_text(events: Sequence[Event], url: str) -> DataError:
    """The event of a batch that holds what is not UTF-8."""
    for event in events:
        try:
            event.data.decode()
            (event.metadata or b"").decode()
            for text in (event.stream, event.id, event.type, *(o.stream for o in event.origins)):
                text.encode()
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            part = "data or metadata" if isinstance(error, UnicodeDecodeError) else "name"
            return DataError(
                f"an event's {part} is not UTF-8 ({error.reason})",
                where=_place(event, url),
                remedy="store JSON text in UTF-8; wrap other bytes (base64) in a JSON string",
            )
    return DataError("a batch holds text that is not UTF-8", where=Where(store=url))


def check_names(events: Sequence[Event], url: str) -> None:
    """Raise `DataError` for an id or type that is empty or holds a NUL."""
    for event in events:
        for part, name in (("id", event.id), ("type", event.type)):
            if not name or "\0" in name:
                raise DataError(
                    f"an event's {part} is empty or holds a NUL: {name!r}",
                    where=_place(event, url),
                    remedy=f"give the event another {part}",
                )


def _twice(values: Iterable[T]) -> T | None:
    return next((value for value, n in Counter(values).items() if n > 1), None)


def _duplicate(what: str, where: Where) -> DuplicateIdError:
    return DuplicateIdError(
        what, where=where, remedy="store each event once, under an id of its own"
    )


def _position_taken(place: tuple[str, int], url: str) -> ConflictError:
    stream, position = place
    return ConflictError(
        f"the stream {stream!r} has an event at position {position} already",
        where=Where(store=url, stream=stream, stream_position=position),
        remedy="number the stream's events without repeating a position",
    )


def _place(event: Event, url: str) -> Where:
    # Names that are not UTF-8 are shown escaped: an error must be printable.
    return Where(
        store=url,
        stream=ascii(event.stream)[1:-1] if not event.stream.isprintable() else event.stream,
        stream_position=event.stream_position,
        event_id=ascii(event.id)[1:-1] if not event.id.isprintable() else event.id,
    )
