"""Kills at random, under load, for as long as told: what became of each acknowledged append?

    make soak ARGS='30 --store postgres'

First the job is made, its process killed again and again. Then it goes across and back: of the
processes that take it there, of those that follow and of the writers, some are killed (SIGKILL)
at a failpoint or at any moment; on PostgreSQL connections are cut at a COMMIT, too. Before all
that, a hundred times two jobs start at once for one target. Exit code 1: something was lost,
doubled, out of order, or is not what the steps say. The minutes are those of the turns.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eventmig import commands
from eventmig.migrate import failpoints
from eventmig.migrate.states import Side, Switch
from tests import postgres
from tests.acceptance.at_once import Races
from tests.acceptance.world import World
from tests.proxy import Cut, Proxy

STORES = ("sqlite", "postgres")
RACES = 100
_KILLED_COPYING = ("begin: after", "batch: before", "batch: after", "indexes: before")


class Soak:
    """One store, soaked."""

    def __init__(self, world: World, chance: random.Random, proxy: Proxy | None) -> None:
        self.world = world
        self.chance = chance
        self.proxy = proxy
        self.done = collections.Counter[str]()

    def copy(self) -> None:
        """The first run of the job: killed at each of its points, and then some."""
        for point in _KILLED_COPYING:
            self.world.forked(self.world.upcast, kill_at=point)
        while self.world.forked(self.world.upcast, after_s=self.chance.uniform(0.02, 0.3)) != 0:
            if self.chance.random() < 0.3:
                assert self.world.forked(self.world.upcast) == 0
                return

    def turn(self) -> None:
        """One command, or one that follows beside it; either may be killed."""
        world, chance = self.world, self.chance
        across = world.live() is Side.OLD
        name = "keep_up" if chance.random() < 0.3 else "cutover" if across else "reverse"
        work = getattr(world, name)
        if chance.random() < 0.2:
            world.kill_a_writer()
        follower = 0
        if chance.random() < 0.2:
            follower = world.begun(partial(commands.keep_up, world.project))
            time.sleep(chance.uniform(0, 0.5))
        how = chance.random()
        if how < 0.35:
            code = world.forked(work, kill_at=chance.choice(failpoints.NAMES))
        elif how < 0.65:
            code = world.forked(work, after_s=chance.uniform(0.01, 0.5))
        elif how < 0.85 and self.proxy is not None and name != "keep_up":
            code = self._cut(work, self.proxy)
        else:
            code = world.forked(work)
        self.done[name] += code == 0
        if follower:
            world.awaited(follower, after_s=chance.uniform(0.01, 0.3))

    def _cut(self, work: object, proxy: Proxy) -> int:
        source, target = map(proxy.near, self.world.urls)
        chance = self.chance
        proxy.cut(chance.randrange(1, 20), chance.choice(list(Cut)), down=chance.random() < 0.3)
        code = self.world.forked(partial(work, source=source, target=target))  # type: ignore[arg-type]
        self.done["cut"] += proxy.cuts
        proxy.deliver()  # else what was under way would hold its locks for ever
        return code


def soak(store: str, minutes: float, seed: int, switch: Switch, folder: Path) -> bool:
    """Soak one store, and print what became of it; whether all is right."""
    chance = random.Random(seed)
    with _place(store) as (database, proxy):
        (folder / "races").mkdir(parents=True)
        races = Races(folder / "races", database)
        for n in range(RACES):
            races.round(f"n{n}")
        urls = None if database is None else (f"{database}&schema=one", f"{database}&schema=two")
        world = World(folder, switch=switch, urls=urls)
        it = Soak(world, chance, proxy)
        it.copy()
        until = time.monotonic() + minutes * 60
        with world.writing(3):
            while time.monotonic() < until:
                it.turn()
            while not it.done["cutover"]:
                it.turn()
        assert world.forked(world.keep_up) == 0
        wrong = 0
        for leaves in Side:
            with commands.holding.held(world.project) as (sides, _):
                wrong += sides.verify_tail(leaves).mismatches
        found = world.outcome()
    report = {
        "store": store,
        "minutes": round(minutes, 2),
        "seed": seed,
        "switch": switch.value,
        "races": RACES,
        "kills": world.kills,
        "cuts": it.done["cut"],
        "resumes": world.resumes,
        "cut over": it.done["cutover"],
        "reversed": it.done["reverse"],
        "acknowledged": found.acknowledged,
        "lost": len(found.lost),
        "duplicated": len(found.duplicated),
        "reordered": len(found.reordered),
        "mismatches": wrong,
        "longest append, s": world.longest_append_s,
    }
    print(json.dumps(report, indent=2), flush=True)
    return found.right and not wrong


@contextlib.contextmanager
def _place(store: str) -> Iterator[tuple[str | None, Proxy | None]]:
    """A database and a proxy before it, for the store that needs them."""
    if store == "sqlite":
        yield None, None
        return
    server = postgres.start()
    try:
        with server.database() as url, Proxy(server.url) as proxy:
            yield url, proxy
    finally:
        server.remove()


def main(arguments: list[str]) -> int:
    """The exit code of a soak with these arguments."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=10.0, help="in all (10)")
    parser.add_argument("--store", choices=(*STORES, "both"), default="both")
    parser.add_argument("--switch", type=Switch, default=Switch.ROUTE, help="route or tables")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = parser.parse_args(arguments)
    stores = STORES if asked.store == "both" else (asked.store,)
    right = True
    with tempfile.TemporaryDirectory(prefix="eventmig-soak-") as folder:
        for store in stores:
            minutes = asked.minutes / len(stores)
            place = Path(folder) / store
            right &= soak(store, minutes, asked.seed, asked.switch, place)
    return 0 if right else 1


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main(sys.argv[1:]))
