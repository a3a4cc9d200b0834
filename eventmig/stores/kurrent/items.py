"""Events as appends take them: with their envelopes, packed; and what cannot be stored."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from eventmig.errors import DataError, Where
from eventmig.events import Columns, NewEvent
from eventmig.stores.kurrent.envelope import Envelope, is_json, seal, unseal
from eventmig.stores.kurrent.rules import MOVED
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Location, Order
from eventmig.stores.kurrent.wire import proposed

_BINARY: Final = "application/octet-stream"
_JSON: Final = "application/json"
_CANONICAL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS: Final = uuid.UUID("2d6f0f6a-5d5e-5b7e-9a52-4c6a8f3e1b90")


def copied_items(location: Location, columns: Columns, positions: Sequence[int]) -> Iterator[Item]:
    """A job's events as an append takes them; their names and ids were checked.

    In their order, or with `order=stream` each stream's together, streams in the order of
    their first events.
    """
    prefix = location.prefix
    rows = [*zip(*columns[:-1], positions, strict=True)]
    order = range(len(rows)) if location.order is Order.GLOBAL else _by_stream(columns.streams)
    for n in order:
        (
            stream, given, type_, version, data, metadata, recorded_at,
            origin_stream, origin_position, ordinal, origin_global, position,
        ) = rows[n]  # fmt: skip
        id_ = _uuid(given)
        merged = columns.merged.get(n)
        envelope = Envelope(
            format=1,
            stream=None if origin_position is None else origin_stream,
            stream_position=origin_position,
            ordinal=ordinal,
            merged=[(o.stream, o.stream_position, o.ordinal) for o in merged] if merged else None,
            global_position=origin_global or None,
            recorded_at=recorded_at,
            schema_version=version,
            id=None if id_ == given else given,
        )
        metadata, content_type = _content(data, metadata)
        stored = seal(metadata, envelope)
        yield _item(prefix + stream, position, id_, type_, content_type, data, stored)


def new_item(location: Location, stream: str, revision: int, new: NewEvent) -> Item:
    """An application's event as an append takes it, with an envelope only where it needs one."""
    given = str(uuid.uuid4()) if new.id is None else new.id
    id_ = _uuid(given)
    envelope = Envelope(
        format=1,
        recorded_at=new.recorded_at,
        schema_version=new.schema_version,
        id=None if id_ == given else given,
    )
    metadata, content_type = _content(new.data, new.metadata)
    plain = envelope == Envelope(format=1) and metadata != b""
    stored = metadata or b"" if plain else seal(metadata, envelope)
    name = location.prefix + stream
    return _item(name, revision, id_, new.type, content_type, new.data, stored)


def check_new(stream: str, new: NewEvent, location: Location) -> None:
    """Raise `DataError` for an event of an application that cannot be stored."""
    check_names(location, stream, new.type, "-" if new.id is None else new.id)
    if new.schema_version < 1:
        raise DataError(
            f"the schema version {new.schema_version} is below 1",
            where=Where(store=location.url, stream=stream, type=new.type),
            remedy="count schema versions from 1",
        )


def check_ids(location: Location, columns: Columns) -> None:
    """Raise `DataError` for an event whose id KurrentDB cannot carry."""
    for n, id_ in enumerate(columns.ids):
        if not _CANONICAL.fullmatch(id_):
            check_names(location, columns.streams[n], columns.types[n], id_)


def check_names(location: Location, stream: str, type_: str, id_: str) -> None:
    """Raise `DataError` for a stream's name, a type or an id that KurrentDB cannot carry."""
    what = ""
    for part, text in (("stream", stream), ("type", type_), ("id", id_)):
        if not text or "\0" in text:
            what = f"{part} is empty or holds a NUL"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"{part} is not UTF-8 ({error.reason})"
    if not what and (type_.startswith("$") or type_ == MOVED):
        what = "type begins with $, as only the server's own do, or is eventmig's own"
    if not what and not location.holds(location.prefix + stream):
        what = "stream is none of this store's: it begins with $, or is of another category"
    if what:
        raise DataError(
            f"an event's {what}",
            where=Where(store=location.url, stream=ascii(stream)[1:-1], event_id=ascii(id_)[1:-1]),
            remedy="give it another name, by a step or a route, or choose another target",
        )


def _item(
    stream: str,
    revision: int,
    id_: str,
    type_: str,
    content_type: str,
    data: bytes,
    metadata: bytes,
) -> Item:
    message = proposed(id_, type_, content_type, data, metadata)
    size = len(data) + len(metadata) + len(type_)
    return Item(stream, revision, id_, message, size)


def _content(data: bytes, metadata: bytes | None) -> tuple[bytes | None, str]:
    """The metadata to store, and the content type: what the reader told, else what shows."""
    told = unseal(metadata)[1] if metadata else None
    if told is not None and told == Envelope(format=1, content_type=told.content_type):
        return unseal(metadata or b"")[0], told.content_type or _BINARY
    return metadata, _JSON if is_json(data) else _BINARY


def _uuid(id_: str) -> str:
    """The id, or where it is no UUID in its canonical form, a UUIDv5 of it."""
    return id_ if _CANONICAL.fullmatch(id_) else str(uuid.uuid5(_IDS, id_))


def _by_stream(streams: Sequence[str]) -> list[int]:
    """The indexes of these, each stream's together, streams in the order of their first ones."""
    indexes: dict[str, list[int]] = {}
    for n, stream in enumerate(streams):
        indexes.setdefault(stream, []).append(n)
    return [n for run in indexes.values() for n in run]
