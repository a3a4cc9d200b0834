"""Killed at every failpoint, while writers write: nothing is lost, doubled or out of order."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmig import commands
from eventmig.migrate import failpoints
from eventmig.migrate.states import Side, State, Switch
from tests.acceptance.support import contents
from tests.acceptance.test_kept_generations import MARKING
from tests.acceptance.world import World

STEPS = ("announce", "close", "drain", "prove", "prepare", "switch", "open", "publish")
CROSSING = [f"{step}: {when}" for step in STEPS for when in ("before", "after")]
MENDING = [f"{step}: {when}" for step in ("fall back", "reopen") for when in ("before", "after")]
COPYING = [
    f"{step}: {when}" for step in ("begin", "batch", "indexes") for when in ("before", "after")
]
COMPLETING = [
    f"{step}: {when}" for step in ("complete", "drop kept") for when in ("before", "after")
]
CANCELLING = ["cancel: before", "cancel: after"]
KILLED = -9

CROSSED = {
    "route": CROSSING,
    "tables": CROSSING,
    # A server's processes start slowly: there at half of the points, and by tables at those
    # where the way differs.
    "postgres": CROSSING[1::2],
    "postgres tables": [
        "close: after",
        "prepare: after",
        "switch: before",
        "switch: after",
        "open: after",
    ],
}


def test_every_failpoint_is_killed_at() -> None:
    """Below, and those about read models in their tests."""
    points = CROSSING + MENDING + COPYING + COMPLETING + CANCELLING + MARKING
    assert sorted(points) == sorted(failpoints.NAMES)


def cross(world: World, point: str, mending: str = "") -> None:
    """Across in either direction: killed at a point, perhaps again while it is mended, then on."""
    before = world.live()
    work = world.cutover if before is Side.OLD else world.reverse
    assert world.forked(work, kill_at=point) == KILLED, point
    if mending:
        assert world.forked(work, kill_at=mending) == KILLED, mending
    if world.live() is before:
        assert world.forked(work) == 0, point
    else:  # it was killed behind its point of no return
        assert world.forked(world.keep_up) == 0, point
    assert world.live() is before.other, point


@pytest.mark.slow
@pytest.mark.parametrize("how", ["route", "tables", "postgres", "postgres tables"])
def test_killed_at_each_point_of_a_crossing(
    request: pytest.FixtureRequest, tmp_path: Path, how: str
) -> None:
    urls = None
    if how.startswith("postgres"):
        url = request.getfixturevalue("postgres_url")
        urls = (f"{url}&schema=one", f"{url}&schema=two")
    switch = Switch.TABLES if "tables" in how else Switch.ROUTE
    world = World(tmp_path, switch=switch, urls=urls)
    world.upcast()
    with world.writing():
        if switch is Switch.TABLES:  # each point in both directions, over both ways to switch
            assert world.forked(world.cutover) == 0
        for point in CROSSED[how]:
            cross(world, point)
        for mending in MENDING if urls is None else MENDING[1::2]:
            cross(world, "prove: after", mending)
        if world.live() is Side.OLD:
            assert world.forked(world.cutover) == 0
    assert world.forked(world.keep_up) == 0
    found = world.outcome()
    assert found.acknowledged > 100
    assert found.right, found
    for leaves in (Side.OLD, Side.NEW):
        assert verified(world, leaves)
    # Killed while it ends, the same command goes on: by tables also where the names are its own.
    for point in COMPLETING:
        assert world.forked(lambda: commands.complete(world.project), kill_at=point) == KILLED
    ended = world.urls[0] if switch is Switch.TABLES else world.urls[1]
    assert commands.status(world.project, target=ended).job.state is State.COMPLETED
    assert commands.complete(world.project).job.state is State.COMPLETED


def verified(world: World, leaves: Side) -> bool:
    """Whether the whole of one direction's copy is right, derived anew."""
    with commands.holding.held(world.project) as (sides, _):
        return sides.verify_tail(leaves).right


@pytest.mark.parametrize("point", COPYING)
def test_killed_while_it_copies_it_ends_as_if_it_had_not_been(tmp_path: Path, point: str) -> None:
    killed, undisturbed = World(tmp_path / "killed"), World(tmp_path / "undisturbed")
    assert killed.forked(killed.upcast, kill_at=point) == KILLED
    for world in (killed, undisturbed):
        world.upcast()
    theirs = contents(undisturbed.folder / "history-2.db")
    assert contents(killed.folder / "history-2.db") == theirs


@pytest.mark.parametrize("point", CANCELLING)
def test_killed_while_it_is_cancelled(tmp_path: Path, point: str) -> None:
    world = World(tmp_path)
    world.upcast()
    for work in (world.cutover, world.reverse):
        assert world.forked(work) == 0
    assert world.forked(lambda: commands.cancel(world.project), kill_at=point) == KILLED
    if point.endswith("before"):
        assert commands.cancel(world.project) == 60
    world.upcast()  # the target is free for another job
    assert world.state() is State.READY
    assert world.forked(world.cutover) == 0
