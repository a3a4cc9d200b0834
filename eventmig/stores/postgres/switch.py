"""Two sets of tables in one PostgreSQL database change names, in one transaction.

`ALTER … RENAME` and `SET SCHEMA` move no row (postgresql.org/docs, ALTER TABLE). Indexes,
sequences and constraints are paired by what they are, and get each other's names too, so that
either set looks as if it had been made under its name. Whoever was granted something on a name
has it on the table that bears it now. What else hangs on a table stays with that table: so the
tables are only exchanged where that is the same on both sides (`parts.check_nothing_left`).

The lock is asked for with a short patience first, because whoever comes later waits behind it,
and then with ever more: an autovacuum only gives way to one who waited `deadlock_timeout`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from eventmig.errors import CrossingError, Where
from eventmig.stores.postgres.fence import Place, drop_trigger, move_fences
from eventmig.stores.postgres.parts import (
    Part,
    check_nothing_left,
    constraints,
    grants,
    relations,
    schema_of,
    tables_of,
)

_PATIENCE_S: Final = 0.1
_PAUSE_S: Final = 0.05

_IN_THE_WAY: Final = """SELECT a.pid, a.application_name,
        date_trunc('second', clock_timestamp() - a.xact_start)::text, left(a.query, 80)
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.relation = ANY (%(tables)s::bigint[]::oid[]) AND l.granted
      AND l.pid <> pg_backend_pid()
    ORDER BY a.xact_start LIMIT 1"""


def exchange_tables(connection: Connection, first: Place, second: Place, *, wait_s: float) -> None:
    """Give each set the other's names, with its fences; within `wait_s` seconds, or not at all.

    Raises `CrossingError`, and has changed nothing then.
    """
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    deadline, patience = time.monotonic() + wait_s, _PATIENCE_S
    while True:
        left = max(0.001, deadline - time.monotonic())
        try:
            with connection.begin_nested():
                _have_to_oneself(driver, first, second, min(patience, left))
                _exchange(driver, first, second)
                move_fences(connection, first, second)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() + _PAUSE_S >= deadline:
                raise CrossingError(
                    f"the tables were in use for {wait_s:.1f} s: {_who(driver, first, second)}",
                    where=Where(store=first[0].url),
                    remedy="wait for it or end it, or give more time (--budget)",
                ) from error
        except psycopg.ProgrammingError as error:
            raise CrossingError(
                f"the tables cannot change names ({first[0].scrubbed(str(error))})",
                where=Where(store=first[0].url),
                remedy="put away what is in the way, or cross by a route",
            ) from error
        time.sleep(_PAUSE_S)
        patience *= 2


def _have_to_oneself(
    driver: psycopg.Connection, first: Place, second: Place, patience_s: float
) -> None:
    """Nobody else uses these tables to the end of the transaction."""
    patience = {"ms": f"{max(1, round(patience_s * 1e3))}ms"}
    driver.execute("SELECT set_config('lock_timeout', %(ms)s, true)", patience)
    # The events first, which writers lock first.
    tables = sorted(
        (t for p in (first, second) for t in tables_of(p)), key=lambda t: t[0] != "events"
    )
    names = sql.SQL(", ").join(name for _, name in tables)
    driver.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))


def _exchange(driver: psycopg.Connection, first: Place, second: Place) -> None:
    check_nothing_left(driver.cursor(), first, second)
    for place in (first, second):
        drop_trigger(driver, place)
    sets = [relations(driver, place) for place in (first, second)]
    unindexed = [constraints(driver, place) for place in (first, second)]
    schemas = [schema_of(place) for place in (first, second)]
    statements = [
        *_renamed_relations(sets, schemas),
        *_renamed_constraints(unindexed, schemas),
        *map(sql.SQL, grants(driver, sets, schemas)),
    ]
    driver.execute(sql.SQL(";\n").join(statements))


def _renamed_relations(sets: list[dict[str, Part]], schemas: list[str]) -> Iterator[sql.Composable]:
    """First all get names that nobody has, then they move, then they get the others' names."""
    pairs = [(role, sets[0][role], sets[1][role]) for role in sets[0].keys() & sets[1].keys()]

    def renamed(part: Part, schema: str, old: str, new: str) -> sql.Composable:
        return sql.SQL(f"ALTER {part.kind} {{}} RENAME TO {{}}").format(
            sql.Identifier(schema, old), sql.Identifier(new)
        )

    def passing(part: Part) -> str:
        return f"eventmig_passing_{part.key}"

    for _, *both in pairs:
        for part, schema in zip(both, schemas, strict=True):
            yield renamed(part, schema, part.name, passing(part))
    if schemas[0] != schemas[1]:
        for role, *both in pairs:
            if both[0].kind == "INDEX" or " of " in role:  # they go with their tables
                continue
            for part, old, new in zip(both, schemas, schemas[::-1], strict=True):
                yield sql.SQL(f"ALTER {part.kind} {{}} SET SCHEMA {{}}").format(
                    sql.Identifier(old, passing(part)), sql.Identifier(new)
                )
    for _, *both in pairs:
        for part, other, schema in zip(both, both[::-1], schemas[::-1], strict=True):
            yield renamed(part, schema, passing(part), other.name)


def _renamed_constraints(
    unindexed: list[dict[str, Part]], schemas: list[str]
) -> Iterator[sql.Composable]:
    ours, theirs = unindexed
    for role in sorted(ours.keys() & theirs.keys()):
        both = (ours[role], theirs[role])
        if both[0].name == both[1].name:
            continue
        for part, other, schema in zip(both, both[::-1], schemas[::-1], strict=True):
            yield sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                sql.Identifier(schema, str(other.key)),
                sql.Identifier(part.name),
                sql.Identifier(other.name),
            )


def _who(driver: psycopg.Connection, first: Place, second: Place) -> str:
    parts = [part for place in (first, second) for part in relations(driver, place).values()]
    found = driver.execute(
        _IN_THE_WAY.encode(), {"tables": [part.key for part in parts]}
    ).fetchone()
    if found is None:
        return "another session held them"
    pid, name, age, query = found
    called = f" ({name})" if name else ""
    return f"session {pid}{called}, in its transaction for {age}, runs: {query}"
