"""Data with some of its members alone, as an expression: what a fold looks at leaves the server.

Members are handed out as `jsonb` prints them: they are the values that the whole data has. A
member that is not there is left out. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TypeAlias

from psycopg import sql

from eventmig.stores.faster import Members

Kinds: TypeAlias = Collection[tuple[str, int]]
"""Types with a schema version."""


def narrowed(content: str, members: Members, without: Kinds = ()) -> sql.Composable:
    """`content`, the data, of these types and versions with these members alone.

    NULL for those in `without`. For a column `e.data` of `jsonb` where there are members, and
    names that it can hold. Data that is no object is handed out whole. For a statement with
    parameters: each % is doubled.
    """
    versions: dict[int, list[str]] = {}
    for type_, version in without:
        versions.setdefault(version, []).append(type_)
    cases: list[sql.Composable] = [  # one look into a hash table, where there are many types
        sql.SQL("WHEN e.schema_version = {} AND e.type = ANY ({}::text[]) THEN NULL").format(
            sql.Literal(version), sql.Literal(types)
        )
        for version, types in versions.items()
    ]
    cases += [
        sql.SQL("WHEN e.type = {} AND e.schema_version = {} THEN {}").format(
            sql.Literal(type_), sql.Literal(version), _object(names, content)
        )
        for (type_, version), names in members.items()
    ]
    if not cases:
        return sql.SQL(content)
    case = sql.SQL("CASE {} ELSE {} END").format(sql.SQL(" ").join(cases), sql.SQL(content))
    return sql.SQL(case.as_string().replace("%", "%%"))


def _object(names: Collection[str], content: str) -> sql.Composable:
    found = [
        sql.SQL("{} || (e.data -> {})::text").format(
            sql.Literal(f"{json.dumps(name, ensure_ascii=False)}:"), sql.Literal(name)
        )
        for name in names
    ]
    some = sql.SQL("'{{' || concat_ws({}) || '}}'").format(
        sql.SQL(", ").join([sql.Literal(","), *found, sql.SQL("NULL")])
    )
    whole = sql.SQL("CASE jsonb_typeof(e.data) WHEN 'object' THEN {} ELSE {} END").format(
        some, sql.SQL(content)
    )
    if not found:
        return whole
    # `||` is cheaper, and NULL where one is not there, or the data is no object; `concat_ws`
    # leaves out what is NULL.
    every = sql.SQL("'{{' || {} || '}}'").format(sql.SQL(" || ',' || ").join(found))
    return sql.SQL("coalesce({}, {})").format(every, whole)
