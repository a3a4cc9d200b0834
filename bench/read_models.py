"""Read models and snapshots beside other ways to have them: on SQLite, and in PostgreSQL.

On PostgreSQL one server for the step (that of the tests: `EVENTMIG_TEST_POSTGRES` names
another) holds the current events, the history, and the read models of all.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from bench import history
from bench.domain import activity_per_customer, registry
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
_UPSERT = """
    INSERT INTO activity (customer_id, events, cents) VALUES (?, 1, ?)
    ON CONFLICT DO UPDATE SET events = events + 1, cents = cents + excluded.cents"""


def only_read(source: Path) -> int:
    """Read every event's type and data, and do nothing with it; returns how many."""
    with open_store(url_of(source), mode="read") as store:
        return sum(map(len, store.read_data()))


def rebuild(work: Workspace, name: str, source: Path, target: Path) -> int:
    """Rebuild one read model or aggregate; returns how many events were read."""
    report = commands.rebuild(
        work.project(), [name], source=url_of(source), read_models=url_of(target), workers=1
    )
    return sum(result.events_read for result in report.results)


def log_reader(notifications: Callable[[], Any], mapper: Any, target: Path) -> int:
    """The read model as a reader of the library's log makes it: a transaction per batch."""
    connection = sqlite3.connect(target, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"CREATE TABLE activity {_TABLE}")
    count = 0
    for batch in notifications():
        connection.execute("BEGIN IMMEDIATE")
        for notification in batch:
            event = mapper.to_domain_event(notification)
            cents = getattr(event, "total_cents", None) or getattr(event, "amount_cents", 0)
            connection.execute(_UPSERT, (event.customer_id, cents))
        connection.execute("COMMIT")
        count += len(batch)
    connection.close()
    return count


def in_postgres(
    work: Workspace, *, events: int, streams: int, rounds: int
) -> list[dict[str, float]]:
    """How long each way took on PostgreSQL, in seconds, round by round, by its name."""
    with running_server() as server, server.database() as url:
        history.write(f"{url}&schema=old", events, streams)
        _write_current(f"{url}&schema=current", events, streams)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE by_sql {_TABLE}")
            connection.execute("VACUUM ANALYZE")
        found = []
        for _ in range(rounds):
            times = {"GROUP BY": _timed(partial(_group_by, url))}
            for label, schema, workers in IN_POSTGRES:
                times[label] = _timed(partial(_rebuild, work, url, schema, workers))
            found.append(times)
    return found


IN_POSTGRES = (
    ("no upcasting, 1 process", "current", 1),
    ("no upcasting, 2 processes", "current", 2),
    ("upcasting, 1 process", "old", 1),
    ("upcasting, 2 processes", "old", 2),
)
"""Label, schema of the events, processes."""


def _write_current(url: str, events: int, streams: int) -> None:
    with open_store(url, mode="create") as store:
        for batch in history.batches(events, streams):
            with store.begin() as tx:
                tx.append_copied(registry.upcast_batch(batch))


def _rebuild(work: Workspace, url: str, schema: str, workers: int) -> None:
    commands.rebuild(
        work.project(),
        [activity_per_customer.name],
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
