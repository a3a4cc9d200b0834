"""What was added to live tables by hand: a swap would lose it, so it is named instead."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, inspect

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import swap
from eventmig.rebuild.bookkeeping import Generation, KeptTable


def refuse_undeclared(
    connection: Connection, live: Generation | None, declared: Sequence[Table]
) -> None:
    """Raise `RebuildError` for columns and indexes that neither eventmig made nor is told of.

    Tables from before eventmig are taken as they are: nothing is known of how they were.
    """
    if live is None:
        return
    told = {(table.schema, table.name): table for table in declared}
    for made in live.tables:
        if not made.columns or not swap.exists(connection, made):
            continue
        there = as_made(connection, made)
        table = told.get((made.schema, made.name))
        columns = set(there.columns) - set(made.columns)
        indexes = set(there.indexes) - set(made.indexes)
        if table is not None:
            columns -= {column.name for column in table.columns}
            indexes -= {str(index.name) for index in table.indexes}
        found = [
            *(f"the column {name}" for name in sorted(columns)),
            *(f"the index {name}" for name in sorted(indexes)),
        ]
        if found:
            raise RebuildError(
                f"{made.name} has {', '.join(found)}, which its read model does not declare",
                where=Where(path=made.name),
                remedy="a rebuild would lose it: declare it in the table, or drop it",
            )


def as_made(connection: Connection, table: KeptTable) -> KeptTable:
    """A live table with the columns and indexes that it has now (reads)."""
    found = inspect(connection)
    return KeptTable(
        name=table.name,
        schema=table.schema,
        columns=tuple(c["name"] for c in found.get_columns(table.name, table.schema)),
        indexes=tuple(str(i["name"]) for i in found.get_indexes(table.name, table.schema)),
    )
