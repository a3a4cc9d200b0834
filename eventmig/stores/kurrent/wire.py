"""Append requests as bytes: what the generated message classes would make of them. Pure.

An append of many events in many streams is many small requests, and the classes cost
several microseconds for each event. So an event is packed once, when it is prepared, and
a request is its events' bytes behind a head. The numbers are those of the fields in the
clients' `streams.proto`; a test holds the bytes against the classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_NO_DEADLINE: Final = 315_576_000_000  # seconds: the most a protobuf duration holds
_DESCRIPTIONS: Final = 4_096  # types with their content types that are kept packed
_STREAMS: Final = 65_536


def _number(value: int) -> bytes:
    """A varint."""
    if value < 0x80:
        return _SMALL[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


_SMALL: Final = [bytes((value,)) for value in range(0x80)]


def _field(number: int, content: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return _number(number << 3 | 2) + _number(len(content)) + content


_DEADLINE: Final = _field(7, b"\x08" + _number(_NO_DEADLINE))
_NO_STREAM: Final = _field(3, b"")
_FINAL: Final = b"\x20\x01"


@lru_cache(_DESCRIPTIONS)
def _described(type_: str, content_type: str) -> bytes:
    """The entries of an event's system metadata."""
    entries = (("type", type_), ("content-type", content_type))
    return b"".join(
        _field(2, _field(1, key.encode()) + _field(2, value.encode())) for key, value in entries
    )


@lru_cache(_STREAMS)
def _named(stream: str) -> bytes:
    """The identifier of a stream."""
    return _field(1, _field(3, stream.encode()))


def proposed(id: str, type: str, content_type: str, data: bytes, metadata: bytes) -> bytes:
    """An event as an append carries it; its id is a UUID in its canonical form."""
    packed = b"".join(
        (
            b"\x0a\x26\x12\x24", id.encode(),
            _described(type, content_type),
            b"\x1a", _number(len(metadata)), metadata,
            b"\x22", _number(len(data)), data,
        )
    )  # fmt: skip
    return b"".join((b"\x1a", _number(len(packed)), packed))


def request(number: int, stream: str, revision: int, events: Iterable[bytes]) -> bytes:
    """The request to append events (as `proposed` packs them) from this revision on.

    `number` comes back in the answer, as the least significant bits of its correlation id.
    """
    bits = _number(number)
    size = len(bits)
    expected = b"\x10" + _number(revision - 1) if revision else _NO_STREAM
    options = _named(stream) + expected + _DEADLINE
    return b"".join(
        (
            b"\x0a", _SMALL[size + 3], b"\x0a", _SMALL[size + 1], b"\x10", bits,
            b"\x12", _number(len(options)), options,
            *events,
            _FINAL,
        )
    )  # fmt: skip
