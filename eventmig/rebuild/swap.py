"""Giving the live names to another generation, in the caller's one transaction.

    park      live name → parked name, with its indexes out of the way
    unpark    parked name → live name, with its indexes as they were (rollback)
    publish   a new generation's parked name → live name, indexes as declared

SQLite cannot rename an index: there, indexes are made when a table gets its live
name. Views and foreign keys of other tables go by name on SQLite and follow the
live name; on PostgreSQL they stay with the table they were made on, and are carried over
(`carrying`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.schema import AddConstraint, CreateIndex

from eventmig.errors import RebuildError, Where
from eventmig.rebuild.bookkeeping import KeptTable
from eventmig.rebuild.carrying import sequences
from eventmig.rebuild.shadow import Shadow, parked_name


def exists(connection: Connection, table: Table | KeptTable) -> bool:
    """Whether a table of this name is there."""
    return inspect(connection).has_table(table.name, schema=table.schema)


def key_columns(connection: Connection, table: Table) -> list[str]:
    """The primary key of the stored table of this name."""
    found = inspect(connection).get_pk_constraint(table.name, schema=table.schema)
    return list(found["constrained_columns"])


def drop(connection: Connection, tables: Sequence[KeptTable], generation: int) -> None:
    """Drop a generation's tables by their parked names, where they are there."""
    names = [
        _quoted(connection, table.schema, parked_name(table.name, generation)) for table in tables
    ]
    if connection.dialect.name == "postgresql":  # together: they may refer to each other
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {', '.join(names)}")
        return
    for name in names:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")


def build_indexes(connection: Connection, shadow: Shadow) -> None:
    """Indexes of the shadow tables, where they can be made before the swap; safe to repeat."""
    if connection.dialect.name != "postgresql":
        return
    for table in shadow.declared:
        for index in shadow.indexes[table]:
            connection.execute(CreateIndex(index, if_not_exists=True))


def add_foreign_keys(connection: Connection, shadow: Shadow) -> None:
    """Foreign keys of the shadow tables, where they are not made with the tables."""
    if connection.dialect.name != "postgresql":
        return
    for table in shadow.declared:
        for key in shadow.foreign_keys(table):
            connection.execute(AddConstraint(key))


@contextmanager
def names_alone(connection: Connection) -> Iterator[None]:
    """While this holds, SQLite renames a table without rewriting who refers to it."""
    if connection.dialect.name != "sqlite":
        yield
        return
    before = connection.exec_driver_sql("PRAGMA legacy_alter_table").scalar()
    connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA legacy_alter_table={int(before or 0)}")


@contextmanager
def foreign_keys_off(connection: Connection) -> Iterator[None]:
    """While this holds, SQLite does not look at foreign keys: they are checked in the swap.

    Commits the connection's transaction. Raises `RebuildError` where they cannot be
    turned off.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    before = connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
    connection.commit()
    try:
        if before:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            if connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
                raise RebuildError(
                    "this engine's connections keep foreign keys on",
                    remedy="let the engine begin transactions itself (no BEGIN in an event "
                    "listener), or give the rebuild an engine of its own",
                )
            connection.commit()
        yield
    finally:
        if before:
            connection.rollback()
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            connection.commit()


def park(connection: Connection, table: KeptTable, generation: int) -> tuple[str, ...]:
    """Take the live name from a table; returns what its `restore` is, for `unpark`."""
    restore: list[str] = []
    preparer = connection.dialect.identifier_preparer
    if connection.dialect.name == "postgresql":
        for name in _indexes(connection, table.schema, table.name):
            parked = parked_name(name, generation)
            there = _quoted(connection, table.schema, name)
            back = _quoted(connection, table.schema, parked)
            connection.exec_driver_sql(f"ALTER INDEX {there} RENAME TO {preparer.quote(parked)}")
            restore.append(f"ALTER INDEX {back} RENAME TO {preparer.quote(name)}")
        for name, _ in sequences(connection, table.schema, table.name):
            restore.append(
                _rename_sequence(connection, table.schema, name, parked_name(name, generation))
            )
    else:
        master = _quoted(connection, table.schema, "sqlite_master")
        query = text(
            f"SELECT name, sql FROM {master} "
            "WHERE type = 'index' AND lower(tbl_name) = lower(:t) AND sql IS NOT NULL ORDER BY name"
        )
        for name, sql in connection.execute(query, {"t": table.name}).all():
            connection.exec_driver_sql(f"DROP INDEX {_quoted(connection, table.schema, name)}")
            restore.append(sql)
    _rename(connection, table.schema, table.name, parked_name(table.name, generation))
    return tuple(restore)


def unpark(connection: Connection, table: KeptTable, generation: int) -> None:
    """Give the live name back to a parked table, and its indexes theirs."""
    _rename(connection, table.schema, parked_name(table.name, generation), table.name)
    for statement in table.restore:
        connection.exec_driver_sql(statement)


def publish(connection: Connection, shadow: Shadow, generation: int) -> None:
    """Give the live names to a new generation, with indexes and foreign keys as declared.

    Raises `RebuildError` when a foreign key points at a row that is not there.
    """
    for table in shadow.declared:
        if connection.dialect.name == "postgresql":
            _rename_indexes(connection, table, generation)
        _rename(connection, table.schema, parked_name(table.name, generation), table.name)
    if connection.dialect.name == "postgresql":
        for table in shadow.declared:
            _publish_sequences(connection, table, generation)
        return
    for table in shadow.declared:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    for table in shadow.declared:
        if table.foreign_key_constraints:
            _check_foreign_keys(connection, table)


def _check_foreign_keys(connection: Connection, table: Table) -> None:
    name = connection.dialect.identifier_preparer.quote(table.name)
    broken = connection.exec_driver_sql(f"PRAGMA foreign_key_check({name})").all()
    if broken:
        parents = ", ".join(sorted({str(row[2]) for row in broken}))
        raise RebuildError(
            f"{len(broken)} rows of {table.name} point at rows of {parents} that are not there",
            where=Where(path=table.name),
            remedy="see which handler makes the rows pointed at; the live tables are as before",
        )


def _rename_indexes(connection: Connection, table: Table, generation: int) -> None:
    declared = {str(index.name) for index in table.indexes}
    declared |= {str(c.name) for c in table.constraints if c.name}
    wanted = {parked_name(name, generation): name for name in declared}
    parked = parked_name(table.name, generation)
    preparer = connection.dialect.identifier_preparer
    for name in _indexes(connection, table.schema, parked):
        live = wanted.get(name)
        if live is None and name.startswith(parked):  # made by the server: `…_pkey`
            live = table.name + name.removeprefix(parked)
        if live is not None:
            there = _quoted(connection, table.schema, name)
            connection.exec_driver_sql(f"ALTER INDEX {there} RENAME TO {preparer.quote(live)}")


def _publish_sequences(connection: Connection, table: Table, generation: int) -> None:
    """Names of its own for the table's sequences, which go on after its largest values."""
    parked = parked_name(table.name, generation)
    quote = connection.dialect.identifier_preparer.quote
    for name, column in sequences(connection, table.schema, table.name):
        if name.startswith(parked):
            live = table.name + name.removeprefix(parked)
            _rename_sequence(connection, table.schema, name, live)
            name = live
        sequence = _quoted(connection, table.schema, name).replace("'", "''").replace("%", "%%")
        connection.exec_driver_sql(
            f"SELECT setval('{sequence}', m) FROM (SELECT max({quote(column)}) AS m "
            f"FROM {_quoted(connection, table.schema, table.name)}) AS found WHERE m > 0"
        )


def _rename_sequence(connection: Connection, schema: str | None, old: str, new: str) -> str:
    """Rename a sequence; returns the statement that takes it back."""
    quote = connection.dialect.identifier_preparer.quote
    there, back = _quoted(connection, schema, old), _quoted(connection, schema, new)
    connection.exec_driver_sql(f"ALTER SEQUENCE {there} RENAME TO {quote(new)}")
    return f"ALTER SEQUENCE {back} RENAME TO {quote(old)}"


def _indexes(connection: Connection, schema: str | None, table: str) -> list[str]:
    query = text(
        "SELECT indexname FROM pg_indexes WHERE tablename = :t "
        "AND schemaname = coalesce(:s, current_schema()) ORDER BY indexname"
    )
    return list(connection.execute(query, {"t": table, "s": schema}).scalars())


def _rename(connection: Connection, schema: str | None, old: str, new: str) -> None:
    preparer = connection.dialect.identifier_preparer
    there = _quoted(connection, schema, old)
    connection.exec_driver_sql(f"ALTER TABLE {there} RENAME TO {preparer.quote(new)}")


def _quoted(connection: Connection, schema: str | None, name: str) -> str:
    preparer = connection.dialect.identifier_preparer
    quoted = preparer.quote(name)
    return quoted if schema is None else f"{preparer.quote_schema(schema)}.{quoted}"
