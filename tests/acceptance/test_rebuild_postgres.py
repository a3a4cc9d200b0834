"""Read models rebuilt and followed beside a live PostgreSQL store, and through its faults."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import history
from bench.domain import activity, activity_per_customer, registry
from eventmig import commands
from eventmig.config import Config
from eventmig.errors import StoreError
from eventmig.events import NewEvent
from eventmig.fold_workers import FoldProcesses
from eventmig.project import Project, opened, sql_engine
from eventmig.rebuild import (
    Phase,
    RebuildProgress,
    batching,
    building,
    following,
    sharing,
    side_by_side,
    summing,
    swapping,
)
from eventmig.rebuild.interleaving import contents
from eventmig.release import Lock
from eventmig.stores.base import ANY, all_events
from eventmig.stores.open import open_store
from eventmig.stores.postgres import summed
from tests.postgres import OwnServer
from tests.unit.rebuild_helpers import rows_of

ROOT = Path(__file__).resolve().parents[2]
NAME = activity_per_customer.name


def project(source: str) -> Project:
    content = {
        "folder": ROOT,
        "registry": "bench.domain:registry",
        "projections": "bench.domain:projections",
        "source": source,
    }
    return Project(Config.model_validate(content), given_lock=Lock())


def live_rows(url: str) -> list[tuple[object, ...]]:
    with sql_engine(url) as engine:
        return rows_of(engine, activity)


def right_rows(url: str) -> list[tuple[object, ...]]:
    """What one event at a time comes to, of all that the store holds."""
    with opened(url) as store:
        events = registry.upcast_batch([*all_events(store.read_all())])
    found = contents(activity_per_customer, events)
    return sorted((*key, *values) for (_, key), values in found.items())


@pytest.fixture
def source(postgres_url: str) -> str:
    history.write(postgres_url, events=1_500, streams=60)
    return postgres_url


class Writers:
    """An application: threads that append, some of which take their time to commit."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events = [
            NewEvent(type=e.type, schema_version=e.schema_version, data=e.data)
            for batch in history.batches(200, 10)
            for e in batch
        ]
        self.ended = threading.Event()
        self.written = 0
        self.threads = [threading.Thread(target=self._write, args=(n,)) for n in range(3)]

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def _write(self, number: int) -> None:
        rng = random.Random(number)
        store: Any = open_store(self.url, mode="write")
        try:
            while not self.ended.is_set():
                events = rng.sample(self.events, rng.randint(1, 4))
                store.append(f"order-{number}-{rng.randrange(5)}", events, expected=ANY)
                self.written += len(events)
        finally:
            store.close()


def test_rows_are_those_of_one_event_at_a_time(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    report = commands.rebuild(project(source), [NAME], workers=2)
    assert [result.events_read for result in report.results] == [1_500]
    assert live_rows(source) == right_rows(source)


@pytest.mark.parametrize(
    ("upcast", "cores", "helped"), [(True, 2, True), (False, 3, False), (False, 4, True)]
)
def test_another_process_is_asked_where_it_is_of_use(
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    upcast: bool,
    cores: int,
    helped: bool,
) -> None:
    """Not where the server beside it has as much to do, and both share too few cores."""
    with open_store(postgres_url, mode="create") as store, store.begin() as tx:
        for batch in history.batches(200, 10):
            tx.append_copied(batch if upcast else registry.upcast_batch(batch))
    asked = []
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    monkeypatch.setattr(building, "sums_of", lambda *_, **__: None)  # it would leave nothing to do
    monkeypatch.setattr(side_by_side, "_cores", lambda: cores)
    monkeypatch.setattr(FoldProcesses, "ready", lambda _, helper: asked.append(helper))
    commands.rebuild(project(postgres_url), [NAME], workers=2)
    assert live_rows(postgres_url) == right_rows(postgres_url)
    assert bool(asked) == helped


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("old", [0, 100])
def test_the_server_sums_what_needs_no_upcasting(
    postgres_url: str, workers: int, old: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_current(postgres_url, old)
    _sum_a_few_at_a_time(monkeypatch)
    (result,) = commands.rebuild(project(postgres_url), [NAME], workers=workers).results
    assert result.events_read == 500
    assert result.events_summed > 350 if old else result.events_summed == 500
    assert live_rows(postgres_url) == right_rows(postgres_url)
    assert commands.diff_read_models(project(postgres_url), [NAME]).equal


def _write_current(url: str, old: int) -> None:
    """500 events: the first so many of the first release, the others of the last."""
    events = [event for batch in history.batches(500, 20) for event in batch]
    with open_store(url, mode="create") as store, store.begin() as tx:
        tx.append_copied([*events[:old], *registry.upcast_batch(events[old:])])


def _sum_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    for module, name, size in (
        (summing, "_FIRST", 50),
        (summing, "_LAST", 20),
        (summed, "_FIRST", 20),
        (summed, "_GROWTH", 1),
        (batching, "_SECONDS", 0.0),
    ):
        monkeypatch.setattr(module, name, size)


def test_no_event_is_lost_or_counted_twice_while_it_is_written_rebuilt_and_followed(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PAUSE", 0.01)
    commands.rebuild(project(source), [NAME])
    end = threading.Event()

    def follow() -> None:  # where it raises, rows are missing at the end, and pytest shows why
        commands.follow(project(source), [NAME], stop=end.is_set)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        with Writers(source) as writers:
            for _ in range(3):
                commands.rebuild(project(source), [NAME])
                commands.diff_read_models(project(source), [NAME])
                commands.rollback(project(source), [NAME])
        assert writers.written > 0
        wanted = right_rows(source)
        until = time.monotonic() + 60
        while live_rows(source) != wanted and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        end.set()
        follower.join()
    assert live_rows(source) == wanted
    assert commands.diff_read_models(project(source), [NAME]).equal


# --- faults


@pytest.fixture
def server(own_postgres_server: OwnServer) -> Iterator[OwnServer]:
    yield own_postgres_server
    own_postgres_server.stop_hard()
    own_postgres_server.start()


@pytest.mark.parametrize("phase", [Phase.REPLAYING, Phase.CHECKING, Phase.CATCHING_UP])
def test_a_server_that_is_gone_for_a_while_does_no_harm(server: OwnServer, phase: Phase) -> None:
    with server.database() as url:
        history.write(url, events=300, streams=20)
        commands.rebuild(project(url), [NAME])
        store: Any = open_store(url, mode="write")
        first = next(all_events(store.read_all()))
        before = live_rows(url)

        def crash(progress: RebuildProgress) -> None:
            if progress.phase is Phase.CHECKING and phase is Phase.CATCHING_UP:
                event = NewEvent(type=first.type, schema_version=1, data=first.data)
                store.append("order-more", [event], expected=ANY)
                store.close()
            if progress.phase is phase:
                server.stop_hard()

        with pytest.raises(StoreError):
            commands.rebuild(project(url), [NAME], on_progress=crash)
        server.start()
        assert live_rows(url) == before
        store.close()
        (result,) = commands.rebuild(project(url), [NAME]).results
        assert result.resumed
        assert live_rows(url) == right_rows(url)


def test_a_server_that_is_gone_while_it_sums_does_no_harm(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sum_a_few_at_a_time(monkeypatch)

    def crash(progress: RebuildProgress) -> None:
        if progress.events_read > 100:
            server.stop_hard()

    with server.database() as url:
        _write_current(url, old=0)
        with pytest.raises(StoreError):
            commands.rebuild(project(url), [NAME], workers=2, on_progress=crash)
        server.start()
        (result,) = commands.rebuild(project(url), [NAME], workers=2).results
        assert result.resumed
        assert 0 < result.events_summed < 400
        assert live_rows(url) == right_rows(url)


def test_a_server_that_is_gone_in_the_swap_leaves_the_old_rows(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.database() as url:
        history.write(url, events=300, streams=20)
        commands.rebuild(project(url), [NAME])
        before = live_rows(url)
        publish = swapping.swap.publish

        def crash(*arguments: Any) -> None:
            publish(*arguments)
            server.stop_hard()

        with monkeypatch.context() as patch:
            patch.setattr(swapping.swap, "publish", crash)
            with pytest.raises(StoreError, match="cannot be reached"):
                commands.rebuild(project(url), [NAME])
        server.start()
        assert live_rows(url) == before
        (result,) = commands.rebuild(project(url), [NAME]).results
        assert result.resumed
        assert live_rows(url) == right_rows(url)
