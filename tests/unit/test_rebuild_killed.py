"""Killed (SIGKILL) before every commit: readers see old or new, and the same call ends it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from eventmig.errors import JobLockedError
from eventmig.project import sql_engine
from eventmig.rebuild import (
    bookkeeping,
    gathering,
    load,
    rebuild_read_models,
    rebuild_snapshots,
    rollback_read_models,
    sharing,
)
from eventmig.rebuild.following import bring_up_to_date
from eventmig.rebuild.rebuild_read_models import drop_kept_read_models
from tests.forks import assert_no_database_open
from tests.unit.read_model_helpers import daily, orders, sales, sums
from tests.unit.rebuild_helpers import MemorySource, rows_of, same
from tests.unit.summing_source import SummingSource
from tests.unit.test_read_model_sums import events_of, right, stored
from tests.unit.test_read_model_sums import rebuild as rebuild_sums
from tests.unit.test_snapshots import cart, carts, replayed
from tests.unit.test_snapshots_side_by_side import helpers as gathering_helpers
from tests.unit.test_snapshots_side_by_side import plan_of

Work = Callable[[Engine], Any]
KILLED = -9


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'read.db'}"
    return str(request.getfixturevalue("postgres_url"))


def killed(url: str, work: Work, commit: int) -> bool:
    """Do this work in a process that is killed before a commit (from 0); False: it ended."""

    def run() -> None:
        with sql_engine(url) as engine:
            count = itertools.count()
            do_commit = engine.dialect.do_commit

            def at_commit(connection: Any) -> None:
                if next(count) == commit:
                    os.kill(os.getpid(), signal.SIGKILL)
                do_commit(connection)

            engine.dialect.do_commit = at_commit  # type: ignore[method-assign]
            work(engine)

    assert_no_database_open()
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    assert child.exitcode in (0, KILLED)
    return child.exitcode == KILLED


def done(url: str, work: Work) -> Any:
    """Do this work here, as soon as the server knows that the killed one is gone."""
    until = time.monotonic() + 30
    while True:
        try:
            with sql_engine(url) as engine:
                return work(engine)
        except JobLockedError:
            assert time.monotonic() < until
            time.sleep(0.02)


def kills(url: str, work: Callable[[int], Work]) -> Iterator[int]:
    """Kill `work(n)` before each of its commits in turn, until there is none left.

    What is stored after one commit is what is stored before the next.
    """
    every = 1 if url.startswith("sqlite") else 3  # a server forgets a session slowly
    for number in itertools.count():
        if not killed(url, work(number), number * every):
            assert number > 0
            return
        yield number


def live(url: str) -> list[tuple[object, ...]]:
    with sql_engine(url) as engine:
        return rows_of(engine, sales)


def rebuilding(cents: int) -> Work:
    def work(engine: Engine) -> Any:
        return rebuild_read_models(
            [daily(version=cents, cents=cents)],
            source=MemorySource(orders(40)),
            upcast=same,
            engine=engine,
            release="1",
            batch_size=20,
        )

    return work


def generations(url: str) -> list[str]:
    with sql_engine(url) as engine, engine.connect() as connection:
        query = select(bookkeeping.generations.c.state)
        return sorted(connection.execute(query).scalars())


def test_a_rebuild(url: str) -> None:
    done(url, rebuilding(1))
    before = 1
    for number in kills(url, lambda n: rebuilding(n + 2)):
        assert live(url) in (sums(40, cents=before), sums(40, cents=number + 2))
        done(url, rebuilding(number + 2))
        assert live(url) == sums(40, cents=number + 2)
        assert generations(url) == ["kept", "live"]
        before = number + 2


def test_a_rebuild_by_sums(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    events = events_of([("Seen", 1, {"who": name}) for name in "abcde" * 8])

    def rebuilt(release: int) -> Work:
        def work(engine: Engine) -> Any:
            source = SummingSource(events, seed=release)
            return rebuild_sums(engine, source, release=str(release), max_rows=1)

        return work

    done(url, rebuilt(0))
    summed = set()
    for number in kills(url, lambda n: rebuilt(n + 1)):
        result = done(url, rebuilt(number + 1))
        assert result.events_read == 40
        summed.add(result.events_summed)
        with sql_engine(url) as engine:
            assert stored(engine) == right(events)
    assert {0 < events < 40 for events in summed} == {True, False}  # amid them, and elsewhere


def test_a_rollback(url: str) -> None:
    done(url, rebuilding(1))
    done(url, rebuilding(2))
    at, other = 2, 1

    def back(engine: Engine) -> Any:
        return rollback_read_models(["daily"], engine=engine)

    for _ in kills(url, lambda _: back):
        rows = live(url)
        assert rows in (sums(40, cents=at), sums(40, cents=other))
        if rows == sums(40, cents=at):
            done(url, back)
        assert live(url) == sums(40, cents=other)
        at, other = other, at
    assert generations(url) == ["kept", "live"]


def test_dropping_what_is_kept(url: str) -> None:
    done(url, rebuilding(1))
    done(url, rebuilding(2))

    def drop(engine: Engine) -> Any:
        return drop_kept_read_models(["daily"], engine=engine)

    for number in kills(url, lambda _: drop):
        done(url, drop)
        assert generations(url) == ["live"]
        done(url, rebuilding(number + 3))
        assert live(url) == sums(40, cents=number + 3)


def test_a_follower(url: str) -> None:
    done(url, rebuilding(1))
    seen = 40

    def brought_to(count: int) -> Work:
        def work(engine: Engine) -> Any:
            source = MemorySource(orders(count))
            return bring_up_to_date([daily()], source=source, upcast=same, engine=engine)

        return work

    for number in kills(url, lambda n: brought_to(41 + n)):
        assert live(url) in (sums(seen), sums(41 + number))
        done(url, brought_to(41 + number))
        seen = 41 + number
        assert live(url) == sums(seen)


@pytest.mark.parametrize("processes", [1, 3])
def test_a_rebuild_of_snapshots(url: str, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    monkeypatch.setattr(gathering, "_AT_ONCE", 2)
    events = carts(60)
    source = MemorySource(events)

    def rebuilt(version: int) -> Work:
        def work(engine: Engine) -> Any:
            made = cart(version)
            beside = gathering_helpers(made, plan_of(source), processes - 1, version)
            return rebuild_snapshots(
                [made],
                source=source,
                upcast=same,
                engine=engine,
                release="1",
                batch_size=20,
                max_states=2,
                helpers=beside if processes > 1 else None,
            )

        return work

    def loaded(version: int) -> int:
        """Every cart's state, right in any case; of how many by a snapshot."""
        used = 0
        with sql_engine(url) as engine:
            for stream in (f"cart-{n}" for n in range(5)):
                found = load(
                    cart(version), stream, source=source, upcast=same, engine=engine, release="1"
                )
                assert found.state == replayed(events, stream)
                used += found.from_snapshot
        return used

    done(url, rebuilt(1))
    before = 1
    for number in kills(url, lambda n: rebuilt(n + 2)):
        assert sorted((loaded(before), loaded(number + 2))) == [0, 5]
        done(url, rebuilt(number + 2))
        assert loaded(number + 2) == 5
        assert generations(url) == ["kept", "live"]
        before = number + 2
