"""The schema reading of ops: JSON Schema before → JSON Schema after.

Sound, not complete: whatever is valid under the schema before and not refused by
the ops is valid under the schema after; where an exact answer would be long, it is
a wider one. Members the schema does not name may be there unless it forbids them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eventmig import codec
from eventmig.conditions import AllOf, AnyOf, Condition, IsKind, Not, OneOf, Present
from eventmig.constants import Constant, Ref, Source
from eventmig.ops.base import Op
from eventmig.ops.control import Each, When
from eventmig.ops.members import Add, Default, Drop, Keep, Move, Nest, Put, Rename, Unnest
from eventmig.ops.schema_fit import differences
from eventmig.ops.shapes import (
    Object,
    Refused,
    Schema,
    Slot,
    alternatives,
    array,
    at,
    by_type,
    either,
    in_objects,
    inlined,
    items_of,
    lookup,
    shown,
    union,
)
from eventmig.ops.values import (
    AddLine,
    Append,
    Combine,
    Convert,
    MapValues,
    Other,
    Remove,
    Split,
    Unwrap,
    Wrap,
)
from eventmig.paths import Path

__all__ = ["differences", "schema_after"]

_TEXT: dict[str, Any] = {"type": "string"}
_NULL: dict[str, Any] = {"type": "null"}


def schema_after(
    ops: Sequence[Op], schema: Mapping[str, Any], *, when: Condition | None = None
) -> Mapping[str, Any] | None:
    """The JSON Schema of what the ops make of data that is valid under `schema`.

    With `when`, of the data that condition holds for.

    None where nobody can tell: a function (`apply`) is among the ops. What a
    conversion of the user's own yields counts as anything. `{"not": {}}` where the
    ops refuse everything. Local `$ref`s are inlined, recursive ones stay.
    """
    try:
        before = inlined(schema)
        after = shown(_after(ops, before if when is None else _narrowed(before, when, True)))
    except _Unknown:
        return None
    definitions = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
    return after | definitions if '"$ref"' in codec.encode_checked(after).decode() else after


class _Unknown(Exception):  # noqa: N818 - no error: the answer is None
    pass


def _after(ops: Iterable[Op], schema: Schema) -> Schema:
    for op in ops:
        schema = _one(op, schema)
    return schema


def _one(op: Op, schema: Schema) -> Schema:
    match op:
        case Keep():
            return schema
        case Add() | Default():
            return _add(op, schema)
        case Put(path, constant):
            return _set(schema, path, Slot(_const(constant), True))
        case Drop(path):
            return _vacated(schema, path)
        case Rename(path, key):
            return at(schema, path[:-1], lambda parent: _renamed(parent, str(path[-1]), key))
        case Move(path, target):
            return _set(_vacated(schema, path), target, lookup(schema, path), vacant=True)
        case Nest(path):
            return at(
                schema,
                path,
                lambda parent: in_objects(parent, lambda whole: _nest(op, whole), others=False),
            )
        case Unnest(path):
            return at(
                schema,
                path,
                lambda parent: in_objects(parent, lambda whole: _unnest(op, whole), others=False),
            )
        case Split():
            return _split(op, schema)
        case Combine():
            return _combine(op, schema)
        case AddLine(path):
            return _set(schema, path, Slot(_TEXT, True))
        case Append() | Remove():
            return _list_item(op, schema)
        case When():
            then = _after(op.ops, _narrowed(schema, op.condition, True))
            return either([then, _after(op.otherwise, _narrowed(schema, op.condition, False))])
        case Wrap() | Unwrap() | Convert() | MapValues() | Each():
            return at(schema, op.path, lambda value: _value(op, value))
    raise _Unknown


def _const(constant: Constant) -> Schema:
    plain = json.loads(constant.text)  # floats, as schemas hold them
    exact = codec.same(plain, constant.value)
    return {"const": plain} if exact else {"type": codec.kind(constant.value)}


# Members ------------------------------------------------------------------------------------


def _source(source: Source, schema: Schema) -> Slot:
    if isinstance(source, Constant):
        return Slot(_const(source), True)
    if isinstance(source, Ref):
        return lookup(schema, source.path)
    return Slot(True, source.otherwise is not None)


def _add(op: Add | Default, schema: Schema) -> Schema:
    key, new = str(op.path[-1]), _source(op.value, schema)

    def change(whole: Object) -> None:
        old = whole.slot(key)
        if isinstance(op, Add):
            whole.vacant(key)
            whole.put(key, *new)
        elif not old.always:
            whole.put(key, union([old.schema, new.schema]), new.always)

    return at(schema, op.path[:-1], lambda parent: in_objects(parent, change, others=False))


def _set(schema: Schema, path: Path, new: Slot, *, vacant: bool = False) -> Schema:
    """A member set, where `vacant` only if it was absent; it may be that nothing happens,
    and data without a place for it stays, unless `new.always`.
    """
    key = str(path[-1])

    def change(whole: Object) -> None:
        if vacant:
            whole.vacant(key)
        whole.put(key, *new)

    return at(schema, path[:-1], lambda parent: in_objects(parent, change, others=not new.always))


def _vacated(schema: Schema, path: Path, left: Schema = False) -> Schema:
    """Nothing at a path any more, or `left`."""
    return _set(schema, path, Slot(left, False))


def _renamed(parent: Schema, old: str, to: str) -> Schema:
    def change(whole: Object) -> None:
        whole.vacant(to)
        del whole.members[to]
        slot = whole.take(old)
        whole.members = {(to if k == old else k): v for k, v in whole.members.items()}
        whole.members[old] = False
        whole.put(to, *slot)

    return in_objects(parent, change, others=True)


def _nest(op: Nest, whole: Object) -> None:
    below = whole.slot(op.under)
    slots = {key: whole.take(key) for key in op.keys}
    always = any(slot.always for slot in slots.values())

    def fill(inner: Object) -> None:
        for key, slot in slots.items():
            inner.vacant(key)
            inner.put(key, *slot)

    made: list[Schema] = [in_objects(below.schema, fill, others=False)]
    if not below.always and below.schema not in (True, {}):
        fresh = Object({}, [], False)
        fill(fresh)
        made.append(fresh.schema())
    if not always:  # perhaps none of the keys was there
        made.append(by_type(below.schema, "object", lambda alt: alt))
    whole.put(op.under, union(made), always or below.always)


def _unnest(op: Unnest, whole: Object) -> None:
    for key in op.keys:
        whole.vacant(key)
    below = whole.slot(op.under)
    inners = [Object.of(alt) for alt in alternatives(below.schema) if alt["type"] == "object"]
    if not inners:
        return whole.vacant(op.under)
    for key in op.keys:
        slots = [inner.slot(key) for inner in inners]
        always = below.always and all(slot.always for slot in slots)
        whole.put(key, union(slot.schema for slot in slots), always)
    rests: list[Schema] = []
    stays = below.always
    for inner in inners:
        moved = [inner.take(key).always for key in op.keys]
        stays = stays and bool(inner.required)
        bare = inner.additional is False and not any(
            schema is not False for schema in inner.members.values()
        )
        if not (bare and any(moved)):
            rests.append(inner.schema())
    whole.put(op.under, union(rests), stays)
    return None


def _split(op: Split, schema: Schema) -> Schema:
    slot = lookup(schema, op.path)
    kinds = {alt["type"] for alt in alternatives(slot.schema)}
    cut = slot.always and "null" not in kinds
    part: Schema = _TEXT if "string" in kinds else False
    left: Schema = _NULL if "null" in kinds else False
    schema = _vacated(schema, op.path, left)
    for position, target in enumerate(op.into):
        if target == op.path:
            made = Slot(union([part, left]), slot.always and position == 0)
            schema = _set(schema, target, made)
        else:
            schema = _set(schema, target, Slot(part, cut and position == 0), vacant=True)
    return schema


def _combine(op: Combine, schema: Schema) -> Schema:
    slots = {path: lookup(schema, path) for path in op.paths}
    kinds = {p: {alt["type"] for alt in alternatives(s.schema)} for p, s in slots.items()}
    certain = any(s.always and "null" not in kinds[p] for p, s in slots.items())
    old = lookup(schema, op.to)
    for path in op.paths:
        schema = _vacated(schema, path, _NULL if "null" in kinds[path] else False)
    text: list[Schema] = [_TEXT]
    if op.to in op.paths:
        text += [_NULL] if "null" in kinds[op.to] else []
        always = certain or old.always
    elif any(slot.always for slot in slots.values()):
        always = certain
    else:
        text.append(old.schema)
        always = certain or old.always
    return _set(schema, op.to, Slot(union(text), always))


def _list_item(op: Append | Remove, schema: Schema) -> Schema:
    item = _const(op.value)

    def change(value: Schema) -> Schema:
        if isinstance(op, Append):
            return by_type(value, "array", lambda alt: array(union([items_of(alt), item])))
        return by_type(value, "array", lambda alt: array(items_of(alt), most=alt.get("maxItems")))

    if isinstance(op, Append) and op.create:
        slot = lookup(schema, op.path)
        return _set(schema, op.path, Slot(change(slot.schema) or array(item), True))
    schema = at(schema, op.path, change)
    if isinstance(op, Remove) and op.drop_empty and op.path:
        left = lookup(schema, op.path)
        if isinstance(op.path[-1], int):
            return _widened(schema, op.path[:-1])
        schema = _set(schema, op.path, Slot(left.schema, False))
    return schema


def _widened(schema: Schema, path: Path) -> Schema:
    """A list that may have become shorter."""
    return at(
        schema,
        path,
        lambda value: union(
            array(items_of(alt)) if alt["type"] == "array" else alt for alt in alternatives(value)
        ),
    )


# Values -------------------------------------------------------------------------------------


def _value(op: Wrap | Unwrap | Convert | MapValues | Each, value: Schema) -> Schema:
    match op:
        case Wrap():
            inner = [alt for alt in alternatives(value) if alt["type"] != "null"]
            return array(union(inner), int(len(inner) == len(alternatives(value))), 1)
        case Unwrap():
            return by_type(value, "array", _unwrapped)
        case Convert():
            return union(_converted(op, alt) for alt in alternatives(value))
        case MapValues():
            return union(_mapped(op, alt) for alt in alternatives(value))
        case Each():
            return by_type(value, "array", lambda alt: _each(op, alt))


def _unwrapped(alt: dict[str, Any]) -> Schema:
    items = [a for a in alternatives(items_of(alt)) if a["type"] != "null"]
    if alt.get("maxItems") == 0:
        items = []
    return union([*items, *([] if alt.get("minItems") else [_NULL])])


def _converted(op: Convert, alt: dict[str, Any]) -> Schema:
    kind, takes = alt["type"], op.conversion.before
    if kind == "null":
        return alt
    numbers = {"integer", "number"}
    if takes and kind not in takes and not (kind in numbers and numbers & set(takes)):
        return False
    return union({"type": made} for made in op.conversion.after) if op.conversion.after else True


_FEW: dict[str, list[Any]] = {"null": [None], "boolean": [True, False]}
"""Types whose values can be listed."""


def _mapped(op: MapValues, alt: dict[str, Any]) -> Schema:
    listed: list[Any] = alt.get("enum") or _FEW.get(alt["type"], [])

    def becomes(old: Constant) -> bool:
        if listed:
            return any(codec.same(old.value, value) for value in listed)
        return _of_kind(alt["type"], codec.kind(old.value))

    named = [new for old, new in op.table if becomes(old)]
    made: list[Schema] = [_const(new) for new in named]
    rest: Schema = alt
    if listed:
        olds = [old.value for old, _ in op.table]
        values = [v for v in listed if not any(codec.same(v, old) for old in olds)]
        rest = {"enum": values} if values else False
    if isinstance(op.other, Constant):
        made += [_const(op.other)] if rest is not False else []
    elif op.other is Other.KEEP:
        made.append(rest)
    return union(made)


def _of_kind(wanted: str, kind: str) -> bool:
    return wanted == kind or {wanted, kind} == {"number", "integer"}


def _each(op: Each, alt: dict[str, Any]) -> Schema:
    sizes = [len(value) for value in alt.get("enum", ())]
    least: int = min(sizes, default=alt.get("minItems", 0))
    most: int | None = max(sizes, default=alt.get("maxItems"))
    items = _after(op.ops, items_of(alt))
    if items is False and least:
        raise Refused
    return array(items, least, most)


# Conditions ---------------------------------------------------------------------------------


def _narrowed(schema: Schema, condition: Condition, holds: bool) -> Schema:
    """What is left of a schema where a condition holds, or does not; the whole if unsure."""
    match condition:
        case Not(inner):
            return _narrowed(schema, inner, not holds)
        case AllOf(parts) if holds:
            for part in parts:
                schema = _narrowed(schema, part, True)
        case AnyOf(parts) if not holds:
            for part in parts:
                schema = _narrowed(schema, part, False)
        case Present(path) if path and isinstance(path[-1], str):
            if holds:
                return _there(schema, path, [True])
            return at(
                schema,
                path[:-1],
                lambda parent: in_objects(
                    parent, lambda whole: whole.vacant(str(path[-1])), others=True
                ),
            )
        case IsKind(path, kind) if holds or kind != "integer":  # 1.0 is an integer in a schema
            if holds:
                return _there(schema, path, [{"type": kind}])
            return at(
                schema,
                path,
                lambda value: union(
                    alt
                    for alt in alternatives(value)
                    if alt["type"] != kind and not (kind == "number" and alt["type"] == "integer")
                ),
            )
        case OneOf(path, values):
            if holds:
                return _there(schema, path, [_const(value) for value in values])
            return at(schema, path, lambda value: union(_others(value, values)))
    return schema


def _others(value: Schema, values: tuple[Constant, ...]) -> Iterable[Schema]:
    for alt in alternatives(value):
        if "enum" in alt:
            rest = [v for v in alt["enum"] if not any(codec.same(v, c.value) for c in values)]
            yield {"enum": rest} if rest else False
        else:
            yield alt


def _there(schema: Schema, path: Path, among: list[Schema]) -> Schema:
    """Only data with something at the path that may be one of `among`."""
    if not path:
        wanted = [alt for one in among for alt in alternatives(one)]
        return union(_meet(alt, one) for alt in alternatives(schema) for one in wanted)
    part, rest = path[0], path[1:]
    if not isinstance(part, str):
        return union(alt for alt in alternatives(schema) if alt["type"] == "array")

    def change(whole: Object) -> None:
        slot = whole.slot(part)
        if slot.schema is False:
            raise Refused
        whole.put(part, _there(slot.schema, rest, among), True)

    return in_objects(schema, change, others=False)


def _meet(alt: dict[str, Any], wanted: dict[str, Any]) -> Schema:
    """What two alternatives have in common, or a little more."""
    if not _of_kind(alt["type"], wanted["type"]):
        return False
    if "enum" in alt and "enum" in wanted:
        both = [v for v in alt["enum"] if any(codec.same(v, w) for w in wanted["enum"])]
        return {"enum": both} if both else False
    if "enum" in wanted:
        return wanted
    return alt
