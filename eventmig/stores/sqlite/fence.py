"""The fence of a SQLite store: a trigger that refuses every insert while a row says so.

`eventmig_fences` has one row per namespace of the file, made by the first crossing and
kept: it tells the epoch of the holder who set it last. The trigger is there only while
the fence is closed, so an open one costs nothing. SQLite has one writer at a time;
whoever holds the write lock to set the fence has waited out all others.
"""

from __future__ import annotations

import time

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import dialect

from eventmig.errors import CrossingError, JobLostError, Where
from eventmig.stores.base import Fence
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.schema import Tables, quote

_metadata = MetaData()
_fences = Table(
    "eventmig_fences",
    _metadata,
    Column("namespace", String(255), primary_key=True),
    Column("closed", Boolean, nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # microseconds since 1970, UTC
)


def read_fence(connection: Connection, namespace: str) -> Fence | None:
    """The row of a namespace, or None."""
    if not inspect(connection).has_table(_fences.name):
        return None
    row = connection.execute(select(_fences).where(_fences.c.namespace == namespace)).first()
    return None if row is None else Fence(row.closed, row.job_id, row.epoch, row.at)


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
    _metadata.create_all(connection)
    before = read_fence(connection, location.namespace)
    _check_holder(before, location, closed=closed, job_id=job_id, epoch=epoch)
    connection.execute(delete(_fences).where(_fences.c.namespace == location.namespace))
    connection.execute(
        insert(_fences).values(
            namespace=location.namespace,
            closed=closed,
            job_id=job_id,
            epoch=epoch,
            at=time.time_ns() // 1_000,
        )
    )
    if closed:
        connection.exec_driver_sql(_create_trigger(location, tables))
    else:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_trigger(location, tables)}")


def check_fence(connection: Connection, location: Location, *, job_id: str, epoch: int) -> None:
    """`Fencing.check_fence`."""
    fence = read_fence(connection, location.namespace)
    if fence is None or not fence.closed or (fence.job_id, fence.epoch) != (job_id, epoch):
        raise _lost(location)


def lift(connection: Connection, namespace: str, *, closed: bool) -> None:
    """Open or close the row, not the trigger: for the inserts of one transaction."""
    connection.execute(
        update(_fences).where(_fences.c.namespace == namespace).values(closed=closed)
    )


def move_fences(connection: Connection, first: tuple[Location, Tables], second: Location) -> None:
    """Give two namespaces each other's rows; both triggers are dropped before."""
    names = {first[0].namespace: second.namespace, second.namespace: first[0].namespace}
    rows = connection.execute(select(_fences).where(_fences.c.namespace.in_(names))).all()
    connection.execute(delete(_fences).where(_fences.c.namespace.in_(names)))
    for row in rows:
        moved = {**row._asdict(), "namespace": names[row.namespace]}
        connection.execute(insert(_fences).values(moved))


def remove_fence(connection: Connection, location: Location, tables: Tables) -> None:
    """As if there never had been one: for a side that is dropped."""
    drop_trigger(connection, location, tables)
    if inspect(connection).has_table(_fences.name):
        connection.execute(delete(_fences).where(_fences.c.namespace == location.namespace))


def drop_trigger(connection: Connection, location: Location, tables: Tables) -> None:
    """Take the trigger away, whatever the row says."""
    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_trigger(location, tables)}")


def put_trigger(connection: Connection, location: Location, tables: Tables) -> None:
    """Put the trigger where the row says that the fence is closed."""
    fence = read_fence(connection, location.namespace)
    if fence is not None and fence.closed:
        connection.exec_driver_sql(_create_trigger(location, tables))


def _check_holder(
    before: Fence | None, location: Location, *, closed: bool, job_id: str, epoch: int
) -> None:
    if before is None:
        return
    if before.job_id != job_id:
        if before.closed:
            raise CrossingError(
                f"this side is closed by another job ({before.job_id})",
                where=Where(store=location.url),
                remedy="end that job first: `eventmig complete` or `eventmig reverse`",
            )
    elif before.epoch > epoch:
        raise _lost(location)


def _lost(location: Location) -> JobLostError:
    return JobLostError(
        "another process took the job over and set the fence",
        where=Where(store=location.url),
        remedy="let that one finish (`eventmig status` shows it)",
    )


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
        BEGIN SELECT RAISE(ABORT, 'eventmig: applications may not append here now'); END"""


def _text(value: str | None) -> str:
    compiled = literal(value, String).compile(
        dialect=dialect(), compile_kwargs={"literal_binds": True}
    )
    return str(compiled)
