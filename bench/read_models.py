"""Read models and snapshots beside other ways to have them: on SQLite, and in PostgreSQL.

On PostgreSQL one server for the step (that of the tests: `EVENTMIG_TEST_POSTGRES` names
another) holds the current events, the history, and the read models of all.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg

from bench import history, peer, postgres
from bench.domain import activity_per_customer, registry
from bench.measure import GROUP_BY, IN_POSTGRES, PEER, READ
from bench.pushdown import running_server
from bench.workspace import Workspace, url_of
from eventmig import commands
from eventmig.stores.open import open_store

_GROUP_BY = """
    INSERT INTO by_sql SELECT data ->> 'customer_id', count(*), sum(CASE type
        WHEN 'OrderPlaced' THEN (data ->> 'total_cents')::bigint
        WHEN 'PaymentReceived' THEN (data ->> 'amount_cents')::bigint ELSE 0 END)
    FROM current.events GROUP BY 1"""
_TABLE = "(customer_id varchar(36) PRIMARY KEY, events bigint NOT NULL, cents bigint NOT NULL)"


def only_read(source: str) -> int:
    """Read every event's type and data of the store behind a URL; returns how many."""
    with open_store(source, mode="read") as store:
        return sum(map(len, store.read_data()))


def rebuild(work: Workspace, name: str, source: Path, target: Path, *, workers: int) -> int:
    """Rebuild one read model or aggregate; returns how many events were read."""
    report = commands.rebuild(
        work.project(),
        [name],
        source=url_of(source),
        read_models=url_of(target),
        workers=workers,
    )
    return sum(result.events_read for result in report.results)


def in_postgres(
    work: Workspace, *, events: int, streams: int, rounds: int
) -> list[dict[str, float]]:
    """How long each way took on PostgreSQL, in seconds, round by round, by its name.

    The peer library's is measured with the first `PEERS_EVENTS`, and given for all.
    """
    with running_server() as server, server.database() as url:
        history.write(f"{url}&schema=old", events, streams)
        _write_current(f"{url}&schema=current", events, streams)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE by_sql {_TABLE}")
            connection.execute("VACUUM ANALYZE")
        found = []
        for _ in range(rounds):
            times = {GROUP_BY: _timed(partial(_group_by, url))}
            times[READ] = _timed(partial(only_read, f"{url}&schema=current"))
            for label, (schema, workers) in IN_POSTGRES.items():
                times[label] = _timed(partial(_rebuild, work, url, READ_MODEL, schema, workers))
            for label, name, schema, workers in OTHERS:
                times[label] = _timed(partial(_rebuild, work, url, name, schema, workers))
            if peer.installed():
                times[PEER] = _peer_seconds(url) * events / min(events, PEERS_EVENTS)
            found.append(times)
    return found


PEERS_EVENTS = 20_000

READ_MODEL = activity_per_customer.name
OTHERS = (
    ("no upcasting, handlers called, 1 process", "activity_by_calls", "current", 1),
    ("with joins (rows.get), 1 process", "purchases", "current", 1),
    ("snapshots, 1 process", "order", "current", 1),
    ("snapshots, 2 processes", "order", "current", 2),
    ("snapshots, upcasting, 1 process", "order", "old", 1),
    ("snapshots, upcasting, 2 processes", "order", "old", 2),
)
"""Label, read model or aggregate, schema of the events, processes."""


def _peer_seconds(url: str) -> float:
    source = postgres.in_database(url, "peer_source")
    count = peer.prepare(
        f"{url}&schema=old", source, batch_size=postgres.PEERS_BATCH, until=PEERS_EVENTS
    )
    projection = importlib.import_module("bench.peer_projection")
    took: float = projection.seconds(source, count)
    return took


def _write_current(url: str, events: int, streams: int) -> None:
    with open_store(url, mode="create") as store:
        for batch in history.batches(events, streams):
            with store.begin() as tx:
                tx.append_copied(registry.upcast_batch(batch))


def _rebuild(work: Workspace, url: str, name: str, schema: str, workers: int) -> None:
    commands.rebuild(
        work.project(),
        [name],
        source=f"{url}&schema={schema}",
        read_models=url,
        workers=workers,
    )


def _group_by(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("TRUNCATE by_sql")
        connection.execute(_GROUP_BY)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
