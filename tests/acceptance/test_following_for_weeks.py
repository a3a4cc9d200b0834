"""A job that follows for very many rounds: its ledger stays small, and says all it said before."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmig import commands
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import folding, ledger
from eventmig.migrate.follow import Follower
from eventmig.migrate.states import Side, State
from eventmig.stores.base import ANY
from tests.acceptance.test_postgres_jobs import held
from tests.acceptance.world import World

RECENT = 8
ROUNDS = 40


def test_rounds_are_folded_and_stay_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "RECENT", RECENT)
    world = World(tmp_path)
    world.upcast()
    for leaves in (Side.OLD, Side.NEW):
        with commands.holding.held(world.project) as (sides, writer):
            follower = Follower(sides, writer, sleep=lambda seconds: None)
            member, version = ("mail", 1) if leaves is Side.OLD else ("email", 2)
            data = f'{{"{member}":"b"}}'.encode()
            with LiveStore(*world.urls, kept_s=0) as store:
                for _ in range(ROUNDS):
                    store.append("cart-1", [NewEvent("Placed", data, version)], expected=ANY)
                    follower.round()
            while follower.round() is None:
                if sides.verify_tail(leaves).source_events == 0:
                    break
            copy = sides.copier(leaves).job
            with sides.side(leaves.other).reading() as connection:
                rows = list(ledger.batches(connection, copy))
                told = ledger.followed(connection, copy)
            assert 2 < len(rows) < 2 * RECENT + 5
            assert sum(row.tally.read for row in rows) == copy.tally.read
            assert told.verified_batch == rows[-1].number
        if leaves is Side.OLD:
            found = commands.verify(world.project).verification
            assert found is not None
            assert found.right, found.shown
            commands.cutover(world.project)
    assert commands.reverse(world.project).job.state is State.REVERSED
    assert [len(held(url)) for url in world.urls] == [60 + 2 * ROUNDS] * 2
    found = commands.verify(world.project).verification
    assert found is not None
    assert found.right, found.shown
