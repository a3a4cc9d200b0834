"""The fence of a SQLite store, and tables that change names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventmig.errors import ConflictError, CrossingError, FencedError, JobLostError
from eventmig.events import NewEvent
from eventmig.stores.base import ANY
from eventmig.stores.crossing import Exchanging, Fencing
from eventmig.stores.open import open_store
from eventmig.stores.sqlite.store import SqliteStore
from tests.acceptance.support import event, fill, read, sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    fill(tmp_path / "x.db", [event("s-1", "A", {}), event("s-2", "A", {})])
    return tmp_path / "x.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = open_store(f"sqlite:///{path}", mode="write")
    assert isinstance(opened, SqliteStore)
    assert isinstance(opened, Fencing)
    assert isinstance(opened, Exchanging)
    yield opened
    opened.close()


def close(store: SqliteStore, job: str = "job", epoch: int = 1, *, closed: bool = True) -> None:
    store.set_fence(closed=closed, job_id=job, epoch=epoch, wait_s=1)


def test_nobody_appends_behind_the_fence_but_a_job(path: Path, store: SqliteStore) -> None:
    assert store.fence() is None
    close(store)
    close(store)
    with pytest.raises(FencedError, match="may not append here"):
        store.append("s-1", [NewEvent("A", b"{}")], expected=ANY)
    with pytest.raises(sqlite3.IntegrityError, match="eventmig: applications may not append"):
        sql(path, "INSERT INTO events SELECT 9, 1, 9, 'x', 'A', 1, '{}', NULL, 1, NULL, NULL, NULL")
    with store.begin() as tx:
        store.pass_fence(tx)
        tx.append_copied([event("s-1", "A", {})._replace(stream_position=2)])
    with pytest.raises(FencedError):
        store.append("s-1", [NewEvent("A", b"{}")], expected=ANY)
    close(store, closed=False)
    store.append("s-1", [NewEvent("A", b"{}")], expected=2)
    assert [e.stream_position for e in store.read_stream("s-1")] == [1, 2, 3]


def test_a_conflict_is_still_a_conflict(store: SqliteStore) -> None:
    close(store)
    close(store, closed=False)
    with pytest.raises(ConflictError):
        store.append("s-1", [NewEvent("A", b"{}")], expected=7)


def test_an_earlier_holder_sets_nothing(store: SqliteStore) -> None:
    close(store, epoch=2)
    for closed in (True, False):
        with pytest.raises(JobLostError):
            close(store, epoch=1, closed=closed)
    fence = store.fence()
    assert fence is not None
    assert (fence.closed, fence.epoch) == (True, 2)
    with store.begin() as tx:
        store.check_fence(tx, job_id="job", epoch=2)
        for job, epoch in (("job", 1), ("job", 3), ("other", 2)):
            with pytest.raises(JobLostError):
                store.check_fence(tx, job_id=job, epoch=epoch)


def test_what_another_job_closed_stays_closed(store: SqliteStore) -> None:
    close(store, "one", 5)
    with pytest.raises(CrossingError, match="closed by another job"):
        close(store, "two", 9, closed=False)
    close(store, "one", 5, closed=False)
    close(store, "two", 1)


def test_a_fence_shuts_one_release_only(path: Path) -> None:
    fill(path, [event("s-1-v2", "A", {})], "?release=2")
    old = open_store(f"sqlite:///{path}", mode="write")
    new = open_store(f"sqlite:///{path}?release=2", mode="write")
    assert isinstance(old, SqliteStore)
    assert isinstance(new, SqliteStore)
    with old, new:
        close(old)
        new.append("s-1-v2", [NewEvent("A", b"{}")], expected=ANY)
        close(new)
        close(old, closed=False)
        old.append("s-1", [NewEvent("A", b"{}")], expected=ANY)
        with pytest.raises(FencedError):
            new.append("s-1-v2", [NewEvent("A", b"{}")], expected=ANY)
        with old.begin() as tx:
            assert old.drop_all(tx) == 3
    assert read(path) == []
    assert len(read(path, "?release=2")) == 2


def test_tables_change_names_with_their_fences_and_indexes(path: Path) -> None:
    fill(path, [event("t-1", "B", {})], "?tables=v2_")
    plain, other = read(path), read(path, "?tables=v2_")
    application = open_store(f"sqlite:///{path}", mode="write")
    assert isinstance(application, SqliteStore)
    application.append("s-1", [NewEvent("A", b"{}", id="seen")], expected=ANY)
    plain = read(path)
    old = open_store(f"sqlite:///{path}", mode="write")
    new = open_store(f"sqlite:///{path}?tables=v2_", mode="write")
    assert isinstance(old, SqliteStore)
    assert isinstance(new, SqliteStore)
    with application, old, new:
        assert old.can_exchange(new)
        assert not old.can_exchange(old)
        close(old)
        with new.begin() as tx:
            new.exchange(tx, old, wait_s=1)
        # The application goes on, on the same connection, and finds the other history.
        application.append("t-1", [NewEvent("B", b"{}", id="after")], expected=1)
        with pytest.raises(ConflictError):
            application.append("s-1", [NewEvent("A", b"{}")], expected=1)
    assert read(path)[:1] == other
    assert read(path, "?tables=v2_") == plain
    with open_store(f"sqlite:///{path}?tables=v2_", mode="write") as old:  # type: ignore[attr-defined]
        with pytest.raises(FencedError):
            old.append("s-1", [NewEvent("A", b"{}")], expected=ANY)
        with old.begin() as tx:
            assert old.drop_all(tx) == len(plain)
    # The next target takes the names that are free again.
    fill(path, [event("u-1", "C", {})], "?tables=v2_")
    with open_store(f"sqlite:///{path}", mode="write") as live:  # type: ignore[attr-defined]
        live.append("t-1", [NewEvent("B", b"{}")], expected=2)
        assert not list(live.preflight())
