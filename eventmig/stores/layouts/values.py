"""Stored values as event values, and back: payloads, schema versions, times.

Pure functions over what the database hands out; what is opaque is refused by name.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import msgspec

from eventmig.errors import DataError, OpaqueError
from eventmig.events import EPOCH
from eventmig.stores.layouts import members
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Payload, Time, Version

NULL: Final = b"null"
_scan: Final = msgspec.json.Decoder(msgspec.Raw).decode
_FIRST_OF_JSON: Final = frozenset(b'{["-0123456789tfn \t\r\n')
_SIGNS: Final = (
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xac\xed\x00\x05", "serialized by Java"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"gAAAA", "encrypted (a Fernet token)"),
    (b"---", "YAML"),
    (b"<?xml", "XML"),
    (b"<", "XML"),
)


# payloads ----------------------------------------------------------------------------------


def all_unpacked(stored: Sequence[Any], payload: Payload) -> list[bytes]:
    """`unpacked` of many; each step is one loop in C. Raises `OpaqueError`."""
    try:
        if isinstance(stored[0], str) and not payload.codecs:
            raw = [text.encode() for text in stored]
        else:
            raw = list(map(zlib.decompress if payload.codecs else bytes, stored))
        if _FIRST_OF_JSON.issuperset({text[0] for text in raw}):
            return raw
    except (AttributeError, TypeError, IndexError, zlib.error):
        pass  # some of them are NULL, or opaque
    return [unpacked(one, payload) for one in stored]


def unpacked(stored: bytes | str | None, payload: Payload) -> bytes:
    """The JSON bytes of a stored payload; NULL is `null`. Raises `OpaqueError`."""
    if stored is None:
        return NULL
    raw = stored.encode() if isinstance(stored, str) else bytes(stored)
    if payload.codecs:
        try:
            return zlib.decompress(raw)
        except zlib.error as error:
            raise _opaque(raw, "is not compressed with zlib, as the layout says") from error
    if not raw or raw[0] not in _FIRST_OF_JSON:
        raise _opaque(raw, "is no JSON")
    return raw


def packed(data: bytes, payload: Payload) -> bytes | None:
    """A payload as it is stored: NULL for `null`."""
    if data == NULL:
        return None
    return zlib.compress(data) if payload.codecs else data


def check_json(texts: Iterable[bytes]) -> None:
    """Raise `OpaqueError` unless each of these is JSON text."""
    for data in texts:
        try:
            _scan(data)
        except msgspec.DecodeError as error:
            raise _opaque(data, f"is no JSON ({error})") from error


def nature(stored: bytes) -> str:
    """What bytes that are no JSON seem to be, in words."""
    for sign, name in _SIGNS:
        if stored.startswith(sign):
            return name
    try:
        msgspec.json.decode(stored, type=msgspec.Raw)
        return "plain JSON"
    except msgspec.DecodeError:
        pass
    try:
        zlib.decompress(stored)
    except zlib.error:
        return "encrypted, or packed in a way nobody can see"
    return "compressed with zlib"


def _opaque(stored: bytes, what: str) -> OpaqueError:
    return OpaqueError(
        f"the payload {what}: it seems {nature(stored)}",
        remedy="eventmig reads JSON, plain or compressed with zlib (codecs in the layout); "
        "opaque payloads stay with the application that has the key",
    )


# schema versions ---------------------------------------------------------------------------


def version_of_data(data: bytes, version: Version) -> tuple[int, bytes]:
    """The schema version in the data, and the data without it.

    A member that says what absence means anyway stays where it is.
    """
    found = members.last_number(data, version.name)
    if found is None:
        member = members.find(data, version.name)
        if member is None:
            return version.absent, data
        found = _number(member.text, version)
    return found, data if found == version.absent else members.without(data, version.name)


def versions_of_data(data: list[bytes], version: Version) -> tuple[list[int], list[bytes]]:
    """`version_of_data` of many; those without the member cost one look."""
    numbers = [version.absent] * len(data)
    for at in members.places(data, version.name):
        numbers[at], data[at] = version_of_data(data[at], version)
    return numbers, data


def data_with_version(data: bytes, version: Version, number: int) -> bytes:
    """The data with the schema version in it, as the owner keeps it."""
    return _with_version(data, version, number)


def data_as_held(data: bytes, version: Version, number: int) -> bytes:
    """The data as they are read back from where `data_with_version` put them."""
    return version_of_data(data_with_version(data, version, number), version)[1]


def version_of_metadata(metadata: bytes | None, version: Version) -> int:
    """The schema version in the metadata, which stay as they are."""
    if metadata is None:
        return version.absent
    member = members.find(metadata, version.name)
    return version.absent if member is None else _number(member.text, version)


def metadata_with_version(metadata: bytes | None, version: Version, number: int) -> bytes | None:
    """The metadata with the schema version in them, untouched where they say it already."""
    if metadata is None:
        return None if number == version.absent else _with_version(b"{}", version, number)
    return _with_version(metadata, version, number)


def _with_version(data: bytes, version: Version, number: int) -> bytes:
    member = members.find(data, version.name)
    if member is None and number == version.absent:
        return data
    value = b'"%d"' % number if version.text else b"%d" % number
    if member is None:
        try:
            return members.added(data, version.name, value)
        except ValueError as error:
            raise DataError(
                f"the event is at schema version {number}, and there is no object to hold that at "
                f"{version.name!r}",
                remedy="make its data an object in an upcaster, or say in the layout where the "
                "schema version is",
            ) from error
    if _number(member.text, version) == number:
        return data
    return members.with_member(data, version.name, value)


def _number(text: str, version: Version) -> int:
    value = text.strip('"')
    if not value.isdecimal() or int(value) < 1:
        raise DataError(
            f"the schema version in {version.name!r} is {text}, not a whole number of 1 or more",
            remedy="mend that event, or say in the layout where the schema version is",
        )
    return int(value)


def version_of_column(value: object, version: Version) -> int:
    """The schema version in a column; NULL and the empty text mean there is none."""
    return version.absent if value is None or value == "" else _number(str(value), version)


def split_type(stored: str, layout: Layout) -> tuple[str, int]:
    """The type and schema version in a type column: `placed_v2` is `placed`, 2."""
    base, mark, number = stored.rpartition(layout.type.suffix or "\0")
    if mark and base and number.isdecimal() and number[0] != "0":
        return base, int(number)
    return stored, layout.version.absent


def joined_type(type_: str, number: int, layout: Layout) -> str:
    """What a type column holds. Raises `DataError` where it would be read back as another."""
    suffix = layout.type.suffix
    if suffix is None:
        return type_
    stored = type_ if number == layout.version.absent else f"{type_}{suffix}{number}"
    if split_type(stored, layout) != (type_, number):
        raise DataError(
            f"the type {type_!r} ends like a schema version of this layout ({suffix}N)",
            remedy="rename the type in an upcaster",
        )
    return stored


# times -------------------------------------------------------------------------------------


def time_reader(time: Time) -> Callable[[Any], int]:
    """From a column's value to microseconds since 1970 (UTC); a time without zone is UTC."""
    if time.encoding == "us":
        return int
    if time.encoding == "ms":
        return lambda value: int(value) * 1_000
    return lambda value: micros(value if isinstance(value, datetime) else _parsed(str(value)))


def time_writer(time: Time, kind: str, digits: int) -> Callable[[int], object]:
    """From microseconds to a column's value; raises `DataError` where it cannot hold them.

    `kind` is "aware", "naive" (the database's own types) or "text"; `digits` is how many
    of a second's the column holds.
    """
    step = 1_000 if time.encoding == "ms" else 10 ** (6 - digits)

    def write(at: int) -> object:
        if at % step:
            raise DataError(
                f"a time of {at % 1_000_000} microseconds after the second is finer than the "
                f"column {time.column} holds",
                remedy="such a target would lose part of the time; choose another layout",
            )
        if time.encoding in ("us", "ms"):
            return at // step
        moment = EPOCH + timedelta(microseconds=at)
        if time.encoding == "iso":
            return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        if kind == "aware":
            return moment
        naive = moment.replace(tzinfo=None)
        return naive if kind == "naive" else naive.isoformat(sep=" ")

    return write


def micros(moment: datetime) -> int:
    """Microseconds since 1970 of a moment; without a zone it is UTC."""
    passed = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


@cache
def time_in_data(path: str) -> Callable[[bytes], int]:
    """What finds an ISO 8601 time at a path of the data; 0 (1970) where it is missing."""
    inner: Any = str
    parts = path.split(".")
    for name in reversed(parts):
        inner = msgspec.defstruct("Level", [("at", inner | None, None)], rename={"at": name})
    decode = msgspec.json.Decoder(inner).decode

    def find(data: bytes) -> int:
        found: Any = decode(data)
        for _ in parts:
            found = None if found is None else found.at
        return 0 if found is None else micros(_parsed(found))

    return find


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(
            f"{text!r} is no ISO 8601 time", remedy="say in the layout how times are written"
        ) from error


# columns that only pass through ------------------------------------------------------------

COLUMNS: Final = "$columns"
"""The member of the metadata in which passed-through columns travel."""
_WHOLE: Final = "$metadata"  # beside them: the stored metadata, where they are no object
_NO_OBJECT: Final = "$no_object"  # among them: the stored metadata are NULL, or no object
_OTHER: Final = b'"$no_object":true'


def with_columns(metadata: bytes | None, values: dict[str, object]) -> bytes:
    """Metadata with the passed-through columns in them."""
    carried = json.dumps(values, ensure_ascii=False).encode()
    if metadata is not None and metadata.lstrip().startswith(b"{"):
        return members.with_member(metadata, COLUMNS, carried)
    whole = b"{}" if metadata is None else members.with_member(b"{}", _WHOLE, metadata)
    return members.with_member(whole, COLUMNS, carried[:-1] + b"," + _OTHER + b"}")


def without_columns(metadata: bytes | None) -> tuple[bytes | None, dict[str, object]]:
    """The metadata alone, and the columns that travelled in them (none: an own event)."""
    member = None if metadata is None else members.find(metadata, COLUMNS)
    if member is None or metadata is None:
        return metadata, {}
    values: dict[str, object] = json.loads(member.text)
    if not values.pop(_NO_OBJECT, False):
        return members.without(metadata, COLUMNS), values
    whole = members.find(metadata, _WHOLE)
    return (None if whole is None else whole.text.encode()), values
