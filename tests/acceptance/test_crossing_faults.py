"""What a crossing stands on gives way: the server stops, the disk is full; and other batches."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from eventmig import Registry, commands
from eventmig.errors import StoreFullError, StoreUnavailableError
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import failpoints
from eventmig.migrate.states import Side, State
from eventmig.stores.base import ANY
from tests.acceptance.at_once import ended, forked
from tests.acceptance.support import contents, fill, history, project, steps
from tests.acceptance.test_postgres_jobs import held
from tests.acceptance.world import World
from tests.postgres import OwnServer

FULL = 3
AFTER_THE_SWITCH = ("switch: after", "open: before", "open: after")


def append(world: World) -> None:
    """What the application does, wherever it belongs now."""
    with LiveStore(*world.urls, kept_s=0) as store:
        kind = "Old" if store.route().side is Side.OLD else "New"
        store.append("cart-0", [NewEvent(kind, b"{}")], expected=ANY)


def once(point: str, what: Callable[[], None]) -> Callable[[str], None]:
    def reached(name: str) -> None:
        if name == point:
            failpoints.handler = None
            what()

    return reached


# the server --------------------------------------------------------------------------------------


def test_a_server_that_crashes_amid_a_crossing(
    tmp_path: Path, own_postgres_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_postgres_server.database() as url:
        world = World(tmp_path, urls=(f"{url}&schema=one", f"{url}&schema=two"))
        world.upcast()
        appended = 0
        for point in ("close: after", "batch: after", "switch: before", *AFTER_THE_SWITCH[:1]):
            append(world)
            before = world.live()
            cross = commands.cutover if before is Side.OLD else commands.reverse
            crash = once(point, own_postgres_server.stop_hard)
            monkeypatch.setattr(failpoints, "handler", crash)
            try:
                with pytest.raises(StoreUnavailableError):
                    cross(world.project)
            finally:
                own_postgres_server.start()
            crossed = point in AFTER_THE_SWITCH
            assert world.live() is (before.other if crossed else before)
            commands.keep_up_once(world.project)
            append(world)
            appended += 2
            if not crossed:
                cross(world.project)
            assert world.live() is before.other
        commands.keep_up_once(world.project)
        assert [len(held(url)) for url in world.urls] == [60 + appended] * 2


# the disk ----------------------------------------------------------------------------------------


def fill_up() -> None:
    """From now on no file of this process can grow."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def make_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@pytest.mark.parametrize(
    ("point", "stays"),
    [
        ("close: before", True),
        ("drain: before", False),
        ("prepare: before", True),
        ("switch: before", False),
        ("switch: before", True),
        ("open: before", True),
    ],
)
def test_a_disk_that_is_full_amid_a_crossing(tmp_path: Path, point: str, stays: bool) -> None:
    """It falls back; where there is no room to say so either, whoever comes next does it."""
    world = World(tmp_path)
    world.upcast()
    append(world)

    def reached(name: str) -> None:
        if name == point:
            fill_up()
        elif name == "fall back: before" and not stays:
            make_room()

    def cross() -> None:
        try:
            world.cutover()
        except StoreFullError:
            os._exit(FULL)

    assert ended(forked(cross, reached)) == FULL
    crossed = point in AFTER_THE_SWITCH
    assert world.live() is (Side.NEW if crossed else Side.OLD)
    if not stays:
        job = commands.status(world.project).job
        assert job.state is State.CATCHING_UP
        assert "cut-over fell back" in job.reason
        append(world)  # the fence is open again
    commands.keep_up_once(world.project)
    append(world)
    if not crossed:
        world.cutover()
    commands.keep_up_once(world.project)
    assert [len(held(url)) for url in world.urls] == [60 + 2 + (not stays)] * 2


# other batches -----------------------------------------------------------------------------------


def test_killed_between_any_batches_and_resumed_with_others(tmp_path: Path) -> None:
    """Batches have no meaning: whatever was written up to a kill, any others go on from there."""
    fill(tmp_path / "source.db", history(28))
    its = project(tmp_path, Registry(steps()))
    commands.upcast(its, target=f"sqlite:///{tmp_path}/alone.db")
    alone = contents(tmp_path / "alone.db", ledger=False)

    def killed(target: str, size: int, point: str, at: int) -> int:
        count = 0

        def reached(name: str) -> None:
            nonlocal count
            count += name == point
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        return ended(forked(lambda: commands.upcast(its, target=target, batch_size=size), reached))

    points = [("batch: before", 1), *(("batch: after", at) for at in range(1, 8))]
    for n, (point, at) in enumerate(points):
        target = f"sqlite:///{tmp_path}/{n}.db"
        assert killed(target, 4, point, at) == -signal.SIGKILL, at
        assert commands.upcast(its, target=target, batch_size=(1, 5, 3)[n % 3]).ready
        assert contents(tmp_path / f"{n}.db", ledger=False) == alone
    # Killed after every batch, and each time another size.
    target, code, sizes = f"sqlite:///{tmp_path}/all.db", -signal.SIGKILL, []
    while code != 0:
        sizes.append((3, 1, 5, 2)[len(sizes) % 4])
        code = killed(target, sizes[-1], "batch: after", 1)
        assert code in (0, -signal.SIGKILL)
    assert len(sizes) > 8
    assert contents(tmp_path / "all.db", ledger=False) == alone
