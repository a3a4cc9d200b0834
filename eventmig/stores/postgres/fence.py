"""The fence of a PostgreSQL store: a trigger that refuses every insert while it is there.

CREATE TRIGGER takes SHARE ROW EXCLUSIVE on the events (postgresql.org/docs, explicit locking),
which no transaction that inserted leaves to others before it ends: once the trigger is
committed, all who appended before have ended, and all who append later meet it.
"""

from __future__ import annotations

from typing import cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, delete, func, select

from eventmig.stores import fences
from eventmig.stores.crossing import Fence
from eventmig.stores.held_up import asking, locking
from eventmig.stores.postgres.location import Location
from eventmig.stores.postgres.schema import Tables

Place = tuple[Location, Tables]
"""Where a set of tables is, and its definitions."""

_FUNCTION = sql.SQL("""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
    LANGUAGE plpgsql AS $$
    DECLARE theirs text;
    BEGIN
        IF current_setting('eventmig.passes', true) = 'on' THEN RETURN NEW; END IF;
        EXECUTE format('SELECT release FROM %s WHERE stream_id = $1', TG_ARGV[0])
            INTO theirs USING NEW.stream_id;
        IF theirs IS NOT DISTINCT FROM nullif(TG_ARGV[1], '') THEN
            RAISE EXCEPTION USING MESSAGE = {refusal}, ERRCODE = {refused};
        END IF;
        RETURN NEW;
    END $$""")
_CREATE = sql.SQL("""CREATE TRIGGER {trigger} BEFORE INSERT ON {events} FOR EACH ROW
    EXECUTE FUNCTION {function}({streams}, {release})""")
_DROP = sql.SQL("DROP TRIGGER IF EXISTS {trigger} ON {events}")


def read_fence(connection: Connection, place: Place) -> Fence | None:
    """The row of a place, or None."""
    return fences.read(connection, *_row(place))


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
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    patience = f"{max(1, round(wait_s * 1e3))}ms"
    driver.execute("SELECT set_config('lock_timeout', %(ms)s, true)", {"ms": patience})
    try:
        # The lock first: two holders come one after the other, and the row is read under it.
        events = sql.Identifier(*_names(tables.events.schema, str(tables.events.name)))
        with connection.begin_nested():  # a savepoint: it is asked on, who has it
            driver.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(events))
    except psycopg.errors.LockNotAvailable as error:
        by = locking(asking(connection), [events.as_string()])
        raise fences.still_open(location.url, wait_s, by) from error
    fences.note(
        connection, *_row(place), url=location.url, closed=closed, job_id=job_id, epoch=epoch
    )
    drop_trigger(driver, place)
    if closed:
        _put_trigger(driver, place)


def check_fence(connection: Connection, place: Place, *, job_id: str, epoch: int) -> None:
    """`Fencing.check_fence`."""
    fences.check(connection, *_row(place), url=place[0].url, job_id=job_id, epoch=epoch)


def move_fences(connection: Connection, first: Place, second: Place) -> None:
    """Give two places each other's rows and triggers, which `drop_trigger` took off before."""
    before = read_fence(connection, first), read_fence(connection, second)
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    for place, fence, theirs in zip((second, first), before, before[::-1], strict=True):
        namespace, schema = _row(place)
        if fence is not None:
            fences.fences(schema).metadata.create_all(connection)
        if fence is not None or theirs is not None:
            fences.put(connection, namespace, fence, schema)
        if fence is not None and fence.closed:
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
    fences.forget(connection, *_row(place))  # who makes tables here next has another
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


def _row(place: Place) -> tuple[str, str]:
    """The namespace of a place's fence, and the schema its row is in."""
    location, tables = place
    return location.namespace, str(tables.events.schema)


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
        "refused": sql.Literal(fences.SQLSTATE),
        "refusal": sql.Literal(fences.REFUSAL),
    }
