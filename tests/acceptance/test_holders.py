"""Who holds a job: one of many that start at once; nobody who was stopped; whatever clocks say."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from eventmig import Registry, commands
from eventmig.errors import EventmigError, JobLockedError
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import failpoints
from eventmig.migrate.ledger import lifecycle
from eventmig.migrate.states import Side, State
from eventmig.stores.base import ANY
from tests.acceptance.soak import World
from tests.acceptance.support import contents, project, steps
from tests.acceptance.test_postgres_jobs import clean_history, held
from tests.acceptance.test_postgres_jobs import fill as fill_at

LOCKED = 5


def forked(work: Callable[[], object], reached: Callable[[str], None] | None = None) -> int:
    """A process that works, and tells failpoints to `reached`; its id.

    It ends with 0, with LOCKED where another holds the job, else with 1.
    """
    child = os.fork()
    if child:
        return child
    code = 9
    try:
        failpoints.handler = reached
        work()
        code = 0
    except JobLockedError:
        code = LOCKED
    except EventmigError as error:
        print(repr(error), file=sys.stderr)
        code = 1
    except BaseException as error:  # noqa: BLE001 - a fork ends here, whatever it was
        print(repr(error), file=sys.stderr)
    os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "files":
        return World(tmp_path)
    url = request.getfixturevalue("postgres_url")
    return World(tmp_path, urls=(f"{url}&schema=one", f"{url}&schema=two"))


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


@pytest.mark.parametrize("where", ["files", "postgres"])
def test_of_many_that_start_at_once_one_works(
    request: pytest.FixtureRequest, tmp_path: Path, where: str
) -> None:
    many, rounds = (12, 2) if where == "files" else (8, 2)
    source = f"sqlite:///{tmp_path}/source.db"
    fill_at(source, clean_history(21))
    its = project(tmp_path, Registry(steps()), batch_size=3)
    commands.upcast(its, target=f"sqlite:///{tmp_path}/alone.db")
    alone = held(f"sqlite:///{tmp_path}/alone.db")
    for n in range(rounds):
        target = f"sqlite:///{tmp_path}/{n}.db"
        if where == "postgres":
            target = f"{request.getfixturevalue('postgres_url')}&schema=n{n}"
        start, go_on = tmp_path / f"start-{n}", tmp_path / f"go-on-{n}"

        def wait_for(path: Path) -> None:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.001)

        def work(target: str = target, start: Path = start) -> None:
            wait_for(start)
            commands.upcast(its, target=target)

        def hold(name: str, go_on: Path = go_on) -> None:
            if name == "begin: after":
                wait_for(go_on)

        children = [forked(work, hold) for _ in range(many)]
        start.touch()
        codes = []
        while len(codes) < many:
            child, status = os.wait()
            assert child in children
            codes.append(os.waitstatus_to_exitcode(status))
            if len(codes) == many - 1:
                assert codes == [LOCKED] * (many - 1)
                go_on.touch()
        assert codes[-1] == 0
        assert held(target) == alone
        assert commands.status(its, target=target).job.epoch == 1


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
