"""The SQL reading of ops: a chain as one expression over an event's stored data.

It means what `Op.up` means, or says nothing: the expression is NULL for data that an op
refuses, and for data of which the database would make something else than Python does
(long numbers, text that is not ASCII in `lower`, a key that stands twice, …). Whoever runs
it takes the Python way for what comes out as NULL, which then also makes the errors. Ops,
conditions and conversions that SQL cannot say raise `NoSql` when the chain is read.

The tests compare this reading with `Op.up`, value by value, on random chains and data, in
both databases. Pure: text in, text out; nothing here runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventmig.constants import Constant, Ref
from eventmig.ops.base import Loss, Op
from eventmig.ops.control import Apply, Each, When
from eventmig.ops.members import Add, Default, Drop, Keep, Move, Nest, Put, Rename, Unnest
from eventmig.ops.sql_conditions import condition, conversion
from eventmig.ops.sql_dialect import Dialect, NoSql, both, case
from eventmig.ops.sql_fused import changed_members, runs
from eventmig.ops.sql_postgres import Postgres
from eventmig.ops.sql_sqlite import Sqlite
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

DIALECTS: Mapping[str, Callable[[], Dialect]] = {d.name: d for d in (Postgres, Sqlite)}
"""The databases that ops can be read for, by the name SQLAlchemy gives them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A chain in SQL: an expression, and the values of its parameters `:v0`, `:v1`, …

    It is NULL where the event has to go the Python way.
    """

    text: str
    values: Mapping[str, str | int]


def read(ops: Sequence[Op], dialect: str, *, data: str) -> Reading:
    """Ops as one expression over a column; raises `NoSql` naming the op that has none."""
    sql = DIALECTS[dialect]()
    text = expression(ops, data, sql)
    return Reading(text, sql.values)


def expression(ops: Sequence[Op], data: str, sql: Dialect) -> str:
    """Ops as one expression over stored data, with their parameters bound in `sql`."""
    return sql.document(data, lambda d: _program(tuple(ops), d, sql))


def _program(ops: tuple[Op, ...], data: str, sql: Dialect) -> str:
    for run in runs(ops):
        data = _run(run, data, sql)
    return data


def _run(ops: tuple[Op, ...], data: str, sql: Dialect) -> str:
    """Ops at once where the data is as they expect it; else, or alone, one by one."""

    def read_both(d: str) -> str:
        changes = changed_members(ops, d, sql, _one) if sql.fuses else None
        one_by_one = d
        for op in ops:
            one_by_one = _one(op, one_by_one, sql)
        return f"coalesce({sql.members(d, changes)}, {one_by_one})" if changes else one_by_one

    return sql.let(data, read_both)


def _one(op: Op, data: str, sql: Dialect) -> str:
    reading = _READINGS.get(type(op))
    try:
        if reading is None:
            raise NoSql("it is none of eventmig's own ops")
        return sql.let(data, lambda d: reading(op, d, sql))
    except NoSql as error:
        if error.args[1:]:
            raise
        raise NoSql(f"{op}: {error}", True) from None


def _empty(sql: Dialect) -> str:
    return sql.constant(Constant("{}"))


def _is_object(value: str, sql: Dialect) -> str:
    return sql.is_kind(value, "object")


def _member(path: Path) -> Path:
    """A path that names a member of an object."""
    if not path or not isinstance(path[-1], str):
        raise NoSql("it writes to a place in a list")
    return path


# members ----------------------------------------------------------------------------------


def _keep(op: Keep, d: str, sql: Dialect) -> str:
    return d


def _add(op: Add | Default, d: str, sql: Dialect) -> str:
    path = _member(op.path)
    parent, source = sql.get(d, path[:-1]), op.value
    there = f"{sql.get(d, path)} IS NOT NULL"
    if isinstance(source, Constant):
        made = sql.put(d, path, sql.constant(source))
    elif isinstance(source, Ref):
        made = sql.let(
            sql.get(d, source.path),
            lambda new: case((f"{new} IS NULL", d), otherwise=sql.put(d, path, new)),
        )
    else:
        raise NoSql("it reads the event's metadata")
    return case(
        (there, d if isinstance(op, Default) else "NULL"),
        (f"{parent} IS NULL", d),
        (_is_object(parent, sql), made),
    )


def _put(op: Put, d: str, sql: Dialect) -> str:
    path = _member(op.path)
    parent = sql.get(d, path[:-1])
    return case((_is_object(parent, sql), sql.put(d, path, sql.constant(op.value))))


def _drop(op: Drop, d: str, sql: Dialect) -> str:
    if not op.path:
        return d
    return case((f"{sql.get(d, op.path)} IS NULL", d), otherwise=sql.without(d, op.path))


def _rename(op: Rename, d: str, sql: Dialect) -> str:
    path = _member(op.path)
    above, old = path[:-1], str(path[-1])

    def renamed(parent: str) -> str:
        return sql.put(d, above, sql.rename(parent, old, op.to))

    return case(
        (f"{sql.get(d, (*above, op.to))} IS NOT NULL", "NULL"),
        (f"{sql.get(d, path)} IS NULL", d),
        otherwise=sql.let(sql.get(d, above), renamed),
    )


def _move(op: Move, d: str, sql: Dialect) -> str:
    to = _member(op.to)

    def moved(found: str) -> str:
        def placed(rest: str) -> str:
            parent = sql.get(rest, to[:-1])
            return case((_is_object(parent, sql), sql.put(rest, to, found)))

        return case(
            (f"{sql.get(d, to)} IS NOT NULL", "NULL"),
            (f"{found} IS NULL", d),
            otherwise=sql.let(sql.without(d, op.path) if op.path else d, placed),
        )

    return sql.let(sql.get(d, op.path), moved)


def _nest(op: Nest, d: str, sql: Dialect) -> str:
    if op.under in op.keys:
        raise NoSql("it nests a member under itself")

    def nested(outer: str) -> str:
        inner = sql.get(outer, (op.under,))
        found = [sql.get(outer, (key,)) for key in op.keys]
        taken = [sql.get(inner, (key,)) for key in op.keys]
        made, rest = case((f"{inner} IS NULL", _empty(sql)), otherwise=inner), outer
        for key, value in zip(op.keys, found, strict=True):
            made = sql.copy(made, (key,), value)
            rest = _dropped(rest, (key,), sql)
        whole = sql.let(rest, lambda r: sql.put(r, (op.under,), made))
        return case(
            (f"{outer} IS NULL", d),
            (f"NOT {_is_object(outer, sql)}", "NULL"),
            (f"{inner} IS NOT NULL AND NOT {_is_object(inner, sql)}", "NULL"),
            (" OR ".join(f"{value} IS NOT NULL" for value in taken), "NULL"),
            (" AND ".join(f"{value} IS NULL" for value in found), d),
            (f"{inner} IS NOT NULL AND {sql.same(inner, Constant('{}'))}", "NULL"),
            otherwise=sql.put(d, op.parent, whole),
        )

    return sql.let(sql.get(d, op.parent), nested)


def _unnest(op: Unnest, d: str, sql: Dialect) -> str:
    def unnested(outer: str) -> str:
        inner = sql.get(outer, (op.under,))
        found = [sql.get(inner, (key,)) for key in op.keys]
        taken = [sql.get(outer, (key,)) for key in op.keys]
        rest = inner
        for key in op.keys:
            rest = _dropped(rest, (key,), sql)
        others = sql.without(outer, (op.under,))
        made = sql.let(
            rest,
            lambda r: case(
                (sql.same(r, Constant("{}")), others),
                otherwise=sql.let(others, lambda o: sql.put(o, (op.under,), r)),
            ),
        )
        for key, value in zip(op.keys, found, strict=True):
            made = sql.copy(made, (key,), value)
        return case(
            (f"{outer} IS NULL", d),
            (f"NOT {_is_object(outer, sql)}", "NULL"),
            (" OR ".join(f"{value} IS NOT NULL" for value in taken), "NULL"),
            (f"{inner} IS NOT NULL AND NOT {_is_object(inner, sql)}", "NULL"),
            (" AND ".join(f"{value} IS NULL" for value in found), d),
            otherwise=sql.put(d, op.parent, made),
        )

    if op.under in op.keys:
        raise NoSql("it takes a member out of the object it names")
    return sql.let(sql.get(d, op.parent), unnested)


def _dropped(value: str, path: Path, sql: Dialect) -> str:
    return sql.let(
        value, lambda v: case((f"{sql.get(v, path)} IS NULL", v), otherwise=sql.without(v, path))
    )


# values -----------------------------------------------------------------------------------


def _changed(path: Path, d: str, sql: Dialect, change: Callable[[str], str]) -> str:
    """The data with `change` of what stands at a path; as it is where nothing does."""
    return sql.let(
        sql.get(d, path),
        lambda found: case((f"{found} IS NULL", d), otherwise=sql.put(d, path, change(found))),
    )


def _is_null(value: str, sql: Dialect) -> str:
    return sql.is_kind(value, "null")


def _wrap(op: Wrap, d: str, sql: Dialect) -> str:
    empty = sql.constant(Constant("[]"))
    return _changed(
        op.path, d, sql, lambda v: case((_is_null(v, sql), empty), otherwise=sql.in_list(v))
    )


def _unwrap(op: Unwrap, d: str, sql: Dialect) -> str:
    def unwrapped(found: str) -> str:
        only, size = sql.get(found, (0,)), sql.size(found)
        null = sql.constant(Constant("null"))
        inner = case(
            (f"{size} = 0", null), (f"{size} = 1", case((f"NOT {_is_null(only, sql)}", only)))
        )
        return case((sql.is_kind(found, "array"), inner))

    return _changed(op.path, d, sql, unwrapped)


def _convert(op: Convert, d: str, sql: Dialect) -> str:
    return _changed(
        op.path,
        d,
        sql,
        lambda v: case((_is_null(v, sql), v), otherwise=conversion(op.conversion, v, sql)),
    )


def _map_values(op: MapValues, d: str, sql: Dialect) -> str:
    def mapped(found: str) -> str:
        known = [sql.same(found, old) for old, _ in op.table]
        branches = [
            (same, sql.constant(new)) for same, (_, new) in zip(known, op.table, strict=True)
        ]
        unsure = (f"({' OR '.join(known)}) IS NULL", "NULL")
        if isinstance(op.other, Constant):
            rest = sql.constant(op.other)
        elif op.other is Other.KEEP:
            rest = found
            if op.loss is Loss.EXACT:
                results = [sql.same(found, new) for _, new in op.table]
                rest = case((f"NOT ({' OR '.join(results)})", found))
        else:
            rest = "NULL"
        return case(*branches, unsure, otherwise=rest)

    return _changed(op.path, d, sql, mapped)


def _each(op: Each, d: str, sql: Dialect) -> str:
    def every(found: str) -> str:
        made = sql.map(found, lambda item: _program(op.ops, item, sql))
        return case((sql.is_kind(found, "array"), made))

    return _changed(op.path, d, sql, every)


# text -------------------------------------------------------------------------------------


def _split(op: Split, d: str, sql: Dialect) -> str:
    if not op.separator or "\0" in op.separator:
        raise NoSql("it cuts at a separator that SQL cannot search")
    separator = sql.string(op.separator)
    into = [_member(path) for path in op.into]
    _member(op.path)
    taken = [f"{sql.get(d, path)} IS NOT NULL" for path in into if path != op.path]

    def placed(made: str, text: str, index: int) -> str:
        """`made` with the parts of what is left of the text, from a target on."""
        last = index == len(into) - 1

        def cut(rest: str, at: str) -> str:
            part = (
                rest
                if last
                else case((f"{at} = 0", rest), otherwise=f"substr({rest}, 1, {at} - 1)")
            )

            def put(data: str) -> str:
                parent = sql.get(data, into[index][:-1])
                whole = sql.put(data, into[index], sql.from_text(part))
                return case((_is_object(parent, sql), whole))

            done = sql.let(made, put)
            if last:
                return done
            left = f"substr({rest}, {at} + length({separator}))"
            return sql.let(
                done,
                lambda data: case((f"{at} = 0", data), otherwise=placed(data, left, index + 1)),
            )

        def found(rest: str) -> str:
            at = "0" if last else sql.find(rest, separator)
            return sql.let(at, lambda position: cut(rest, position))

        return sql.let(text, found)

    def parts(found: str) -> str:
        return case(
            (f"{found} IS NULL", d),
            (_is_null(found, sql), d),
            (
                sql.is_kind(found, "string"),
                placed(sql.without(d, op.path), sql.text(found), 0),
            ),
        )

    whole = sql.let(sql.get(d, op.path), parts)
    return case((" OR ".join(taken), "NULL"), otherwise=whole) if taken else whole


def _combine(op: Combine, d: str, sql: Dialect) -> str:
    if "\0" in op.separator:
        raise NoSql("its separator holds a NUL")
    to = _member(op.to)
    separator = sql.string(op.separator)
    found = [sql.get(d, path) for path in op.paths]
    if any(a != b and a == b[: len(a)] for a in op.paths for b in op.paths):
        raise NoSql("one of its texts stands below another")
    if any(isinstance(part, int) for path in op.paths for part in path):
        raise NoSql("it takes a text out of a list")
    strings = [f"{value} IS NOT NULL AND {sql.is_kind(value, 'string')}" for value in found]
    fit = both(
        *(
            f"({value} IS NULL OR {_is_null(value, sql)} OR {sql.is_kind(value, 'string')})"
            for value in found
        )
    )
    parts = [
        case((is_string, f"{separator} || {sql.text(value)}"), otherwise="''")
        for is_string, value in zip(strings, found, strict=True)
    ]
    text = f"substr({' || '.join(parts)}, length({separator}) + 1)"
    rest = d
    for path in op.paths:
        rest = sql.let(
            rest,
            lambda r, path=path: sql.let(  # type: ignore[misc]
                sql.get(r, path),
                lambda v: case(
                    (f"{v} IS NOT NULL AND {sql.is_kind(v, 'string')}", sql.without(r, path)),
                    otherwise=r,
                ),
            ),
        )

    def placed(data: str) -> str:
        parent = sql.get(data, to[:-1])
        return case((_is_object(parent, sql), sql.put(data, to, sql.from_text(text))))

    branches: list[tuple[str, str]] = []
    if to not in op.paths:
        there = f"{sql.get(d, to)} IS NOT NULL"
        branches.append(
            (there, case((" OR ".join(f"{v} IS NOT NULL" for v in found), "NULL"), otherwise=d))
        )
    branches.append((f"NOT {fit}", "NULL"))
    branches.append((f"NOT ({' OR '.join(f'({s})' for s in strings)})", d))
    return case(*branches, otherwise=sql.let(rest, placed))


def _add_line(op: AddLine, d: str, sql: Dialect) -> str:
    path = _member(op.path)
    end = f"{op.separator}{op.line}"
    if "\0" in end:
        raise NoSql("its line holds a NUL")

    def added(found: str) -> str:
        old = case(
            (f"{found} IS NULL", "''"),
            (_is_null(found, sql), "''"),
            (sql.is_kind(found, "string"), sql.text(found)),
        )
        new = f"({old} || {sql.string(end)})"
        if op.strip:
            new = sql.trim(new)
        made = sql.let(new, lambda t: case((f"{t} IS NOT NULL", sql.from_text(t))))
        parent = sql.get(d, path[:-1])
        return case((_is_object(parent, sql), sql.put(d, path, made)))

    return sql.let(sql.get(d, path), added)


# lists ------------------------------------------------------------------------------------


def _append(op: Append, d: str, sql: Dialect) -> str:
    value = sql.constant(op.value)

    def longer(found: str) -> str:
        more = sql.put(d, op.path, sql.append(found, value))
        if not op.unique:
            return more
        there = sql.some(found, lambda item: sql.same(item, op.value))
        return sql.let(there, lambda t: case((f"{t}", d), (f"NOT {t}", more)))

    def appended(found: str) -> str:
        absent = d
        if op.create:
            path = _member(op.path) if op.path else op.path
            parent = sql.get(d, path[:-1])
            absent = case((_is_object(parent, sql), sql.put(d, path, sql.in_list(value))))
        return case((f"{found} IS NULL", absent), (sql.is_kind(found, "array"), longer(found)))

    return sql.let(sql.get(d, op.path), appended)


def _remove(op: Remove, d: str, sql: Dialect) -> str:
    def shorter(found: str) -> str:
        def left(rest: str) -> str:
            kept = case((f"{rest} IS NOT NULL", sql.put(d, op.path, rest)))
            emptied = f"{sql.size(rest)} = 0 AND {sql.size(found)} > 0"
            if not op.drop_empty or not op.path:
                return kept
            return case((emptied, sql.without(d, op.path)), otherwise=kept)

        kept_items = sql.keep(found, lambda item: f"NOT {sql.same(item, op.value)}")
        return sql.let(kept_items, left)

    return sql.let(
        sql.get(d, op.path),
        lambda found: case((f"{found} IS NULL", d), (sql.is_kind(found, "array"), shorter(found))),
    )


# control ----------------------------------------------------------------------------------


def _when(op: When, d: str, sql: Dialect) -> str:
    then, other = _program(op.ops, d, sql), _program(op.otherwise, d, sql)
    asked = condition(op.condition, d, sql)
    return sql.let(asked, lambda holds: case((holds, then), (f"NOT {holds}", other)))


def _apply(op: Apply, d: str, sql: Dialect) -> str:
    raise NoSql("it is a function of yours")


_READINGS: Mapping[type, Callable[[Any, str, Dialect], str]] = {
    Add: _add,
    Default: _add,
    Put: _put,
    Keep: _keep,
    Drop: _drop,
    Rename: _rename,
    Move: _move,
    Nest: _nest,
    Unnest: _unnest,
    Wrap: _wrap,
    Unwrap: _unwrap,
    Convert: _convert,
    MapValues: _map_values,
    Split: _split,
    Combine: _combine,
    Append: _append,
    Remove: _remove,
    AddLine: _add_line,
    Each: _each,
    When: _when,
    Apply: _apply,
}
