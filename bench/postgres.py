"""The same copies in PostgreSQL: the job, `INSERT … SELECT` by the server, the peer library.

The server is of the tests' package, with the durability it has by default (`fsync` on), or
the one that EVENTMIG_TEST_POSTGRES names. All stores of one place are schemas of one
database; the peer library's are databases of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from bench import content, ours, peer
from bench.history import BATCH_SIZE
from bench.workspace import Workspace, url_of
from eventmig import commands
from eventmig.migrate.pushdown import Pushdown
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.open import open_store

Result = dict[str, Any]

PEERS_BATCH = 100
"""Events in one insert of the peer library: its pipeline does not return from 1,000 here."""

HISTORY, RAW, TARGET = "history", "raw", "target"
_COPY_STREAMS = "INSERT INTO {target} OVERRIDING SYSTEM VALUE SELECT * FROM {source}"
_COPY_EVENTS = """
    INSERT INTO {target}
    SELECT global_position, stream_id, stream_position, recorded_at, NULL, stream_position, 0,
           schema_version, event_id, type, data, metadata
    FROM {source} WHERE global_position > %s AND global_position <= %s
    ORDER BY global_position"""


def pg_prepare(work: Workspace, *, url: str) -> Result:
    """Write the history of the SQLite store into PostgreSQL."""
    with _made(url, HISTORY) as target, open_store(url_of(work.source), mode="read") as source:
        _fill(source, target)
        return {"events": target.count(), "content": lambda: _data(url, HISTORY, "pg source")}


def _fill(source: EventReader, target: JobTarget) -> None:
    with target.begin() as tx:
        tx.defer_indexes()
    for batch in source.read_all():
        with target.begin() as tx:
            tx.append_copied(batch)
    with target.begin() as tx:
        tx.build_indexes()


def pg_raw_copy(work: Workspace, *, url: str, deferred: bool) -> Result:
    """Copy every event with the server's own means, a commit per batch, on one connection.

    `deferred`: unique indexes are built at the end, as the job does.
    """
    with _made(url, RAW) as store, psycopg.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        if deferred:
            with store.begin() as tx:
                tx.defer_indexes()

        def run(statement: str, table: str, *values: int) -> None:
            names = {n: sql.Identifier(s, table) for n, s in (("source", HISTORY), ("target", RAW))}
            connection.execute(sql.SQL(statement).format(**names), values or None)

        with open_store(_at(url, HISTORY)) as source:
            last = source.head_position()
        run(_COPY_STREAMS, "streams")
        for after in range(0, last, BATCH_SIZE):
            run(_COPY_EVENTS, "events", after, after + BATCH_SIZE)
        with store.begin() as tx:
            tx.build_indexes()
        connection.execute("SELECT setval(%s, %s)", [f"{RAW}.events_position", last])
        seconds = time.perf_counter() - began
    return {"events": last, "seconds": seconds, "content": lambda: _data(url, RAW, "pg source")}


def pg_upcast(work: Workspace, *, url: str, workers: int) -> Result:
    """The job from schema to schema, through Python (`pushdown` has it inside the database)."""
    _drop(url, TARGET)
    watch = ours.Watch()
    began = time.perf_counter()
    commands.upcast(
        work.project(),
        source=_at(url, HISTORY),
        target=_at(url, TARGET),
        workers=workers,
        batch_size=BATCH_SIZE,
        verify=False,
        pushdown=Pushdown.NEVER,
        on_progress=watch,
    )
    return {
        "seconds": time.perf_counter() - began,
        "phases": watch.seconds,
        "content": lambda: _data(url, TARGET, "pg data"),
    }


def pg_peer_prepare(work: Workspace, *, url: str) -> Result:
    """Write the history as the peer library stores it."""
    target = in_database(url, "peer_source")
    return {"events": peer.prepare(url_of(work.source), target, batch_size=PEERS_BATCH)}


def pg_peer_copy(work: Workspace, *, url: str) -> Result:
    """The peer library's copy from database to database."""
    source, target = in_database(url, "peer_source", anew=False), in_database(url, "peer_target")
    began = time.perf_counter()
    events = peer.copy(source, target, batch_size=PEERS_BATCH)
    return {
        "events": events,
        "seconds": time.perf_counter() - began,
        "content": lambda: {"pg data": content.data_of_peer(target)},
    }


@contextmanager
def _made(url: str, schema: str) -> Iterator[JobTarget]:
    _drop(url, schema)
    store = open_store(_at(url, schema), mode="create")
    assert isinstance(store, JobTarget)
    try:
        yield store
    finally:
        store.close()


def _at(url: str, schema: str) -> str:
    return make_url(url).update_query_dict({"schema": schema}).render_as_string(hide_password=False)


def _drop(url: str, schema: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
        )
        connection.execute("CHECKPOINT")  # what was written before is not this step's to write


def _data(url: str, schema: str, kind: str) -> dict[str, str]:
    return {kind: content.data_at(_at(url, schema))}


def in_database(url: str, name: str, *, anew: bool = True) -> peer.Settings:
    """An application of the peer library in a database of its own, which is made `anew`."""
    if anew:
        database = sql.Identifier(name)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    parsed = make_url(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": name,
        "POSTGRES_HOST": parsed.host or str(parsed.query["host"]),
        "POSTGRES_PORT": str(parsed.port or 5432),
        "POSTGRES_USER": parsed.username or "",
        "POSTGRES_PASSWORD": parsed.password or "",
    }
