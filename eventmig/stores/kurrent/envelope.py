"""What KurrentDB has no place for, inside an event's metadata. Pure.

A stream's events in KurrentDB have their id, type, data, metadata and the time the
server wrote them. What a copy must keep besides stands in one member of the metadata,
its last one: `"eventmig":{"format":1,…}` (`Envelope`). Everything before it is the
original's, byte for byte; taking the member out gives the original metadata back.

Metadata that is no JSON object with members cannot take one more: then it stands, as
text or base64, in the envelope itself.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

FORMAT: Final = 1
_MEMBER: Final = b'"eventmig":'


class Envelope(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The member `eventmig` of an event's metadata; what is not set says nothing.

    - `stream`, `stream_position`, `ordinal`: the event's first origin, as its own store
      counts; `merged`: all origins, where there are several.
    - `global_position`: that of the last origin in its own store (in KurrentDB, its commit
      position).
    - `recorded_at`: when the original was recorded, in microseconds since 1970 (UTC).
    - `schema_version`: of the data; absent means 1.
    - `id`: the original id, where that is no UUID in its canonical form.
    - `content_type`: the original's, where the data does not show it.
    - `metadata`, `metadata_base64`: original metadata that could not take the member.
    """

    format: int
    stream: str | None = None
    stream_position: int | None = None
    ordinal: int = 0
    merged: list[tuple[str, int, int]] | None = None
    global_position: int | None = None
    recorded_at: int | None = None
    schema_version: int = 1
    id: str | None = None
    content_type: str | None = None
    metadata: str | None = None
    metadata_base64: str | None = None


class _Versioned(msgspec.Struct):
    schemaVersion: int = 1  # noqa: N815 - the key's own spelling


_decoder: Final = msgspec.json.Decoder(Envelope)
_encoder: Final = msgspec.json.Encoder()
_objects: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_versioned: Final = msgspec.json.Decoder(_Versioned)


def seal(metadata: bytes | None, envelope: Envelope) -> bytes:
    """The metadata with the envelope as its last member."""
    if metadata is None:
        return b'{"eventmig":' + _encoder.encode(envelope) + b"}"
    if _takes_members(metadata):
        return metadata[:-1] + b',"eventmig":' + _encoder.encode(envelope) + b"}"
    try:
        kept = msgspec.structs.replace(envelope, metadata=metadata.decode())
    except UnicodeDecodeError:
        text = base64.b64encode(metadata).decode()
        kept = msgspec.structs.replace(envelope, metadata_base64=text)
    return b'{"eventmig":' + _encoder.encode(kept) + b"}"


def unseal(stored: bytes) -> tuple[bytes | None, Envelope | None]:
    """The original metadata (None where there was none), and the envelope if there is one."""
    if not stored.endswith(b"}}"):
        return stored or None, None
    at = stored.rfind(_MEMBER)
    before = stored[: max(at, 0)]
    if at < 0 or not before.endswith((b"{", b",")):
        return stored, None
    try:
        envelope = _decoder.decode(stored[at + len(_MEMBER) : -1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return stored, None  # somebody else's member of this name
    if envelope.format != FORMAT:
        return stored, None
    if before.endswith(b","):
        return before[:-1] + b"}", envelope
    if envelope.metadata is not None:
        return envelope.metadata.encode(), envelope
    if envelope.metadata_base64 is not None:
        return base64.b64decode(envelope.metadata_base64), envelope
    return None, envelope


def schema_version(metadata: bytes | None) -> int:
    """The `schemaVersion` an application wrote into its metadata, else 1."""
    if metadata is None or b'"schemaVersion"' not in metadata:
        return 1
    try:
        return max(_versioned.decode(metadata).schemaVersion, 1)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 1


def is_json(data: bytes) -> bool:
    """Whether the bytes are one JSON text."""
    try:
        data.decode()  # a raw value is not looked into
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _takes_members(metadata: bytes) -> bool:
    if not (metadata.startswith(b"{") and metadata.endswith(b"}")):
        return False
    try:
        members = _objects.decode(metadata)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bool(members) and "eventmig" not in members
