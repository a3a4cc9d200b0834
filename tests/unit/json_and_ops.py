"""Random JSON data and random ops over few keys, so that collisions and absences are common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cache

from hypothesis import assume
from hypothesis import strategies as st

from eventmig import codec, ops
from eventmig.codec import Value
from eventmig.conditions import Condition
from eventmig.conversions import Conversion
from eventmig.errors import OpError
from eventmig.events import Event
from eventmig.ops import Op
from eventmig.ops.control import Each, When
from eventmig.ops.members import Add, Default, Move, Nest, Rename, Unnest
from eventmig.ops.values import (
    AddLine,
    Append,
    Combine,
    Convert,
    MapValues,
    Remove,
    Split,
    Unwrap,
)
from eventmig.paths import Path, get, without

EVENT = Event(0, "s-1", 0, "id", "T", 1, b"{}", b'{"a":{"b":[1,2.50]},"c":"meta"}', 0)
"""An event to run ops with: they read only its metadata."""

KEYS = "abcd"
TEXTS = ("", "a", "b-c", "-", "x-y-z", "7", "007", "1.10", "true", " a ", "A", "[1,2]", "é\u0000")
NUMBERS = (0, 1, -1, 7, 2**70, 1.5, -0.0, 1e22, Decimal("1.10"), Decimal("1E+400"))

texts, numbers = st.sampled_from(TEXTS), st.sampled_from(NUMBERS)
scalars = st.none() | st.booleans() | texts | numbers
keys = st.sampled_from(KEYS)


def _around(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)


values: st.SearchStrategy[Value] = st.recursive(scalars, _around, max_leaves=6)
"""Any JSON value."""

data = st.dictionaries(keys, values, min_size=1, max_size=4)
"""An event's data: an object."""

constants = scalars | st.sampled_from(([], {}, [1, "a"], {"a": 1}, {"b": {"c": None}}))
member_paths: st.SearchStrategy[Path] = st.one_of(
    st.tuples(keys), st.tuples(keys), st.tuples(keys, keys), st.tuples(keys, st.just(0), keys)
)
paths = member_paths | st.tuples(keys, st.integers(0, 1))
"""Mostly one part long, so that they often meet something."""

item_paths = paths | st.just(())
"""Inside `each`, the item itself too."""

sources = constants | member_paths.map(ops.ref) | member_paths.map(ops.from_metadata)
EXACT_OWN = ops.conversion(
    "in a list", lambda v: [v], lambda v: v[0] if isinstance(v, list) else v, exact=True
)
conversions = st.sampled_from(
    ("text_to_integer", "text_to_number", "text_to_boolean", "number_to_text", "strip", "lower",
     "number_to_hundredths", "json_text_to_value", "value_to_json_text", EXACT_OWN)
)  # fmt: skip


def _wrapped(value: Value) -> Value:
    if value is None:
        raise OpError("a function may not return null, so this could not be taken back")
    return {"a": value}


def _unwrapped(value: Value) -> Value:
    assert isinstance(value, dict)
    return value["a"]


def conditions(where: st.SearchStrategy[Path]) -> st.SearchStrategy[Condition]:
    simple = st.one_of(
        st.builds(ops.present, where),
        st.builds(ops.equals, where, constants),
        st.builds(lambda p, v: ops.one_of(p, *v), where, st.lists(constants, max_size=2)),
        st.builds(lambda p, v, k: ops.contains(p, v, key=k), where, constants, st.none() | keys),
        st.builds(ops.starts_with, where, st.sampled_from(("", "a", "x-"))),
        st.builds(
            ops.is_kind, where, st.sampled_from(("object", "string", "number", "integer", "null"))
        ),
    )
    return st.one_of(
        simple,
        simple.map(ops.not_),
        st.builds(ops.all_of, simple, simple),
        st.builds(ops.any_of, simple, simple),
    )


def _table(table: Iterable[tuple[object, object]]) -> list[tuple[object, object]]:
    by_text = {codec.encode_checked(old): (old, new) for old, new in table}
    return list(by_text.values())


def built(build: Callable[..., Op], *parts: st.SearchStrategy[object]) -> st.SearchStrategy[Op]:
    """Ops that a builder of `eventmig.ops` does not refuse to build."""

    def attempt(drawn: tuple[object, ...]) -> Op | None:
        try:
            return build(*drawn)
        except ValueError:
            return None

    return st.tuples(*parts).map(attempt).filter(bool)  # type: ignore[arg-type,return-value]


def simple_ops(where: st.SearchStrategy[Path], *, own_code: bool = True) -> st.SearchStrategy[Op]:
    """Ops without other ops in them, on members and on the values at `where`."""
    parents = st.just(()) | st.tuples(keys)
    several = st.lists(keys, min_size=1, max_size=3, unique=True)
    two = st.lists(member_paths, min_size=2, max_size=3, unique=True)
    dash = st.just("-")
    return st.one_of(
        built(ops.add, member_paths, sources),
        built(ops.default, member_paths, sources),
        built(lambda p, v, w: ops.put_value(p, v, was=w), member_paths, constants, constants),
        built(lambda p, v: ops.drop(p, restore=v), member_paths, constants),
        built(ops.rename, member_paths, keys),
        built(ops.rename, st.tuples(keys), keys),
        built(ops.move, member_paths, member_paths),
        built(lambda p, k, u: ops.nest(*((*p, x) for x in k), under=u), parents, several, keys),
        built(lambda p, k, u: ops.unnest((*p, u), *k), parents, several, keys),
        built(ops.wrap, where),
        built(ops.unwrap, where),
        built(ops.convert, where, conversions if own_code else conversions.filter(_named)),
        built(
            lambda p, t, o: ops.map_values(p, _table(t), other=o),
            where,
            st.lists(st.tuples(constants, constants), min_size=1, max_size=4),
            st.sampled_from((ops.KEEP, ops.KEEP, ops.REFUSE)) | constants,
        ),
        built(lambda p, i, s: ops.split(p, into=i, at=s), member_paths, two, dash),
        built(lambda p, t, s: ops.combine(*p, to=t, separator=s), two, member_paths, dash),
        built(
            lambda p, v, u, c: ops.append(p, v, unique=u, create=c),
            where, constants, st.booleans(), st.booleans(),
        ),
        built(lambda p, v, d: ops.remove(p, v, drop_empty=d), where, constants, st.booleans()),
        built(lambda p, s: ops.add_line(p, "new", strip=s), member_paths, st.booleans()),
        *([st.just(ops.apply(_wrapped, back=_unwrapped, exact=True))] if own_code else []),
    )  # fmt: skip


def _named(conversion: object) -> bool:
    return isinstance(conversion, str)


def _any_op(*, own_code: bool) -> st.SearchStrategy[Op]:
    simple = simple_ops(paths, own_code=own_code)
    in_items = simple_ops(item_paths, own_code=own_code)
    deeper = st.one_of(
        in_items,
        in_items,
        in_items,
        built(lambda p, o: ops.each(p, o), item_paths, in_items),
        built(lambda c, o: ops.when(c, o), conditions(item_paths), in_items),
    )
    some_deeper = st.lists(deeper, min_size=1, max_size=2)
    each = built(lambda p, o: ops.each(p, *o), st.tuples(keys) | paths, some_deeper)
    several = st.lists(st.one_of(simple, simple, simple, each), min_size=1, max_size=2)
    when = built(lambda c, o, e: ops.when(c, *o, otherwise=e), conditions(paths), several, several)
    return st.one_of(*[simple] * 6, each, when)


_ANY, _WITHOUT_CODE = _any_op(own_code=True), _any_op(own_code=False)


@st.composite
def some_op(draw: st.DrawFn, *, own_code: bool = True) -> Op:
    """Any op, `each` and `when` with others in them included."""
    return draw(_ANY if own_code else _WITHOUT_CODE)


Program = tuple[Op, ...]


# A strategy is made once: hypothesis learns anew of each one whether it can yield anything.
@cache
def _programs(most: int, own_code: bool) -> st.SearchStrategy[list[Op]]:
    return st.lists(_ANY if own_code else _WITHOUT_CODE, min_size=1, max_size=most)


@cache
def _objects_of(members: tuple[str, ...]) -> st.SearchStrategy[dict[str, Value]]:
    return st.dictionaries(st.sampled_from(members), values, min_size=1)


_ITS_OWN = object()
_maybe_its_own = st.lists(st.just(_ITS_OWN) | constants, max_size=2)
_at_most_one = st.lists(constants, max_size=1)
_one_in_five = st.integers(0, 4)


@st.composite
def with_data(draw: st.DrawFn, most: int = 4, *, own_code: bool = True) -> tuple[Program, Value]:
    """A program of up to `most` ops, and data in which they often find what they are for."""
    program = tuple(draw(_programs(most, own_code)))
    before: Value = draw(data)
    for op in program:
        before = _planted(draw, op, before)
    assume(isinstance(before, dict))
    return program, before


def _planted(draw: st.DrawFn, op: Op, before: Value) -> Value:
    match op:
        case Each():
            items = [{}, draw(values), draw(data)]
            for inner in op.ops:
                items = [_planted(draw, inner, item) for item in items]
            return _plant(before, op.path, items)
        case When():
            for inner in (*op.ops, *op.otherwise):
                before = _planted(draw, inner, before)
            return before
        case Add() | Default():
            return _emptied(draw, op.path, before)
        case Move():
            before = _plant(_emptied(draw, op.to, before), op.path, draw(values))
            return _emptied(draw, op.to, before)
        case Rename():
            before = _emptied(draw, (*op.path[:-1], op.to), before)
            return _plant(before, op.path, draw(values))
        case Split() | AddLine() | Convert(conversion=Conversion(before=("string",))):
            sort = texts
        case Combine():
            for path in op.paths:
                before = _plant(before, path, draw(texts))
            return before
        case Convert(conversion=Conversion(before=("number",) | ("integer",))):
            sort = numbers
        case Append() | Remove():
            own = op.value.value
            items = [own if item is _ITS_OWN else item for item in draw(_maybe_its_own)]
            return _plant(before, op.path, items)
        case Unwrap():
            sort = _at_most_one
        case MapValues():
            sort = st.sampled_from([old.value for old, _ in op.table])
        case Unnest():
            return _plant(before, (*op.parent, op.under), draw(_objects_of(op.keys)))
        case Nest():
            return _plant(before, (*op.parent, op.keys[0]), draw(values))
        case _:
            sort = values
    path = getattr(op, "path", ())
    return _plant(before, path, draw(sort))


def _emptied(draw: st.DrawFn, path: Path, before: Value) -> Value:
    """The data with an object to hold the member at a path, but mostly without the member."""
    if draw(_one_in_five) == 0:
        return before
    if not isinstance(get(before, path[:-1]), dict):
        before = _plant(before, path[:-1], {})
    return without(before, path)


def _plant(before: Value, path: Path, value: Value) -> Value:
    """The data with a value at a path; what stands in its way is replaced."""
    if not path:
        return value
    part, rest = path[0], path[1:]
    if isinstance(part, str):
        members = before if isinstance(before, dict) else {}
        return {**members, part: _plant(members.get(part), rest, value)}
    items = list(before) if isinstance(before, list) else []
    items += [None] * (part + 1 - len(items))
    items[part] = _plant(items[part], rest, value)
    return items
