"""Ops on members of objects as SQL; see `ops.sql`. Pure."""

from __future__ import annotations

from eventmig.constants import Constant, Ref
from eventmig.ops.members import Add, Default, Drop, Move, Nest, Put, Rename, Unnest
from eventmig.ops.sql_dialect import Dialect, NoSql, case, member_path
from eventmig.paths import Path


def add(op: Add | Default, d: str, sql: Dialect) -> str:
    """A new member; refused where there is one, left out where its parent is absent."""
    path = member_path(op.path)
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
        (sql.is_object(parent), made),
    )


def put(op: Put, d: str, sql: Dialect) -> str:
    """A member set to a constant."""
    path = member_path(op.path)
    parent = sql.get(d, path[:-1])
    return case((sql.is_object(parent), sql.put(d, path, sql.constant(op.value))))


def drop(op: Drop, d: str, sql: Dialect) -> str:
    """A member less."""
    if not op.path:
        return d
    return case((f"{sql.get(d, op.path)} IS NULL", d), otherwise=sql.without(d, op.path))


def rename(op: Rename, d: str, sql: Dialect) -> str:
    """A member under another key; refused where that is taken."""
    path = member_path(op.path)
    above, old = path[:-1], str(path[-1])

    def renamed(parent: str) -> str:
        return sql.put(d, above, sql.rename(parent, old, op.to))

    return case(
        (f"{sql.get(d, (*above, op.to))} IS NOT NULL", "NULL"),
        (f"{sql.get(d, path)} IS NULL", d),
        otherwise=sql.let(sql.get(d, above), renamed),
    )


def move(op: Move, d: str, sql: Dialect) -> str:
    """A member to another place; refused where that is taken, or its parent is no object."""
    to = member_path(op.to)

    def moved(found: str) -> str:
        def placed(rest: str) -> str:
            parent = sql.get(rest, to[:-1])
            return case((sql.is_object(parent), sql.put(rest, to, found)))

        return case(
            (f"{sql.get(d, to)} IS NOT NULL", "NULL"),
            (f"{found} IS NULL", d),
            otherwise=sql.let(sql.without(d, op.path) if op.path else d, placed),
        )

    return sql.let(sql.get(d, op.path), moved)


def nest(op: Nest, d: str, sql: Dialect) -> str:
    """Some members into an object below; refused where the way back could not tell them apart."""
    if op.under in op.keys:
        raise NoSql("it nests a member under itself")

    def nested(outer: str) -> str:
        inner = sql.get(outer, (op.under,))
        found = [sql.get(outer, (key,)) for key in op.keys]
        taken = [sql.get(inner, (key,)) for key in op.keys]
        made, rest = (
            case((f"{inner} IS NULL", sql.constant(Constant("{}"))), otherwise=inner),
            outer,
        )
        for key, value in zip(op.keys, found, strict=True):
            made = sql.copy(made, (key,), value)
            rest = _dropped(rest, (key,), sql)
        whole = sql.let(rest, lambda r: sql.put(r, (op.under,), made))
        return case(
            (f"{outer} IS NULL", d),
            (f"NOT {sql.is_object(outer)}", "NULL"),
            (f"{inner} IS NOT NULL AND NOT {sql.is_object(inner)}", "NULL"),
            (" OR ".join(f"{value} IS NOT NULL" for value in taken), "NULL"),
            (" AND ".join(f"{value} IS NULL" for value in found), d),
            (f"{inner} IS NOT NULL AND {sql.same(inner, Constant('{}'))}", "NULL"),
            otherwise=sql.put(d, op.parent, whole),
        )

    return sql.let(sql.get(d, op.parent), nested)


def unnest(op: Unnest, d: str, sql: Dialect) -> str:
    """Some members out of an object below, which goes where that empties it."""

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
            (f"NOT {sql.is_object(outer)}", "NULL"),
            (" OR ".join(f"{value} IS NOT NULL" for value in taken), "NULL"),
            (f"{inner} IS NOT NULL AND NOT {sql.is_object(inner)}", "NULL"),
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
