"""What a transaction changed in a ledger's tables, as entries of a stream, and back.

The tables are in a SQLite database in memory; triggers note which rows change. An entry
has these rows as they are afterwards, in parts of a bounded size; one that is `whole` has
every row there is, and stands for all entries before it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from sqlalchemy import Connection as SqlConnection

_PART_BYTES: Final = 256 * 1024
_TYPE: Final = re.compile(r"[A-Z ]*(\(\d+\))?")
_CHANGES: Final = "_changes"

_Row = list[Any]
"""A change: table, rowid, and the row's values; without values, the row is gone."""


def prepare(sql: SqlConnection) -> None:
    """Make a database ready to note changes."""
    sql.exec_driver_sql("PRAGMA recursive_triggers = ON")
    sql.exec_driver_sql(f"CREATE TABLE {_CHANGES} (name TEXT, row INTEGER)")


def tables_of(sql: SqlConnection) -> list[str]:
    """The ledger's tables, by name."""
    found = sql.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
        "ESCAPE '\\' AND name <> ? ORDER BY name",
        (_CHANGES,),
    )
    return [row[0] for row in found]


def watch(sql: SqlConnection) -> None:
    """Note from now on which rows of which tables change."""
    if not sql.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = ?", (_CHANGES,)).first():
        return
    for table in tables_of(sql):
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            trigger = _quoted(f"{_CHANGES}_{event}_{table}")
            text = "'" + table.replace("'", "''") + "'"
            sql.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {trigger} AFTER {event} ON {_quoted(table)} BEGIN "
                f"INSERT INTO {_CHANGES} VALUES ({text}, {row}.rowid); END"
            )


def changed(sql: SqlConnection, known: Collection[str]) -> Iterator[dict[str, Any]]:
    """The changed rows as they are now, and tables that are not known yet, as an entry's parts."""
    watch(sql)
    found = sql.exec_driver_sql(f"SELECT DISTINCT name, row FROM {_CHANGES} ORDER BY name, row")
    yield from _parts(sql, known, [(str(table), int(rowid)) for table, rowid in found])


def whole(sql: SqlConnection) -> Iterator[dict[str, Any]]:
    """Every row of every table, as an entry's parts."""
    rows = [
        (table, int(rowid))
        for table in tables_of(sql)
        for (rowid,) in sql.exec_driver_sql(f"SELECT rowid FROM {_quoted(table)} ORDER BY rowid")
    ]
    for part in _parts(sql, (), rows):
        yield {"whole": True, **part}


def settled(sql: SqlConnection) -> None:
    """Forget the noted changes: they are recorded, or came from the record."""
    sql.exec_driver_sql(f"DELETE FROM {_CHANGES}")


def cleared(sql: SqlConnection) -> None:
    """Take every row out of every table, before an entry that is whole."""
    for table in tables_of(sql):
        sql.exec_driver_sql(f"DELETE FROM {_quoted(table)}")


def _parts(
    sql: SqlConnection, known: Collection[str], wanted: list[tuple[str, int]]
) -> Iterator[dict[str, Any]]:
    """These rows, and the columns of their tables and of those not known, in parts."""
    columns = {table: _columns(sql, table) for table in tables_of(sql)}
    tables = {table: columns[table] for table in columns.keys() - set(known)}
    rows: list[_Row] = []
    size = 0
    for table, rowid in wanted:
        kept = sql.exec_driver_sql(
            f"SELECT * FROM {_quoted(table)} WHERE rowid = ?", (rowid,)
        ).first()
        row = [table, rowid] if kept is None else [table, rowid, [_plain(v) for v in kept]]
        weight = len(json.dumps(row))
        if rows and size + weight > _PART_BYTES:
            yield {"tables": tables, "rows": rows}
            tables, rows, size = {}, [], 0
        tables[table] = columns[table]
        rows.append(row)
        size += weight
    if rows or tables:
        yield {"tables": tables, "rows": rows}


def apply(sql: SqlConnection, part: dict[str, Any]) -> None:
    """Take in one part of an entry."""
    there = set(tables_of(sql))
    for table, columns in part["tables"].items():
        if table not in there:
            sql.exec_driver_sql(_create(table, columns))
    for table, rowid, *_ in part["rows"]:
        sql.exec_driver_sql(f"DELETE FROM {_quoted(table)} WHERE rowid = ?", (rowid,))
    for table, rowid, *values in part["rows"]:
        if values:
            names = ", ".join(["rowid", *(_quoted(c[0]) for c in part["tables"][table])])
            marks = ", ".join("?" * (1 + len(values[0])))
            sql.exec_driver_sql(
                f"INSERT INTO {_quoted(table)} ({names}) VALUES ({marks})",
                (rowid, *map(_stored, values[0])),
            )


def _columns(sql: SqlConnection, table: str) -> list[_Row]:
    """Name, type, whether it may be null, and its place in the primary key (0: none)."""
    found = sql.exec_driver_sql(f"PRAGMA table_info({_quoted(table)})")
    return [[row.name, row.type, not row.notnull, row.pk] for row in found]


def _create(table: str, columns: list[_Row]) -> str:
    for _, type_, *_ in columns:
        if not _TYPE.fullmatch(type_):
            raise ValueError(f"no type of a column: {type_!r}")
    described = [
        f"{_quoted(name)} {type_}{'' if nullable else ' NOT NULL'}"
        for name, type_, nullable, _ in columns
    ]
    key = [c[0] for c in sorted(columns, key=lambda c: c[3]) if c[3]]
    if key:
        described.append(f"PRIMARY KEY ({', '.join(map(_quoted, key))})")
    return f"CREATE TABLE {_quoted(table)} ({', '.join(described)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _stored(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value
