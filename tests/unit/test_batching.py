"""When what has been folded is to be written, and when cycles are looked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from eventmig.rebuild import batching
from eventmig.rebuild.batching import Batch
from eventmig.rebuild.collector import collector_paused


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_batch_is_enough_by_events_by_rows_or_by_time(clock: list[float]) -> None:
    batch = Batch(1_000, 50)
    assert not batch.add(999, 50)
    assert batch.add(1, 50)
    batch.begin()
    assert (batch.pending, batch.add(1, 51)) == (0, True)
    batch.begin()
    clock[0] += 4.9
    assert not batch.add(1, 1)
    clock[0] += 0.1
    assert batch.add(1, 1)
    batch.begin()
    assert not batch.add(1, 1)
    assert batch.pending == 1


class _Cycle:
    alive = 0

    def __init__(self) -> None:
        self.itself = self
        _Cycle.alive += 1

    def __del__(self) -> None:
        _Cycle.alive -= 1


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()
    gc.collect()


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize("enabled", [True, False])
def test_cycles_of_handlers_are_collected_within_a_batch(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    gc.collect()
    with collector_paused() as paused:
        for _ in range(10):
            _Cycle()
        paused.folded(99_999)
        assert _Cycle.alive == 10
        paused.folded(1)
        assert _Cycle.alive == (0 if enabled else 10)
        with paused.let_run():
            assert gc.isenabled() == enabled
        assert not gc.isenabled()
    assert gc.isenabled() == enabled
