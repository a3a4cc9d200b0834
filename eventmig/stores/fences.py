"""What a fence remembers: one row per namespace, by which job's which holder it was set last.

`eventmig_fences` is made by the first crossing and kept. The trigger that refuses inserts is
the database's own affair (`sqlite.fence`, `postgres.fence`, `layouts.fence`).
"""

from __future__ import annotations

import time
from functools import cache
from typing import Final

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
    select,
    update,
)

from eventmig.errors import CrossingError, JobLostError, Where
from eventmig.stores.crossing import Fence
from eventmig.stores.held_up import OpenTransaction

REFUSAL: Final = "eventmig: applications may not append here now"
"""What the database says to who appends before a closed fence."""

SQLSTATE: Final = "EVM01"
"""The SQLSTATE of that in PostgreSQL."""

WHAT: Final = "applications may not append here: a cut-over is under way, or took them elsewhere"
"""What a `FencedError` says of it."""


@cache
def fences(schema: str | None = None) -> Table:
    """The table of fences, of one schema (None: the connection's own)."""
    return Table(
        "eventmig_fences",
        MetaData(schema=schema),
        Column("namespace", String(255), primary_key=True),
        Column("closed", Boolean, nullable=False),
        Column("job_id", String(36), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    )


def read(connection: Connection, namespace: str, schema: str | None = None) -> Fence | None:
    """The fence of a namespace, or None where there never was one. Reads only."""
    table = fences(schema)
    if not inspect(connection).has_table(table.name, schema=schema):
        return None
    row = connection.execute(select(table).where(table.c.namespace == namespace)).first()
    return None if row is None else Fence(row.closed, row.job_id, row.epoch, row.at)


def note(
    connection: Connection,
    namespace: str,
    schema: str | None = None,
    *,
    url: str,
    closed: bool,
    job_id: str,
    epoch: int,
) -> None:
    """Write the row of a fence that is closed or opened, in this transaction.

    The caller holds what keeps other holders out. Raises `JobLostError` where a later holder
    of this job has set it, and `CrossingError` where another job closed it.
    """
    fences(schema).metadata.create_all(connection)
    before = read(connection, namespace, schema)
    if before is not None and before.job_id != job_id and before.closed:
        raise CrossingError(
            f"this side is closed by another job ({before.job_id})",
            where=Where(store=url),
            remedy="end that job first: `eventmig complete` or `eventmig reverse`",
        )
    if before is not None and before.job_id == job_id and before.epoch > epoch:
        raise _lost(url)
    put(connection, namespace, Fence(closed, job_id, epoch, time.time_ns() // 1_000), schema)


def put(
    connection: Connection, namespace: str, fence: Fence | None, schema: str | None = None
) -> None:
    """Give a namespace this row, or none; the table must be there."""
    table = fences(schema)
    connection.execute(delete(table).where(table.c.namespace == namespace))
    if fence is not None:
        connection.execute(insert(table).values(namespace=namespace, **fence._asdict()))


def forget(connection: Connection, namespace: str, schema: str | None = None) -> None:
    """As if there never had been a fence."""
    if read(connection, namespace, schema) is not None:
        put(connection, namespace, None, schema)


def check(
    connection: Connection,
    namespace: str,
    schema: str | None = None,
    *,
    url: str,
    job_id: str,
    epoch: int,
) -> None:
    """Raise `JobLostError` unless this holder closed the fence last."""
    fence = read(connection, namespace, schema)
    if fence is None or not fence.closed or (fence.job_id, fence.epoch) != (job_id, epoch):
        raise _lost(url)


def lift(connection: Connection, namespace: str, *, closed: bool) -> None:
    """Change only whether the row says closed: for the inserts of one transaction."""
    table = fences()
    connection.execute(update(table).where(table.c.namespace == namespace).values(closed=closed))


def let_through(connection: Connection) -> None:
    """PostgreSQL: let this transaction append though the fence is closed."""
    connection.exec_driver_sql("SELECT set_config('eventmig.passes', 'on', true)")


def still_open(url: str, wait_s: float, by: OpenTransaction | None) -> CrossingError:
    """What there is to say where who appends was not waited out; `by`, if it still is open."""
    what = f"transactions that append were still open after {wait_s:g} s"
    return CrossingError(
        what if by is None else f"{what}: {by}",
        where=Where(store=url),
        remedy="run it again" if by is None else f"{by.remedy}; then run it again",
    )


def _lost(url: str) -> JobLostError:
    return JobLostError(
        "another process took the job over and set the fence",
        where=Where(store=url),
        remedy="let that one finish (`eventmig status` shows it)",
    )
