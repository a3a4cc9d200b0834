"""A snapshot's state as the library that owns the tables writes it. Pure.

The form of `eventsourcing` (Python): `CanSnapshotAggregate.take` and `JSONTranscoder` of 9.5.6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import msgspec

from eventmig.errors import DataError, Where
from eventmig.stores.layouts import members
from eventmig.stores.owned import OwnerSnapshot

_TIME: Final = "timestamp"
_OWN: Final = frozenset(
    {"_id", "_version", "_pending_events", "_created_on", "_modified_on", "class_version"}
)
"""Attributes that the library keeps itself: some beside the state, some written by us."""


def eventsourcing(snapshot: OwnerSnapshot, first: bytes, last: bytes) -> bytes:
    """The state of a stored snapshot, from the data of its stream's first event and its own.

    Its time is that of the event it stands at, so that it is the same whenever it is made.
    Raises `DataError` for what the form cannot hold.
    """
    where = Where(stream=snapshot.stream, stream_position=snapshot.stream_position)
    taken = sorted(_OWN & snapshot.state.keys())
    if taken:
        raise DataError(
            f"the state has a member {taken[0]!r}, which the library keeps itself",
            where=where,
            remedy="leave it out of the aggregate's state: it is written without that",
        )
    created, modified = (_time(data, where) for data in (first, last))
    state: dict[str, object] = {
        "_created_on": msgspec.Raw(created),
        "_modified_on": msgspec.Raw(modified),
        **snapshot.state,
    }
    if snapshot.class_version > 1:
        state["class_version"] = snapshot.class_version
    try:
        return _json({_TIME: msgspec.Raw(modified), "topic": snapshot.topic, "state": state})
    except DataError as error:
        raise DataError(error.what, where=where, remedy=error.remedy) from error


def _time(data: bytes, where: Where) -> bytes:
    found = members.find(data, _TIME)
    if found is None:
        raise DataError(
            f"an event of the stream has no {_TIME!r} in its state",
            where=where,
            remedy="the library's events have one: see what wrote this event",
        )
    return found.text.encode()


def _json(value: object) -> bytes:
    match value:
        case msgspec.Raw():
            return bytes(value)
        case Decimal():
            return _transcoded("decimal_str", str(value))
        case UUID():
            return _transcoded("uuid_hex", value.hex)
        case datetime():
            return _transcoded("datetime_iso", value.isoformat())
        case Mapping():
            rows = (_text(str(name)) + b":" + _json(one) for name, one in value.items())
            return b"{" + b",".join(rows) + b"}"
        case list() | tuple():
            return b"[" + b",".join(map(_json, value)) + b"]"
        case None | bool() | int() | float() | str():
            return _text(value)
    raise DataError(
        f"the state holds a {type(value).__name__} ({value!r:.80}), for which the library has no "
        "transcoding of its own",
        remedy='hold what your transcoding writes: {"_type_": NAME, "_data_": …}',
    )


def _transcoded(name: str, data: str) -> bytes:
    return b'{"_type_":' + _text(name) + b',"_data_":' + _text(data) + b"}"


def _text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
