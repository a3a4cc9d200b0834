"""The fast reading of ops: a program of ops becomes one function from bytes to bytes.

The data is decoded one level deep; a member is opened only when an op looks
inside it, so untouched members stay the bytes they were and keep every digit.
Changes happen in place, in containers this call made itself.

It must mean exactly what `Op.up` means; the tests compare the two on random
programs and data, and the verifier uses `Op.up` so as not to trust this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from msgspec import Raw

from eventmig import codec
from eventmig.codec import Members, Value
from eventmig.conditions import Condition, Not, OneOf, Present
from eventmig.constants import Constant, FromMetadata, Ref, Source
from eventmig.events import Event
from eventmig.ops.base import Op, no_object, not_a, taken
from eventmig.ops.control import Apply, Each, When, checked_result
from eventmig.ops.members import (
    Add,
    Default,
    Drop,
    Keep,
    Move,
    Nest,
    Put,
    Rename,
    Unnest,
    read_source,
)
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
    converted,
    unwrapped,
)
from eventmig.paths import ABSENT, Path

Edit = Callable[[object, Event], object]
"""Changes a value in place (or returns another); gets what the one before returned."""

Rewrite = Callable[[bytes, Event], bytes]
"""One event's data before and after, as bytes."""


def compile_ops(ops: tuple[Op, ...]) -> Rewrite:
    """One function for a whole program; raises at call time what the ops raise."""
    if ops and isinstance(ops[0], Apply):
        return _compile_whole(ops)
    edits = _edits(ops)

    def rewrite(data: bytes, event: Event) -> bytes:
        root: object = codec.decode_members(data)
        for edit in edits:
            root = edit(root, event)
        return codec.encode(cast(Members, root))

    return rewrite


def _compile_whole(ops: tuple[Op, ...]) -> Rewrite:
    edits = _edits(ops)

    def rewrite(data: bytes, event: Event) -> bytes:
        root: object = codec.decode(data)
        for edit in edits:
            root = edit(root, event)
        return codec.encode(cast(Members, root))

    return rewrite


def _edits(ops: tuple[Op, ...]) -> tuple[Edit, ...]:
    edits: list[Edit] = []
    for op in ops:
        previous = edits[-1] if edits else None
        if isinstance(op, Rename) and len(op.path) == 1 and isinstance(previous, _Renames):
            if previous.takes(op):
                continue
        if isinstance(op, Rename) and len(op.path) == 1:
            edits.append(_Renames(op))
        elif not isinstance(op, Keep):
            edits.append(_edit(op))
    return tuple(edits)


def _edit(op: Op) -> Edit:
    match op:
        case Add():
            return _add(op)
        case Default():
            return _default(op)
        case Put():
            return _put(op)
        case Drop():
            return _drop(op)
        case Rename():
            return _rename_below(op)
        case Move():
            return _move(op)
        case Nest():
            return _nest(op)
        case Unnest():
            return _unnest(op)
        case Wrap():
            return _at(op.path, lambda found, _: [] if found is None else [found], whole=False)
        case Unwrap():
            return _at(op.path, lambda found, _: unwrapped(cast(Value, found), op.path))
        case Convert():
            return _at(
                op.path,
                lambda found, _: None if found is None else converted(op, cast(Value, found)),
            )
        case MapValues():
            return _map_values(op)
        case Split():
            return _split(op)
        case Combine():
            return _combine(op)
        case Append():
            return _append(op)
        case Remove():
            return _remove(op)
        case AddLine():
            return _add_line(op)
        case Each():
            return _each(op)
        case When():
            return _when(op)
        case Apply():
            return lambda root, _: checked_result(op.function, cast(Value, _settled(root)))
    return lambda root, event: op.up(cast(Value, _settled(root)), event)


# Opening what is still bytes ---------------------------------------------------------------


def _child(parent: object, part: str | int) -> object:
    """What stands at one part of a path, opened; ABSENT where there is nothing."""
    if type(part) is str:
        if type(parent) is not dict:
            return ABSENT
        found = parent.get(part, ABSENT)
        if type(found) is Raw:
            found = parent[part] = codec.decode(found)
        return found
    if type(parent) is not list or not 0 <= part < len(parent):  # type: ignore[operator]
        return ABSENT
    found = parent[part]  # type: ignore[index]
    if type(found) is Raw:
        found = parent[part] = codec.decode(found)  # type: ignore[index]
    return found


def _walk(root: object, path: Path) -> object:
    for part in path:
        root = _child(root, part)
        if root is ABSENT:
            return ABSENT
    return root


def _settled(value: object) -> object:
    """The value with everything in it opened, in place."""
    if type(value) is Raw:
        return codec.decode(value)
    if type(value) is dict:
        for key, item in value.items():
            if type(item) in _MAY_HOLD_RAW:
                value[key] = _settled(item)
    elif type(value) is list:
        for index, item in enumerate(value):
            if type(item) in _MAY_HOLD_RAW:
                value[index] = _settled(item)
    return value


_MAY_HOLD_RAW = frozenset({Raw, dict, list})


def _holds(parent: object, part: str | int) -> bool:
    if type(part) is str:
        return type(parent) is dict and part in parent
    return type(parent) is list and 0 <= part < len(parent)  # type: ignore[operator]


def _constant(constant: Constant) -> Callable[[], object]:
    """The constant as something that may be put anywhere: a scalar, or bytes."""
    value = constant.value
    if isinstance(value, dict | list):
        raw = constant.raw
        return lambda: raw
    return lambda: value


def _reader(source: Source) -> Callable[[object, Event], object]:
    if isinstance(source, Constant):
        fresh = _constant(source)
        return lambda root, event: fresh()
    if isinstance(source, Ref):
        path = source.path

        def read(root: object, event: Event) -> object:
            found = _settled(_walk(root, path))
            return codec.decode(codec.encode(cast(Value, found))) if found is not ABSENT else ABSENT

        return read
    assert isinstance(source, FromMetadata)
    return lambda root, event: read_source(source, None, event)


def _at(path: Path, change: Callable[[object, Event], object], *, whole: bool = True) -> Edit:
    """Replace what stands at a path; nothing where it is absent."""
    if not path:
        return lambda root, event: change(_settled(root), event)
    above, last = path[:-1], path[-1]

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        found = _child(parent, last)
        if found is not ABSENT:
            parent[last] = change(_settled(found) if whole else found, event)  # type: ignore[index]
        return root

    return edit


# One function per op -----------------------------------------------------------------------


class _Renames:
    """Several renames at the top level in one pass that keeps the order of the keys."""

    def __init__(self, op: Rename) -> None:
        self.pairs = {str(op.path[0]): op.to}

    def takes(self, op: Rename) -> bool:
        """Take in another rename, if it is independent of those already here."""
        old = str(op.path[0])
        names = self.pairs.keys() | set(self.pairs.values())
        if old in names or op.to in names:
            return False
        self.pairs[old] = op.to
        return True

    def __call__(self, root: object, event: Event) -> object:
        if type(root) is not dict:
            return root
        found = False
        for old, to in self.pairs.items():
            if to in root:
                raise taken((to,))
            found = found or old in root
        if not found:
            return root
        new_name = self.pairs.get
        return {new_name(key, key): item for key, item in root.items()}


def _rename_below(op: Rename) -> Edit:
    above, old, to = op.path[:-1], op.path[-1], op.to

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        if type(parent) is not dict:
            return root
        if to in parent:
            raise taken((*above, to))
        if old in parent:
            items = list(parent.items())
            parent.clear()
            parent.update((to if key == old else key, item) for key, item in items)
        return root

    return edit


def _add(op: Add) -> Edit:
    above, last, read = op.path[:-1], op.path[-1], _reader(op.value)

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        if parent is ABSENT:
            return root
        if type(parent) is not dict:
            raise not_a("object", above, parent)
        if last in parent:
            raise taken(op.path)
        new = read(root, event)
        if new is not ABSENT:
            parent[last] = new
        return root

    return edit


def _default(op: Default) -> Edit:
    above, last, read = op.path[:-1], op.path[-1], _reader(op.value)

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        if parent is ABSENT:
            return root
        if type(parent) is not dict:
            raise not_a("object", above, parent)
        if last not in parent:
            new = read(root, event)
            if new is not ABSENT:
                parent[last] = new
        return root

    return edit


def _put(op: Put) -> Edit:
    above, last, fresh = op.path[:-1], op.path[-1], _constant(op.value)

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        if type(parent) is not dict:
            raise no_object(above)
        parent[last] = fresh()
        return root

    return edit


def _drop(op: Drop) -> Edit:
    above, last = op.path[:-1], op.path[-1]

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        if type(parent) is dict:
            parent.pop(last, None)
        return root

    return edit


def _move(op: Move) -> Edit:
    above, last = op.path[:-1], op.path[-1]
    to_above, to_last = op.to[:-1], op.to[-1]

    def edit(root: object, event: Event) -> object:
        target = _walk(root, to_above)
        if _holds(target, to_last):
            raise taken(op.to)
        parent = _walk(root, above)
        if not _holds(parent, last):
            return root
        assert type(parent) is dict
        found = parent.pop(last)
        if type(_walk(root, to_above)) is not dict:
            raise no_object(to_above)
        target[to_last] = found  # type: ignore[index]
        return root

    return edit


def _nest(op: Nest) -> Edit:
    below = (*op.parent, op.under)

    def edit(root: object, event: Event) -> object:
        outer = _walk(root, op.parent)
        if outer is ABSENT:
            return root
        if type(outer) is not dict:
            raise not_a("object", op.parent, outer)
        inner = _child(outer, op.under)
        if inner is ABSENT:
            inner = {}
        elif type(inner) is not dict:
            raise taken(below)
        for key in op.keys:
            if key in inner:
                raise taken((*below, key))
        moved = {key: outer[key] for key in op.keys if key in outer}
        if not moved:
            return root
        if not inner and op.under in outer:
            raise taken(below)
        for key in moved:
            del outer[key]
        inner.update(moved)
        outer[op.under] = inner
        return root

    return edit


def _unnest(op: Unnest) -> Edit:
    def edit(root: object, event: Event) -> object:
        outer = _walk(root, op.parent)
        if outer is ABSENT:
            return root
        if type(outer) is not dict:
            raise not_a("object", op.parent, outer)
        for key in op.keys:
            if key in outer:
                raise taken((*op.parent, key))
        inner = _child(outer, op.under)
        if inner is ABSENT:
            return root
        if type(inner) is not dict:
            raise not_a("object", (*op.parent, op.under), inner)
        moved = {key: inner.pop(key) for key in op.keys if key in inner}
        if not moved:
            return root
        del outer[op.under]
        if inner:
            outer[op.under] = inner
        outer.update(moved)
        return root

    return edit


def _map_values(op: MapValues) -> Edit:
    texts = {old.value: _constant(new) for old, new in op.table if isinstance(old.value, str)}
    if len(texts) != len(op.table):
        return _at(op.path, lambda found, _: op.mapped(cast(Value, found)))

    def change(found: object, event: Event) -> object:
        if type(found) is str:
            new = texts.get(found)
            if new is not None:
                return new()
        return op.mapped(cast(Value, found))

    return _at(op.path, change)


def _split(op: Split) -> Edit:
    above, last = op.path[:-1], op.path[-1]

    def edit(root: object, event: Event) -> object:
        for target in op.into:
            if target != op.path and _holds(_walk(root, target[:-1]), target[-1]):
                raise taken(target)
        parent = _walk(root, above)
        found = _child(parent, last)
        if found is ABSENT or found is None:
            return root
        if type(found) is not str:
            raise not_a("string", op.path, _settled(found))
        assert type(parent) is dict
        del parent[last]
        for target, part in zip(op.into, op.parts(found), strict=False):
            holder = _walk(root, target[:-1])
            if type(holder) is not dict:
                raise no_object(target[:-1])
            holder[target[-1]] = part
        return root

    return edit


def _combine(op: Combine) -> Edit:
    def edit(root: object, event: Event) -> object:
        holders = [(_walk(root, path[:-1]), path) for path in op.paths]
        if op.to not in op.paths and _holds(_walk(root, op.to[:-1]), op.to[-1]):
            if any(_holds(holder, path[-1]) for holder, path in holders):
                raise taken(op.to)
            return root
        parts: list[str] = []
        for holder, path in holders:
            found = _child(holder, path[-1])
            if found is ABSENT or found is None:
                continue
            if type(found) is not str:
                raise not_a("string", path, _settled(found))
            assert type(holder) is dict
            del holder[path[-1]]
            parts.append(found)
        if not parts:
            return root
        target = _walk(root, op.to[:-1])
        if type(target) is not dict:
            raise no_object(op.to[:-1])
        target[op.to[-1]] = op.separator.join(parts)
        return root

    return edit


def _append(op: Append) -> Edit:
    above, last, fresh, value = op.path[:-1], op.path[-1:], _constant(op.value), op.value.value

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        found = _child(parent, last[0]) if last else root
        if found is ABSENT:
            if not op.create:
                return root
            if type(parent) is not dict:
                raise no_object(above)
            found = parent[last[0]] = []
        if type(found) is not list:
            raise not_a("array", op.path, found)
        if op.unique and any(codec.same(_settled(item), value) for item in found):
            return root
        found.append(fresh())
        return root

    return edit


def _remove(op: Remove) -> Edit:
    above, last, value = op.path[:-1], op.path[-1:], op.value.value

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        found = _child(parent, last[0]) if last else root
        if found is ABSENT:
            return root
        if type(found) is not list:
            raise not_a("array", op.path, found)
        rest = [item for item in found if not codec.same(_settled(item), value)]
        if len(rest) == len(found):
            return root
        if not last:
            return rest
        if op.drop_empty and not rest:
            del parent[last[0]]  # type: ignore[attr-defined]
        else:
            parent[last[0]] = rest  # type: ignore[index]
        return root

    return edit


def _add_line(op: AddLine) -> Edit:
    above, last = op.path[:-1], op.path[-1]

    def edit(root: object, event: Event) -> object:
        parent = _walk(root, above)
        found = _child(parent, last)
        old = "" if found is ABSENT or found is None else found
        if type(old) is not str:
            raise not_a("string", op.path, _settled(old))
        if type(parent) is not dict:
            raise no_object(above)
        parent[last] = op.joined(old)
        return root

    return edit


def _each(op: Each) -> Edit:
    edits = _edits(op.ops)

    def change(found: object, event: Event) -> object:
        if type(found) is not list:
            raise not_a("array", op.path, _settled(found))
        items: list[object] = []
        for item in found:
            new: object = codec.decode(item) if type(item) is Raw else item
            for edit in edits:
                new = edit(new, event)
            items.append(new)
        return items

    return _at(op.path, change, whole=False)


def _when(op: When) -> Edit:
    holds, then, other = _asker(op.condition), _edits(op.ops), _edits(op.otherwise)

    def edit(root: object, event: Event) -> object:
        for inner in then if holds(root) else other:
            root = inner(root, event)
        return root

    return edit


def _asker(condition: Condition) -> Callable[[object], bool]:
    """The condition as a question to a value that is partly still bytes."""
    if isinstance(condition, Not):
        inner = _asker(condition.inner)
        return lambda root: not inner(root)
    if isinstance(condition, Present) and condition.path:
        above, last = condition.path[:-1], condition.path[-1]
        return lambda root: _holds(_walk(root, above), last)
    if isinstance(condition, OneOf):
        path, values = condition.path, [constant.value for constant in condition.values]

        def equals(root: object) -> bool:
            found = _settled(_walk(root, path))
            return found is not ABSENT and any(codec.same(found, value) for value in values)

        return equals
    paths = condition.paths()

    def holds(root: object) -> bool:
        for path in paths:
            parent = _walk(root, path[:-1])
            if path and parent is not ABSENT:
                found = _child(parent, path[-1])
                if type(found) in _MAY_HOLD_RAW:
                    _settled(found)
        return condition.holds(cast(Value, root))

    return holds
