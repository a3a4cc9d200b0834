"""Live rows kept up to date, also while they are rebuilt, swapped and rolled back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from eventmig.errors import JobLockedError, RebuildError
from eventmig.rebuild import Phase, RebuildProgress, following, rollback_read_models
from eventmig.rebuild.following import Followed, bring_up_to_date, follow
from eventmig.rebuild.read_model import ReadModel
from tests.unit.read_model_helpers import StopError, daily, orders, rebuild, sales, sums
from tests.unit.rebuild_helpers import MemorySource, rows_of, same


class Growing(MemorySource):
    """A source of which only the first `seen` events are there yet."""

    def __init__(self, count: int, seen: int) -> None:
        super().__init__(orders(count))
        self.all = self.events
        self.grow_to(seen)

    def grow_to(self, seen: int) -> None:
        self.events = self.all[:seen]


def bring_on(engine: Engine, source: MemorySource, model: ReadModel | None = None, **o: Any) -> Any:
    (found,) = bring_up_to_date([model or daily()], source=source, upcast=same, engine=engine, **o)
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "this should have happened by now"
        time.sleep(0.005)


# --- a rebuild of a store that is written meanwhile


def test_a_rebuild_takes_in_what_is_appended_until_the_swap(engine: Engine) -> None:
    source = Growing(60, 40)
    phases: list[Phase] = []

    def tell(progress: RebuildProgress) -> None:
        phases.append(progress.phase)
        if progress.phase is not Phase.SWAPPED:
            source.grow_to(min(60, len(source.events) + 4))

    result = rebuild(daily(), engine, source, progress=tell)
    assert result.position == len(source.events) > 40
    assert rows_of(engine, sales) == sums(len(source.events))
    assert Phase.CATCHING_UP in phases


def test_the_last_events_come_in_with_the_swap(engine: Engine) -> None:
    source = Growing(60, 40)
    heads = iter([40, 45, 60])

    def head() -> int:
        source.grow_to(next(heads))
        return MemorySource.head_position(source)

    source.head_position = head  # type: ignore[method-assign]
    result = rebuild(daily(), engine, source)
    assert (result.position, result.events_read, result.events_folded) == (60, 60, 60)
    assert rows_of(engine, sales) == sums(60)
    source.head_position = lambda: 60  # type: ignore[method-assign]
    assert bring_on(engine, source).events == 0


def test_a_last_event_that_fails_stops_the_swap(engine: Engine) -> None:
    source = Growing(41, 40)
    source.all[40] = source.all[40]._replace(data=b'{"day": 5}')
    rebuild(daily(), engine, Growing(40, 3))
    heads = iter([40, 40, 41])

    def head() -> int:
        source.grow_to(next(heads))
        return MemorySource.head_position(source)

    source.head_position = head  # type: ignore[method-assign]
    with pytest.raises(RebuildError, match="does not fit its handler") as raised:
        rebuild(daily(cents=2, version=2), engine, source)
    assert raised.value.where.event_id == "event-41"
    assert rows_of(engine, sales) == sums(3)


# --- live rows brought on


def test_what_is_new_is_applied_once(engine: Engine) -> None:
    source = Growing(60, 40)
    rebuild(daily(), engine, source)
    assert bring_on(engine, source) == Followed(name="daily", generation=1, position=40, events=0)
    source.grow_to(60)
    assert bring_on(engine, source) == Followed(name="daily", generation=1, position=60, events=20)
    assert bring_on(engine, source).events == 0
    assert rows_of(engine, sales) == sums(60)


@pytest.mark.parametrize("commits", [0, 1, 2])
def test_stopped_after_any_commit_it_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    monkeypatch.setattr(following, "_BATCH", 7)
    source = Growing(60, 40)
    rebuild(daily(), engine, source)
    source.grow_to(60)
    seen: list[Followed] = []

    def stop(found: Followed) -> None:
        seen.append(found)
        if len(seen) > commits:
            raise StopError

    with pytest.raises(StopError):
        bring_on(engine, source, on_commit=stop)
    assert rows_of(engine, sales) == sums(min(60, 40 + 7 * (commits + 1)))
    bring_on(engine, source)
    assert rows_of(engine, sales) == sums(60)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda engine: None, "has no live rows yet"),
        (lambda engine: rebuild(daily(cents=2), engine, Growing(9, 9)), "other handlers"),
        (
            lambda engine: rebuild(daily(), engine, MemorySource(orders(9), "copy")),
            "another source",
        ),
    ],
)
def test_rows_that_these_handlers_did_not_make_are_left_alone(
    engine: Engine, prepare: Callable[[Engine], object], reason: str
) -> None:
    prepare(engine)
    with pytest.raises(RebuildError, match=reason) as raised:
        bring_on(engine, Growing(9, 9), daily(version=1 if "other" not in reason else 3))
    assert "eventmig rebuild daily" in raised.value.remedy


def test_an_event_that_cannot_be_handled_stops_before_it(engine: Engine) -> None:
    source = Growing(60, 40)
    rebuild(daily(), engine, source)
    source.all[50] = source.all[50]._replace(data=b'{"day": 5}')
    source.grow_to(60)
    with pytest.raises(RebuildError) as raised:
        bring_on(engine, source)
    assert raised.value.where.event_id == "event-51"
    assert rows_of(engine, sales) == sums(40)


def test_a_second_one_is_refused_or_stands_by_and_takes_over(engine: Engine) -> None:
    source = Growing(60, 40)
    rebuild(daily(), engine, source)
    ends = [threading.Event(), threading.Event()]
    standing_by = threading.Event()
    options: dict[str, Any] = {"source": source, "upcast": same, "engine": engine}
    first = threading.Thread(target=lambda: follow([daily()], stop=ends[0].is_set, **options))
    second = threading.Thread(
        target=lambda: follow([daily()], stop=ends[1].is_set, on_standby=standing_by.set, **options)
    )
    first.start()
    try:
        source.grow_to(45)
        until(lambda: rows_of(engine, sales) == sums(45))
        second.start()
        assert standing_by.wait(30)
        with pytest.raises(JobLockedError, match="kept up to date"):
            bring_on(engine, source)
        ends[0].set()
        first.join()
        source.grow_to(60)
        until(lambda: rows_of(engine, sales) == sums(60))
    finally:
        for end in ends:
            end.set()
        first.join()
        second.join()


def test_two_that_both_lead_count_nothing_twice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a session lock had been lost: the position is what counts."""
    monkeypatch.setattr(following, "held", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(following, "_BATCH", 3)
    monkeypatch.setattr(following, "_PAUSE", 0)
    source = Growing(300, 10)
    rebuild(daily(), engine, source)
    end = threading.Event()
    both = [_following(engine, source, end) for _ in range(2)]
    try:
        for seen in range(10, 301, 10):
            source.grow_to(seen)
            time.sleep(0.002)
        until(lambda: rows_of(engine, sales) == sums(300))
    finally:
        end.set()
        for thread in both:
            thread.join()
    assert rows_of(engine, sales) == sums(300)


def test_a_follower_goes_on_through_rebuilds_and_rollbacks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PAUSE", 0.001)
    source = Growing(400, 50)
    rebuild(daily(), engine, source)
    end = threading.Event()
    follower = _following(engine, source, end)
    try:
        for turn in range(4):
            rebuild(
                daily(),
                engine,
                source,
                batch_size=40,
                progress=lambda _: source.grow_to(min(380, len(source.events) + 7)),
            )
            if turn == 2:
                rollback_read_models(["daily"], engine=engine)
        source.grow_to(400)
        until(lambda: rows_of(engine, sales) == sums(400))
    finally:
        end.set()
        follower.join()


def _following(engine: Engine, source: MemorySource, end: threading.Event) -> threading.Thread:
    def run() -> None:
        follow([daily()], source=source, upcast=same, engine=engine, stop=end.is_set)

    thread = threading.Thread(target=run)
    thread.start()
    return thread
