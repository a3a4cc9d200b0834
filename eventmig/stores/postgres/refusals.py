"""What a store refused, named: which event, and whose place or id it took.

Called when a batch has failed, never on the way of one that is right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, TypeVar

import psycopg

from eventmig.errors import (
    ConflictError,
    DataError,
    DuplicateIdError,
    StoreDamagedError,
    StoreError,
    Where,
)
from eventmig.events import Event
from eventmig.stores.postgres.json_fit import misfit
from eventmig.stores.postgres.location import DataType
from eventmig.stores.postgres.schema import Statements, metadata_type

T = TypeVar("T", bound=Hashable)

Ask = Callable[[str, dict[str, object]], Sequence[tuple[Any, ...]]]
"""Runs a statement on a connection of its own: the failed transaction answers nothing."""

LONGEST_NAME: Final = 1_024
"""Bytes of UTF-8 in a stream's name or an event's id or type: indexes hold no longer ones."""

SHORT: Final = LONGEST_NAME // 4
"""Characters that surely fit."""

_KEY: Final = re.compile(r"\)=\((.*)\)")


def taken(
    error: psycopg.Error, events: Sequence[Event], sql: Statements, ask: Ask, url: str
) -> StoreError:
    """The event that a unique index refused."""
    rows = ask(sql.ids_present, {"ids": [event.id for event in events]})
    if rows:
        event_id, stream, position, global_position = rows[0]
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
    places = [(event.stream, event.stream_position) for event in events]
    streams, positions = map(list, zip(*places, strict=True))
    found = ask(sql.positions_present, {"streams": streams, "positions": positions})
    if place := found[0] if found else _twice(places):
        return _position_taken(place, url)
    # By what another batch of the same transaction wrote: only the server has seen that.
    key = _KEY.search(error.diag.message_detail or "")
    ids = {event.id for event in events}
    if key and key[1] in ids:
        return _duplicate(
            f"the id {key[1]} stands twice in one transaction", Where(store=url, event_id=key[1])
        )
    return ConflictError(
        f"an event of the batch has the place of another ({error.diag.message_primary})",
        where=Where(store=url, stream=events[0].stream),
        remedy="number the stream's events without repeating a position",
    )


def doubled(ask: Ask, sql: Statements, url: str, error: Exception) -> StoreError:
    """The first event that keeps a unique index from being built."""
    if rows := ask(sql.doubled_id, {}):
        event_id, _, second = rows[0]
        return _duplicate(
            f"the id {event_id} stands at the global positions {rows[0][1]} and {second}",
            Where(store=url, event_id=event_id, global_position=second),
        )
    if rows := ask(sql.doubled_position, {}):
        return _position_taken((rows[0][0], rows[0][1]), url)
    return StoreDamagedError(
        f"the store's indexes cannot be built ({error})",
        where=Where(store=url),
        remedy="restore the store from a backup, or run the job anew",
    )


def check_names(events: Sequence[Event], url: str) -> None:
    """Raise `DataError` for a name, id or type that the store cannot hold."""
    for event in events:
        names = {"stream's name": event.stream, "id": event.id, "type": event.type}
        origins = {f"origin {o.stream!r}": o.stream for o in event.origins}
        for part, name in (*names.items(), *origins.items()):
            if fault := _name_fault(name):
                raise DataError(
                    f"an event's {part} {fault}: {name[:100]!a}",
                    where=_place(event, url),
                    remedy=f"give it another {part}",
                )
        if event.schema_version < 1:
            raise DataError(
                f"the schema version {event.schema_version} is below 1",
                where=_place(event, url),
                remedy="count schema versions from 1",
            )


def _name_fault(name: str) -> str:
    if not name or "\0" in name:
        return "is empty or holds a NUL"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8 (a lone surrogate)"
    return f"has {size:,} bytes; {LONGEST_NAME:,} fit" if size > LONGEST_NAME else ""


def unfit(events: Sequence[Event], data: DataType, url: str, said: str = "") -> DataError:
    """The event whose data or metadata its column cannot hold; `said` by the server."""
    for event in events:
        for part, text, type_ in (
            ("data", event.data, data),
            ("metadata", event.metadata, metadata_type(data)),
        ):
            if text is not None and (fault := _fault(text, type_)):
                path, what = fault
                other = "json" if type_ == "jsonb" and "no JSON" not in what else "text"
                if type_ == "text":
                    other = "bytea"
                return DataError(
                    f"a column of type {type_} cannot hold this event's {part} as it is: "
                    + (f"{path} {what}" if path else f"it {what}"),
                    where=Where(
                        **(_place(event, url).as_dict() | ({"path": path} if path else {}))  # type: ignore[arg-type]
                    ),
                    remedy="wrap bytes that are no text (base64) in a JSON string"
                    if "UTF-8" in what
                    else f"begin anew with a target of its own (another ?schema= or ?tables=) "
                    f"that is made with ?data={other}",
                )
    return DataError(
        f"the server refused the data of a batch ({said})",
        where=Where(store=url, stream=events[0].stream),
        remedy="begin anew with a target of its own that is made with ?data=bytea: it holds all",
    )


def _fault(text: bytes, type_: DataType) -> tuple[str, str] | None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return "", f"is not UTF-8 (byte {error.start}: {error.reason})"
    if type_ in ("json", "jsonb"):
        return misfit(text, binary=type_ == "jsonb")
    if type_ == "text" and b"\0" in text:
        return "", "holds a NUL byte"
    return None


def _twice(values: Iterable[T]) -> T | None:
    return next((value for value, n in Counter(values).items() if n > 1), None)


def _duplicate(what: str, where: Where) -> DuplicateIdError:
    return DuplicateIdError(
        what, where=where, remedy="store each event once, under an id of its own"
    )


def _position_taken(place: tuple[Any, ...], url: str) -> ConflictError:
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
        stream=_shown(event.stream),
        stream_position=event.stream_position,
        event_id=_shown(event.id),
        type=_shown(event.type),
        schema_version=event.schema_version,
    )


def _shown(name: str) -> str:
    return (name if name.isprintable() else ascii(name)[1:-1])[:200]
