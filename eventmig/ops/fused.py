"""The fastest reading of ops: a program and one shape of data become one expression.

The shape of an object is the list of its keys, in order. For one shape it is known
beforehand where every member ends up, so that only values are left to be changed: the
data is decoded into a struct of raw members, the result is a struct again, and nothing
between is a dict. Events of one type and version mostly have one shape; for all others,
for data that is not compact JSON, and whenever anything fails, the caller's own reading
is taken, which also makes the errors. Many events of one shape are read, checked and
written as lines, each with one call.

It must mean exactly what `Op.up` means; the tests compare the two (see `compiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from eventmig import codec
from eventmig.constants import Constant, FromMetadata
from eventmig.conversions import NAMED
from eventmig.errors import CodecError
from eventmig.events import Event
from eventmig.ops.base import Op
from eventmig.ops.control import Each
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
from eventmig.ops.values import Convert, MapValues, Unwrap, Wrap
from eventmig.paths import ABSENT, Path

Rewrite: TypeAlias = Callable[[bytes, Event], bytes]
"""One event's data before and after, as bytes."""

RewriteMany: TypeAlias = Callable[[Sequence[bytes]], "bytes | None"]
"""Several events' data after the ops, each ended by a newline, or None: take them one by one."""


class Program(NamedTuple):
    """One shape's functions: None where data is not of it. They may raise anything."""

    one: Callable[[bytes, Event], bytes | None]
    many: RewriteMany
    sound: RewriteMany


Edit: TypeAlias = Callable[[Any, Event], Any]
Slot: TypeAlias = "str | dict[str, Slot]"
"""An expression for a value, or the members of an object that ops made."""

_decode: Final = msgspec.json.Decoder().decode
_OF_PLAIN_TEXT: Final = frozenset(
    NAMED[name]
    for name in (
        *("text_to_integer", "text_to_number", "text_to_boolean", "text_to_hundredths"),
        *("time_to_epoch_seconds", "time_to_utc_text", "time_to_iso"),
    )
)
"""Conversions of text that has one spelling in JSON, where they take it; never to null."""
_MOST_MISSES: Final = 50
_MOST_SHAPES: Final = 20


class _Unfit(Exception):  # noqa: N818 - it is no error: another reading is taken
    """This shape (or this event) has to be read another way."""


def fuse(ops: tuple[Op, ...], otherwise: Rewrite, edit: Callable[[Op], Edit]) -> Rewrite:
    """A function that reads the data by its shape where it can, and `otherwise` where not.

    `edit` compiles one op into its change in place.
    """
    shapes = _Shapes(ops, edit)
    expected: Program | None = None

    def rewrite(data: bytes, event: Event) -> bytes:
        nonlocal expected
        if expected is not None:
            try:
                made = expected.one(data, event)
            except Exception:  # noqa: BLE001 - whatever it is, `otherwise` says it
                made = None
            if made is not None:
                shapes.hits += 1
                return made
        before, expected = expected, shapes.missed(data)
        if expected is not None and expected is not before:
            return rewrite(data, event)
        return otherwise(data, event)

    return rewrite


def fuse_many(
    ops: tuple[Op, ...], edit: Callable[[Op], Edit], *, sound: bool = False
) -> RewriteMany:
    """The same for several events at once: all of one shape, with ops that see the data alone.

    `sound`: the data is known to be JSON in UTF-8, on one line, with no key twice in an
    object. Then its spelling is not looked at.
    """
    shapes = _Shapes(ops, edit)
    expected: Program | None = None

    def rewrite(data: Sequence[bytes]) -> bytes | None:
        nonlocal expected
        expected = expected or shapes.missed(data[0])
        if expected is None:
            return None
        try:
            made = expected.sound(data) if sound else expected.many(data)
        except Exception:  # noqa: BLE001 - one by one it is found out
            made = None
        if made is None:
            expected = None
        else:
            shapes.hits += 1
        return made

    return rewrite


class _Shapes:
    """The programs of the shapes seen so far.

    One shape at a time is expected: the one that was there last. Where that is wrong too
    often, it gives up for good.
    """

    def __init__(self, ops: tuple[Op, ...], edit: Callable[[Op], Edit]) -> None:
        self.hits = 0
        self._misses = 0
        self._ops = ops
        self._edit = edit
        self._programs: dict[tuple[str, ...], Program | None] = {}
        self._on = True

    def missed(self, data: bytes) -> Program | None:
        """The program to expect after data that the one before did not fit."""
        if not self._on:
            return None
        self._misses += 1
        self._on = self._misses < _MOST_MISSES or self._misses * 4 < self.hits
        return self._known(data) if self._on else None

    def _known(self, data: bytes) -> Program | None:
        try:
            shape = tuple(codec.decode_members(data))
        except CodecError:
            return None
        if shape not in self._programs and len(self._programs) < _MOST_SHAPES:
            try:
                self._programs[shape] = program(self._ops, shape, self._edit)
            except (_Unfit, ValueError):  # ValueError: a key that no struct can have
                self._programs[shape] = None
        return self._programs.get(shape)


def program(ops: tuple[Op, ...], shape: tuple[str, ...], edit: Callable[[Op], Edit]) -> Program:
    """The program for one shape; raises `_Unfit` where only values could tell what happens."""
    plan = _Plan(shape, edit)
    for op in ops:
        plan.take(op)
    result = plan.expression(plan.root)
    types = [str | None if f"members.f{n}" in plan.texts else Raw for n in range(len(shape))]
    before = msgspec.json.Decoder(_struct([*zip(shape, types, strict=True)]))
    names = plan.names | {
        "decode": before.decode,
        "decode_lines": before.decode_lines,
        "encode": codec.encode,
        "encode_lines": codec.encode_lines,
    }
    # Only numbers and calls stand in this text; keys and values are in `names`.
    text = f"""def one(data, event):
    members = decode(data)
    if encode(members) != data:
        return None
    if not data.isascii():
        data.decode()
    return encode({result})

def many(data, event=None):
    lines = b"\\n".join((*data, b""))
    if lines.count(b"\\n") != len(data):
        return None
    found = decode_lines(lines)
    if encode_lines(found) != lines:
        return None
    if not lines.isascii():
        lines.decode()
    return encode_lines([{result} for members in found])

def sound(data, event=None):
    found = decode_lines(b"\\n".join(data))
    if len(found) != len(data):
        return None
    return encode_lines([{result} for members in found])"""
    exec(text, names)
    return Program(names["one"], names["many"], names["sound"])


class _Plan:
    """Where each member is after the ops so far; every op is taken in turn."""

    def __init__(self, shape: tuple[str, ...], edit: Callable[[Op], Edit]) -> None:
        self.root: dict[str, Slot] = {key: f"members.f{n}" for n, key in enumerate(shape)}
        self.names: dict[str, Any] = {}
        self.texts: set[str] = set()
        self._edit = edit

    def take(self, op: Op) -> None:
        """Carry one op out on the places, or raise `_Unfit`."""
        match op:
            case Keep():
                return
            case Rename(path=(*above, str(old)), to=to) if (inside := self._at(above)) is not None:
                self._rename(inside, old, to)
            case Add(path=(*above, str(key))) | Default(path=(*above, str(key))) if (
                inside := self._at(above)
            ) is not None:
                self._add(op, inside, key)
            case Put(path=(*above, str(key))) if (inside := self._at(above)) is not None:
                self._forget(inside.get(key))
                inside[key] = self._named(op.value.raw)
            case Drop(path=(*above, str(key))) if (inside := self._at(above)) is not None:
                self._forget(inside.pop(key, None))
            case Move(path=(*above, str(key)), to=(*to_above, str(to))) if (
                inside := self._at(above)
            ) is not None and (target := self._at(to_above)) is not None:
                self._move(inside, key, target, to)
            case Nest(parent=parent) if (inside := self._at(parent)) is not None:
                self._nest(op, inside)
            case Unnest(parent=parent) if (inside := self._at(parent)) is not None:
                self._unnest(op, inside)
            case Convert() | MapValues() | Wrap() | Unwrap() | Each():
                self._change(op, op.path)
            case Rename() | Drop():
                self._change(op, op.path)
            case Add() | Default() if isinstance(op.value, Constant):
                self._change(op, op.path)
            case Nest() | Unnest():
                self._change(op, op.parent)
            case _:
                raise _Unfit

    def expression(self, slot: Slot) -> str:
        """The text that makes a slot's value."""
        if isinstance(slot, str):
            return slot
        made = self._named(_struct([(key, Any) for key in slot]))
        return f"{made}({', '.join(map(self.expression, slot.values()))})"

    def _at(self, path: Path | list[Any]) -> dict[str, Slot] | None:
        """The members at a path, where they are known: of the event, or of what ops made."""
        inside: Slot | None = self.root
        for part in path:
            if not isinstance(inside, dict) or not isinstance(part, str):
                return None
            inside = inside.get(part)
        return inside if isinstance(inside, dict) else None

    def _named(self, value: object) -> str:
        name = f"n{len(self.names)}"
        self.names[name] = value
        return name

    def _call(self, function: Edit, slot: Slot) -> str:
        return f"{self._named(function)}({self.expression(slot)}, event)"

    # the ops ---------------------------------------------------------------------------------

    def _rename(self, inside: dict[str, Slot], old: str, to: str) -> None:
        if to in inside:
            raise _Unfit
        if old in inside:
            items = [(to if key == old else key, slot) for key, slot in inside.items()]
            inside.clear()
            inside.update(items)

    def _forget(self, slot: Slot | None) -> None:
        if slot is not None and "(" in self.expression(slot):
            raise _Unfit  # what makes this value might refuse the event

    def _add(self, op: Add | Default, inside: dict[str, Slot], key: str) -> None:
        if key in inside:
            if isinstance(op, Add):
                raise _Unfit
        elif isinstance(op.value, Constant):
            inside[key] = self._named(op.value.raw)
        elif isinstance(op.value, FromMetadata):
            inside[key] = f"{self._named(_from_metadata(op.value))}(event)"
        else:
            raise _Unfit

    def _move(self, inside: dict[str, Slot], key: str, target: dict[str, Slot], to: str) -> None:
        if to in target:
            raise _Unfit
        if key in inside:
            if isinstance(inside[key], dict):  # which might hold the target
                raise _Unfit
            target[to] = inside.pop(key)

    def _nest(self, op: Nest, inside: dict[str, Slot]) -> None:
        if op.under in inside or op.under in op.keys:
            raise _Unfit
        if moved := {key: inside.pop(key) for key in op.keys if key in inside}:
            inside[op.under] = moved

    def _unnest(self, op: Unnest, inside: dict[str, Slot]) -> None:
        inner = inside.get(op.under, {})
        if not isinstance(inner, dict) or any(key in inside for key in op.keys):
            raise _Unfit
        moved = {key: inner.pop(key) for key in op.keys if key in inner}
        if moved and inner:
            raise _Unfit
        if moved:
            del inside[op.under]
            inside.update(moved)

    def _change(self, op: Op, path: Path) -> None:
        """An op on what stands at, or below, one member; where that is absent, nothing."""
        key = path[0] if path else None
        if not isinstance(key, str):
            raise _Unfit
        slot = self.root.get(key)
        if isinstance(slot, dict):
            self._change_inside(op, path)
        elif slot is not None:
            self.root[key] = self._changed(op, key, slot, direct=len(path) == 1)

    def _change_inside(self, op: Op, path: Path) -> None:
        """A change of one member of an object that ops made."""
        inside, key = self._at(path[:-1]), path[-1]
        if inside is None or not isinstance(key, str) or not isinstance(op, Convert | MapValues):
            raise _Unfit
        slot = inside.get(key)
        if isinstance(slot, dict):
            raise _Unfit
        if slot is not None:
            inside[key] = self._changed(op, key, slot, direct=True)

    def _changed(self, op: Op, key: str, slot: str, *, direct: bool) -> str:
        """The expression for a member after an op on it (`direct`), or on what is in it."""
        stored = slot.startswith("members.")
        if direct and stored and isinstance(op, Convert) and op.conversion in _OF_PLAIN_TEXT:
            self.texts.add(slot)  # read as text, not as raw JSON that is text
            forward = self._named(op.conversion.forward)
            return f"(None if {slot} is None else {forward}({slot}))"
        return self._call(self._function(op, key, direct=direct), slot)

    def _function(self, op: Op, key: str, *, direct: bool) -> Edit:
        if direct and isinstance(op, Convert):
            return _conversion(op)
        if direct and isinstance(op, MapValues):
            return _table(op)
        edit = self._edit(op)
        return lambda found, event: edit({key: found}, event)[key]


def _struct(fields: list[tuple[str, Any]]) -> Any:
    """A struct of these JSON keys, all of them required; `ValueError` for keys it cannot have."""
    return msgspec.defstruct(
        "Members",
        [(f"f{n}", type_) for n, (_, type_) in enumerate(fields)],
        rename={f"f{n}": key for n, (key, _) in enumerate(fields)},
        forbid_unknown_fields=True,
        gc=False,
        eq=False,
    )


def _conversion(op: Convert) -> Edit:
    decode, forward = codec.decode, op.conversion.forward

    def convert(found: Any, event: Event) -> Any:
        value = found
        if type(found) is Raw:
            value = _decode(found)
            if type(value) is not str:  # of all but text it may have lost something
                value = decode(found)
        if value is None:
            return None
        new = forward(value)
        if new is None:
            raise _Unfit
        return new

    return convert


def _table(op: MapValues) -> Edit:
    decode = codec.decode
    raws = {old.text.encode(): new.raw for old, new in reversed(op.table)}

    def look_up(found: Any, event: Event) -> Any:
        if type(found) is Raw:
            new = raws.get(bytes(found))
            if new is not None:
                return new
            found = decode(found)
        return op.mapped(found)

    return look_up


def _from_metadata(source: FromMetadata) -> Callable[[Event], Any]:
    def read(event: Event) -> Any:
        found = read_source(source, None, event)
        if found is ABSENT:
            raise _Unfit
        return found

    return read
