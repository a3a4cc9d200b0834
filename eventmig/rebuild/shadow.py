"""Shadow tables: what a generation is built in, under names of its own.

Each generation of a read model has one parked name per table
(`sales_per_day__g3`); the live name is given to one generation at a time by
`swap`. Reads and writes nothing by itself but the DDL it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import (
    Connection,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import SchemaType

LONGEST_NAME = 63
"""Bytes of an identifier in PostgreSQL; SQLite has no such limit, and keeps to this one."""


def parked_name(name: str, generation: int) -> str:
    """The name of a table, index or constraint while its generation is not live.

    At most 63 bytes of UTF-8; a name that must be shortened keeps its beginning and
    is told apart by a hash of the whole.
    """
    suffix = f"__g{generation}"
    full = name + suffix
    if len(full.encode()) <= LONGEST_NAME:
        return full
    digest = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    room = LONGEST_NAME - len((digest + suffix).encode())
    return name.encode()[:room].decode(errors="ignore") + digest + suffix


class Shadow:
    """The shadow tables of one generation: copies of the declared ones, under parked names.

    `tables` in the declared order. They are made without foreign keys on PostgreSQL
    (added after loading, pointing at the other shadows) and with foreign keys by live
    name on SQLite, where a foreign key is a name that is looked up when it is checked.
    `indexes` are made after loading, too.
    """

    def __init__(self, declared: Sequence[Table], generation: int, dialect: str) -> None:
        self.declared = tuple(declared)
        self._dialect = dialect
        parked, live = MetaData(), MetaData()
        for table in declared:
            for key in table.foreign_keys:  # tables of others, too
                _copied(key.column.table, live)
            _copied(table, live)
        self.tables = tuple(
            table.to_metadata(parked, name=parked_name(table.name, generation))
            for table in declared
        )
        self.indexes: dict[Table, list[Index]] = {}
        self._keys: dict[Table, list[ForeignKeyConstraint]] = {}
        shadows = dict(zip(self.declared, self.tables, strict=True))
        for table, shadow in shadows.items():
            self.indexes[table] = sorted(shadow.indexes, key=lambda index: index.name or "")
            targets = shadows if dialect == "postgresql" else {}
            self._keys[table] = [
                _foreign_key(key, shadow, targets, live)
                for key in sorted(
                    table.foreign_key_constraints, key=lambda key: tuple(key.column_keys)
                )
            ]
            if dialect == "postgresql":
                for index in shadow.indexes:
                    index.name = quoted_name(parked_name(str(index.name), generation), quote=None)
                for constraint in shadow.constraints:
                    named = isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
                    if named and constraint.name:
                        constraint.name = parked_name(str(constraint.name), generation)

    def create(self, connection: Connection) -> None:
        """Make the tables, empty and without indexes; and the types they need."""
        for column in (column for shadow in self.tables for column in shadow.columns):
            if isinstance(column.type, SchemaType):
                column.type.create(connection, checkfirst=True)
        for table, shadow in zip(self.declared, self.tables, strict=True):
            inline = [] if self._dialect == "postgresql" else self._keys[table]
            connection.execute(CreateTable(shadow, include_foreign_key_constraints=inline))

    def foreign_keys(self, table: Table) -> list[ForeignKeyConstraint]:
        """The foreign keys of a declared table, as its shadow has them."""
        return self._keys[table]


def _copied(table: Table, metadata: MetaData) -> Table:
    found = metadata.tables.get(table.key)
    return table.to_metadata(metadata) if found is None else found


def _foreign_key(
    key: ForeignKeyConstraint, shadow: Table, targets: dict[Table, Table], live: MetaData
) -> ForeignKeyConstraint:
    referred: list[object] = []
    for element in key.elements:
        table = element.column.table
        target = targets[table] if table in targets else live.tables[table.key]
        referred.append(target.c[element.column.key])
    made = ForeignKeyConstraint(
        [shadow.c[name] for name in key.column_keys],
        referred,  # type: ignore[arg-type]
        name=key.name,
        onupdate=key.onupdate,
        ondelete=key.ondelete,
        deferrable=key.deferrable,
        initially=key.initially,
        match=key.match,
        **key.dialect_kwargs,
    )
    shadow.append_constraint(made)
    return made
