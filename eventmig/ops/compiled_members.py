"""Ops on members of objects as functions that edit in place; see `compiled`.

A path of one part, the usual one, is looked up without walking.
"""
# ruff: noqa: D103 - each function is the fast form of the op it takes

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventmig import codec
from eventmig.constants import Constant, Ref, Source
from eventmig.events import Event
from eventmig.ops.base import no_object, not_a, taken
from eventmig.ops.members import Add, Default, Drop, Move, Nest, Put, Rename, Unnest, read_source
from eventmig.ops.opened import child, holds, settled, shared, walk
from eventmig.paths import ABSENT

Edit = Callable[[Any, Event], Any]


def renames(pairs: dict[str, str]) -> Edit:
    """Several independent renames at the top level in one pass that keeps the keys' order."""
    each, new_name = tuple(pairs.items()), pairs.get

    def edit(root: Any, event: Event) -> Any:
        if type(root) is not dict:
            return root
        found = False
        for old, to in each:
            if to in root:
                raise taken((to,))
            if old in root:
                found = True
        return {new_name(key, key): item for key, item in root.items()} if found else root

    return edit


def rename_below(op: Rename) -> Edit:
    above, old, to = op.path[:-1], op.path[-1], op.to

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above)
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


def add(op: Add | Default) -> Edit:
    above, last, source, refuse = op.path[:-1], op.path[-1], op.value, isinstance(op, Add)
    constant = shared(source) if isinstance(source, Constant) else ABSENT
    read = _reader(source)

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above) if above else root
        if type(parent) is not dict:
            if parent is ABSENT:
                return root
            raise not_a("object", above, parent)
        if last in parent:
            if refuse:
                raise taken(op.path)
        elif constant is not ABSENT:
            parent[last] = constant
        elif (new := read(root, event)) is not ABSENT:
            parent[last] = new
        return root

    return edit


def _reader(source: Source) -> Callable[[Any, Event], Any]:
    if not isinstance(source, Ref):
        return lambda root, event: read_source(source, None, event)
    path = source.path

    def read(root: Any, event: Event) -> Any:
        found = settled(walk(root, path))
        # Its own copy: a later op may edit one of the two in place.
        return codec.decode(codec.encode(found)) if type(found) in (dict, list) else found

    return read


def put(op: Put) -> Edit:
    above, last, constant = op.path[:-1], op.path[-1], shared(op.value)

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above) if above else root
        if type(parent) is not dict:
            raise no_object(above)
        parent[last] = constant
        return root

    return edit


def drop(op: Drop) -> Edit:
    above, last = op.path[:-1], op.path[-1]

    def edit(root: Any, event: Event) -> Any:
        parent = walk(root, above) if above else root
        if type(parent) is dict:
            parent.pop(last, None)
        return root

    return edit


def move(op: Move) -> Edit:
    above, last = op.path[:-1], op.path[-1]
    to_above, to_last = op.to[:-1], op.to[-1]

    def edit(root: Any, event: Event) -> Any:
        target = walk(root, to_above)
        if holds(target, to_last):
            raise taken(op.to)
        parent = walk(root, above)
        if not holds(parent, last):
            return root
        found = parent.pop(last)
        if type(walk(root, to_above)) is not dict:  # also where it was in what moves
            raise no_object(to_above)
        target[to_last] = found
        return root

    return edit


def nest(op: Nest) -> Edit:
    parent, keys, under = op.parent, op.keys, op.under
    below = (*parent, under)

    def edit(root: Any, event: Event) -> Any:
        outer = walk(root, parent) if parent else root
        if type(outer) is not dict:
            if outer is ABSENT:
                return root
            raise not_a("object", parent, outer)
        inner: Any = child(outer, under) if under in outer else None
        if under in outer:
            if type(inner) is not dict:
                raise taken(below)
            for key in keys:
                if key in inner:
                    raise taken((*below, key))
        moved = {key: outer.pop(key) for key in keys if key in outer}
        if not moved:
            return root
        if inner is None:
            outer[under] = moved
        elif inner:
            inner.update(moved)
        else:
            raise taken(below)
        return root

    return edit


def unnest(op: Unnest) -> Edit:
    parent, keys, under = op.parent, op.keys, op.under

    def edit(root: Any, event: Event) -> Any:
        outer = walk(root, parent) if parent else root
        if type(outer) is not dict:
            if outer is ABSENT:
                return root
            raise not_a("object", parent, outer)
        for key in keys:
            if key in outer:
                raise taken((*parent, key))
        inner = child(outer, under)
        if inner is ABSENT:
            return root
        if type(inner) is not dict:
            raise not_a("object", (*parent, under), inner)
        moved = {key: inner.pop(key) for key in keys if key in inner}
        if not moved:
            return root
        if not inner:
            del outer[under]
        outer.update(moved)
        return root

    return edit
