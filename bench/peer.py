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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import read_models
from eventmig.stores.open import open_store

PREFIX = "order-"  # what stands before the UUID in a stream's name
OTHERS = ("metadata", "timestamp")

Settings = Mapping[str, str]
"""Where an application of the library keeps its events, as its environment says it."""


def installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec("eventsourcing") is not None


def in_file(path: Path) -> Settings:
    """An application on SQLite."""
    return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}


def prepare(source_url: str, target: Settings, *, batch_size: int = 5_000) -> int:
    """Write the history of a store as the library stores it; returns how many events."""
    topic = importlib.import_module("eventsourcing.utils").get_topic
    stored_event = importlib.import_module("eventsourcing.persistence").StoredEvent
    classes = importlib.import_module("bench.peer_events").CLASSES
    application = _application(target)
    topics = {name: topic(cls) for name, cls in classes.items()}
    count = 0
    with open_store(source_url, mode="read") as source:
        for batch in source.read_all(batch_size=batch_size):
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
    """The read model as a reader of the application's log makes it; returns how many events."""
    application = _application(source)
    try:
        return read_models.log_reader(
            lambda: _notifications(application, batch_size), application.mapper, target
        )
    finally:
        application.close()


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
