"""The same copy with the PyPI library `eventsourcing`: its recorders, its mapper, its upcasting.

Notifications are selected from one application's recorder, in batches of the same size;
each becomes a domain event through the application's mapper, which upcasts it; the other
application's mapper makes stored events of them, and its recorder inserts the batch in
one transaction. It checks no model, counts nothing and keeps no checkpoint.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from eventmig.stores.open import open_store

PREFIX = "order-"  # what stands before the UUID in a stream's name
OTHERS = ("metadata", "timestamp")

_TABLE = """
    CREATE TABLE activity (
        customer_id varchar(36) PRIMARY KEY, events bigint NOT NULL, cents bigint NOT NULL)"""
_UPSERT = """
    INSERT INTO activity (customer_id, events, cents) VALUES (?, 1, ?)
    ON CONFLICT DO UPDATE SET events = events + 1, cents = cents + excluded.cents"""

Settings = Mapping[str, str]
"""Where an application of the library keeps its events, as its environment says it."""


def installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec("eventsourcing") is not None


def in_file(path: Path) -> Settings:
    """An application on SQLite."""
    return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}


def prepare(
    source_url: str, target: Settings, *, batch_size: int = 5_000, until: int | None = None
) -> int:
    """Write the history of a store (up to a global position) as the library stores it.

    Returns how many events that are.
    """
    topic = importlib.import_module("eventsourcing.utils").get_topic
    stored_event = importlib.import_module("eventsourcing.persistence").StoredEvent
    classes = importlib.import_module("bench.peer_events").CLASSES
    application = _application(target)
    topics = {name: topic(cls) for name, cls in classes.items()}
    count = 0
    with open_store(source_url, mode="read") as source:
        for batch in source.read_all(until=until, batch_size=batch_size):
            application.recorder.insert_events(
                [
                    stored_event(
                        originator_id=UUID(event.stream.removeprefix(PREFIX)),
                        originator_version=event.stream_position,
                        topic=topics[event.type],
                        state=_state(event.data, event.metadata, event.recorded_time.isoformat()),
                    )
                    for event in batch
                ]
            )
            count += len(batch)
    application.close()
    return count


def _state(data: bytes, metadata: bytes | None, time: str) -> bytes:
    state = json.loads(data) | {
        "metadata": json.loads(metadata or b"{}"),
        "timestamp": {"_type_": "datetime_iso", "_data_": time},
    }
    return json.dumps(state, separators=(",", ":"), ensure_ascii=False).encode()


def copy(source: Settings, target: Settings, *, batch_size: int) -> int:
    """Copy and upcast every event; returns how many."""
    old, new = _application(source), _application(target)
    count = 0
    for notifications in _notifications(old, batch_size):
        events = map(old.mapper.to_domain_event, notifications)
        new.recorder.insert_events(list(map(new.mapper.to_stored_event, events)))
        count += len(notifications)
    old.close()
    new.close()
    return count


def read_log(source: Settings, target: Path, *, batch_size: int) -> int:
    """The read model as a reader of the application's log makes it; returns how many events.

    `batch_size` 1: with the library's own reader, and a transaction per event, as its
    projections have. More: pages and transactions of so many events, which it does not offer.
    """
    application = _application(source)

    def one_by_one() -> Iterator[list[Any]]:
        reader = importlib.import_module("eventsourcing.system").NotificationLogReader
        for notification in reader(application.notification_log).read(start=1):
            yield [notification]

    batches = partial(_notifications, application, batch_size) if batch_size > 1 else one_by_one
    try:
        return _log_reader(batches, application.mapper, target)
    finally:
        application.close()


def _log_reader(notifications: Callable[[], Any], mapper: Any, target: Path) -> int:
    """The read model as a reader of the library's log makes it: a transaction per batch."""
    connection = sqlite3.connect(target, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(_TABLE)
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


def states(settings: Settings) -> Iterator[dict[str, Any]]:
    """The members of every event, in order, without what is not its data."""
    application = _application(settings)
    for notifications in _notifications(application, 5_000):
        for notification in notifications:
            state: dict[str, Any] = json.loads(notification.state)
            for name in (*OTHERS, "class_version"):
                state.pop(name, None)
            yield state
    application.close()


def _notifications(application: Any, batch_size: int) -> Iterator[list[Any]]:
    start = 1
    while found := application.recorder.select_notifications(start, batch_size):
        yield found
        start = found[-1].id + 1


def _application(settings: Settings) -> Any:
    return importlib.import_module("eventsourcing.application").Application(env=dict(settings))
