"""A server whose disk is full: what it says, and that all goes on once there is room."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench import history
from eventmig import Registry, commands, ops, upcaster
from eventmig.errors import StoreFullError
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import failpoints
from eventmig.migrate.job import Progress
from eventmig.migrate.states import Side, State
from eventmig.rebuild import Phase, RebuildProgress
from eventmig.stores.base import ANY
from tests.acceptance import test_rebuild_postgres as rebuilds
from tests.acceptance.support import event, project
from tests.acceptance.test_postgres_jobs import fill, held
from tests.acceptance.world import World
from tests.disk import Database

EVENTS = 120


def test_a_copy_job_goes_on_once_there_is_room(tmp_path: Path, full_disk: Database) -> None:
    chance = random.Random(1)
    fill(
        f"sqlite:///{tmp_path}/source.db",
        [event(f"s-{n % 7}", "Opened", {"name": chance.randbytes(9_000).hex()})
         for n in range(EVENTS)],
    )  # fmt: skip
    its = project(
        tmp_path, Registry([upcaster("Opened", 1, ops.rename("name", "title"))]), batch_size=10
    )
    commands.upcast(its, target=f"sqlite:///{tmp_path}/reference.db")
    target = f"{full_disk.url}&schema=new"

    def on_progress(progress: Progress) -> None:
        if progress.done == 30:
            full_disk.fill(leave=200_000)

    with pytest.raises(StoreFullError, match="no room left for the store on the server") as error:
        commands.upcast(its, target=target, on_progress=on_progress)
    assert "free some space there" in error.value.remedy
    written = len(held(target))
    assert 30 <= written < EVENTS
    with pytest.raises(StoreFullError):  # nothing has changed
        commands.upcast(its, target=target)
    assert len(held(target)) == written

    full_disk.make_room()
    report = commands.upcast(its, target=target)
    assert (report.resumed, report.ready, report.job.tally.read) == (True, True, EVENTS)
    assert held(target) == held(f"sqlite:///{tmp_path}/reference.db")


def test_a_rebuild_leaves_the_live_rows_and_goes_on_once_there_is_room(
    full_disk: Database,
) -> None:
    url = full_disk.url
    history.write(url, events=600, streams=40)
    its = rebuilds.project(url)
    commands.rebuild(its, [rebuilds.NAME])
    before = rebuilds.live_rows(url)
    filled = False

    def on_progress(progress: RebuildProgress) -> None:
        nonlocal filled
        if progress.phase is Phase.REPLAYING and not filled:
            filled = True
            full_disk.fill()

    with pytest.raises(StoreFullError, match="no room left") as error:
        commands.rebuild(its, [rebuilds.NAME], on_progress=on_progress)
    assert "make room, then run the same command again" in error.value.remedy
    assert rebuilds.live_rows(url) == before

    full_disk.make_room()
    commands.rebuild(its, [rebuilds.NAME])
    assert rebuilds.live_rows(url) == rebuilds.right_rows(url) == before


@pytest.mark.parametrize("point", ["close: before", "drain: before", "switch: before"])
def test_a_crossing_falls_back_and_is_made_once_there_is_room(
    tmp_path: Path, full_disk: Database, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, urls=tuple(f"{full_disk.url}&schema={s}" for s in ("one", "two")))
    world.upcast()

    def append(data: bytes) -> None:
        with LiveStore(*world.urls, kept_s=0) as store:
            store.append("cart-0", [NewEvent("Old", data)], expected=ANY)

    def reached(name: str) -> None:
        if name == "announce: before":
            large = random.Random(2).randbytes(200_000).hex()
            append(f'{{"n":"{large}"}}'.encode())  # so that something takes room
        if name == point:
            monkeypatch.setattr(failpoints, "handler", None)
            full_disk.fill()

    monkeypatch.setattr(failpoints, "handler", reached)
    with pytest.raises(StoreFullError, match="no room left"):
        world.cutover()
    assert world.live() is Side.OLD

    full_disk.make_room()
    world.cutover()
    assert world.state() is State.REVERSE_WINDOW
    assert [len(held(url)) for url in world.urls] == [61, 61]
