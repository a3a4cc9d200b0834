"""The upcast history against what GH Archive itself made of it. Pure: values in, a result out.

Compared are JSON values with their types; `payload` and `other` are JSON text inside a string,
and are compared as that text, character by character.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from eventmig import codec
from eventmig.codec import Value
from eventmig.errors import CodecError
from eventmig.paths import Path, text
from examples.gharchive.history import Record

SHOWN = 10
"""How many differences a comparison keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where an event is not what it should be; `line` is 1-based."""

    line: int
    type: str
    path: str
    got: str
    want: str


@dataclass(slots=True, kw_only=True)
class Comparison:
    """How many events are what they should be.

    `identical` counts those whose whole line is the same, byte for byte. `differences` are
    the first ones only.
    """

    events: int = 0
    matched: int = 0
    mismatched: int = 0
    identical: int = 0
    differences: list[Difference] = field(default_factory=list)


def compare(got: Mapping[int, Sequence[bytes]], wanted: Iterator[Record]) -> Comparison:
    """The events of each line against the record that this line should have become.

    `got` holds the data of every event by the line it came from: one event per line.
    """
    result = Comparison()
    for record in wanted:
        found = list(differences_of(got.get(record.line, ()), record))
        result.events += 1
        if found:
            result.mismatched += 1
            result.differences += found[: SHOWN - len(result.differences)]
        else:
            result.matched += 1
            result.identical += got[record.line][0] == record.raw
    return result


def differences_of(got: Sequence[bytes], record: Record) -> Iterator[Difference]:
    """Where the events of one line differ from the record they should be; nothing if equal."""
    kind = str(record.members.get("type", ""))

    def difference(path: Path, found: object, want: object) -> Difference:
        where = text(path) if path else "(the whole record)"
        return Difference(
            line=record.line, type=kind, path=where, got=_short(found), want=_short(want)
        )

    if len(got) != 1:
        yield difference((), f"{len(got)} events", "1 event")
        return
    for path, found, want in _different(codec.decode_strict(got[0]), record.members, ()):
        yield difference(path, found, want)


_ABSENT = object()
_Place = tuple[Path, object, object]


def _different(got: object, want: object, path: Path) -> Iterator[_Place]:
    """Every place below a path where two values differ in value or type."""
    if isinstance(got, dict) and isinstance(want, dict):
        for key in {**want, **got}:
            yield from _different(got.get(key, _ABSENT), want.get(key, _ABSENT), (*path, key))
    elif isinstance(got, list) and isinstance(want, list) and len(got) == len(want):
        for index, (left, right) in enumerate(zip(got, want, strict=True)):
            yield from _different(left, right, (*path, index))
    elif type(got) is not type(want) or got != want:
        inner = _inside(got, want, path) if path in (("payload",), ("other",)) else []
        yield from inner or [(path, got, want)]


def _inside(got: object, want: object, path: Path) -> list[_Place]:
    """Where two JSON texts differ; nothing if only their spelling does, or if they are none."""
    if not isinstance(got, str) or not isinstance(want, str):
        return []
    try:
        left: Value = codec.decode_strict(got.encode())
        right: Value = codec.decode_strict(want.encode())
    except CodecError:
        return []
    return list(_different(left, right, (*path, "(text)")))


def _short(value: object) -> str:
    if value is _ABSENT:
        return "(absent)"
    shown = value if isinstance(value, str) else codec.encode_checked(value).decode()
    return shown if len(shown) <= 200 else f"{shown[:197]}…"
