"""Ops that hold other ops (`each`, `when`) or a function (`apply`), and running several."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

from eventmig import codec, fingerprint
from eventmig.codec import Value
from eventmig.conditions import Condition
from eventmig.constants import FromMetadata
from eventmig.conversions import Change
from eventmig.errors import OpError
from eventmig.events import Event
from eventmig.ops.base import BaseOp, Loss, Op, not_a, worst
from eventmig.ops.members import Keep, Move, Nest, Rename, Unnest
from eventmig.ops.values import Combine, Split
from eventmig.paths import ABSENT, Path, get, put, text


@dataclass(frozen=True, slots=True)
class Each(BaseOp):
    """Ops on each item of a list; an absent list stays absent. Paths are relative to the item."""

    path: Path
    ops: tuple[Op, ...]

    @property
    def loss(self) -> Loss:
        return worst([op.loss for op in self.ops])

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT:
            return data
        if not isinstance(found, list):
            raise not_a("array", self.path, found)
        return put(data, self.path, [run(self.ops, item, event) for item in found])

    def inverse(self) -> Op | None:
        back = inverses(self.ops)
        return None if back is None else Each(self.path, back)

    def fingerprint(self) -> str:
        return fingerprint.of_value(
            ["each", list(self.path), *[op.fingerprint() for op in self.ops]]
        )

    def __str__(self) -> str:
        return f"each item of {text(self.path)}: {'; '.join(map(str, self.ops))}"


@dataclass(frozen=True, slots=True)
class When(BaseOp):
    """Ops where a condition holds, else others. The condition is asked once, before any of them.

    The way back asks the same condition of the result: it is exact only where no
    op of either branch works on what the condition looks at.
    """

    condition: Condition
    ops: tuple[Op, ...]
    otherwise: tuple[Op, ...] = ()

    @property
    def loss(self) -> Loss:
        every = (*self.ops, *self.otherwise)
        undone = any(not isinstance(op.inverse(), Keep) for op in every)
        if undone and self._disturbed():
            return Loss.ABSENT
        return worst([op.loss for op in every])

    def _disturbed(self) -> bool:
        asked = self.condition.paths()
        changed = [p for op in (*self.ops, *self.otherwise) for p in paths_of(op)]
        return any(a[: len(c)] == c or c[: len(a)] == a for a in asked for c in changed)

    def up(self, data: Value, event: Event) -> Value:
        return run(self.ops if self.condition.holds(data) else self.otherwise, data, event)

    def inverse(self) -> Op | None:
        then, other = inverses(self.ops), inverses(self.otherwise)
        if then is None or other is None or (self.loss is Loss.ABSENT):
            return None
        return When(self.condition, then, other)

    def fingerprint(self) -> str:
        return fingerprint.of_value(
            [
                "when",
                repr(self.condition),
                [op.fingerprint() for op in self.ops],
                [op.fingerprint() for op in self.otherwise],
            ]
        )

    def __str__(self) -> str:
        other = f"; otherwise {'; '.join(map(str, self.otherwise))}" if self.otherwise else ""
        return f"when {self.condition}: {'; '.join(map(str, self.ops))}{other}"


@dataclass(frozen=True, slots=True)
class Apply(BaseOp):
    """A function on the whole data, for what no op can say. Must be pure and total.

    `function` gets the data (its own copy) and returns the new data. `back`, if
    given, takes it back; `exact` claims that nothing is lost.
    """

    function: Change
    back: Change | None = None
    exact: bool = False

    @property
    def loss(self) -> Loss:
        if self.back is None:
            return Loss.ABSENT
        return Loss.EXACT if self.exact else Loss.LOSSY

    def up(self, data: Value, event: Event) -> Value:
        return checked_result(self.function, codec.decode(codec.encode(data)))

    def inverse(self) -> Op | None:
        return None if self.back is None else Apply(self.back, self.function, self.exact)

    def fingerprint(self) -> str:
        parts = [fingerprint.of_function(f) for f in (self.function, self.back) if f]
        return fingerprint.of_value(["apply", self.exact, *parts])

    def __str__(self) -> str:
        return f"apply {self.function.__qualname__}"


def checked_result(function: Change, data: Value) -> Value:
    """What a user's function makes of the data, decoded again so that nothing is shared.

    Raises `OpError` where it returns nothing, `CodecError` where JSON cannot carry it.
    """
    result = function(data)
    if result is None:
        raise OpError(
            f"{function.__qualname__} returned nothing",
            remedy="return the new data (a dict), also where nothing changes",
        )
    return codec.decode(codec.encode_checked(result))


def run(ops: tuple[Op, ...], data: Value, event: Event) -> Value:
    """The slow, obvious reading of several ops, in order. Pure."""
    for op in ops:
        data = op.up(data, event)
    return data


def inverses(ops: tuple[Op, ...]) -> tuple[Op, ...] | None:
    """The ops that take several back, last first; None where one has no way back."""
    back: list[Op] = []
    for op in reversed(ops):
        inverse = op.inverse()
        if inverse is None:
            return None
        back.append(inverse)
    return tuple(back)


def paths_of(op: Op) -> tuple[Path, ...]:
    """Every path an op writes to (a whole subtree each); `((),)` for the whole data."""
    match op:
        case Rename(path, to):
            return (path, (*path[:-1], to))
        case Move(path, to):
            return (path, to)
        case Nest(parent, keys, under) | Unnest(parent, keys, under):
            return tuple((*parent, k) for k in (*keys, under))
        case Split(path, into, _):
            return (path, *into)
        case Combine():
            return (*op.paths, op.to)
        case When():
            return tuple(p for inner in (*op.ops, *op.otherwise) for p in paths_of(inner))
        case Keep():
            return ()
        case Apply():
            return ((),)
    path = getattr(op, "path", ())
    return (path,)


def reads_event(part: object) -> bool:
    """Whether an op looks at more of an event than its data; one of others' making may."""
    if isinstance(part, tuple):
        return any(map(reads_event, part))
    if isinstance(part, BaseOp) and type(part).__module__.startswith("eventmig.ops."):
        return any(reads_event(getattr(part, field.name)) for field in fields(cast(Any, part)))
    return isinstance(part, FromMetadata) or hasattr(part, "up")
