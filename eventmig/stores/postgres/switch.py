"""Two sets of tables in one PostgreSQL database change names, in one transaction.

`ALTER … RENAME` and `SET SCHEMA` move no row (postgresql.org/docs, ALTER TABLE). Indexes,
sequences and constraints are paired by what they are, and get each other's names too, so that
either set looks as if it had been made under its name. Whoever was granted something on a name
has it on the table that bears it now. What else hangs on a table stays with that table: so the
tables are only exchanged where that is the same on both sides (`check_nothing_left`).

The lock is asked for with a short patience first, because whoever comes later waits behind it,
and then with ever more: an autovacuum only gives way to one who waited `deadlock_timeout`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from eventmig.errors import CrossingError, Where
from eventmig.stores.postgres.fence import Place, drop_trigger, move_fences
from eventmig.stores.postgres.tail import Cursor

_PATIENCE_S: Final = 0.1
_PAUSE_S: Final = 0.05

_GIVEN: Final = """WITH given AS (
    SELECT c.oid, c.relkind, c.relname::text AS name, t.role, c.relowner
    FROM unnest(%(names)s::text[], %(roles)s::text[]) t (name, role)
    JOIN pg_catalog.pg_class c ON c.relname = t.name
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %(schema)s)
"""

_RELATIONS: Final = (
    _GIVEN
    + """SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, role, name, oid::bigint
    FROM given
UNION ALL SELECT 'INDEX', format('%%s by %%s %%s %%s %%s', g.role, i.indisprimary, i.indisunique,
        (SELECT string_agg(pg_get_indexdef(i.indexrelid, k, true), ',' ORDER BY k)
         FROM generate_series(1, i.indnatts) k), pg_get_expr(i.indpred, i.indrelid)),
        c.relname::text, c.oid::bigint
    FROM given g JOIN pg_catalog.pg_index i ON i.indrelid = g.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
UNION ALL SELECT 'SEQUENCE', format('%%s of %%s', g.role, a.attname), c.relname::text, c.oid::bigint
    FROM given g JOIN pg_catalog.pg_attribute a ON a.attrelid = g.oid AND a.attidentity <> ''
    JOIN pg_catalog.pg_class c ON c.oid =
        pg_get_serial_sequence(format('%%I.%%I', %(schema)s, g.name), a.attname)::regclass
ORDER BY 1, 2, 3"""
)

_CONSTRAINTS: Final = (
    _GIVEN
    + """SELECT 'CONSTRAINT', format('%%s: %%s', g.role, pg_get_constraintdef(k.oid)),
        k.conname::text, g.name
    FROM given g JOIN pg_catalog.pg_constraint k ON k.conrelid = g.oid AND k.contype IN ('n', 'c')
ORDER BY 1, 2, 3"""
)

_HANGING: Final = (
    _GIVEN
    + """SELECT g.role, 'trigger', t.tgname::text FROM given g
    JOIN pg_catalog.pg_trigger t ON t.tgrelid = g.oid
    WHERE NOT t.tgisinternal AND NOT starts_with(t.tgname::text, 'eventmig_fence@')
UNION SELECT g.role, 'policy', p.polname::text FROM given g
    JOIN pg_catalog.pg_policy p ON p.polrelid = g.oid
UNION SELECT g.role, 'publication', p.pubname::text FROM given g
    JOIN pg_catalog.pg_publication_rel r ON r.prrelid = g.oid
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
UNION SELECT g.role, 'foreign key', k.conname::text FROM given g
    JOIN pg_catalog.pg_constraint k ON k.contype = 'f' AND g.oid IN (k.conrelid, k.confrelid)
UNION SELECT g.role, 'view or rule', r.ev_class::regclass::text FROM given g
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.oid
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
UNION SELECT g.role, 'function', p.oid::regprocedure::text FROM given g
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.oid
        AND d.classid = 'pg_proc'::regclass
    JOIN pg_catalog.pg_proc p ON p.oid = d.objid
ORDER BY 2, 3, 1"""
)
_ON_BOTH: Final = ("trigger", "policy", "publication")
"""What may hang on the tables, if it hangs on both sets under the same name."""

_FOREIGN: Final = (
    _GIVEN
    + """SELECT name FROM given WHERE NOT pg_has_role(relowner, 'USAGE')
UNION ALL SELECT %(schema)s WHERE NOT has_schema_privilege(%(schema)s, 'CREATE')"""
)

# What was granted on `before` and is not on `after`, which gets its name.
_GRANTS: Final = """WITH pairs AS (
    SELECT * FROM unnest(%(before)s::bigint[], %(after)s::bigint[], %(kinds)s::text[],
        %(names)s::text[]) p (before, after, kind, name)),
had AS (
    SELECT p.kind, p.name, NULL::name AS part, have.* FROM pairs p
    JOIN pg_catalog.pg_class b ON b.oid = p.before::oid
    JOIN pg_catalog.pg_class a ON a.oid = p.after::oid
    CROSS JOIN LATERAL (
        SELECT grantee, privilege_type, is_grantable FROM aclexplode(coalesce(b.relacl,
            acldefault(CASE b.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", b.relowner)))
        EXCEPT SELECT grantee, privilege_type, is_grantable FROM aclexplode(coalesce(a.relacl,
            acldefault(CASE a.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", a.relowner)))) have
    UNION ALL SELECT p.kind, p.name, b.attname, have.* FROM pairs p
    JOIN pg_catalog.pg_attribute b ON b.attrelid = p.before::oid AND b.attacl IS NOT NULL
    JOIN pg_catalog.pg_attribute a ON a.attrelid = p.after::oid AND a.attname = b.attname
    CROSS JOIN LATERAL (
        SELECT grantee, privilege_type, is_grantable FROM aclexplode(b.attacl)
        EXCEPT SELECT grantee, privilege_type, is_grantable FROM aclexplode(a.attacl)) have)
SELECT format('GRANT %%s%%s ON %%s %%s TO %%s%%s', privilege_type,
    CASE WHEN part IS NOT NULL THEN format(' (%%I)', part) END, kind, name,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM had ORDER BY 1"""

_IN_THE_WAY: Final = """SELECT a.pid, a.application_name,
        date_trunc('second', clock_timestamp() - a.xact_start)::text, left(a.query, 80)
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.relation = ANY (%(tables)s::bigint[]::oid[]) AND l.granted
      AND l.pid <> pg_backend_pid()
    ORDER BY a.xact_start LIMIT 1"""


class _Part(NamedTuple):
    """One of a set: its kind in SQL, what it is there, its name, its oid or its table's name."""

    kind: str
    role: str
    name: str
    key: object


def check_nothing_left(cursor: Cursor, first: Place, second: Place) -> None:
    """Raise `CrossingError` for what would not follow a name, and what may not be renamed."""
    places = (first, second)
    for place in places:
        if foreign := cursor.execute(_FOREIGN.encode(), _given(place)).fetchall():
            raise CrossingError(
                f"this user does not own {foreign[0][0]}, and cannot rename its tables",
                where=Where(store=place[0].url),
                remedy="let the owner of both sets of tables run the job (with CREATE on their "
                "schemas), or cross by a route",
            )
    found = [set(cursor.execute(_HANGING.encode(), _given(place)).fetchall()) for place in places]
    for place, ours, theirs in zip(places, found, found[::-1], strict=True):
        for table, kind, name in sorted(ours):
            if kind in _ON_BOTH and (table, kind, name) in theirs:
                continue
            raise CrossingError(
                f"the {kind} {name} hangs on the table {place[0].tables}{table}, and would not "
                "go to the table that gets its name",
                where=Where(store=place[0].url),
                remedy=f"give the other set of tables a {kind} of that name, too"
                if kind in _ON_BOTH
                else "drop it, and make it anew after the crossing; or cross by a route",
            )


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
        (t for p in (first, second) for t in _tables(p)), key=lambda t: t[0] != "events"
    )
    names = sql.SQL(", ").join(name for _, name in tables)
    driver.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))


def _exchange(driver: psycopg.Connection, first: Place, second: Place) -> None:
    check_nothing_left(driver.cursor(), first, second)
    for place in (first, second):
        drop_trigger(driver, place)
    sets = [_parts(driver, place, _RELATIONS) for place in (first, second)]
    constraints = [_parts(driver, place, _CONSTRAINTS) for place in (first, second)]
    schemas = [_schema(place) for place in (first, second)]
    grants = _grants(driver, sets, schemas)
    statements = [
        *_renamed_relations(sets, schemas),
        *_renamed_constraints(constraints, sets, schemas),
        *map(sql.SQL, grants),
    ]
    driver.execute(sql.SQL(";\n").join(statements))


def _renamed_relations(
    sets: list[dict[str, _Part]], schemas: list[str]
) -> Iterator[sql.Composable]:
    """First all get names that nobody has, then they move, then they get the others' names."""
    pairs = [(role, sets[0][role], sets[1][role]) for role in sets[0].keys() & sets[1].keys()]

    def renamed(part: _Part, schema: str, old: str, new: str) -> sql.Composable:
        return sql.SQL(f"ALTER {part.kind} {{}} RENAME TO {{}}").format(
            sql.Identifier(schema, old), sql.Identifier(new)
        )

    def passing(part: _Part) -> str:
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
    constraints: list[dict[str, _Part]], sets: list[dict[str, _Part]], schemas: list[str]
) -> Iterator[sql.Composable]:
    ours, theirs = constraints
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


def _grants(
    driver: psycopg.Connection, sets: list[dict[str, _Part]], schemas: list[str]
) -> list[str]:
    """What is to be granted once the names are exchanged."""
    rows = [
        (before.key, after.key, before.kind, sql.Identifier(schema, before.name).as_string())
        for schema, ours, theirs in zip(schemas, sets, sets[::-1], strict=True)
        for role, before in ours.items()
        if before.kind != "INDEX" and (after := theirs.get(role)) is not None
    ]
    columns = ("before", "after", "kinds", "names")
    bound = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    return [statement for (statement,) in driver.execute(_GRANTS.encode(), bound)]


def _who(driver: psycopg.Connection, first: Place, second: Place) -> str:
    parts = [
        part for place in (first, second) for part in _parts(driver, place, _RELATIONS).values()
    ]
    found = driver.execute(
        _IN_THE_WAY.encode(), {"tables": [part.key for part in parts]}
    ).fetchone()
    if found is None:
        return "another session held them"
    pid, name, age, query = found
    called = f" ({name})" if name else ""
    return f"session {pid}{called}, in its transaction for {age}, runs: {query}"


def _parts(driver: psycopg.Connection, place: Place, query: str) -> dict[str, _Part]:
    """The parts of a set by what they are there."""
    seen: Counter[str] = Counter()
    found = {}
    for part in map(_Part._make, driver.execute(query.encode(), _given(place))):
        seen[part.role] += 1
        found[f"{part.role} {seen[part.role]}"] = part
    return found


def _schema(place: Place) -> str:
    return str(place[1].events.schema)


def _tables(place: Place) -> list[tuple[str, sql.Identifier]]:
    """What each table of a set is, and its name."""
    location, tables = place
    names = [str(table.name) for table in tables.metadata.sorted_tables]
    return [
        (name.removeprefix(location.tables), sql.Identifier(_schema(place), name)) for name in names
    ]


def _given(place: Place) -> dict[str, object]:
    location, tables = place
    names = [*(str(t.name) for t in tables.metadata.sorted_tables), tables.positions.name]
    roles = [name.removeprefix(location.tables) for name in names]
    return {"schema": _schema(place), "names": names, "roles": roles}
