"""Ops on one value: its form, its spelling, its place in a table, its list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from eventmig import codec, fingerprint
from eventmig.codec import Value
from eventmig.constants import Constant
from eventmig.conversions import Conversion
from eventmig.errors import OpError, Where
from eventmig.events import Event
from eventmig.ops.base import BaseOp, Loss, Op, fail, no_object, not_a, taken
from eventmig.ops.members import Keep
from eventmig.paths import ABSENT, Path, get, put, text, without


@dataclass(frozen=True, slots=True)
class Wrap(BaseOp):
    """A value into a list of one; null into the empty list."""

    path: Path

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT:
            return data
        return put(data, self.path, [] if found is None else [found])  # type: ignore[list-item]

    def inverse(self) -> Op:
        return Unwrap(self.path)

    def __str__(self) -> str:
        return f"wrap {text(self.path)} into a list"


@dataclass(frozen=True, slots=True)
class Unwrap(BaseOp):
    """A list of one into its value; the empty list into null. Refuses longer ones and [null]."""

    path: Path

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT:
            return data
        return put(data, self.path, unwrapped(found, self.path))  # type: ignore[arg-type]

    def inverse(self) -> Op:
        return Wrap(self.path)

    def __str__(self) -> str:
        return f"unwrap {text(self.path)} from its list"


def unwrapped(found: Value, path: Path) -> Value:
    """The one value of a list, or null for the empty one; raises `OpError`."""
    if not isinstance(found, list):
        raise not_a("array", path, found)
    if len(found) > 1 or found == [None]:
        raise fail(
            f"the list at {text(path)} holds {len(found)} values"
            if len(found) > 1
            else f"the list at {text(path)} holds a null, which would become the empty list",
            path,
            "split such events first, or choose the value in a function",
        )
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Convert(BaseOp):
    """A value through a named conversion; null is left alone."""

    path: Path
    conversion: Conversion

    @property
    def loss(self) -> Loss:
        if self.conversion.back is None:
            return Loss.LOSSY
        return Loss.EXACT if self.conversion.exact else Loss.LOSSY

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT or found is None:
            return data
        return put(data, self.path, converted(self, found))  # type: ignore[arg-type]

    def inverse(self) -> Op:
        back = self.conversion.inverse()
        return Keep(self) if back is None else Convert(self.path, back)

    def fingerprint(self) -> str:
        return fingerprint.of_value(["convert", list(self.path), self.conversion.fingerprint()])

    def __str__(self) -> str:
        return f"convert {text(self.path)}: {self.conversion.name}"


def converted(op: Convert, found: Value) -> Value:
    """The converted value; raises `OpError` naming the path."""
    try:
        new = op.conversion.apply(found)
    except OpError as error:
        raise OpError(error.what, where=Where(path=text(op.path)), remedy=error.remedy) from error
    if new is None:
        raise fail(
            f"{op.conversion.name} made null out of a value",
            op.path,
            "drop the member with `when` instead: the way back leaves null alone",
        )
    return new


class Other(StrEnum):
    """What `map_values` does with a value its table does not name."""

    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class MapValues(BaseOp):
    """A value replaced by a table. `other` is KEEP, REFUSE, or a constant for all the rest."""

    path: Path
    table: tuple[tuple[Constant, Constant], ...]
    other: Other | Constant = Other.REFUSE

    @property
    def loss(self) -> Loss:
        if isinstance(self.other, Constant):
            return Loss.LOSSY
        results = [new.value for _, new in self.table]
        twice = any(codec.same(a, b) for i, a in enumerate(results) for b in results[:i])
        return Loss.LOSSY if twice else Loss.EXACT

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT:
            return data
        return put(data, self.path, self.mapped(found))  # type: ignore[arg-type]

    def mapped(self, found: Value) -> Value:
        """What the table makes of one value; raises `OpError`."""
        for old, new in self.table:
            if codec.same(found, old.value):
                return new.value
        if isinstance(self.other, Constant):
            return self.other.value
        if self.other is Other.REFUSE:
            raise fail(
                f"the table has no entry for {codec.encode(found).decode()}",
                self.path,
                "add the value to the table, or say what to do with others (other=…)",
            )
        if self.loss is Loss.EXACT and any(codec.same(found, n.value) for _, n in self.table):
            raise fail(
                f"{codec.encode(found).decode()} is there already, and another value becomes it",
                self.path,
                'add it to the table (`"x": "x"`), which then says that the way back is lossy',
            )
        return found

    def inverse(self) -> Op:
        back = {new.text: (new, old) for old, new in reversed(self.table)}
        other = Other.KEEP if isinstance(self.other, Constant) else self.other
        return MapValues(self.path, tuple(reversed(back.values())), other)

    def __str__(self) -> str:
        table = ", ".join(f"{old} → {new}" for old, new in self.table)
        other = f"all others → {self.other}" if isinstance(self.other, Constant) else self.other
        return f"map {text(self.path)}: {table} ({other} others)"


@dataclass(frozen=True, slots=True)
class Split(BaseOp):
    """Text cut at a separator into several members; null and absent stay.

    Cut at the first `len(into) - 1` separators; where there are fewer, the last
    members stay absent.
    """

    path: Path
    into: tuple[Path, ...]
    separator: str

    def up(self, data: Value, event: Event) -> Value:
        for target in self.into:
            if target != self.path and get(data, target) is not ABSENT:
                raise taken(target)
        found = get(data, self.path)
        if found is ABSENT or found is None:
            return data
        if not isinstance(found, str):
            raise not_a("string", self.path, found)
        data = without(data, self.path)
        for target, part in zip(self.into, self.parts(found), strict=False):
            if not isinstance(get(data, target[:-1]), dict):
                raise no_object(target[:-1])
            data = put(data, target, part)
        return data

    def parts(self, value: str) -> list[str]:
        """The parts of one text, at most one per target."""
        return value.split(self.separator, len(self.into) - 1)

    def inverse(self) -> Op:
        return Combine(self.into, self.path, self.separator, exact_after_split=True)

    def __str__(self) -> str:
        return (
            f"split {text(self.path)} at {self.separator!r} into {', '.join(map(text, self.into))}"
        )


@dataclass(frozen=True, slots=True)
class Combine(BaseOp):
    """Several texts into one, with a separator between; absent and null ones are left out.

    The way back cuts at the first separators, so it is lossy where an earlier part
    holds the separator itself.
    """

    paths: tuple[Path, ...]
    to: Path
    separator: str
    exact_after_split: bool = False

    @property
    def loss(self) -> Loss:
        return Loss.EXACT if self.exact_after_split else Loss.LOSSY

    def up(self, data: Value, event: Event) -> Value:
        if self.to not in self.paths and get(data, self.to) is not ABSENT:
            if any(get(data, p) is not ABSENT for p in self.paths):
                raise taken(self.to)
            return data
        parts: list[str] = []
        for path in self.paths:
            found = get(data, path)
            if found is ABSENT or found is None:
                continue
            if not isinstance(found, str):
                raise not_a("string", path, found)
            parts.append(found)
            data = without(data, path)
        if not parts:
            return data
        if not isinstance(get(data, self.to[:-1]), dict):
            raise no_object(self.to[:-1])
        return put(data, self.to, self.separator.join(parts))

    def inverse(self) -> Op:
        return Split(self.to, self.paths, self.separator)

    def __str__(self) -> str:
        paths = ", ".join(map(text, self.paths))
        return f"combine {paths} with {self.separator!r} into {text(self.to)}"


@dataclass(frozen=True, slots=True)
class Append(BaseOp):
    """A constant at the end of a list; with `unique`, only where the list lacks it.

    An absent list is left absent, or made with `create`.
    """

    loss_class: ClassVar[Loss] = Loss.LOSSY
    path: Path
    value: Constant
    unique: bool = True
    create: bool = False

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT:
            if not self.create:
                return data
            if not isinstance(get(data, self.path[:-1]), dict):
                raise no_object(self.path[:-1])
            found = []
        if not isinstance(found, list):
            raise not_a("array", self.path, found)
        if self.unique and any(codec.same(item, self.value.value) for item in found):
            return data
        return put(data, self.path, [*found, self.value.value])

    def inverse(self) -> Op:
        return Keep(self)

    def __str__(self) -> str:
        return f"append {self.value} to {text(self.path)}{' unless there' if self.unique else ''}"


@dataclass(frozen=True, slots=True)
class Remove(BaseOp):
    """Every item equal to a constant out of a list; `drop_empty` drops a list this empties."""

    loss_class: ClassVar[Loss] = Loss.LOSSY
    path: Path
    value: Constant
    drop_empty: bool = False

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        if found is ABSENT:
            return data
        if not isinstance(found, list):
            raise not_a("array", self.path, found)
        rest = [item for item in found if not codec.same(item, self.value.value)]
        if len(rest) == len(found):
            return data
        return (
            without(data, self.path) if self.drop_empty and not rest else put(data, self.path, rest)
        )

    def inverse(self) -> Op:
        return Keep(self)

    def __str__(self) -> str:
        return f"remove {self.value} from {text(self.path)}"


@dataclass(frozen=True, slots=True)
class AddLine(BaseOp):
    """A line of text at the end of a member (made if absent), blank edges stripped."""

    loss_class: ClassVar[Loss] = Loss.LOSSY
    path: Path
    line: str
    separator: str = "\n"
    strip: bool = True

    def up(self, data: Value, event: Event) -> Value:
        found = get(data, self.path)
        old = "" if found is ABSENT or found is None else found
        if not isinstance(old, str):
            raise not_a("string", self.path, old)
        if not isinstance(get(data, self.path[:-1]), dict):
            raise no_object(self.path[:-1])
        return put(data, self.path, self.joined(old))

    def joined(self, old: str) -> str:
        """The text with the line added."""
        new = f"{old}{self.separator}{self.line}"
        return new.strip() if self.strip else new

    def inverse(self) -> Op:
        return Keep(self)

    def __str__(self) -> str:
        return f"add the line {self.line!r} to {text(self.path)}"
