"""The functions that users build ops with; every path may be dotted text or a tuple."""

from __future__ import annotations

from collections.abc import Mapping

from eventmig.conditions import Condition
from eventmig.constants import Constant, FromMetadata, Ref, Source
from eventmig.conversions import NAMED, Change, Conversion
from eventmig.ops.base import Op
from eventmig.ops.control import Apply, Each, When
from eventmig.ops.members import Add, Default, Drop, Move, Nest, Put, Rename, Unnest
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
from eventmig.paths import Path, PathLike, parse


def add(path: PathLike, value: object) -> Add:
    """A new member: a constant, `ref(path)`, or `from_metadata(path)`. Way back: exact.

    `OpError` where the member is there already; nothing where its parent is absent.
    """
    return Add(_member(path), _source(value))


def default(path: PathLike, value: object) -> Default:
    """A member where there is none; one that is there is kept. Way back: lossy (it stays)."""
    return Default(_member(path), _source(value))


def put_value(path: PathLike, value: object, *, was: object = None) -> Put:
    """A member set to a constant, whatever was there. Way back: lossy (`was`, if given)."""
    return Put(parse(path), Constant.of(value), None if was is None else Constant.of(was))


def drop(path: PathLike, *, restore: object = None) -> Drop:
    """A member less. Way back: absent, or lossy with a constant to `restore`."""
    return Drop(_member(path), None if restore is None else Constant.of(restore))


def rename(path: PathLike, to: str) -> Rename:
    """A member under another key of the same object. Way back: exact."""
    return Rename(_member(path), to)


def move(path: PathLike, to: PathLike) -> Move:
    """A member to another place, whose parent object must be there. Way back: exact."""
    return Move(_member(path), _member(to))


def nest(*paths: PathLike, under: str) -> Nest:
    """Sibling members into a new object beside them, under the key `under`. Way back: exact."""
    parent, keys = _siblings(paths)
    if under in keys or len(set(keys)) != len(keys):
        raise ValueError("nest needs different members, and a key of its own to put them under")
    return Nest(parent, keys, under)


def unnest(path: PathLike, *keys: str) -> Unnest:
    """The named members of an object up one level; the emptied object goes. Way back: exact."""
    whole = parse(path)
    if not whole or not keys:
        raise ValueError("unnest needs the object's path and the keys to lift out of it")
    return Unnest(whole[:-1], keys, str(whole[-1]))


def wrap(path: PathLike) -> Wrap:
    """A value into a list of one (null into the empty list). Way back: exact."""
    return Wrap(parse(path))


def unwrap(path: PathLike) -> Unwrap:
    """A list of one into its value (the empty list into null). Way back: exact."""
    return Unwrap(parse(path))


def convert(path: PathLike, conversion: str | Conversion) -> Convert:
    """A value through a conversion, by name or made with `conversion`. Way back: as it says."""
    if isinstance(conversion, Conversion):
        return Convert(parse(path), conversion)
    if conversion not in NAMED:
        raise ValueError(f"no conversion {conversion!r}; there are: {', '.join(NAMED)}")
    return Convert(parse(path), NAMED[conversion])


def conversion(
    name: str, forward: Change, back: Change | None = None, *, exact: bool = False
) -> Conversion:
    """A conversion of your own: pure functions of one value; `ValueError` refuses a value."""
    if name in NAMED:
        raise ValueError(f"the name {name!r} is taken by one of eventmig's own conversions")
    return Conversion(name, forward, back, exact)


def map_values(
    path: PathLike,
    table: Mapping[str, object] | list[tuple[object, object]],
    *,
    other: object = Other.REFUSE,
) -> MapValues:
    """A value replaced by a table; a list of pairs where the old values are not text.

    `other` is what becomes of values not named: `KEEP`, `REFUSE` (the default), or a
    constant for all of them. Way back: exact where no two values become one.
    """
    pairs = list(table.items()) if isinstance(table, Mapping) else table
    frozen = tuple((Constant.of(old), Constant.of(new)) for old, new in pairs)
    if len({old.text for old, _ in frozen}) != len(frozen):
        raise ValueError("the table names a value twice")
    rest = other if isinstance(other, Other) else Constant.of(other)
    return MapValues(parse(path), frozen, rest)


def split(path: PathLike, *, into: tuple[PathLike, ...] | list[PathLike], at: str) -> Split:
    """Text cut at a separator into several members. Way back: exact."""
    targets = tuple(map(_member, into))
    if not at or len(targets) < 2 or len(set(targets)) != len(targets):
        raise ValueError("split needs a separator and at least two different members")
    return Split(_member(path), targets, at)


def combine(*paths: PathLike, to: PathLike, separator: str) -> Combine:
    """Several texts into one. Way back: lossy (cut at the first separators)."""
    if not separator or len(paths) < 2:
        raise ValueError("combine needs a separator and at least two members")
    return Combine(tuple(map(_member, paths)), _member(to), separator)


def append(path: PathLike, value: object, *, unique: bool = True, create: bool = False) -> Append:
    """A constant at the end of a list, by default only where it lacks it. Way back: lossy."""
    return Append(_member(path) if create else parse(path), Constant.of(value), unique, create)


def remove(path: PathLike, value: object, *, drop_empty: bool = False) -> Remove:
    """Every item equal to a constant out of a list. Way back: lossy."""
    where = parse(path)
    if drop_empty and not where:
        raise ValueError("drop_empty needs a member to drop, and the path is the value itself")
    return Remove(where, Constant.of(value), drop_empty)


def add_line(path: PathLike, line: str, *, separator: str = "\n", strip: bool = True) -> AddLine:
    """A line at the end of a text, which is made where it is absent. Way back: lossy."""
    return AddLine(parse(path), line, separator, strip)


def each(path: PathLike, *ops: Op) -> Each:
    """Ops on each item of a list; `""` in their paths is the item itself. Way back: the ops'."""
    return Each(parse(path), ops)


def when(condition: Condition, *ops: Op, otherwise: tuple[Op, ...] | list[Op] = ()) -> When:
    """Ops where a condition holds (asked once, before them), else others.

    Way back: the ops', where none of them touches what the condition looks at.
    """
    return When(condition, ops, tuple(otherwise))


def apply(function: Change, *, back: Change | None = None, exact: bool = False) -> Apply:
    """A pure function on the whole data. Way back: `back`, lossy unless it claims `exact`."""
    return Apply(function, back, exact)


def ref(path: PathLike) -> Ref:
    """For `add` and `default`: the value at another path of the same data."""
    return Ref(parse(path))


def from_metadata(path: PathLike, *, otherwise: object = None) -> FromMetadata:
    """For `add` and `default`: the value at a path of the event's metadata.

    `otherwise` is taken where the metadata has none; without it nothing is added then.
    """
    return FromMetadata(parse(path), None if otherwise is None else Constant.of(otherwise))


def _source(value: object) -> Source:
    return value if isinstance(value, Ref | FromMetadata | Constant) else Constant.of(value)


def _member(path: PathLike) -> Path:
    whole = parse(path)
    if not whole or not isinstance(whole[-1], str):
        raise ValueError(f"{path!r} does not name a member of an object")
    return whole


def _siblings(paths: tuple[PathLike, ...]) -> tuple[Path, tuple[str, ...]]:
    whole = [_member(p) for p in paths]
    parents = {p[:-1] for p in whole}
    if len(parents) != 1:
        raise ValueError("nest needs members of one and the same object")
    return parents.pop(), tuple(str(p[-1]) for p in whole)
