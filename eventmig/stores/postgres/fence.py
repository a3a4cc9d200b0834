"""The fence of a PostgreSQL store: a trigger that refuses every insert while it is there.

`eventmig_fences` has one row per namespace of the schema, made by the first crossing and
kept: it tells the epoch of the holder who set it last. CREATE TRIGGER takes SHARE ROW
EXCLUSIVE on the events (postgresql.org/docs, explicit locking), which no transaction that
inserted leaves to others before it ends: once the trigger is committed, all who appended
before have ended, and all who append later meet it.
"""

from __future__ import annotations

import time
from functools import cache
from typing import cast

import psycopg
from psycopg import sql
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
)

from eventmig.errors import CrossingError, JobLostError, Where
from eventmig.stores.base import Fence
from eventmig.stores.postgres.location import Location
from eventmig.stores.postgres.schema import Tables

REFUSED = "EVM01"
"""The SQLSTATE of a refused insert."""

Place = tuple[Location, Tables]
"""Where a set of tables is, and its definitions."""


@cache
def _fences(schema: str) -> Table:
    """The fences of a schema, named in full: an exchange has to do with those of two."""
    return Table(
        "eventmig_fences",
        MetaData(schema=schema),
        Column("namespace", String(255), primary_key=True),
        Column("closed", Boolean, nullable=False),
        Column("job_id", String(36), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    )


_FUNCTION = sql.SQL("""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
    LANGUAGE plpgsql AS $$
    DECLARE theirs text;
    BEGIN
        IF current_setting('eventmig.passes', true) = 'on' THEN RETURN NEW; END IF;
        EXECUTE format('SELECT release FROM %s WHERE stream_id = $1', TG_ARGV[0])
            INTO theirs USING NEW.stream_id;
        IF theirs IS NOT DISTINCT FROM nullif(TG_ARGV[1], '') THEN
            RAISE EXCEPTION 'eventmig: applications may not append here now'
                USING ERRCODE = '{refused}';
        END IF;
        RETURN NEW;
    END $$""")
_CREATE = sql.SQL("""CREATE TRIGGER {trigger} BEFORE INSERT ON {events} FOR EACH ROW
    EXECUTE FUNCTION {function}({streams}, {release})""")
_DROP = sql.SQL("DROP TRIGGER IF EXISTS {trigger} ON {events}")


def read_fence(connection: Connection, place: Place) -> Fence | None:
    """The row of a place, or None."""
    location, tables = place
    schema = str(tables.events.schema)
    fences = _fences(schema)
    if not inspect(connection).has_table(fences.name, schema=schema):
        return None
    ours = fences.c.namespace == location.namespace
    row = connection.execute(select(fences).where(ours)).first()
    return None if row is None else Fence(row.closed, row.job_id, row.epoch, row.at)


def set_fence(
    connection: Connection,
    place: Place,
    *,
    closed: bool,
    job_id: str,
    epoch: int,
    wait_s: float,
) -> None:
    """`Fencing.set_fence`, within a transaction that holds nothing else."""
    location, tables = place
    fences = _fences(str(tables.events.schema))
    fences.metadata.create_all(connection)
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    patience = f"{max(1, round(wait_s * 1e3))}ms"
    driver.execute("SELECT set_config('lock_timeout', %(ms)s, true)", {"ms": patience})
    try:
        # The lock first: two holders come one after the other, and the row is read under it.
        events = sql.Identifier(*_names(tables.events.schema, str(tables.events.name)))
        driver.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(events))
    except psycopg.errors.LockNotAvailable as error:
        raise CrossingError(
            f"transactions that append were still open after {wait_s:g} s",
            where=Where(store=location.url),
            remedy="end what keeps them open (pg_stat_activity shows it), then run it again",
        ) from error
    before = read_fence(connection, place)
    if before is not None and before.job_id != job_id and before.closed:
        raise CrossingError(
            f"this side is closed by another job ({before.job_id})",
            where=Where(store=location.url),
            remedy="end that job first: `eventmig complete` or `eventmig reverse`",
        )
    if before is not None and before.job_id == job_id and before.epoch > epoch:
        raise _lost(location)
    connection.execute(delete(fences).where(fences.c.namespace == location.namespace))
    connection.execute(
        insert(fences).values(
            namespace=location.namespace,
            closed=closed,
            job_id=job_id,
            epoch=epoch,
            at=time.time_ns() // 1_000,
        )
    )
    drop_trigger(driver, place)
    if closed:
        _put_trigger(driver, place)


def check_fence(connection: Connection, place: Place, *, job_id: str, epoch: int) -> None:
    """`Fencing.check_fence`."""
    fence = read_fence(connection, place)
    if fence is None or not fence.closed or (fence.job_id, fence.epoch) != (job_id, epoch):
        raise _lost(place[0])


def pass_fence(connection: Connection) -> None:
    """Let this transaction append though the fence is closed."""
    connection.exec_driver_sql("SELECT set_config('eventmig.passes', 'on', true)")


def move_fences(connection: Connection, first: Place, second: Place) -> None:
    """Give two places each other's rows and triggers, which `drop_trigger` took off before."""
    before = read_fence(connection, first), read_fence(connection, second)
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    for place, fence, theirs in zip((second, first), before, before[::-1], strict=True):
        location, tables = place
        fences = _fences(str(tables.events.schema))
        if theirs is not None:
            connection.execute(delete(fences).where(fences.c.namespace == location.namespace))
        if fence is not None:
            fences.metadata.create_all(connection)
            moved = {"namespace": location.namespace, **fence._asdict()}
            connection.execute(insert(fences).values(moved))
            if fence.closed:
                _put_trigger(driver, place)


def drop_trigger(driver: psycopg.Connection, place: Place) -> None:
    """Take the trigger away, whatever the row says."""
    driver.execute(_DROP.format(**_parts(*place)))


def _put_trigger(driver: psycopg.Connection, place: Place) -> None:
    parts = _parts(*place)
    driver.execute(_FUNCTION.format(**parts))
    driver.execute(_CREATE.format(**parts))


def drop_events(connection: Connection, place: Place) -> int:
    """Drop a store's tables, or, where others share them, delete its own streams."""
    location, tables = place
    streams, events = tables.streams, tables.events
    drop_trigger(cast(psycopg.Connection, connection.connection.driver_connection), place)
    if read_fence(connection, place) is not None:  # who makes tables here next has another
        fences = _fences(str(events.schema))
        connection.execute(delete(fences).where(fences.c.namespace == location.namespace))
    ours = streams.c.release.is_not_distinct_from(location.release)
    mine = select(streams.c.stream_id).where(ours)
    theirs = select(events.c.global_position).where(events.c.stream_id.in_(mine))
    count = connection.execute(select(func.count()).select_from(theirs.subquery())).scalar_one()
    if connection.execute(select(streams.c.stream_id).where(~ours).limit(1)).first() is None:
        tables.metadata.drop_all(connection)
        return int(count)
    connection.execute(delete(tables.origins).where(tables.origins.c.global_position.in_(theirs)))
    connection.execute(delete(events).where(events.c.stream_id.in_(mine)))
    return int(count)


def _lost(location: Location) -> JobLostError:
    return JobLostError(
        "another process took the job over and set the fence",
        where=Where(store=location.url),
        remedy="let that one finish (`eventmig status` shows it)",
    )


def _names(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]


def _parts(location: Location, tables: Tables) -> dict[str, sql.Composable]:
    schema, events, streams = tables.events.schema, str(tables.events.name), tables.streams.name
    name = f"eventmig_fence@{location.release or ''}"
    return {
        "trigger": sql.Identifier(name),
        "events": sql.Identifier(*_names(schema, events)),
        "function": sql.Identifier(*_names(schema, "eventmig_fence")),
        "streams": sql.Literal(sql.Identifier(*_names(schema, str(streams))).as_string()),
        "release": sql.Literal(location.release or ""),
        "refused": sql.SQL(REFUSED),
    }
