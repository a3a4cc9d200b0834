"""Events of a SQLite store counted while they are read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventmig.errors import StoreError
from eventmig.events import NewEvent
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
from eventmig.stores.sqlite.counting import counting
from eventmig.stores.sqlite.read import SqliteReader

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[SqliteReader]:
    store = open_store(f"sqlite:///{tmp_path / 'events of 2026.db'}", mode="create")
    store.append("s", [NewEvent("T" if n % 3 else "U", b"{}") for n in range(90)], expected=ANY)
    assert isinstance(store, SqliteReader)
    yield store
    store.close()


def test_events_are_counted_while_they_are_read(reader: SqliteReader) -> None:
    with reader.counting(until=60, types=["T"]) as count:
        assert sum(map(len, reader.read_data(batch_size=7))) == 90
        assert (count.wait(), count.there(), count.wait()) == (40, True, 40)
    with reader.counting(until=90, types=["other"]) as count:
        assert count.wait() == 0
    with reader.counting(until=90, types=None) as count:
        assert count.wait() == 90


def test_a_count_that_nobody_waits_for_is_given_up() -> None:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    before = threading.active_count()

    def endless() -> int:
        return int(connection.execute(ENDLESS).fetchone()[0])

    with counting(endless, connection.interrupt) as count:
        assert not count.there()
    assert threading.active_count() == before
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        count.wait()
    connection.close()


def test_a_file_that_is_gone_is_told_to_who_waits(reader: SqliteReader) -> None:
    reader.location.path.unlink()
    with reader.counting(until=90, types=None) as count, pytest.raises(StoreError):
        count.wait()
    assert sum(map(len, reader.read_data())) == 90
