"""The fence of a SQLite store: a trigger that refuses every insert while a row says so.

The trigger is there only while the fence is closed, so an open one costs nothing. SQLite has
one writer at a time; whoever holds the write lock to set the fence has waited out all others.
"""

from __future__ import annotations

from sqlalchemy import Connection, String, literal
from sqlalchemy.dialects.sqlite import dialect

from eventmig.stores import fences
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import Tables, quote


def set_fence(
    connection: Connection,
    location: Location,
    tables: Tables,
    *,
    closed: bool,
    job_id: str,
    epoch: int,
) -> None:
    """`Fencing.set_fence`, within a write transaction."""
    fences.note(
        connection,
        location.namespace,
        url=location.url,
        closed=closed,
        job_id=job_id,
        epoch=epoch,
    )
    if closed:
        connection.exec_driver_sql(_create_trigger(location, tables))
    else:
        drop_trigger(connection, location, tables)


def move_fences(connection: Connection, first: tuple[Location, Tables], second: Location) -> None:
    """Give two namespaces each other's rows; both triggers are dropped before."""
    names = (first[0].namespace, second.namespace)
    found = [fences.read(connection, name) for name in names]
    for name, fence in zip(names, reversed(found), strict=True):
        if any(found):
            fences.put(connection, name, fence)


def remove_fence(connection: Connection, location: Location, tables: Tables) -> None:
    """As if there never had been one: for a side that is dropped."""
    drop_trigger(connection, location, tables)
    fences.forget(connection, location.namespace)


def drop_trigger(connection: Connection, location: Location, tables: Tables) -> None:
    """Take the trigger away, whatever the row says."""
    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_trigger(location, tables)}")


def put_trigger(connection: Connection, location: Location, tables: Tables) -> None:
    """Put the trigger where the row says that the fence is closed."""
    fence = fences.read(connection, location.namespace)
    if fence is not None and fence.closed:
        connection.exec_driver_sql(_create_trigger(location, tables))


def is_trigger(name: str, tables: Tables) -> bool:
    """Whether a trigger of this name is a fence of these tables, for any release."""
    return name.startswith(f"{tables.events.name}_fence@")


def _trigger(location: Location, tables: Tables) -> str:
    """Its name, in the store's own file: a source that is attached may have one of that name."""
    return "main." + quote(f"{tables.events.name}_fence@{location.release or ''}")


def _create_trigger(location: Location, tables: Tables) -> str:
    """A trigger cannot take bound values: its literals are written by the dialect."""
    ours = f"(SELECT closed FROM eventmig_fences WHERE namespace = {_text(location.namespace)})"
    release = f"""(SELECT release FROM {quote(tables.streams.name)}
        WHERE stream_id = NEW.stream_id) IS {_text(location.release)}"""
    return f"""CREATE TRIGGER IF NOT EXISTS {_trigger(location, tables)}
        BEFORE INSERT ON {quote(tables.events.name)} WHEN {ours} AND {release}
        BEGIN SELECT RAISE(ABORT, {_text(fences.REFUSAL)}); END"""


def _text(value: str | None) -> str:
    """A literal, as SQLite's dialect writes it."""
    compiled = literal(value, String).compile(
        dialect=dialect(), compile_kwargs={"literal_binds": True}
    )
    return str(compiled)
