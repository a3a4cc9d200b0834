"""Batches inside PostgreSQL beside `INSERT … SELECT` of the same rows on one connection.

One server for the step (that of the tests: `EVENTMIG_TEST_POSTGRES` names another), one
schema with the history, a fresh schema for each run. The job is as a user runs it but for
its verification: it upcasts, validates, accounts and keeps checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from bench import history
from bench.ours import Watch
from bench.workspace import Workspace
from eventmig import commands
from eventmig.stores.open import open_store
from tests import postgres

ONE, TWO, PYTHON = "1 connection", "2 connections", "through Python"
RUNS = {ONE: (commands.Pushdown.ALWAYS, 1), TWO: (commands.Pushdown.ALWAYS, 2)} | {
    PYTHON: (commands.Pushdown.NEVER, 1)
}
AFTER, ON = "INSERT … SELECT, indexes after", "INSERT … SELECT, indexes on"

_STREAMS = "INSERT INTO target.streams (stream_id, name) SELECT stream_id, name FROM source.streams"
_EVENTS = """INSERT INTO target.events (global_position, stream_id, stream_position, recorded_at,
        origin_stream, origin_position, origin_ordinal, schema_version, event_id, type, data,
        metadata)
    SELECT global_position, stream_id, stream_position, recorded_at, NULL, stream_position, 0,
        schema_version, event_id, type, data, metadata
    FROM source.events WHERE global_position > %s AND global_position <= %s
    ORDER BY global_position"""


def seconds(work: Workspace, *, events: int, streams: int, rounds: int) -> list[dict[str, float]]:
    """How long each way took, round by round, by its name; the check before a job left out."""
    with running_server() as server, server.database() as url:
        source = f"{url}&schema=source"
        history.write(source, events, streams)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE source.events, source.streams")
        found = []
        for _ in range(rounds):
            times = {name: _plain(url, events, deferred=name == AFTER) for name in (AFTER, ON)}
            for name, (mode, workers) in RUNS.items():
                times[name] = _job(work, url, source, mode, workers)
            found.append(times)
    return found


@contextmanager
def running_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server for the length of a block."""
    server = postgres.start()
    try:
        yield server
    finally:
        if isinstance(server, postgres.OwnServer):
            server.remove()


def _job(work: Workspace, url: str, source: str, mode: commands.Pushdown, workers: int) -> float:
    _drop(url)
    watch = Watch()
    report = commands.upcast(
        work.project(),
        source=source,
        target=f"{url}&schema=target",
        workers=workers,
        batch_size=history.BATCH_SIZE,
        pushdown=mode,
        verify=False,
        on_progress=watch,
    )
    assert report.pushed is not None
    assert not report.pushed.through_python
    return watch.seconds["copying"] + watch.seconds["indexing"]


def _plain(url: str, events: int, *, deferred: bool) -> float:
    _drop(url)
    with (
        open_store(f"{url}&schema=target", mode="create") as store,
        psycopg.connect(url) as connection,
    ):
        if deferred:
            with store.begin() as tx:
                tx.defer_indexes()
        began = time.perf_counter()
        connection.execute(_STREAMS)
        for after in range(0, events, history.BATCH_SIZE):
            connection.execute(_EVENTS, (after, after + history.BATCH_SIZE))
            connection.commit()
        with store.begin() as tx:
            tx.build_indexes()
        return time.perf_counter() - began


def _drop(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS target CASCADE"))
