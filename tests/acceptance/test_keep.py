"""What does not change is copied inside SQLite; the result is that of the way through Python."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import Registry, commands, data_upcaster, drop_event, ops, upcaster
from eventmig.errors import DuplicateIdError, UpcastError
from eventmig.events import Event
from eventmig.migrate import ledger
from eventmig.migrate.job import UpcastJob
from eventmig.migrate.setting import Setting
from eventmig.stores.open import open_store
from eventmig.stores.sqlite.keep import Keeper
from eventmig.stores.sqlite.store import SqliteStore
from eventmig.transform import Pipeline
from tests.acceptance.support import contents, event, fill, project, read, sql, url

METADATA = [None, b"{}", '{"é": "\u2028"}'.encode()]


def registry(*more: Any) -> Registry:
    return Registry(
        [
            upcaster("Opened", 1, ops.rename("name", "title")),
            upcaster("Opened", 2, ops.add("currency", "EUR")),
            *more,
        ]
    )


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each run copied inside SQLite."""
    return counted(monkeypatch)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    copy = Keeper.copy

    def counting(self: Keeper, run: Any, before: int) -> int:
        counts.append(run.events)
        return copy(self, run, before)

    monkeypatch.setattr(Keeper, "copy", counting)
    return counts


@contextmanager
def all_through_python() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteStore, "keeps", lambda self, source: False)
        yield


def opened(n: int, stream: str = "cart-1") -> Event:
    return event(stream, "Opened", {"name": f"é{n}", "n": n}, metadata=METADATA[n % 3])


def run(folder: Path, registry: Registry, **options: Any) -> dict[str, Any]:
    """Run the job from source.db; what the target then holds, and what the ledger says."""
    commands.upcast(project(folder, registry), **options)
    return contents(folder / "target.db")


streams = st.sampled_from(["cart-1", "cart-2", "straße 'x'", "order-9"])
kinds = st.sampled_from(
    [
        ("Opened", 1, b'{"name":"a","n":1.10}'),
        ("Opened", 1, '{ "name" : "é" }'.encode()),
        ("Opened", 2, b'{"title":"a"}'),
        ("Opened", 3, b'{ "title":"a", "currency":"EUR"}'),
        ("Free", 7, b'{"a":1e400,"a":2}'),
        ("Free", 7, b"not JSON"),
    ]
)
histories = st.lists(st.tuples(streams, kinds), min_size=1, max_size=60)
noise = st.lists(st.integers(0, 59), max_size=2)


@settings(max_examples=8)
@given(histories, noise, st.integers(1, 9), st.sampled_from([1, 4, 50]))
def test_a_copy_with_kept_columns_is_the_copy_through_python(
    made: list[tuple[str, tuple[str, int, bytes]]], noisy: list[int], more: int, batch_size: int
) -> None:
    events = [
        event(stream, type_, data, version=version, metadata=METADATA[n % 3])
        for n, (stream, (type_, version, data)) in enumerate(made)
    ]
    for at in noisy:
        events.insert(at, event("cart-1", "Noise", b"{}"))
    later = [opened(n, "cart-2") for n in range(more)]
    steps = registry(drop_event("Noise", 1, why="nobody reads it"))
    found = []
    for through_python in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with all_through_python() if through_python else pytest.MonkeyPatch.context():
                fill(folder / "source.db", events)
                commands.upcast(project(folder, steps), batch_size=batch_size)
                fill(folder / "source.db", later)
                run(folder, steps, batch_size=batch_size)
                found.append((read(folder / "target.db"), contents(folder / "target.db")))
    assert found[0] == found[1]


def test_what_stays_one_event_is_copied_inside_sqlite(tmp_path: Path, kept: list[int]) -> None:
    fill(tmp_path / "source.db", [opened(n, f"cart-{n % 3}") for n in range(40)])
    run(tmp_path, registry(), batch_size=10)
    assert kept == [10, 10, 10]  # the first batch is upcast twice, event by event


def test_one_event_that_does_not_stay_ends_it(tmp_path: Path, kept: list[int]) -> None:
    events = [opened(n) for n in range(40)]
    events[25] = event("cart-1", "Noise", {})
    fill(tmp_path / "source.db", events)
    steps = registry(drop_event("Noise", 1, why="nobody reads it"))
    run(tmp_path, steps, batch_size=10)
    assert kept == [10]
    assert [e.stream_position for e in read(tmp_path / "target.db")] == list(range(1, 40))


def test_a_job_resumed_goes_on_keeping(tmp_path: Path, kept: list[int]) -> None:
    fill(tmp_path / "source.db", [opened(n) for n in range(30)])
    run(tmp_path, registry(), batch_size=10)
    fill(tmp_path / "source.db", [opened(n) for n in range(30, 60)])
    run(tmp_path, registry(), batch_size=10)
    assert kept == [10, 10, 10, 10]
    assert [e.stream_position for e in read(tmp_path / "target.db")] == list(range(1, 61))


def test_an_event_that_fails_is_named_and_nothing_of_its_batch_stays(tmp_path: Path) -> None:
    @data_upcaster("Opened", 3)
    def choosy(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 25:
            raise ValueError("not this one")
        return data

    fill(tmp_path / "source.db", [opened(n) for n in range(40)])
    with pytest.raises(UpcastError, match="not this one") as caught:
        run(tmp_path, registry(choosy), batch_size=10)
    assert caught.value.where.stream_position == 26
    assert len(read(tmp_path / "target.db")) == 20


def test_a_doubled_id_is_named(tmp_path: Path) -> None:
    """The indexes stand in a job's second run: an event somebody else appended is in the way."""
    fill(tmp_path / "source.db", [opened(n) for n in range(20)])
    run(tmp_path, registry(), batch_size=10)
    later = [opened(n, "cart-2") for n in range(20, 40)]
    fill(tmp_path / "source.db", later)
    sql(
        tmp_path / "target.db",
        ("UPDATE events SET event_id = ? WHERE global_position = 1", [later[15].id]),
    )
    with pytest.raises(DuplicateIdError, match=later[15].id):
        run(tmp_path, registry(), batch_size=10)


def test_a_copy_that_begins_later_keeps_no_places(tmp_path: Path, kept: list[int]) -> None:
    """As the way back does, where the two sides count a stream differently."""
    fill(tmp_path / "source.db", [opened(n) for n in range(50)])
    fill(tmp_path / "target.db", [opened(n) for n in range(5)])
    about = {"release": "2", "steps_done": (), "naming": "{stream}", "registry_fingerprint": ""}
    with (
        open_store(url(tmp_path / "source.db")) as source,
        open_store(url(tmp_path / "target.db"), mode="write") as target,
        target.lock(),
    ):
        names = {"source": "", "source_identity": source.identity()}
        with target.begin() as tx:
            ledger.create(tx.connection)
            job = ledger.begin_job(
                tx.connection, namespace="", source_until=10, target_position=5, **about, **names
            )
            back = ledger.begin_back(
                tx.connection,
                job,
                source_identity=source.identity(),
                source_position=10,
                target_position=5,
            )
        setting = Setting(source_name="", **about)
        copier = UpcastJob(source, target, pipeline_of(tmp_path), setting, batch_size=10)
        copier.adopt(back)
        copier.follow(50)
    assert kept == []
    assert [e.stream_position for e in read(tmp_path / "target.db")] == list(range(1, 46))


def pipeline_of(folder: Path) -> Pipeline:
    its = project(folder, registry())
    return its.registry.at(its.release(None))


def test_the_source_stays_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "a 'folder'" / "source.db"
    source.parent.mkdir()
    fill(source, [opened(n) for n in range(40)])
    before = contents(source)
    with sqlite3.connect(source) as connection:
        (changes,) = connection.execute("PRAGMA data_version").fetchone()
        commands.upcast(project(tmp_path, registry(), source=url(source)), batch_size=10)
        assert connection.execute("PRAGMA data_version").fetchone() == (changes,)
    connection.close()
    assert contents(source) == before
