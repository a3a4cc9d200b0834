"""Which field of an imported record is which part of an event.

Pure: bytes of one line in, the parts of an event out. The values that become
data and metadata are cut from the line as they stand, never decoded and encoded
again. `transfer` reads the files and writes the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, NamedTuple, Never, TypeAlias

import msgspec
from msgspec import Raw

from eventmig.events import Origin, microseconds

TimeUnit: TypeAlias = Literal["s", "ms", "us"]

Record: TypeAlias = "dict[str, Raw]"

_members: Final = msgspec.json.Decoder(dict[str, Raw])
_text: Final = msgspec.json.Decoder(str)
_origins: Final = msgspec.json.Decoder(list[tuple[str, int, int]])
_placeholder: Final = re.compile(r"\{([^{}]+)\}")
_NAMESPACE: Final = uuid.UUID("2f0f2a5b-62b6-5b0f-9d2c-6d1f0f3f6f52")
_BASE64: Final = "_base64"


class BadRecordError(Exception):
    """Why a line is no event; the importer adds file and line."""


class Parts(NamedTuple):
    """What one record says of its event; None where it says nothing.

    `recorded_at` is in microseconds since 1970-01-01T00:00:00 UTC.
    """

    stream: str
    stream_position: int | None
    id: str | None
    type: str
    schema_version: int
    data: bytes
    metadata: bytes | None
    recorded_at: int | None
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Record fields to event parts; the default is the form `export_jsonl` writes.

    A *template* is text with dotted paths in braces: "incident-{incident_id}",
    "{payload.action}", or plain text, the same for every event. A *path* names a
    field: "payload.order"; a field whose own name holds dots is tried first.

    - `stream`, `type`: templates.
    - `id`: template, or None. An event without one gets a UUIDv5 of its stream,
      its place in the stream and its line: importing a file again gives the
      same ids.
    - `schema_version`: a number for all, or a path; a missing field means 1.
    - `data`: path, or None for the whole record, as it stands in the line.
    - `metadata`: path or None; a missing field or `null` means none.
    - `recorded_at`: path, or None for the time of the import. ISO 8601 with an
      offset (also `2012/03/10 22:00:00 -0800`), or a number where `time_unit`
      says of what. Finer than microseconds is cut off.
    - `assume_utc`: read a time that has no offset as UTC instead of refusing it.
    - `stream_position`: path, or None to number each stream by its lines.
    - `origins`: path of a list of [stream, position, ordinal], or None.

    Where the field of data or metadata is missing, the field of that name with
    `_base64` added is read instead: the form for bytes that a line cannot hold.
    """

    stream: str = "{stream}"
    id: str | None = "{id}"
    type: str = "{type}"
    schema_version: int | str = "schema_version"
    data: str | None = "data"
    metadata: str | None = "metadata"
    recorded_at: str | None = "recorded_at"
    time_unit: TimeUnit | None = "us"
    assume_utc: bool = False
    stream_position: str | None = "stream_position"
    origins: str | None = "origins"

    def parts(self, line: bytes) -> Parts:
        """The parts of the event in one line (UTF-8, no line end); raises `BadRecordError`."""
        record = _record(line)
        data = line.strip() if self.data is None else _bytes(record, self.data)
        if data is None:
            raise BadRecordError(f"no such field: {self.data}")
        metadata = None if self.metadata is None else _bytes(record, self.metadata)
        return Parts(
            stream=_fill(record, self.stream, "stream"),
            stream_position=_position(record, self.stream_position),
            id=None if self.id is None else _fill_or_none(record, self.id),
            type=_fill(record, self.type, "type"),
            schema_version=_version(record, self.schema_version),
            data=data,
            metadata=metadata,
            recorded_at=self._time(record),
            origins=_origins_of(record, self.origins),
        )

    def _time(self, record: Record) -> int | None:
        if self.recorded_at is None:
            return None
        raw = _find(record, self.recorded_at)
        if raw is None:
            raise BadRecordError(f"no such field: {self.recorded_at}")
        if raw.startswith(b'"'):
            return parse_time(_text.decode(raw), assume_utc=self.assume_utc)
        if self.time_unit is None:
            raise BadRecordError(
                f"the time {raw.decode()} is a number: say of what (time_unit s, ms or us)"
            )
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1}[self.time_unit]
        try:
            moment = Decimal(raw.decode()) * scale
        except InvalidOperation as error:
            raise BadRecordError(f"the time {_shown(raw)} cannot be read") from error
        if not -(2**63) <= moment < 2**63:
            raise BadRecordError(f"the time {_shown(raw)} is out of range")
        return int(moment)


def derived_id(stream: str, ordinal: int, line: bytes) -> str:
    """The id of an event whose record has none: UUIDv5 of stream, place in it, and line.

    `ordinal` is the event's place among those the file holds for its stream.
    """
    name = f"{stream}\x1f{ordinal}\x1f".encode() + line
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


_TIME: Final = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)?)?"
    r" ?(?:(Z|z|UTC)|([+-])(\d\d):?(\d\d))?"
)


def parse_time(text: str, *, assume_utc: bool = False) -> int:
    """Microseconds since the Unix epoch of an ISO-like time; raises `BadRecordError`."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise BadRecordError(f"the time {text!r} cannot be read")
    year, month, day, hour, minute, second, fraction, utc, sign, hours, minutes = found.groups()
    if utc:
        zone: timezone = UTC
    elif sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        try:
            zone = timezone(-offset if sign == "-" else offset)
        except ValueError as error:
            raise BadRecordError(f"the time {text!r} has no possible offset") from error
    elif assume_utc:
        zone = UTC
    else:
        raise BadRecordError(f"the time {text!r} has no offset (assume_utc reads it as UTC)")
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0").ljust(6, "0")),
            tzinfo=zone,
        )
    except ValueError as error:
        raise BadRecordError(f"the time {text!r} cannot be read: {error}") from error
    return microseconds(moment)


def _record(line: bytes) -> Record:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise BadRecordError(f"wrong UTF-8 at byte {error.start + 1}: {error.reason}") from error
    try:
        return _members.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRecordError(_why_not_json(line, error)) from error


def _why_not_json(line: bytes, error: Exception) -> str:
    """The plainest reason: a NUL, not an object, or what the standard parser says and where."""
    if (at := line.find(b"\0")) >= 0:
        return f"a NUL at byte {at + 1}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        return "not a JSON object"

    def no_constant(name: str) -> Never:
        raise ValueError(f"{name} is not JSON")

    try:
        json.loads(line, parse_constant=no_constant)
    except json.JSONDecodeError as exact:
        return f"not JSON: {exact.msg} at column {exact.colno}"
    except (ValueError, RecursionError) as exact:
        return f"not JSON: {exact}"
    if re.search(rb"\\u[dD][89a-fA-F]", line):
        return "not JSON text: a lone surrogate (\\ud800 to \\udfff) stands for no character"
    return f"not JSON: {error}"


def _find(record: Record, path: str) -> bytes | None:
    """The bytes of a field, or None where there is none or it is `null`."""
    raw = record.get(path)
    if raw is None and "." in path:
        head, rest = path.split(".", 1)
        inner = record.get(head)
        if inner is None or not bytes(inner).startswith(b"{"):
            return None
        return _find(_members.decode(inner), rest)
    if raw is None or bytes(raw) == b"null":
        return None
    return bytes(raw)


def _bytes(record: Record, path: str) -> bytes | None:
    raw = _find(record, path)
    if raw is not None:
        return raw
    coded = _find(record, path + _BASE64)
    if coded is None:
        return None
    try:
        return base64.b64decode(_text.decode(coded), validate=True)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise BadRecordError(f"{path + _BASE64} is not base64") from error


def _scalar(raw: bytes, path: str) -> str:
    if raw.startswith(b'"'):
        return _text.decode(raw)
    if raw.startswith((b"{", b"[")):
        raise BadRecordError(f"{path} is not text or a number: {_shown(raw)}")
    return raw.decode()


def _fill(record: Record, template: str, part: str) -> str:
    def value(found: re.Match[str]) -> str:
        raw = _find(record, found[1])
        if raw is None:
            raise BadRecordError(f"no such field: {found[1]}")
        return _scalar(raw, found[1])

    text = _placeholder.sub(value, template)
    if not text or "\0" in text:
        raise BadRecordError(f"the {part} is empty or holds a NUL: {text!r}")
    return text


def _fill_or_none(record: Record, template: str) -> str | None:
    if any(_find(record, path) is None for path in _placeholder.findall(template)):
        return None
    return _fill(record, template, "id")


def _integer(raw: bytes, path: str) -> int:
    text = _scalar(raw, path)
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise BadRecordError(f"{path} is not an integer: {_shown(raw)}")
    return int(text)


def _version(record: Record, version: int | str) -> int:
    if isinstance(version, str):
        raw = _find(record, version)
        version = 1 if raw is None else _integer(raw, version)
    if version < 1:
        raise BadRecordError(f"the schema version {version} is below 1")
    return version


def _position(record: Record, path: str | None) -> int | None:
    raw = None if path is None else _find(record, path)
    return None if raw is None or path is None else _integer(raw, path)


def _origins_of(record: Record, path: str | None) -> tuple[Origin, ...]:
    raw = None if path is None else _find(record, path)
    if raw is None:
        return ()
    try:
        return tuple(map(Origin._make, _origins.decode(raw)))
    except msgspec.DecodeError as error:
        raise BadRecordError(
            f"{path} is not a list of [stream, position, ordinal]: {_shown(raw)}"
        ) from error


def _shown(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if len(text) <= 60 else text[:57] + "..."
