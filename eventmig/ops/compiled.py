"""The fast reading of ops: a program of ops becomes one function from bytes to bytes.

The data is decoded one level deep; a member is opened only when an op looks
inside it, so untouched members stay the bytes they were and keep every digit.
Changes happen in place, in containers this call made itself.

It must mean exactly what `Op.up` means; the tests compare the two on random
programs and data, and the verifier uses `Op.up` so as not to trust this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Raw

from eventmig import codec
from eventmig.conditions import Condition, Not, OneOf, Present
from eventmig.events import Event
from eventmig.ops import compiled_members as members
from eventmig.ops import compiled_values as values
from eventmig.ops.base import Op, not_a
from eventmig.ops.control import Apply, Each, When, checked_result
from eventmig.ops.fused import RewriteMany, fuse, fuse_many
from eventmig.ops.members import Add, Default, Drop, Keep, Move, Nest, Put, Rename, Unnest
from eventmig.ops.opened import MAY_HOLD_BYTES, child, holds, settled, walk
from eventmig.ops.values import (
    AddLine,
    Append,
    Combine,
    Convert,
    MapValues,
    Remove,
    Split,
    Unwrap,
    Wrap,
)
from eventmig.paths import ABSENT

Edit: TypeAlias = Callable[[Any, Event], Any]
"""Changes a value in place (or returns another); gets what the one before returned."""

Rewrite: TypeAlias = Callable[[bytes, Event], bytes]
"""One event's data before and after, as bytes."""


def compile_ops(ops: tuple[Op, ...]) -> Rewrite:
    """One function for a whole program; raises at call time what the ops raise."""
    decode: Callable[[bytes], Any] = codec.decode_members
    if ops and isinstance(ops[0], Apply):
        decode = codec.decode
    encode, edits = codec.encode, _edits(ops)

    def rewrite(data: bytes, event: Event) -> bytes:
        root = decode(data)
        for edit in edits:
            root = edit(root, event)
        return encode(root)

    return fuse(ops, rewrite, _edit)


def compile_many(ops: tuple[Op, ...], *, sound: bool = False) -> RewriteMany:
    """The same for several events at once, whose ops see the data alone; `sound` as in `fused`."""
    return fuse_many(ops, _edit, sound=sound)


def _edits(ops: tuple[Op, ...]) -> tuple[Edit, ...]:
    edits: list[Edit] = []
    renames: dict[str, str] = {}

    def flush() -> None:
        if renames:
            edits.append(members.renames(dict(renames)))
            renames.clear()

    for op in ops:
        if isinstance(op, Rename) and len(op.path) == 1:
            old, names = str(op.path[0]), {*renames, *renames.values()}
            if old in names or op.to in names:
                flush()
            renames[old] = op.to
        elif not isinstance(op, Keep):
            flush()
            edits.append(_edit(op))
    flush()
    return tuple(edits)


_COMPILERS: dict[type, Callable[[Any], Edit]] = {
    Add: members.add,
    Default: members.add,
    Put: members.put,
    Drop: members.drop,
    Rename: members.rename_below,
    Move: members.move,
    Nest: members.nest,
    Unnest: members.unnest,
    Wrap: values.wrap,
    Unwrap: values.unwrap,
    Convert: values.convert,
    MapValues: values.map_values,
    Split: values.split,
    Combine: values.combine,
    Append: values.append,
    Remove: values.remove,
    AddLine: values.add_line,
}


def _edit(op: Op) -> Edit:
    match op:
        case Each():
            return _each(op)
        case When():
            return _when(op)
        case Apply():
            function = op.function
            return lambda root, _: checked_result(function, settled(root))
    if compiler := _COMPILERS.get(type(op)):
        return compiler(op)
    return lambda root, event: op.up(settled(root), event)


def _each(op: Each) -> Edit:
    edits = _edits(op.ops)

    def change(found: Any, event: Event) -> Any:
        if type(found) is not list:
            raise not_a("array", op.path, settled(found))
        items = []
        for item in found:
            new = codec.decode(item) if type(item) is Raw else item
            for edit in edits:
                new = edit(new, event)
            items.append(new)
        return items

    return values.at(op.path, change)


def _when(op: When) -> Edit:
    asked, then, other = _asker(op.condition), _edits(op.ops), _edits(op.otherwise)

    def edit(root: Any, event: Event) -> Any:
        for inner in then if asked(root) else other:
            root = inner(root, event)
        return root

    return edit


def _asker(condition: Condition) -> Callable[[Any], bool]:
    """The condition as a question to a value that is partly still bytes."""
    if isinstance(condition, Not):
        inner = _asker(condition.inner)
        return lambda root: not inner(root)
    if isinstance(condition, Present) and condition.path:
        above, last = condition.path[:-1], condition.path[-1]
        return lambda root: holds(walk(root, above), last)
    if isinstance(condition, OneOf):
        path, constants = condition.path, [constant.value for constant in condition.values]

        def equals(root: Any) -> bool:
            found = settled(walk(root, path))
            return found is not ABSENT and any(codec.same(found, value) for value in constants)

        return equals
    paths = condition.paths()

    def asked(root: Any) -> bool:
        for path in paths:
            parent = walk(root, path[:-1])
            if path and parent is not ABSENT:
                found = child(parent, path[-1])
                if type(found) in MAY_HOLD_BYTES:
                    settled(found)
        return condition.holds(root)

    return asked
