"""Ops on one value, on text and on lists as SQL; see `ops.sql`. Pure."""

from __future__ import annotations

from collections.abc import Callable

from eventmig.constants import Constant
from eventmig.ops.base import Loss
from eventmig.ops.sql_conditions import conversion
from eventmig.ops.sql_dialect import Dialect, NoSql, both, case, member_path
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


def changed(path: Path, d: str, sql: Dialect, change: Callable[[str], str]) -> str:
    """The data with `change` of what stands at a path; as it is where nothing does."""
    return sql.let(
        sql.get(d, path),
        lambda found: case((f"{found} IS NULL", d), otherwise=sql.put(d, path, change(found))),
    )


def wrap(op: Wrap, d: str, sql: Dialect) -> str:
    """A value into a list of one; null into the empty list."""
    empty = sql.constant(Constant("[]"))
    return changed(
        op.path, d, sql, lambda v: case((sql.is_null(v), empty), otherwise=sql.in_list(v))
    )


def unwrap(op: Unwrap, d: str, sql: Dialect) -> str:
    """A list of one into its value; refused where it holds more, or a null."""

    def unwrapped(found: str) -> str:
        only, size = sql.get(found, (0,)), sql.size(found)
        null = sql.constant(Constant("null"))
        inner = case(
            (f"{size} = 0", null), (f"{size} = 1", case((f"NOT {sql.is_null(only)}", only)))
        )
        return case((sql.is_kind(found, "array"), inner))

    return changed(op.path, d, sql, unwrapped)


def convert(op: Convert, d: str, sql: Dialect) -> str:
    """A value through a named conversion; null stays."""
    return changed(
        op.path,
        d,
        sql,
        lambda v: case((sql.is_null(v), v), otherwise=conversion(op.conversion, v, sql)),
    )


def map_values(op: MapValues, d: str, sql: Dialect) -> str:
    """A value replaced by a table; NULL where the database cannot tell which entry it is."""

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

    return changed(op.path, d, sql, mapped)


# text -------------------------------------------------------------------------------------


def split(op: Split, d: str, sql: Dialect) -> str:
    """Text cut at a separator, part by part."""
    if not op.separator or "\0" in op.separator:
        raise NoSql("it cuts at a separator that SQL cannot search")
    separator = sql.string(op.separator)
    into = [member_path(path) for path in op.into]
    member_path(op.path)
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
                return case((sql.is_object(parent), whole))

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
            (sql.is_null(found), d),
            (
                sql.is_kind(found, "string"),
                placed(sql.without(d, op.path), sql.text(found), 0),
            ),
        )

    whole = sql.let(sql.get(d, op.path), parts)
    return case((" OR ".join(taken), "NULL"), otherwise=whole) if taken else whole


def combine(op: Combine, d: str, sql: Dialect) -> str:
    """Texts into one; those that are absent or null are left out."""
    if "\0" in op.separator:
        raise NoSql("its separator holds a NUL")
    to = member_path(op.to)
    separator = sql.string(op.separator)
    found = [sql.get(d, path) for path in op.paths]
    if any(a != b and a == b[: len(a)] for a in op.paths for b in op.paths):
        raise NoSql("one of its texts stands below another")
    if any(isinstance(part, int) for path in op.paths for part in path):
        raise NoSql("it takes a text out of a list")
    strings = [f"{value} IS NOT NULL AND {sql.is_kind(value, 'string')}" for value in found]
    fit = both(
        *(
            f"({value} IS NULL OR {sql.is_null(value)} OR {sql.is_kind(value, 'string')})"
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
        return case((sql.is_object(parent), sql.put(data, to, sql.from_text(text))))

    branches: list[tuple[str, str]] = []
    if to not in op.paths:
        there = f"{sql.get(d, to)} IS NOT NULL"
        branches.append(
            (there, case((" OR ".join(f"{v} IS NOT NULL" for v in found), "NULL"), otherwise=d))
        )
    branches.append((f"NOT {fit}", "NULL"))
    branches.append((f"NOT ({' OR '.join(f'({s})' for s in strings)})", d))
    return case(*branches, otherwise=sql.let(rest, placed))


def add_line(op: AddLine, d: str, sql: Dialect) -> str:
    """A line at the end of a text, made if need be."""
    path = member_path(op.path)
    end = f"{op.separator}{op.line}"
    if "\0" in end:
        raise NoSql("its line holds a NUL")

    def added(found: str) -> str:
        old = case(
            (f"{found} IS NULL", "''"),
            (sql.is_null(found), "''"),
            (sql.is_kind(found, "string"), sql.text(found)),
        )
        new = f"({old} || {sql.string(end)})"
        if op.strip:
            new = sql.trim(new)
        made = sql.let(new, lambda t: case((f"{t} IS NOT NULL", sql.from_text(t))))
        parent = sql.get(d, path[:-1])
        return case((sql.is_object(parent), sql.put(d, path, made)))

    return sql.let(sql.get(d, path), added)


# lists ------------------------------------------------------------------------------------


def append(op: Append, d: str, sql: Dialect) -> str:
    """A constant at the end of a list."""
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
            path = member_path(op.path) if op.path else op.path
            parent = sql.get(d, path[:-1])
            absent = case((sql.is_object(parent), sql.put(d, path, sql.in_list(value))))
        return case((f"{found} IS NULL", absent), (sql.is_kind(found, "array"), longer(found)))

    return sql.let(sql.get(d, op.path), appended)


def remove(op: Remove, d: str, sql: Dialect) -> str:
    """Every item that equals a constant out of a list."""

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
