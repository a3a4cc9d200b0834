"""Full disks wherever they come, two rebuilds at once, and a reader in the way of SQLite's swap."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from eventmig.errors import JobLockedError, RebuildError, StoreFullError
from eventmig.project import sql_engine
from eventmig.rebuild import (
    compare_snapshots,
    locking,
    rebuild_read_models,
    rebuild_snapshots,
    swapping,
)
from tests.unit.read_model_helpers import daily, orders, sales, sums, texts, wide
from tests.unit.rebuild_helpers import MemorySource, rows_of, same
from tests.unit.test_rebuild_killed import generations
from tests.unit.test_snapshots import cart, carts

Work = Callable[[Engine, int], None]
SOURCE = MemorySource(orders(300))
CARTS = MemorySource(carts(600, streams=150))


def models(engine: Engine, version: int) -> None:
    rebuild_read_models(
        [wide(version)], source=SOURCE, upcast=same, engine=engine, release="1", batch_size=50
    )


def snapshots(engine: Engine, version: int) -> None:
    rebuild_snapshots(
        [cart(version)], source=CARTS, upcast=same, engine=engine, release="1", batch_size=100
    )


@contextmanager
def room(url: str, pages: int) -> Iterator[None]:
    """As if the disk of this SQLite file had room for so many pages more."""
    with sql_engine(url) as engine, engine.connect() as connection:
        size = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())

    def limited(connection: Any, record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={size + pages}")

    event.listen(Engine, "connect", limited)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limited)


@pytest.mark.parametrize(("work", "step"), [(models, 18), (snapshots, 2)])
def test_a_disk_that_is_full_wherever_it_comes(tmp_path: Path, work: Work, step: int) -> None:
    url = f"sqlite:///{tmp_path / 'read.db'}"
    with sql_engine(url) as engine:
        work(engine, 1)
    version = 1
    for pages in itertools.count(0, step):
        version += 1
        full = full_at(url, work, version, pages)
        if full is None:
            break
        assert "goes on" in full.remedy
        assert_right(url, work, version - 1)
        with sql_engine(url) as engine:
            work(engine, version)
        assert_right(url, work, version)
        with sql_engine(url) as engine, engine.connect() as connection:
            connection.exec_driver_sql("VACUUM")  # no room but what is given
    assert version > 4


def full_at(url: str, work: Work, version: int, pages: int) -> StoreFullError | None:
    try:
        with room(url, pages), sql_engine(url) as engine:
            work(engine, version)
    except StoreFullError as error:
        return error
    return None


def assert_right(url: str, work: object, version: int) -> None:
    with sql_engine(url) as engine:
        if work is models:
            assert [row[0] for row in rows_of(engine, texts)] == list(range(300))
            return
        (found,) = compare_snapshots(
            [cart(version)], source=CARTS, upcast=same, engine=engine, release="1", sample=None
        )
        assert (found.stale, found.mismatches) == (0, ())


def test_a_server_whose_disk_is_full_is_named_and_the_rebuild_goes_on(postgres_url: str) -> None:
    """A trigger says what the server would say, at the checkpoint of some batch."""
    with sql_engine(postgres_url) as engine:
        models(engine, 1)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER full_disk BEFORE UPDATE ON eventmig_generations FOR EACH ROW "
                "WHEN (NEW.events_read = 150) EXECUTE FUNCTION full_disk()"
            )
    with pytest.raises(StoreFullError, match="no room left"), sql_engine(postgres_url) as engine:
        models(engine, 2)
    with sql_engine(postgres_url) as engine:
        assert len(rows_of(engine, texts)) == 300
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full_disk ON eventmig_generations")
        (result,) = rebuild_read_models(
            [wide(2)], source=SOURCE, upcast=same, engine=engine, release="1"
        )
        assert (result.resumed, result.events_read) == (True, 300)
        assert len(rows_of(engine, texts)) == 300


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_rebuilds_of_one_model_that_begin_at_once(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path / 'read.db'}"
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
    begin = threading.Barrier(3)
    outcomes: list[object] = []

    def run(cents: int) -> None:
        with sql_engine(url) as engine:
            begin.wait()
            try:
                rebuild_read_models(
                    [daily(version=cents, cents=cents)],
                    source=SOURCE,
                    upcast=same,
                    engine=engine,
                    release="1",
                    batch_size=20,
                )
            except JobLockedError:
                outcomes.append(None)
            else:
                outcomes.append(cents)

    threads = [threading.Thread(target=run, args=(cents,)) for cents in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = [one for one in outcomes if one is not None]
    assert len(outcomes) == 3
    assert ended
    with sql_engine(url) as engine:
        assert rows_of(engine, sales) in [sums(300, cents=int(str(one))) for one in ended]
    assert generations(url) == ["kept", "live"][2 - min(2, len(ended)) :]


def test_a_reader_of_a_sqlite_file_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a write-ahead log, whoever reads keeps the swap from its commit."""
    engine = create_engine(f"sqlite:///{tmp_path / 'read.db'}", connect_args={"timeout": 0.01})
    rebuild = lambda cents: rebuild_read_models(  # noqa: E731
        [daily(version=cents, cents=cents)],
        source=SOURCE,
        upcast=same,
        engine=engine,
        release="1",
    )
    rebuild(1)
    pauses: list[float] = []
    lock_tables = locking.lock_tables
    with engine.connect() as reader:

        def read_first(*arguments: Any) -> None:
            reader.exec_driver_sql("BEGIN")
            reader.exec_driver_sql("SELECT count(*) FROM sales_per_day").all()
            monkeypatch.setattr(swapping, "lock_tables", lock_tables)
            lock_tables(*arguments)

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if gives_up_after == len(pauses):
                reader.rollback()

        monkeypatch.setattr(locking.time, "sleep", pause)
        gives_up_after = 100
        monkeypatch.setattr(swapping, "lock_tables", read_first)
        with pytest.raises(RebuildError, match="another process holds the database locked") as r:
            rebuild(2)
        assert "only the swap is left" in r.value.remedy
        reader.rollback()
        assert rows_of(engine, sales) == sums(300)

        pauses.clear()
        gives_up_after = 3
        monkeypatch.setattr(swapping, "lock_tables", read_first)
        (result,) = rebuild(2)
        assert (result.resumed, len(pauses)) == (True, 3)
    assert rows_of(engine, sales) == sums(300, cents=2)
    engine.dispose()
