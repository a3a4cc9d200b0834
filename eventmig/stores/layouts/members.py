"""One member of a JSON object, read, taken out and put in, without decoding the rest.

It is named by a path: `version`, or `about.version` for one of the object `about`. Every
other byte stays as it was. Pure functions over the stored bytes.
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


def find(data: bytes, path: str) -> Member | None:
    """The member at this path (the last one, where a name stands twice), or None.

    Offsets are in characters of the decoded text. Raises `ValueError` for what is no object.
    """
    found = None
    *above, name = _names(path)
    if _quoted(name) in data or _may_hide(name).search(data) is not None:
        text = data.decode()
        at = 0
        for parent in above:
            holder = _named(text, at, parent)
            if holder is None or text[holder.value] != "{":
                return None
            at = holder.value
        found = _named(text, at, name)
    return found


def places(objects: Sequence[bytes], path: str) -> list[int]:
    """The indexes of the objects that may have such a member; the others have none."""
    name = _names(path)[-1]
    quoted, hides = _quoted(name), _may_hide(name).search
    return [n for n, data in enumerate(objects) if quoted in data or hides(data) is not None]


def without(data: bytes, path: str) -> bytes:
    """The object without this member, everything else byte for byte.

    The object that held it stays, if need be empty.
    """
    tail = _tail(path)
    last = None if tail is None else tail.search(data)
    if last is not None:
        return data[: last.start()] + b"}"
    member = find(data, path)
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


def with_member(data: bytes, path: str, value: bytes) -> bytes:
    """The object with this member: its value replaced, else the member added at the end.

    Raises `ValueError` where that is not possible, as `added` does.
    """
    member = find(data, path)
    if member is not None:
        text = data.decode()
        return (text[: member.value] + value.decode() + text[member.end :]).encode()
    return added(data, path, value)


def added(data: bytes, path: str, value: bytes) -> bytes:
    """`with_member` for an object that has no such member.

    Objects on its path that are missing are added, too. Raises `ValueError` where what
    stands there is no object.
    """
    *above, name = _names(path)
    if above:
        return _added_below(data, above, name, value)
    if not data.lstrip(b" \t\n\r").startswith(b"{"):
        raise ValueError("this is no JSON object")
    return _put_last(data, data.rindex(b"}"), name, value)


def _added_below(data: bytes, above: list[str], name: str, value: bytes) -> bytes:
    text = data.decode()
    at, end = 0, len(text.rstrip(" \t\n\r"))
    names = [*above, name]
    while len(names) > 1:
        holder = _named(text, at, names[0])
        if holder is None:
            break
        at, end = holder.value, holder.end
        names.pop(0)
    if text[_past(text, at)] != "{":
        raise ValueError("this is no JSON object")
    for inner in reversed(names[1:]):
        value = b"{" + _quoted(inner) + b":" + value + b"}"
    return _put_last(data, len(text[: end - 1].encode()), names[0], value)


def _put_last(data: bytes, end: int, name: str, value: bytes) -> bytes:
    """The member before the brace at this byte, which ends an object."""
    before = data[:end].rstrip(b" \t\n\r")
    comma = b"" if before.endswith(b"{") else b","
    return data[:end] + comma + _quoted(name) + b":" + value + data[end:]


def last_number(data: bytes, path: str) -> int | None:
    """The value of a top-level member that stands last, compact and as a number; else None.

    So the libraries that keep it there write it; the way for most events.
    """
    tail = _tail(path)
    found = None if tail is None else tail.search(data)
    return None if found is None else int(found[1])


@cache
def _names(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _named(text: str, at: int, name: str) -> Member | None:
    """The member of this name of the object that begins here."""
    found = None
    for key, member in _members(text, at):
        if key == name:
            found = member
    return found


def _members(text: str, at: int) -> Iterator[tuple[str, Member]]:
    at = _past(text, at)
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
def _tail(path: str) -> re.Pattern[bytes] | None:
    if "." in path:
        return None
    # The last brace is the object's own, so a number before it is a top-level member; a quote
    # inside of a string has a backslash before it, and this one has a comma.
    return re.compile(rb"," + re.escape(_quoted(path)) + rb":([0-9]+)\}\Z")
