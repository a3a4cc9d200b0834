"""Events set aside in a rebuild: the others count, and nothing is swapped unasked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from eventmig.errors import RebuildError, UpcastError
from eventmig.events import Event
from eventmig.rebuild import careful, rollback_read_models
from tests.unit.read_model_helpers import StopError, daily, orders, rebuild, sales, stop_after, sums
from tests.unit.rebuild_helpers import MemorySource, history, names_in, rows_of, same
from tests.unit.test_read_model_fold import (
    OneAtATime,
    metadata,
    model,
    operations,
    plain,
    run,
    strict,
)


def reference(events: list[Event]) -> tuple[dict[str, list[Any]], list[int]]:
    """The rows after each operation that can be done, and the positions of the others."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    failed: list[int] = []
    with engine.begin() as connection:
        for event in events:
            try:
                run(OneAtATime(connection), json.loads(event.data))
            except RebuildError:
                failed.append(event.global_position)
    found = {table.name: rows_of(engine, table) for table in (plain, strict)}
    engine.dispose()
    return found, failed


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=30), st.integers(1, 9))
def test_what_fails_is_set_aside_and_nothing_else(data: list[dict[str, Any]], batch: int) -> None:
    events = history(("s-1", "Op", one) for one in data)
    wanted, failed = reference(events)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(careful, "BATCH", batch)
        patch.setattr("eventmig.rebuild.building.BATCH", batch)
        result = rebuild(
            model(), engine, MemorySource(events), quarantine=True, accept_quarantined=True
        )
    assert [aside.global_position for aside in result.quarantined] == failed
    assert all(aside.reason and aside.handler and aside.key for aside in result.quarantined)
    assert result.events_read == len(events)
    assert {t.name: rows_of(engine, t) for t in (plain, strict)} == wanted
    engine.dispose()


def broken(count: int, *positions: int) -> MemorySource:
    """The orders, of which those at these positions (from 1) hold what no handler takes."""
    return MemorySource(
        e._replace(data=b'{"day": 5}') if e.global_position in positions else e
        for e in orders(count)
    )


def without(count: int, *positions: int) -> list[tuple[object, ...]]:
    days: dict[str, list[int]] = {day: [n, c] for day, n, c in sums(count)}  # type: ignore[misc]
    for position in positions:
        day = days[f"day-{(position - 1) % 5}"]
        day[0] -= 1
        day[1] -= position - 1
    return [(day, *found) for day, found in sorted(days.items())]


def test_it_is_not_swapped_in_unless_told_to(engine: Engine) -> None:
    rebuild(daily(version=0), engine, MemorySource(orders(3)))
    source = broken(40, 7, 31)
    result = rebuild(daily(), engine, source, quarantine=True)
    assert not result.swapped
    assert rows_of(engine, sales) == sums(3)
    (first, second) = result.quarantined
    assert (first.event_id, first.stream, first.stream_position) == ("event-7", "order-6", 1)
    assert first.type == "OrderPlaced"
    assert "does not fit its handler" in first.reason
    assert str(first.handler).endswith("placed")
    assert second.event_id == "event-31"

    again = rebuild(daily(), engine, source, quarantine=True)
    assert (again.resumed, again.swapped, len(again.quarantined)) == (True, False, 2)
    told = rebuild(daily(), engine, source, quarantine=True, accept_quarantined=True)
    assert told.resumed
    assert (told.swapped, told.kept) == (True, 1)
    assert rows_of(engine, sales) == without(40, 7, 31)
    assert rollback_read_models(["daily"], engine=engine) == {"daily": 1}


def test_without_quarantine_the_first_one_stops_it(engine: Engine) -> None:
    with pytest.raises(RebuildError) as raised:
        rebuild(daily(), engine, broken(40, 7, 31))
    assert raised.value.where.event_id == "event-7"


def test_a_mended_handler_begins_anew_with_nothing_set_aside(engine: Engine) -> None:
    assert not rebuild(daily(), engine, broken(40, 7), quarantine=True).swapped
    result = rebuild(daily(version=2), engine, MemorySource(orders(40)), quarantine=True)
    assert (result.resumed, result.swapped, result.quarantined) == (False, True, [])
    assert rows_of(engine, sales) == sums(40)


def test_an_event_that_cannot_be_upcast_is_set_aside_too(engine: Engine) -> None:
    def upcast(events: Any) -> list[Event]:
        for event in events:
            if event.global_position == 12:
                raise UpcastError("no upcaster starts here")
        return same(events)

    result = rebuild(daily(), engine, MemorySource(orders(40)), upcast=upcast, quarantine=True)
    assert [(a.global_position, a.reason, a.handler) for a in result.quarantined] == [
        (12, "no upcaster starts here", None)
    ]


@pytest.mark.parametrize("commits", range(6))
def test_stopped_anywhere_it_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    monkeypatch.setattr(careful, "BATCH", 10)
    monkeypatch.setattr("eventmig.rebuild.building.BATCH", 10)
    source = broken(40, 7, 9, 31)
    options = {"quarantine": True, "accept_quarantined": True}
    with pytest.raises(StopError):
        rebuild(daily(), engine, source, progress=stop_after(commits), **options)
    result = rebuild(daily(), engine, source, **options)
    assert [aside.global_position for aside in result.quarantined] == [7, 9, 31]
    assert rows_of(engine, sales) == without(40, 7, 9, 31)
    assert {name for name in names_in(engine) if "__g" in name} == set()
