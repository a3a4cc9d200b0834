"""Conditions: what a `when` op asks of the data. Values, like ops: printed, compared, hashed."""

from __future__ import annotations

from dataclasses import dataclass

from eventmig import codec
from eventmig.constants import Constant
from eventmig.paths import ABSENT, Path, PathLike, get, parse, text


@dataclass(frozen=True, slots=True)
class Present:
    """The member is there (null counts as there)."""

    path: Path

    def holds(self, data: codec.Value) -> bool:
        return get(data, self.path) is not ABSENT

    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    def __str__(self) -> str:
        return f"{text(self.path)} is present"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The member is there and equals one of the values (JSON equality)."""

    path: Path
    values: tuple[Constant, ...]

    def holds(self, data: codec.Value) -> bool:
        found = get(data, self.path)
        return found is not ABSENT and any(codec.same(found, v.value) for v in self.values)

    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{text(self.path)} = {self.values[0]}"
        return f"{text(self.path)} is one of {', '.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True)
class Contains:
    """The member is a list that holds at least one of the values; with `key`, each
    item's member of that name is compared instead of the item.
    """

    path: Path
    values: tuple[Constant, ...]
    key: str | None = None

    def holds(self, data: codec.Value) -> bool:
        found = get(data, self.path)
        if not isinstance(found, list):
            return False
        items = found if self.key is None else [get(item, (self.key,)) for item in found]
        return any(codec.same(item, v.value) for item in items for v in self.values)

    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    def __str__(self) -> str:
        of = "" if self.key is None else f" (by {self.key})"
        return f"{text(self.path)}{of} contains {' or '.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The member is text that starts with the prefix."""

    path: Path
    prefix: str

    def holds(self, data: codec.Value) -> bool:
        found = get(data, self.path)
        return isinstance(found, str) and found.startswith(self.prefix)

    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    def __str__(self) -> str:
        return f"{text(self.path)} starts with {self.prefix!r}"


@dataclass(frozen=True, slots=True)
class IsKind:
    """The member is there and of this JSON type (`integer` is also a `number`)."""

    path: Path
    kind: str

    def holds(self, data: codec.Value) -> bool:
        found = get(data, self.path)
        if found is ABSENT:
            return False
        actual = codec.kind(found)
        return actual == self.kind or (self.kind == "number" and actual == "integer")

    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    def __str__(self) -> str:
        return f"{text(self.path)} is of type {self.kind}"


@dataclass(frozen=True, slots=True)
class Not:
    """The inner condition does not hold."""

    inner: Condition

    def holds(self, data: codec.Value) -> bool:
        return not self.inner.holds(data)

    def paths(self) -> tuple[Path, ...]:
        return self.inner.paths()

    def __str__(self) -> str:
        return f"not ({self.inner})"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every inner condition holds."""

    inner: tuple[Condition, ...]

    def holds(self, data: codec.Value) -> bool:
        return all(c.holds(data) for c in self.inner)

    def paths(self) -> tuple[Path, ...]:
        return tuple(p for c in self.inner for p in c.paths())

    def __str__(self) -> str:
        return " and ".join(f"({c})" for c in self.inner)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one inner condition holds."""

    inner: tuple[Condition, ...]

    def holds(self, data: codec.Value) -> bool:
        return any(c.holds(data) for c in self.inner)

    def paths(self) -> tuple[Path, ...]:
        return tuple(p for c in self.inner for p in c.paths())

    def __str__(self) -> str:
        return " or ".join(f"({c})" for c in self.inner)


Condition = Present | OneOf | Contains | StartsWith | IsKind | Not | AllOf | AnyOf


def present(path: PathLike) -> Condition:
    """The member is there; null counts as there."""
    return Present(parse(path))


def absent(path: PathLike) -> Condition:
    """There is no such member; null is not absent."""
    return Not(Present(parse(path)))


def equals(path: PathLike, value: object) -> Condition:
    """The member is there and equals the value (JSON equality: `true` is not 1)."""
    return OneOf(parse(path), (Constant.of(value),))


def one_of(path: PathLike, *values: object) -> Condition:
    """The member is there and equals one of the values."""
    return OneOf(parse(path), tuple(map(Constant.of, values)))


def contains(path: PathLike, *values: object, key: str | None = None) -> Condition:
    """The member is a list holding at least one of the values.

    With `key`, the items are objects and their member `key` is compared.
    """
    return Contains(parse(path), tuple(map(Constant.of, values)), key)


def starts_with(path: PathLike, prefix: str) -> Condition:
    """The member is text that starts with the prefix."""
    return StartsWith(parse(path), prefix)


def is_kind(path: PathLike, kind: str) -> Condition:
    """The member is of a JSON type: null, boolean, integer, number, string, array, object."""
    if kind not in {"null", "boolean", "integer", "number", "string", "array", "object"}:
        raise ValueError(f"{kind!r} is not a JSON type")
    return IsKind(parse(path), kind)


def not_(condition: Condition) -> Condition:
    """The condition does not hold."""
    return Not(condition)


def all_of(*conditions: Condition) -> Condition:
    """Every condition holds."""
    return AllOf(conditions)


def any_of(*conditions: Condition) -> Condition:
    """At least one condition holds."""
    return AnyOf(conditions)
