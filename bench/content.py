"""What a copy holds, as one number: two copies that say the same have the same content."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from bench import peer
from bench.workspace import url_of
from eventmig import codec
from eventmig.events import Event
from eventmig.registry import Registry
from eventmig.stores.open import open_store


def of_store(path: Path, *, upcast: Registry | None = None) -> str:
    """Everything of every event but its origins, in order; upcast first, if asked for."""
    with open_store(url_of(path), mode="read") as store:
        batches = store.read_all()
        events = (e for b in batches for e in (upcast.upcast_batch(b) if upcast else b))
        return _digest(map(_essence, events))


def _essence(event: Event) -> bytes:
    return repr((*event[1:6], event.data, event.metadata, event.recorded_at)).encode()


def data_of_store(path: Path) -> str:
    """The data of every event, in order, whatever the order of its members."""
    return data_at(url_of(path))


def data_at(url: str) -> str:
    """The same of a store by its URL."""
    with open_store(url, mode="read") as store:
        return _digest(codec.canonical(codec.decode(e.data)) for b in store.read_all() for e in b)


def data_of_peer(settings: peer.Settings) -> str:
    """The same of what the peer library stored."""
    return _digest(map(codec.canonical, peer.states(settings)))


def of_table(path: Path, table: str) -> str:
    """Every row of a table, ordered."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    finally:
        connection.close()
    return _digest(repr(row).encode() for row in rows)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        digest.update(b"\n")
    return digest.hexdigest()[:16]
