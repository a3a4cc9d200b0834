"""Crossings on PostgreSQL whose connections are cut at their COMMITs, before and after.

Whatever was cut: the same command again, and all is as if nothing had been.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from eventmig import commands
from eventmig.errors import EventmigError
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.states import Side, State
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
from tests.acceptance.test_postgres_jobs import held
from tests.acceptance.world import World
from tests.proxy import Cut, Proxy

IMPATIENT = "options=-c lock_timeout=200ms"
FIRST = 60
"""Events that a world begins with."""


class Shop:
    """A world whose commands go by way of a proxy, and what its two sides must hold."""

    def __init__(self, folder: Path, url: str, proxy: Proxy) -> None:
        self.world = World(folder, urls=(f"{url}&schema=one", f"{url}&schema=two"))
        self.world.upcast()
        self.appended = self.crossed = 0
        self.near = {
            "source": proxy.near(self.world.urls[0]),
            "target": proxy.near(self.world.urls[1]),
        }
        self.proxy = proxy

    def append(self) -> None:
        """What the application does, wherever it belongs now."""
        with LiveStore(*self.world.urls, kept_s=0) as store:
            member, version = ("mail", 1) if store.route().side is Side.OLD else ("email", 2)
            data = json.dumps({member: "b", "n": self.appended}).encode()
            new = NewEvent("Placed", data, version, None, f"b-{self.appended}", 7)
            store.append("cart-1", [new], expected=ANY)
            self.appended += 1

    def run(self, command: Callable[..., object]) -> None:
        command(self.world.project, **self.near)

    def run_cut(self, command: Callable[..., object], at: int, when: Cut, down: bool) -> bool:
        """Run a command, cut at its so-manieth COMMIT since it announced what it does.

        The application appends until the fence is closed, so that something is left to drain.
        False: there are not so many, and it ended undisturbed.
        """

        def reached(name: str) -> None:
            if name in ("announce: before", "complete: before"):
                self.proxy.cut(at, when, down=down)
            elif name == "close: before":
                self.append()

        failpoints.handler = reached
        try:
            self.run(command)
        except EventmigError:
            assert self.proxy.cuts == 1
        finally:
            failpoints.handler = None
            cut = self.proxy.cuts == 1
            self.proxy.cut(0, when)
        if cut and when is Cut.LATE:  # nobody gets past a transaction that may still commit
            before = self.world.live()
            with suppress(EventmigError):
                command(
                    self.world.project,
                    **{side: f"{url}&{IMPATIENT}" for side, url in self.near.items()},
                    budget_s=0.2,
                )
            assert self.world.live() is before
            self.proxy.deliver()
        return cut

    def cross(self, at: int, when: Cut, down: bool) -> bool:
        """Across: cut, and once more the same command. False: there was nothing to cut."""
        before = self.world.live()
        command = commands.cutover if before is Side.OLD else commands.reverse
        cut = self.run_cut(command, at, when, down)
        if cut:
            self.run(command)
        self.crossed += 1
        self.check(before.other)
        return cut

    def check(self, live: Side) -> None:
        """As an uninterrupted run leaves it; the side that is not live may be behind."""
        with open_store(self.world.urls[1]) as new, new.reading() as connection:
            job = ledger.active_job(connection, "")
            assert job is not None
            journal = ledger.journal(connection, job)
        assert job.state is (State.REVERSE_WINDOW if live is Side.NEW else State.REVERSED)
        names = [crossed.crossing for crossed in journal]
        assert names == (["cut-over", "reverse"] * self.crossed)[: self.crossed]

    def held(self, side: Side) -> list[tuple[object, ...]]:
        """Streams, positions, ids, types, versions and data of one side."""
        return [
            (e[1], e[2], e[3], e[4], e[5], e[-1]) for e in held(self.world.urls[side is Side.NEW])
        ]

    def expected(self, side: Side) -> list[tuple[object, ...]]:
        """The same as they must be: each once, in the order in which they were appended."""
        member, version = ("mail", 1) if side is Side.OLD else ("email", 2)
        ids = [f"{n + 1:08x}-0000-4000-8000-000000000000" for n in range(FIRST)]
        made = [(f"cart-{n % 5}", id_, {member: "a", "n": n}) for n, id_ in enumerate(ids)]
        made += [("cart-1", f"b-{n}", {member: "b", "n": n}) for n in range(self.appended)]
        heads: dict[str, int] = {}
        found: list[tuple[object, ...]] = []
        for stream, id_, data in made:
            heads[stream] = heads.get(stream, 0) + 1
            found.append((stream, heads[stream], id_, "Placed", version, data))
        return found


@pytest.mark.slow
def test_cut_at_any_commit_the_same_command_ends_as_if_it_had_not_been(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.holding, "HAND_OVER_S", 0.2)
    with Proxy(postgres_url) as proxy:
        shop = Shop(tmp_path, postgres_url, proxy)
        at, cut = 0, True
        while cut or shop.world.live() is Side.NEW:
            at += shop.world.live() is Side.OLD
            # All kinds of cut for either command, and one connection or all of them.
            when = list(Cut)[(2 * at + shop.crossed % 2) % 3]
            cut = shop.cross(at, when, down=at % 4 == 0)
        assert at > 8
        shop.run(commands.cutover)
        for side in Side:
            assert shop.held(side) == shop.expected(side)
        for leaves in Side:
            with commands.holding.held(shop.world.project) as (sides, _):
                assert sides.verify_tail(leaves).right


@pytest.mark.parametrize("when", [Cut.BEFORE, Cut.AFTER])
def test_cut_while_it_completes_the_same_command_goes_on(
    tmp_path: Path, postgres_url: str, when: Cut
) -> None:
    with Proxy(postgres_url) as proxy:
        shop = Shop(tmp_path, postgres_url, proxy)
        shop.run(commands.cutover)
        at = 1
        shop.append()
        while shop.run_cut(commands.complete, at, when, down=False):
            at += 1
        assert at >= 4
        assert commands.status(shop.world.project).job.state is State.COMPLETED
        for side in Side:
            assert shop.held(side) == shop.expected(side)
