"""Paths into JSON data: how ops name a member.

`"address.city"` names `city` in the object `address`; a tuple of parts names
what a dotted text cannot: a key that holds a dot, or an index into a list
(`("lines", 0, "sku")`). `()` is the value itself.
"""

from __future__ import annotations

from typing import Final

from eventmig.codec import Value

Part = str | int
Path = tuple[Part, ...]
PathLike = str | Path


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()
"""Where there is no member; not the same as null."""


def parse(path: PathLike) -> Path:
    """A path as its parts; raises `ValueError` for an empty part."""
    if isinstance(path, tuple):
        return path
    if path == "":
        return ()
    parts = tuple(path.split("."))
    if "" in parts:
        raise ValueError(f"the path {path!r} has an empty part")
    return parts


def text(path: Path) -> str:
    """A path as people write it (`lines[0].sku`); `(the value itself)` for `()`."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out or "(the value itself)"


def get(value: Value, path: Path) -> Value | _Absent:
    """What stands at a path, or ABSENT; never raises."""
    if len(path) == 1 and isinstance(value, dict):  # as most paths are
        return value.get(path[0], ABSENT)  # type: ignore[arg-type]
    found: Value | _Absent = value
    for part in path:
        if isinstance(part, str):
            if not isinstance(found, dict) or part not in found:
                return ABSENT
            found = found[part]
        else:
            if not isinstance(found, list) or not 0 <= part < len(found):
                return ABSENT
            found = found[part]
    return found


def put(value: Value, path: Path, new: Value) -> Value:
    """A copy of `value` with `new` at a path whose parent exists.

    An existing member keeps its place among the keys; a new one comes last.
    Raises `KeyError` where the parent is not there.
    """
    if len(path) == 1 and isinstance(value, dict) and isinstance(path[0], str):
        return {**value, path[0]: new}  # as most puts are
    if not path:
        return new
    part, rest = path[0], path[1:]
    if isinstance(part, str) and isinstance(value, dict):
        if not rest:
            return {**value, part: new}
        if part not in value:
            raise KeyError(part)
        return {**value, part: put(value[part], rest, new)}
    if isinstance(part, int) and isinstance(value, list) and 0 <= part < len(value):
        return [*value[:part], put(value[part], rest, new), *value[part + 1 :]]
    raise KeyError(part)


def without(value: Value, path: Path) -> Value:
    """A copy of `value` without the member at a path (unchanged where there is none)."""
    if get(value, path) is ABSENT or not path:
        return value
    parent = get(value, path[:-1])
    assert isinstance(parent, dict | list)
    if isinstance(parent, dict):
        return put(value, path[:-1], {k: v for k, v in parent.items() if k != path[-1]})
    return put(value, path[:-1], [v for i, v in enumerate(parent) if i != path[-1]])
