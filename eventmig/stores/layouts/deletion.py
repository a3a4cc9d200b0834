"""Taking a job's own rows away again: from the events' table, and from those joined to it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Select, and_, delete, func, or_, select

from eventmig.stores.layouts import links
from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.tables import Tables

_AT_ONCE: Final = 1_000  # rows, where several tables have a part in each


def delete_rows(connection: Connection, tables: Tables, positions: Select[Any]) -> int:
    """Delete the events at these global positions, which a job wrote; returns how many.

    Rows by which their owner has put such an event into further streams go with it.
    """
    layout = tables.layout
    if layout.deletes:
        connection.execute(select(func.set_config(layout.deletes, "on", True)))
    if not layout.joins:
        return connection.execute(delete(tables.events).where(*_at(tables, positions))).rowcount
    deleted = 0
    chosen = select(tables.position).select_from(tables.events).where(*_at(tables, positions))
    while some := list(connection.execute(chosen.limit(_AT_ONCE)).scalars()):
        _delete_joined(connection, tables, some)
        deleted += len(some)
    return deleted


def _at(tables: Tables, positions: Any) -> list[Expression]:
    return [*tables.fixed(), tables.position.in_(positions)]


def _delete_joined(connection: Connection, tables: Tables, positions: list[int]) -> None:
    rows = and_(*_at(tables, positions))
    doomed: list[tuple[Expression, list[Any]]] = []  # a column of a joined table, its values
    either = [rows]
    for join in tables.layout.of_events():
        (its, own), *_ = join.on.items()
        held = tables.events.c[own]
        events = [links.is_event(tables)] if tables.layout.links else []
        found = list(connection.execute(select(held).where(rows, *events)).scalars())
        doomed.append((tables.table(join.table).c[its], found))
        either.append(held.in_(found))
    connection.execute(delete(tables.events).where(or_(*either)))
    for column, found in doomed:
        connection.execute(delete(column.table).where(column.in_(found)))
