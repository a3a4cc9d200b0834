"""Who holds a job: one of many that start at once; nobody who was stopped; whatever clocks say."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from eventmig import commands
from eventmig.errors import JobLockedError
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import failpoints
from eventmig.migrate.ledger import lifecycle
from eventmig.migrate.states import Side, State, Switch
from eventmig.stores.base import ANY
from tests.acceptance.at_once import Races, ended, forked
from tests.acceptance.support import contents
from tests.acceptance.test_postgres_jobs import held
from tests.acceptance.world import World


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "files":
        return World(tmp_path)
    url = request.getfixturevalue("postgres_url")
    switch = Switch.TABLES if "tables" in request.param else Switch.ROUTE
    return World(tmp_path, switch=switch, urls=(f"{url}&schema=one", f"{url}&schema=two"))


# stopped, overtaken, continued -------------------------------------------------------------------


def everything(world: World) -> list[object]:
    """All rows of both sides, ledgers and fences included."""
    if world.urls[0].startswith("sqlite"):
        files = [world.folder / name for name in ("history.db", "history-2.db")]
        return [*map(contents, files), *map(holders, files)]
    found: list[object] = []
    with psycopg.connect(world.urls[0].split("&schema")[0]) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname IN ('one', 'two') ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            query = f"SELECT t::text FROM {table} t ORDER BY 1"
            found.append((table, connection.execute(query.encode()).fetchall()))
    return found


def holders(path: Path) -> list[object]:
    """Whose the jobs and fences of a file are, which `contents` leaves out."""
    connection = sqlite3.connect(path)
    found: list[object] = []
    for table in ("eventmig_jobs", "eventmig_fences"):
        with suppress(sqlite3.OperationalError):  # not every file has both
            found += connection.execute(f"SELECT job_id, epoch FROM {table}").fetchall()
    connection.close()
    return found


def lose_the_lock(world: World) -> None:
    """What ends a lock though its holder lives: its file deleted, its connections given up."""
    if world.urls[0].startswith("sqlite"):
        (world.folder / "history-2.db.lock").unlink()
        return
    with psycopg.connect(world.urls[0].split("&schema")[0], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize(
    ("world", "point"),
    [
        ("files", "batch: before"),
        ("files", "close: before"),
        ("files", "switch: before"),
        ("files", "open: before"),
        ("postgres", "close: before"),
        ("postgres", "open: before"),
        ("postgres tables", "switch: before"),
        ("postgres tables", "open: before"),
    ],
    indirect=["world"],
)
def test_stopped_past_its_lock_and_continued_it_writes_nothing_more(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.holding, "HAND_OVER_S", 0.1)

    def stop(name: str) -> None:
        if name == point:
            failpoints.handler = None
            os.kill(os.getpid(), signal.SIGSTOP)

    if point != "batch: before":
        world.upcast()
    stopped = forked(world.upcast if point == "batch: before" else world.cutover, stop)
    _, status = os.waitpid(stopped, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    with pytest.raises(JobLockedError):  # a holder that is stopped still holds
        commands.upcast(world.project)
    lose_the_lock(world)

    world.upcast()  # mends, and goes on
    if point == "open: before":  # behind the point of no return; and back from there
        assert world.live() is Side.NEW
        world.reverse()
    assert world.live() is Side.OLD
    with LiveStore(*world.urls, kept_s=0) as store:
        store.append("cart-0", [NewEvent("Placed", b'{"mail":"b"}')], expected=ANY)
    before = everything(world)
    os.kill(stopped, signal.SIGCONT)
    assert ended(stopped) == 1
    assert everything(world) == before

    world.cutover()
    assert world.state() is State.REVERSE_WINDOW
    assert len(held(world.urls[1])) == 61


# many at once ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("where", "rounds"), [("files", 60), ("postgres", 40)])
def test_of_jobs_that_start_at_once_one_works(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, rounds: int
) -> None:
    """A hundred times, in processes; most winners are killed once they won, to save time."""
    database = request.getfixturevalue("postgres_url") if where == "postgres" else None
    races = Races(tmp_path, database)
    for n in range(rounds):
        races.round(f"n{n}", contenders=2 if n else 8, whole=n % 10 == 0)


# clocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_a_clock_an_hour_off_changes_nothing(tmp_path: Path, off_s: int) -> None:
    """The follower's clock against that of the commands which ask it for the job."""
    world = World(tmp_path)
    world.upcast()
    shift = datetime.timedelta(seconds=off_s)

    class Off(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Off:
            return super().now(tz) + shift

    def follow() -> None:
        true = time.time_ns
        time.time_ns = lambda: true() + off_s * 10**9
        lifecycle.datetime = Off  # type: ignore[attr-defined]
        commands.keep_up(world.project)

    follower = forked(follow)
    while not commands.measure(world.project).running:
        time.sleep(0.005)
    for n, cross in enumerate([world.cutover, world.reverse, world.cutover], 1):
        with LiveStore(*world.urls, kept_s=0) as store:
            kind = ("Old", "New")[store.route().side is Side.NEW]
            store.append("cart-0", [NewEvent(kind, b"{}")], expected=ANY)
        cross()
        assert len(held(world.urls[0])) == len(held(world.urls[1])) == 60 + n
    commands.complete(world.project)
    assert ended(follower) == 0


@pytest.mark.parametrize("world", ["files", "postgres"], indirect=True)
def test_crossings_by_machines_whose_clocks_differ(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command runs where it is an hour earlier than where the one before ran."""
    true, now = time.time_ns, datetime.datetime

    def put_off(hours: int) -> None:
        class Off(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Off:
                there = now.now(tz) + datetime.timedelta(hours=hours)
                return cls.fromtimestamp(there.timestamp(), tz)

        monkeypatch.setattr(lifecycle, "datetime", Off)
        monkeypatch.setattr(time, "time_ns", lambda: true() + hours * 3_600 * 10**9)

    steps = [world.upcast, world.cutover, world.reverse, world.cutover, world.keep_up,
             world.reverse, world.cutover]  # fmt: skip
    for n, step in enumerate(steps):
        put_off(-n)
        step()
        with LiveStore(*world.urls, kept_s=0) as store:
            kind = ("Old", "New")[store.route().side is Side.NEW]
            store.append("cart-0", [NewEvent(kind, b"{}")], expected=ANY)
    put_off(-len(steps))
    world.keep_up()
    assert [len(held(url)) for url in world.urls] == [60 + len(steps)] * 2
    commands.complete(world.project)
