"""Is this a PostgreSQL store, and is it whole? What is asked when one is opened, and by a job.

Reads only. `damages` yields errors instead of raising them, so that a report can show all
and a job can raise the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import psycopg
from psycopg import sql

from eventmig.errors import (
    ConfigError,
    NotAStoreError,
    StoreDamagedError,
    StoreError,
    Where,
)
from eventmig.stores.postgres.location import DataType, Location
from eventmig.stores.postgres.schema import (
    FIRST_POSITION,
    FORMAT,
    MARK,
    Statements,
    Tables,
    compose,
    define_tables,
    metadata_type,
)
from eventmig.stores.postgres.tail import Cursor

_RESTORE = "restore the store from a backup"

# The numbers of the catalogue's own types in its columns (integer kinds by width).
_INTEGER: Final = frozenset(("int2", "int4", "int8"))


class MovedError(Exception):
    """Other tables bear the names since the store was opened: nothing known of them holds.

    Never leaves this package.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What opening a store found.

    `database` names it in the world (system identifier and name), `events` and `positions`
    are the oids of the table and the sequence, `replica` is a server in recovery.
    """

    database: str
    schema: str
    data: DataType
    events: int
    positions: int
    replica: bool


def current_schema(cursor: Cursor, location: Location) -> str:
    """The schema the tables are, or would be, in; raises `NotAStoreError` if it is not there."""
    (schema,) = _one(cursor, "SELECT current_schema()", {})
    if schema is None:
        raise NotAStoreError(
            f"there is no schema {location.schema or 'on the search path'} that this user may use",
            where=Where(store=location.url),
            remedy="check ?schema=…; `eventmig import` makes a store from JSON Lines",
        )
    return str(schema)


def find_tables(cursor: Cursor, location: Location) -> tuple[Found, Tables, Statements]:
    """The tables a location names, and what stands in the catalogue about them.

    Raises `NotAStoreError` where there are none, `StoreError` for those of a newer
    format, `StoreDamagedError` for missing tables and columns of other types,
    `StoreError` for a privilege that reading needs, `ConfigError` for another type of data
    than the URL says. Where tables change names, come or go meanwhile, it looks again.
    """
    schema = current_schema(cursor, location)
    events = location.tables + "events"
    while True:
        before = _oid(cursor, schema, events)
        try:
            found = _look(cursor, location, schema)
        except (psycopg.errors.UndefinedTable, StoreDamagedError):  # dropped, as it seems
            if before == _oid(cursor, schema, events):
                raise
        else:
            if before == _oid(cursor, schema, events):
                return found


def _look(cursor: Cursor, location: Location, schema: str) -> tuple[Found, Tables, Statements]:
    where = Where(store=location.url)
    columns = _columns(cursor, schema, location.tables)
    mark = location.tables + MARK
    if mark not in columns:
        others = sorted(t.removesuffix(MARK) for t in _marks(cursor, schema))
        raise NotAStoreError(
            f"the schema {schema} holds no event store"
            + (f" with tables={location.tables}" if location.tables else ""),
            where=where,
            remedy=f"it has one with {' or '.join(f'?tables={o}' for o in others)}"
            if any(others)
            else "name the schema of an event store (?schema=…); `eventmig import` makes one "
            "from JSON Lines",
        )
    found_data = columns.get(location.tables + "events", {}).get("data", "jsonb")
    data: DataType = found_data if found_data in get_args(DataType) else "jsonb"  # type: ignore[assignment]
    tables = define_tables(schema, location.tables, data)
    _check_columns(columns, tables, data, location)
    _check_readable(cursor, tables, location)
    if location.data not in (None, data):
        raise ConfigError(
            f"the data column of this store is {data}, not {location.data}",
            where=where,
            remedy=f"leave ?data= out, or say ?data={data}; a store keeps the type it was made "
            "with",
        )
    query = sql.SQL("SELECT max(format) FROM {}").format(sql.Identifier(schema, mark))
    (format_,) = cursor.execute(query).fetchall()[0]
    if format_ is None or format_ > FORMAT:
        raise StoreError(
            f"the store was written by a newer eventmig: its format is {format_}, this one "
            f"knows {FORMAT}",
            where=where,
            remedy="install the newer eventmig",
        )
    oids = [_oid(cursor, schema, str(named.name)) for named in (tables.events, tables.positions)]
    if None in oids:
        raise StoreDamagedError(
            f"the store lacks the sequence {tables.positions.name}", where=where, remedy=_RESTORE
        )
    events, positions = (int(oid or 0) for oid in oids)
    system, database, replica = _one(
        cursor,
        """SELECT system_identifier, current_database(), pg_is_in_recovery()
        FROM pg_control_system()""",
        {},
    )
    found = Found(
        database=f"{system}/{database}",
        schema=schema,
        data=data,
        events=events,
        positions=positions,
        replica=replica,
    )
    return found, tables, compose(tables, data)


def check_sequence(cursor: Cursor, location: Location, found: Found) -> None:
    """Refuse a sequence whose values do not rise in the order they are taken.

    With CACHE above 1 a session takes values long before it uses them, and no reader can
    tell. Raises `StoreDamagedError`, and `MovedError` where it is another's now.
    """
    events = sql.Identifier(found.schema, location.tables + "events").as_string()
    now, cache, step, cycle = _one(
        cursor,
        """SELECT to_regclass(%(events)s)::oid::bigint, seqcache, seqincrement, seqcycle
        FROM (SELECT) one LEFT JOIN pg_catalog.pg_sequence
            ON seqrelid = %(sequence)s::bigint::oid""",
        {"events": events, "sequence": found.positions},
    )
    if now != found.events:
        raise MovedError
    if cache == 1 and step > 0 and not cycle:
        return
    name = f"{found.schema}.{location.tables}events_position"
    what = f"CACHE {cache}" if cache != 1 else "CYCLE" if cycle else f"INCREMENT {step}"
    raise StoreDamagedError(
        f"the sequence {name} has {what}: positions are not taken in rising order, and a reader "
        "of a live store would miss events",
        where=Where(store=location.url),
        remedy=f"ALTER SEQUENCE {name} INCREMENT 1 CACHE 1 NO CYCLE, and let every writer "
        "connect anew",
    )


def damages(
    cursor: Cursor, location: Location, found: Found, sql: Statements, *, limit: int = 100
) -> Iterator[StoreDamagedError]:
    """What is wrong with the store: its sequence first, then its streams' positions.

    One pass over the index of stream positions. At most `limit` of each.
    """
    try:
        check_sequence(cursor, location, found)
    except StoreDamagedError as error:
        yield error
    (beyond,) = _one(cursor, sql.beyond_sequence, {"sequence": found.positions})
    if beyond is not None:
        name = f"{found.schema}.{location.tables}events_position"
        yield StoreDamagedError(
            f"there is an event at global position {beyond}, which the sequence {name} has not "
            "reached",
            where=Where(store=location.url, global_position=beyond),
            remedy=f"SELECT setval('{name}', {beyond}) (was the table restored without it?)",
        )
    bound = {"first": FIRST_POSITION, "release": location.release, "limit": limit}
    for stream, position, previous in cursor.execute(sql.gaps.encode(), bound).fetchall():
        if position == previous:
            what = f"the stream {stream!r} has more than one event at position {position}"
        elif position < FIRST_POSITION:
            what = f"the stream {stream!r} has an event at position {position}, before the first"
        else:
            missing = f"{previous + 1}" + (f" to {position - 1}" if position > previous + 2 else "")
            what = f"the stream {stream!r} has a hole: position {missing} is missing"
        yield StoreDamagedError(
            what,
            where=Where(store=location.url, stream=stream, stream_position=position),
            remedy="restore the missing events from a backup (export, mend, import into a new "
            "store); a copy of a damaged stream would hide the damage",
        )
    position, count = _one(cursor, sql.orphans, {})
    if count:
        yield StoreDamagedError(
            f"{count} events belong to no stream, the first at global position {position}",
            where=Where(store=location.url, global_position=position),
            remedy=_RESTORE,
        )


# --- the catalogue


def _columns(cursor: Cursor, schema: str, prefix: str) -> dict[str, dict[str, str]]:
    """The types of columns by name, by table, of the tables whose names begin so."""
    tables: dict[str, dict[str, str]] = {}
    cursor.execute(
        """SELECT c.relname::text, a.attname::text, t.typname::text
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            AND NOT a.attisdropped
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p')
            AND starts_with(c.relname::text, %(prefix)s)""",
        {"schema": schema, "prefix": prefix},
    )
    for table, column, type_ in cursor:
        tables.setdefault(table, {})[column] = type_
    return tables


def _marks(cursor: Cursor, schema: str) -> list[str]:
    return [table for table in _columns(cursor, schema, "") if table.endswith(MARK)]


def _check_columns(
    columns: dict[str, dict[str, str]], tables: Tables, data: DataType, location: Location
) -> None:
    exact = {"event_id": "text", "type": "text", "name": "text", "release": "text"}
    exact |= {"data": data, "metadata": metadata_type(data)}
    for table in tables.metadata.tables.values():
        have = columns.get(table.name)
        if have is None:
            raise StoreDamagedError(
                f"the store lacks the table {table.name}",
                where=Where(store=location.url),
                remedy=_RESTORE,
            )
        for column in table.columns:
            type_ = have.get(column.name)
            fits = type_ == exact[column.name] if column.name in exact else type_ in _INTEGER
            if not fits:
                raise StoreDamagedError(
                    f"the column {column.name} of the table {table.name} is "
                    + (f"{type_}, which eventmig did not make" if type_ else "missing"),
                    where=Where(store=location.url),
                    remedy="name the schema and tables of an event store that eventmig made "
                    "(?schema=…&tables=…)",
                )


def _check_readable(cursor: Cursor, tables: Tables, location: Location) -> None:
    named = [("table", table.name) for table in tables.metadata.tables.values()]
    for kind, plain in (*named, ("sequence", tables.positions.name)):
        name = sql.Identifier(str(tables.metadata.schema), plain).as_string()
        (may,) = _one(
            cursor,
            f"SELECT has_{kind}_privilege(%(name)s, 'SELECT')",
            {"name": name},
        )
        if not may:
            raise StoreError(
                f"this user may not read the {kind} {name}",
                where=Where(store=location.url),
                remedy=f"GRANT SELECT ON {'SEQUENCE ' if kind == 'sequence' else ''}{name} TO "
                "this user",
            )


def _oid(cursor: Cursor, schema: str, name: str) -> int | None:
    oid: int | None
    (oid,) = _one(
        cursor,
        "SELECT to_regclass(%(name)s)::oid::bigint",
        {"name": sql.Identifier(schema, name).as_string()},
    )
    return oid


def _one(cursor: Cursor, statement: str, bound: dict[str, object]) -> tuple[Any, ...]:
    row = cursor.execute(statement.encode(), bound).fetchone()
    assert row is not None
    return tuple(row)
