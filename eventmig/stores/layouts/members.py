"""One top-level member of a JSON object, read, taken out and put in, without decoding the rest.

Every other byte stays as it was. Pure functions over the stored bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented by its use alone
from typing import Final, NamedTuple

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)  # only where values end


class Member(NamedTuple):
    """A member: its value's text, and where it stands in the object's text.

    `start` to `end` is the member alone; `value` to `end` is its value.
    """

    text: str
    start: int
    value: int
    end: int
    first: bool


def find(data: bytes, name: str) -> Member | None:
    """The top-level member of this name (the last one, where it stands twice), or None.

    Offsets are in characters of the decoded text. Raises `ValueError` for what is no object.
    """
    found = None
    if _quoted(name) in data or _may_hide(name).search(data) is not None:
        text = data.decode()
        for key, member in _members(text):
            if key == name:
                found = member
    return found


def places(objects: Sequence[bytes], name: str) -> list[int]:
    """The indexes of the objects that may have a member of this name, at whatever depth."""
    quoted, hides = _quoted(name), _may_hide(name).search
    return [n for n, data in enumerate(objects) if quoted in data or hides(data) is not None]


def without(data: bytes, name: str) -> bytes:
    """The object without this member, everything else byte for byte."""
    tail = _tail(name).search(data)
    if tail is not None:
        return data[: tail.start()] + b"}"
    member = find(data, name)
    if member is None:
        return data
    text = data.decode()
    before, after = text[: member.start], text[member.end :]
    if member.first:
        follows = _past(after, 0)
        after = after[_past(after, follows + 1) :] if after[follows] == "," else after
    else:
        before = before[: before.rindex(",")]
    return (before + after).encode()


def with_member(data: bytes, name: str, value: bytes) -> bytes:
    """The object with this member: its value replaced, else the member added at the end."""
    member = find(data, name)
    if member is not None:
        text = data.decode()
        return (text[: member.value] + value.decode() + text[member.end :]).encode()
    return added(data, name, value)


def added(data: bytes, name: str, value: bytes) -> bytes:
    """`with_member` for an object that has no member of this name."""
    end = data.rindex(b"}")
    before = data[:end].rstrip(b" \t\n\r")
    comma = b"" if before.endswith(b"{") else b","
    return data[:end] + comma + _quoted(name) + b":" + value + data[end:]


def last_number(data: bytes, name: str) -> int | None:
    """The value of the member where it stands last, compact and as a number; else None.

    So the libraries that keep it there write it; the way for most events.
    """
    tail = _tail(name).search(data)
    return None if tail is None else int(tail[1])


def _members(text: str) -> Iterator[tuple[str, Member]]:
    at = _past(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("this is no JSON object")
    at = _past(text, at + 1)
    first = True
    while text[at : at + 1] != "}":
        start = at
        key, at = scanstring(text, at + 1)
        value = _past(text, _past(text, at) + 1)
        _, end = _DECODER.raw_decode(text, value)
        yield key, Member(text[value:end], start, value, end, first)
        first = False
        at = _past(text, end)
        if text[at : at + 1] == ",":
            at = _past(text, at + 1)


def _past(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


@cache
def _quoted(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()


@cache
def _may_hide(name: str) -> re.Pattern[bytes]:
    """What stands in an object that spells this name with escapes.

    A plain ASCII name has only four-digit ones of ASCII, which other text hardly needs.
    """
    plain = name.isascii() and name.isprintable() and not set(name) & set('"\\/')
    return re.compile(rb"\\u00[2-7]" if plain else rb"\\")


@cache
def _tail(name: str) -> re.Pattern[bytes]:
    # The last brace is the object's own, so a number before it is a top-level member; a quote
    # inside of a string has a backslash before it, and this one has a comma.
    return re.compile(rb"," + re.escape(_quoted(name)) + rb":([0-9]+)\}\Z")
