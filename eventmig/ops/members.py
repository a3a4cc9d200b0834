"""Ops on members of objects: they come, go, and change places. Values stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eventmig import codec
from eventmig.codec import Value
from eventmig.constants import Constant, Ref, Source
from eventmig.events import Event
from eventmig.ops.base import BaseOp, Loss, Op, no_object, not_a, taken
from eventmig.paths import ABSENT, Path, get, put, text, without


@dataclass(frozen=True, slots=True)
class Add(BaseOp):
    """A new member; where its parent object is absent, nothing happens."""

    path: Path
    value: Source

    def up(self, data: Value, event: Event) -> Value:
        path = self.path
        if get(data, path) is not ABSENT:
            raise taken(path)
        if len(path) > 1 or not isinstance(data, dict):
            parent = get(data, path[:-1])
            if parent is ABSENT:
                return data
            if not isinstance(parent, dict):
                raise not_a("object", path[:-1], parent)
        new = read_source(self.value, data, event)
        return data if new is ABSENT else put(data, self.path, new)  # type: ignore[arg-type]

    def inverse(self) -> Op:
        return Drop(self.path, self.value, exact_after_add=True)

    def __str__(self) -> str:
        return f"add {text(self.path)}: {self.value}"


def read_source(source: Source, data: Value, event: Event) -> object:
    """The value a source stands for in this data and event, or ABSENT. Pure."""
    if isinstance(source, Constant):
        return source.value
    if isinstance(source, Ref):
        return get(data, source.path)
    found = get(codec.decode(event.metadata), source.path) if event.metadata else ABSENT
    if found is ABSENT and source.otherwise is not None:
        return source.otherwise.value
    return found


@dataclass(frozen=True, slots=True)
class Default(BaseOp):
    """A member where there was none; one that is there is kept."""

    loss_class: ClassVar[Loss] = Loss.LOSSY
    path: Path
    value: Source

    def up(self, data: Value, event: Event) -> Value:
        if get(data, self.path) is not ABSENT:
            return data
        return Add(self.path, self.value).up(data, event)

    def inverse(self) -> Op:
        return Keep(self)

    def __str__(self) -> str:
        return f"default {text(self.path)}: {self.value}"


@dataclass(frozen=True, slots=True)
class Put(BaseOp):
    """A member set to a constant, whatever was there; the way back puts `was` there, if given."""

    loss_class: ClassVar[Loss] = Loss.LOSSY
    path: Path
    value: Constant
    was: Constant | None = None

    def up(self, data: Value, event: Event) -> Value:
        parent = get(data, self.path[:-1])
        if not isinstance(parent, dict):
            raise no_object(self.path[:-1])
        return put(data, self.path, self.value.value)

    def inverse(self) -> Op:
        return Keep(self) if self.was is None else Put(self.path, self.was, self.value)

    def __str__(self) -> str:
        return f"put {text(self.path)}: {self.value}"


@dataclass(frozen=True, slots=True)
class Keep(BaseOp):
    """Nothing: the way back of an op whose result stays as it is."""

    loss_class: ClassVar[Loss] = Loss.LOSSY
    of: Op

    def up(self, data: Value, event: Event) -> Value:
        return data

    def inverse(self) -> Op:
        return self.of

    def __str__(self) -> str:
        return f"keep the result of ({self.of})"


@dataclass(frozen=True, slots=True)
class Drop(BaseOp):
    """A member less. With `restore`, the way back adds that constant (lossy)."""

    path: Path
    restore: Source | None = None
    exact_after_add: bool = False

    @property
    def loss(self) -> Loss:
        if self.exact_after_add:
            return Loss.EXACT
        return Loss.ABSENT if self.restore is None else Loss.LOSSY

    def up(self, data: Value, event: Event) -> Value:
        return without(data, self.path)

    def inverse(self) -> Op | None:
        if self.restore is None:
            return None
        return (Add if self.exact_after_add else Default)(self.path, self.restore)

    def __str__(self) -> str:
        back = "" if self.restore is None else f" (way back: {self.restore})"
        return f"drop {text(self.path)}{back}"


@dataclass(frozen=True, slots=True)
class Rename(BaseOp):
    """A member under another key of the same object; it keeps its place among the keys."""

    path: Path
    to: str

    def up(self, data: Value, event: Event) -> Value:
        path, to = self.path, self.to
        parent = data if len(path) == 1 else get(data, path[:-1])
        if not isinstance(parent, dict):
            return data
        if to in parent:
            raise taken((*path[:-1], to))
        old = path[-1]
        if old not in parent:
            return data
        renamed: Value = {(to if k == old else k): v for k, v in parent.items()}
        return renamed if len(path) == 1 else put(data, path[:-1], renamed)

    def inverse(self) -> Op:
        return Rename((*self.path[:-1], self.to), str(self.path[-1]))

    def __str__(self) -> str:
        return f"rename {text(self.path)} to {self.to}"


@dataclass(frozen=True, slots=True)
class Move(BaseOp):
    """A member to another place, whose parent object must be there."""

    path: Path
    to: Path

    def up(self, data: Value, event: Event) -> Value:
        if get(data, self.to) is not ABSENT:
            raise taken(self.to)
        found = get(data, self.path)
        if found is ABSENT:
            return data
        rest = without(data, self.path)
        if not isinstance(get(rest, self.to[:-1]), dict):
            raise no_object(self.to[:-1])
        return put(rest, self.to, found)  # type: ignore[arg-type]

    def inverse(self) -> Op:
        return Move(self.to, self.path)

    def __str__(self) -> str:
        return f"move {text(self.path)} to {text(self.to)}"


@dataclass(frozen=True, slots=True)
class Nest(BaseOp):
    """Some members of an object into an object below it, made if need be.

    Without any of them, nothing happens. Refuses an object below that is empty or
    already has one of the keys: the way back could not tell them apart.
    """

    parent: Path
    keys: tuple[str, ...]
    under: str

    def up(self, data: Value, event: Event) -> Value:
        outer = get(data, self.parent)
        if outer is ABSENT:
            return data
        if not isinstance(outer, dict):
            raise not_a("object", self.parent, outer)
        below = (*self.parent, self.under)
        inner = outer.get(self.under, {})
        if not isinstance(inner, dict):
            raise taken(below)
        for key in self.keys:
            if key in inner:
                raise taken((*below, key))
        moved = {k: outer[k] for k in self.keys if k in outer}
        if not moved:
            return data
        if self.under in outer and not inner:
            raise taken(below)
        rest = outer.copy()
        for key in moved:
            del rest[key]
        return put(data, self.parent, {**rest, self.under: {**inner, **moved}})

    def inverse(self) -> Op:
        return Unnest(self.parent, self.keys, self.under)

    def __str__(self) -> str:
        keys = ", ".join(self.keys)
        return f"nest {keys} under {text((*self.parent, self.under))}"


@dataclass(frozen=True, slots=True)
class Unnest(BaseOp):
    """Some members of an object up into the object that holds it.

    The object below goes when this empties it. The others stay in it.
    """

    parent: Path
    keys: tuple[str, ...]
    under: str

    def up(self, data: Value, event: Event) -> Value:
        outer = get(data, self.parent)
        if outer is ABSENT:
            return data
        if not isinstance(outer, dict):
            raise not_a("object", self.parent, outer)
        for key in self.keys:
            if key in outer:
                raise taken((*self.parent, key))
        inner = outer.get(self.under, {})
        if not isinstance(inner, dict):
            raise not_a("object", (*self.parent, self.under), inner)
        moved = {k: inner[k] for k in self.keys if k in inner}
        if not moved:
            return data
        rest = {k: v for k, v in inner.items() if k not in moved}
        kept = {k: v for k, v in outer.items() if k != self.under}
        if rest:
            kept[self.under] = rest
        return put(data, self.parent, {**kept, **moved})

    def inverse(self) -> Op:
        return Nest(self.parent, self.keys, self.under)

    def __str__(self) -> str:
        keys = ", ".join(self.keys)
        return f"unnest {keys} from {text((*self.parent, self.under))}"
