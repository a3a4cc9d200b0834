"""Ops on one value as functions that edit in place; see `compiled`."""
# ruff: noqa: D103 - each function is the fast form of the op it takes

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventmig import codec
from eventmig.events import Event
from eventmig.ops.base import no_object, not_a, taken
from eventmig.ops.opened import child, holds, settled, shared, walk
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

Edit = Callable[[Any, Event], Any]


def at(path: Path, change: Callable[[Any, Event], Any]) -> Edit:
    """Replace what stands at a path (what is in it may be bytes); nothing where it is absent."""
    if not path:
        return change
    above, last = path[:-1], path[-1]

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above) if above else root
        found = child(parent, last)
        if found is not ABSENT:
            parent[last] = change(found, event)
        return root

    return edit


def wrap(op: Wrap) -> Edit:
    return at(op.path, lambda found, _: [] if found is None else [found])


def unwrap(op: Unwrap) -> Edit:
    return at(op.path, lambda found, _: unwrapped(settled(found), op.path))


def convert(op: Convert) -> Edit:
    return at(op.path, lambda found, _: None if found is None else converted(op, settled(found)))


def map_values(op: MapValues) -> Edit:
    texts = {old.value: new.value for old, new in op.table if isinstance(old.value, str)}
    plain = {old: new for old, new in texts.items() if not isinstance(new, dict | list)}

    def change(found: Any, event: Event) -> Any:
        if type(found) is str and found in plain:
            return plain[found]
        return op.mapped(settled(found))

    return at(op.path, change)


def split(op: Split) -> Edit:
    path, above, last = op.path, op.path[:-1], op.path[-1]

    def edit(root: Any, event: Event) -> Any:
        for target in op.into:
            if target != path and holds(walk(root, target[:-1]), target[-1]):
                raise taken(target)
        parent = walk(root, above) if above else root
        found = child(parent, last)
        if found is ABSENT or found is None:
            return root
        if type(found) is not str:
            raise not_a("string", path, found)
        del parent[last]
        for target, part in zip(op.into, op.parts(found), strict=False):
            holder = walk(root, target[:-1])
            if type(holder) is not dict:
                raise no_object(target[:-1])
            holder[target[-1]] = part
        return root

    return edit


def combine(op: Combine) -> Edit:
    def edit(root: Any, event: Event) -> Any:
        holders = [(walk(root, path[:-1]), path) for path in op.paths]
        if op.to not in op.paths and holds(walk(root, op.to[:-1]), op.to[-1]):
            if any(holds(holder, path[-1]) for holder, path in holders):
                raise taken(op.to)
            return root
        parts: list[str] = []
        for holder, path in holders:
            found = child(holder, path[-1])
            if found is ABSENT or found is None:
                continue
            if type(found) is not str:
                raise not_a("string", path, found)
            del holder[path[-1]]
            parts.append(found)
        if not parts:
            return root
        target = walk(root, op.to[:-1])
        if type(target) is not dict:
            raise no_object(op.to[:-1])
        target[op.to[-1]] = op.separator.join(parts)
        return root

    return edit


def append(op: Append) -> Edit:
    above, last, constant, value = op.path[:-1], op.path[-1:], shared(op.value), op.value.value

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above)
        found = child(parent, last[0]) if last else root
        if found is ABSENT:
            if not op.create:
                return root
            if type(parent) is not dict:
                raise no_object(above)
            found = parent[last[0]] = []
        if type(found) is not list:
            raise not_a("array", op.path, found)
        if op.unique and any(codec.same(settled(item), value) for item in found):
            return root
        found.append(constant)
        return root

    return edit


def remove(op: Remove) -> Edit:
    above, last, value = op.path[:-1], op.path[-1:], op.value.value

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above)
        found = child(parent, last[0]) if last else root
        if found is ABSENT:
            return root
        if type(found) is not list:
            raise not_a("array", op.path, found)
        rest = [item for item in found if not codec.same(settled(item), value)]
        if len(rest) == len(found):
            return root
        if not last:
            return rest
        if op.drop_empty and not rest:
            del parent[last[0]]
        else:
            parent[last[0]] = rest
        return root

    return edit


def add_line(op: AddLine) -> Edit:
    above, last = op.path[:-1], op.path[-1]

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above) if above else root
        found = child(parent, last)
        old = "" if found is ABSENT or found is None else found
        if type(old) is not str:
            raise not_a("string", op.path, old)
        if type(parent) is not dict:
            raise no_object(above)
        parent[last] = op.joined(old)
        return root

    return edit
