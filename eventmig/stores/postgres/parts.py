"""What a set of tables is made of, and what hangs on it, as the catalogue has it. Reads only."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from eventmig.errors import CrossingError, Where
from eventmig.stores.postgres.fence import Place
from eventmig.stores.postgres.tail import Cursor

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
UNION SELECT g.role, 'view or rule', format('%%s.%%I', v.relnamespace::regnamespace, v.relname)
    FROM given g
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.oid
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
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


class Part(NamedTuple):
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


def relations(driver: psycopg.Connection, place: Place) -> dict[str, Part]:
    """Tables, indexes and sequences, by what they are there."""
    return _found(driver, place, _RELATIONS)


def constraints(driver: psycopg.Connection, place: Place) -> dict[str, Part]:
    """Constraints that have no index, by what they are there; `key` is their table's name."""
    return _found(driver, place, _CONSTRAINTS)


def _found(driver: psycopg.Connection, place: Place, query: str) -> dict[str, Part]:
    """The parts of a set by what they are there."""
    seen: Counter[str] = Counter()
    found = {}
    for part in map(Part._make, driver.execute(query.encode(), _given(place))):
        seen[part.role] += 1
        found[f"{part.role} {seen[part.role]}"] = part
    return found


def grants(
    driver: psycopg.Connection, sets: list[dict[str, Part]], schemas: list[str]
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


def schema_of(place: Place) -> str:
    """The schema of a set."""
    return str(place[1].events.schema)


def tables_of(place: Place) -> list[tuple[str, sql.Identifier]]:
    """What each table of a set is, and its name."""
    location, tables = place
    names = [str(table.name) for table in tables.metadata.sorted_tables]
    return [
        (name.removeprefix(location.tables), sql.Identifier(schema_of(place), name))
        for name in names
    ]


def _given(place: Place) -> dict[str, object]:
    location, tables = place
    names = [*(str(t.name) for t in tables.metadata.sorted_tables), tables.positions.name]
    roles = [name.removeprefix(location.tables) for name in names]
    return {"schema": schema_of(place), "names": names, "roles": roles}
