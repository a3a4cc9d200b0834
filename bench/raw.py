"""The references in plain SQL: `INSERT … SELECT` of the same rows, and one `GROUP BY`.

The copy writes the same tables as the job (the store makes them), the same columns
(origins included), in batches of the same size with a commit each, through a connection
with the same settings, and treats the unique indexes as the job does: off during the
load of a new target, built at its end.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bench.workspace import url_of
from eventmig.stores.open import open_store
from eventmig.stores.sqlite.file import Location, connect_writer

_COPY_STREAMS = "INSERT INTO streams SELECT * FROM source.streams"
_COPY_EVENTS = """
    INSERT INTO events
    SELECT global_position, stream_id, stream_position, event_id, type, schema_version, data,
           metadata, recorded_at, NULL, stream_position, 0
    FROM source.events WHERE global_position > ? AND global_position <= ?
    ORDER BY global_position"""

_GROUP_BY = """
    INSERT INTO activity_per_customer
    SELECT json_extract(data, '$.customer_id'), count(*),
           sum(CASE type
               WHEN 'OrderPlaced' THEN json_extract(data, '$.total_cents')
               WHEN 'PaymentReceived' THEN json_extract(data, '$.amount_cents')
               ELSE 0 END)
    FROM source.events GROUP BY 1"""


def copy(source: Path, target: Path, *, batch_size: int, deferred: bool) -> int:
    """Copy every event; returns how many. `deferred`: unique indexes are built at the end."""
    store = open_store(url_of(target), mode="create")
    try:
        if deferred:
            with store.begin() as tx:
                tx.defer_indexes()
        copied = _copy_rows(source, target, batch_size)
        with store.begin() as tx:
            tx.build_indexes()
    finally:
        store.close()
    return copied


def _copy_rows(source: Path, target: Path, batch_size: int) -> int:
    connection = _attached(target, source)
    try:
        (last,) = connection.execute("SELECT max(global_position) FROM source.events").fetchone()
        for after in range(0, last, batch_size):
            connection.execute("BEGIN IMMEDIATE")
            if not after:
                connection.execute(_COPY_STREAMS)
            connection.execute(_COPY_EVENTS, (after, after + batch_size))
            connection.execute("COMMIT")
    finally:
        connection.close()
    return int(last)


def group_by(source: Path, target: Path) -> int:
    """The read model as one statement over current events; returns how many rows it made."""
    target.touch()
    connection = _attached(target, source)
    try:
        connection.execute(
            "CREATE TABLE activity_per_customer (customer_id VARCHAR(36) NOT NULL PRIMARY KEY, "
            "events INTEGER NOT NULL, cents BIGINT NOT NULL)"
        )
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(_GROUP_BY).rowcount
        connection.execute("COMMIT")
    finally:
        connection.close()
    return rows


def _attached(target: Path, source: Path) -> sqlite3.Connection:
    """A connection as the store itself writes with, and the source beside it, to be read."""
    connection = connect_writer(Location(url=url_of(target), path=target), create=True)
    connection.execute("ATTACH ? AS source", (f"{source.resolve().as_uri()}?mode=ro",))
    return connection
