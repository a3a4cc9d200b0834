"""Looking into an event's data of which a part is still bytes; `compiled` edits in place.

Members are `Raw` until something asks for them. Whoever asks gets the value, and the
container holds the value from then on.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from eventmig import codec
from eventmig.constants import Constant
from eventmig.paths import ABSENT, Part, Path


def child(parent: Any, part: Part) -> Any:
    """What stands at one part of a path, opened; ABSENT where there is nothing."""
    if isinstance(part, str):
        if type(parent) is not dict:
            return ABSENT
        found = parent.get(part, ABSENT)
    elif type(parent) is list and 0 <= part < len(parent):
        found = parent[part]
    else:
        return ABSENT
    if type(found) is Raw:
        found = parent[part] = codec.decode(found)
    return found


def walk(root: Any, path: Path) -> Any:
    """What stands at a path, opened (what is in it may be bytes); ABSENT where nothing is."""
    for part in path:
        root = child(root, part)
        if root is ABSENT:
            return ABSENT
    return root


def holds(parent: Any, part: Part) -> bool:
    """Whether there is something at one part of a path; opens nothing."""
    if isinstance(part, str):
        return type(parent) is dict and part in parent
    return type(parent) is list and 0 <= part < len(parent)


def settled(value: Any) -> Any:
    """The value with everything in it opened, in place."""
    if type(value) is Raw:
        return codec.decode(value)
    if type(value) is dict:
        for key, item in value.items():
            if type(item) in MAY_HOLD_BYTES:
                value[key] = settled(item)
    elif type(value) is list:
        for index, item in enumerate(value):
            if type(item) in MAY_HOLD_BYTES:
                value[index] = settled(item)
    return value


MAY_HOLD_BYTES = frozenset({Raw, dict, list})


def shared(constant: Constant) -> Any:
    """The constant as something that may stand in many events: a scalar, or bytes."""
    value = constant.value
    return constant.raw if isinstance(value, dict | list) else value
