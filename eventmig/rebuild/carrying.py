"""What hangs on a PostgreSQL table, and is carried over to the one that takes its name.

PostgreSQL ties views, foreign keys, grants, comments, triggers and sequences to a table, not
to its name. So they are read from the live table before it is parked, and made anew on the
one that is live then: in the same transaction, so that nobody sees the table without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from eventmig.errors import RebuildError, Where
from eventmig.rebuild.bookkeeping import KeptTable
from eventmig.rebuild.locking import is_busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Statements that put on the tables of these names what hung on those before them.

    Each with what it is about, for errors. `before` are run while the old tables still have
    their names, `after` when the new ones have them.
    """

    before: Sequence[tuple[str, str]] = ()
    after: Sequence[tuple[str, str]] = ()


_TABLE: Final = """
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = :name AND n.nspname = coalesce(:schema, current_schema())"""

# Foreign keys of tables that are not swapped themselves, pointing at these. Those of tables that
# are only kept (parked) are not held against the new rows.
_FOREIGN_KEYS: Final = """
    SELECT format('foreign key %I of %s', k.conname, k.conrelid::regclass) AS what,
           format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname) AS before,
           format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', k.conrelid::regclass, k.conname,
                  pg_get_constraintdef(k.oid),
                  CASE WHEN k.convalidated AND k.conrelid = ANY(:parked)
                  THEN ' NOT VALID' ELSE '' END) AS after
    FROM pg_constraint k
    WHERE k.contype = 'f' AND k.confrelid = ANY(:tables) AND k.conrelid <> ALL(:tables)
    ORDER BY k.oid"""

# Views that read these tables; those that read such a view stay with it.
_VIEWS: Final = """
    SELECT DISTINCT v.oid, format('view %s', v.oid::regclass) AS what, NULL AS before,
           format('CREATE OR REPLACE VIEW %s %s AS %s', v.oid::regclass,
                  coalesce('WITH (' || array_to_string(v.reloptions, ', ') || ')', ''),
                  pg_get_viewdef(v.oid)) AS after
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = ANY(:tables) AND v.relkind = 'v'
    ORDER BY v.oid"""

_GRANTS: Final = """
    SELECT 'grants on ' || c.oid::regclass AS what, NULL AS before,
           format('GRANT %s ON %s TO %s%s', a.privilege_type, c.oid::regclass,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS after
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.oid = ANY(:tables) AND a.grantee <> c.relowner
    UNION ALL
    SELECT 'grants on columns of ' || c.oid::regclass, NULL,
           format('GRANT %s (%I) ON %s TO %s%s', a.privilege_type, t.attname, c.oid::regclass,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
    WHERE c.oid = ANY(:tables) AND NOT t.attisdropped"""

_OWNERS: Final = """
    SELECT 'owner of ' || c.oid::regclass AS what, NULL AS before,
           format('ALTER TABLE %s OWNER TO %s', c.oid::regclass, c.relowner::regrole) AS after
    FROM pg_class c
    WHERE c.oid = ANY(:tables) AND c.relowner::regrole::text <> quote_ident(current_user)"""

_COMMENTS: Final = """
    SELECT 'comment on ' || c.oid::regclass AS what, NULL AS before,
           format('COMMENT ON TABLE %s IS %L', c.oid::regclass, d.description) AS after
    FROM pg_class c JOIN pg_description d
      ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
    WHERE c.oid = ANY(:tables)
    UNION ALL
    SELECT 'comment on a column of ' || c.oid::regclass, NULL,
           format('COMMENT ON COLUMN %s.%I IS %L', c.oid::regclass, t.attname, d.description)
    FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped
      JOIN pg_description d
      ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = t.attnum
    WHERE c.oid = ANY(:tables)"""

_TRIGGERS: Final = """
    SELECT format('trigger %I of %s', t.tgname, t.tgrelid::regclass) AS what, NULL AS before,
           replace(pg_get_triggerdef(t.oid), 'CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER') AS after
    FROM pg_trigger t WHERE t.tgrelid = ANY(:tables) AND NOT t.tgisinternal ORDER BY t.oid"""

_UNCARRIED: Final = """
    SELECT format('the materialized view %s', v.oid::regclass) AS what
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = ANY(:tables) AND v.relkind = 'm'
    UNION SELECT format('the row security of %s', c.oid::regclass)
    FROM pg_class c WHERE c.oid = ANY(:tables) AND c.relrowsecurity
    UNION SELECT format('the publication %I', p.pubname)
    FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid
    WHERE m.prrelid = ANY(:tables) LIMIT 1"""

# Sequences that belong to a column of a table, and the names they have with it.
_SEQUENCES: Final = """
    SELECT s.relname AS name, t.attname AS column
    FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
      JOIN pg_attribute t ON t.attrelid = d.refobjid AND t.attnum = d.refobjsubid
    WHERE d.refobjid = :table AND d.deptype = 'a' ORDER BY s.oid"""


def carried(
    connection: Connection, tables: Sequence[KeptTable], parked: Sequence[KeptTable]
) -> Carried:
    """What hangs on these live tables (reads); nothing on other databases than PostgreSQL.

    `parked` are tables that eventmig keeps, by the names they have now.

    Raises `RebuildError` for what cannot be carried over.
    """
    if connection.dialect.name != "postgresql":
        return Carried()
    bound = {"tables": _oids(connection, tables), "parked": _oids(connection, parked)}
    for (what,) in connection.execute(text(_UNCARRIED), bound):
        raise RebuildError(
            f"{what} would stay with the old tables",
            remedy="drop it and make it anew after the rebuild: eventmig carries views, foreign "
            "keys, grants, comments, triggers and sequences over, and nothing else",
        )
    before: list[tuple[str, str]] = []
    after: list[tuple[str, str]] = []
    for query in (_OWNERS, _FOREIGN_KEYS, _VIEWS, _GRANTS, _COMMENTS, _TRIGGERS):
        for row in connection.execute(text(query), bound).mappings():
            if row["before"] is not None:
                before.append((row["what"], row["before"]))
            after.append((row["what"], row["after"]))
    return Carried(before=before, after=after)


def carry(connection: Connection, statements: Sequence[tuple[str, str]]) -> None:
    """Run the statements of one half; raises `RebuildError` naming what cannot be kept."""
    for what, statement in statements:
        try:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        except DBAPIError as error:
            if is_busy(error):
                raise
            raise RebuildError(
                f"the {what} cannot be kept on the new tables: {str(error.orig).splitlines()[0]}",
                where=Where(path=what),
                remedy="change or drop it first; the live tables are as before",
            ) from error


def sequences(connection: Connection, schema: str | None, table: str) -> list[tuple[str, str]]:
    """The sequences that belong to a table, each with the column it is for (reads)."""
    oid = table_oid(connection, schema, table)
    rows = connection.execute(text(_SEQUENCES), {"table": oid})
    return [(row.name, row.column) for row in rows]


def _oids(connection: Connection, tables: Sequence[KeptTable]) -> list[int]:
    found = (table_oid(connection, table.schema, table.name) for table in tables)
    return [oid for oid in found if oid is not None]


def table_oid(connection: Connection, schema: str | None, name: str) -> int | None:
    """The number that PostgreSQL knows a table by, or None (reads)."""
    found = connection.execute(text(_TABLE), {"schema": schema, "name": name}).scalar()
    return None if found is None else int(found)
