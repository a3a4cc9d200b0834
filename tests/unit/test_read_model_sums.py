"""Read models that a source sums have the rows of one event at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine
from sqlalchemy.pool import StaticPool

from eventmig.chains import DataChain
from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import (
    ReadModel,
    RebuildProgress,
    RebuildResult,
    Rows,
    rebuild_read_models,
    sharing,
    summing,
)
from eventmig.rebuild.interleaving import contents
from eventmig.rebuild.ranges import fold_range, packed, unpacked
from eventmig.rebuild.replay import Replay
from eventmig.stores.faster import NotSummedError
from tests.unit.rebuild_helpers import MemorySource, history, rows_of
from tests.unit.summing_source import SummingSource

accounts = Table(
    "accounts",
    MetaData(),
    Column("who", String, primary_key=True),
    Column("cents", Integer),
    Column("times", Integer, nullable=False, default=10),
)
cells = Table(
    "cells",
    MetaData(),
    Column("kind", String, primary_key=True),
    Column("cents", Integer, primary_key=True),
    Column("n", Integer, nullable=False, default=0),
)


class Moved(Struct):
    source: str
    target: str
    cents: int


class Seen(Struct):
    who: str


def model() -> ReadModel:
    made = ReadModel("accounts", tables=[accounts, cells])

    @made.on("Moved")
    def moved(data: Moved, rows: Rows) -> None:
        rows.increment(accounts, data.source, times=1)
        rows.increment(accounts, data.target, cents=data.cents)
        rows.increment(cells, {"kind": "moved", "cents": data.cents}, n=1)

    @made.on("Seen")
    def seen(data: Seen, rows: Rows) -> None:
        rows.increment(accounts, data.who, times=3)

    return made


NAMES = st.sampled_from(["a", "b", "c"])
MOVED = st.fixed_dictionaries({"source": NAMES, "target": NAMES, "cents": st.integers(-3, 3)})
SEEN = st.fixed_dictionaries({"who": NAMES})
good = st.one_of(
    st.tuples(st.just("Moved"), st.just(2), MOVED), st.tuples(st.just("Seen"), st.just(1), SEEN)
)
old = st.tuples(st.just("Moved"), st.just(1), MOVED)
Kept = tuple[str, int, dict[str, Any]]


def chain_of(type_: str, version: int) -> DataChain:
    """Version 1 of `Moved` counted in tenths."""
    if (type_, version) == ("Moved", 1):
        return DataChain(type_, new_data=tenfold, new_lines=tenfold_lines)
    return DataChain(type_)


def tenfold(data: bytes) -> bytes:
    found = json.loads(data)
    return json.dumps(found | {"cents": 10 * found["cents"]}).encode()


def tenfold_lines(data: Sequence[bytes]) -> bytes:
    return b"".join(tenfold(one) + b"\n" for one in data)


def upcast(events: Sequence[Event]) -> list[Event]:
    return [
        event._replace(schema_version=2, data=tenfold(event.data))
        if (event.type, event.schema_version) == ("Moved", 1)
        else event
        for event in events
    ]


def events_of(kept: Sequence[Kept]) -> list[Event]:
    events = history(("s-1", type_, data) for type_, _, data in kept)
    return [
        event._replace(schema_version=version)
        for event, (_, version, _) in zip(events, kept, strict=True)
    ]


def rebuild(
    engine: Engine, source: SummingSource, made: ReadModel | None = None, **more: Any
) -> RebuildResult:
    (result,) = rebuild_read_models(
        [made or model()],
        source=source,
        upcast=upcast,
        data_upcaster=chain_of,
        engine=engine,
        **{"release": "1"} | more,
    )
    return result


def right(
    events: Sequence[Event], made: ReadModel | None = None
) -> Mapping[str, list[tuple[object, ...]]]:
    """What one event at a time comes to, by calls of the handlers."""
    made = made or model()
    rows: dict[str, list[tuple[object, ...]]] = {table.name: [] for table in made.tables}
    for (table, key), values in contents(made, upcast(events)).items():
        rows[table].append((*key, *values))
    return {name: sorted(some) for name, some in rows.items()}


def stored(engine: Engine) -> Mapping[str, list[tuple[object, ...]]]:
    return {table.name: sorted(rows_of(engine, table)) for table in (accounts, cells)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    monkeypatch.setattr(summing, "_FIRST", 5)
    monkeypatch.setattr(summing, "_LAST", 3)
    yield
    while ENGINES:
        ENGINES.pop().dispose()


ENGINES: list[Engine] = []


def memory() -> Engine:
    ENGINES.append(create_engine("sqlite://", poolclass=StaticPool))
    return ENGINES[-1]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(good, good, old), max_size=15),
    st.lists(good, max_size=30),
    st.integers(1, 40),
    st.integers(0, 1_000),
)
def test_sums_give_the_rows_of_one_event_at_a_time(
    first: list[Kept], then: list[Kept], max_rows: int, seed: int
) -> None:
    """Events of an older version go the Python way, and so do those before the last of them."""
    events = events_of([*first, *then])
    source = SummingSource(events, seed=seed)
    result = rebuild(memory_engine := memory(), source, max_rows=max_rows)
    assert stored(memory_engine) == right(events)
    assert (result.events_read, result.events_folded) == (len(events), len(events))
    assert result.events_summed == source.summed
    if len(then) > 5 and all(version == 2 or type_ == "Seen" for type_, version, _ in first):
        assert source.summed == len(events)
    elif len(then) > 5:
        assert source.summed >= len(then)


@settings(max_examples=25, deadline=None)
@given(st.lists(good, min_size=12, max_size=30), old, st.integers(6, 11), st.integers(0, 99))
def test_an_older_version_amid_the_others_ends_the_sums(
    kept: list[Kept], older: Kept, place: int, seed: int
) -> None:
    events = events_of([*kept[:place], older, *kept[place:]])
    source = SummingSource(events, seed=seed)
    rebuild(memory_engine := memory(), source)
    assert stored(memory_engine) == right(events)
    assert 0 < source.summed < len(events)


class Unable(SummingSource):
    """It has events that cannot be summed."""

    def kinds_to_sum(self, **_: Any) -> None:
        return None

    def read_sums(self, **_: Any) -> Any:
        raise NotSummedError


def alike() -> ReadModel:
    """All that it adds is added to the same columns."""
    made = ReadModel("accounts", tables=[accounts])

    @made.on("Moved")
    def moved(data: Moved, rows: Rows) -> None:
        rows.increment(accounts, data.source, times=1, cents=data.cents)
        rows.increment(accounts, {"who": data.target}, cents=0, times=-2)

    @made.on("Seen")
    def seen(data: Seen, rows: Rows) -> None:
        rows.increment(accounts, data.who, times=0, cents=1)
        rows.increment(accounts, "all", times=1, cents=0)

    return made


@pytest.mark.parametrize("making", [model, alike])
def test_what_handlers_only_add_is_added_without_them(making: Callable[[], ReadModel]) -> None:
    made = making()
    assert made.only_adds

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.one_of(good, old), max_size=30), st.integers(1, 10), st.integers(1, 9))
    def check(kept: list[Kept], max_rows: int, batch_size: int) -> None:
        events = events_of(kept)
        engine = memory()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Rows, "increment", None)
            result = rebuild(engine, Unable(events), made, max_rows=max_rows, batch_size=batch_size)
        assert {table.name: sorted(rows_of(engine, table)) for table in made.tables} == right(
            events, made
        )
        assert (result.events_folded, result.events_summed) == (len(events), 0)

    check()


@pytest.mark.parametrize("made", [model(), alike()])
def test_what_is_added_can_be_handed_to_another_process(made: ReadModel) -> None:
    events = events_of([("Moved", 2, {"source": "a", "target": "b", "cents": 3})] * 4)
    plan = Replay(
        source=MemorySource(events),
        upcast=upcast,
        types=None,
        upto=4,
        batch_size=10,
        max_rows=100,
        data_upcaster=chain_of,
    )
    found = fold_range(made, plan, 0, 4)
    again = unpacked(made, packed(found))
    assert [one.sums for one in again.tables] == [one.sums for one in found.tables]
    assert all(one.sums and not one.effects for one in again.tables)


SPOILED = [{"who": 7}, {"who": None}, {}, {"whom": "a"}]


@pytest.mark.parametrize("data", SPOILED)
@pytest.mark.parametrize("place", [0, 7, 19])
def test_an_event_without_what_is_summed_is_named(data: dict[str, Any], place: int) -> None:
    kept: list[Kept] = [("Seen", 1, {"who": "a"})] * 20
    kept[place] = ("Seen", 1, data)
    events = events_of(kept)
    with pytest.raises(RebuildError) as raised:
        rebuild(memory(), SummingSource(events))
    assert raised.value.where.event_id == events[place].id
    assert raised.value.where.global_position == place + 1


def test_what_only_python_can_add_up_is_left_to_it() -> None:
    kept: list[Kept] = [("Moved", 2, {"source": "a", "target": "b", "cents": 2**62})] * 3
    kept += [("Moved", 2, {"source": "a", "target": "b", "cents": -(2**62)})] * 3
    events = events_of(kept)
    source = SummingSource(events, seed=1)
    rebuild(memory_engine := memory(), source)
    assert stored(memory_engine) == right(events)


def test_a_source_that_fails_amid_sums_is_read_by_python() -> None:
    class Failing(SummingSource):
        def read_sums(self, **wanted: Any) -> Any:
            yield next(super().read_sums(**wanted))
            raise RebuildError("the server cancelled a statement")

    events = events_of([("Seen", 1, {"who": "a"})] * 20)
    result = rebuild(memory_engine := memory(), source := Failing(events))
    assert stored(memory_engine) == right(events)
    assert 0 < source.summed < 20
    assert result.events_read == 20


def test_a_rebuild_that_was_killed_goes_on_with_sums() -> None:
    events = events_of([("Seen", 1, {"who": name}) for name in "abcde" * 8])
    engine = memory()

    def stop(progress: RebuildProgress) -> None:
        if progress.events_read:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(engine, SummingSource(events), max_rows=1, progress=stop)
    source = SummingSource(events)
    result = rebuild(engine, source)
    assert result.resumed
    assert 0 < source.summed < 40
    assert source.summed == result.events_summed
    assert stored(engine) == right(events)


def test_few_events_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 21)
    source = SummingSource(events_of([("Seen", 1, {"who": "a"})] * 20))
    assert rebuild(memory(), source).events_summed == 0


@pytest.mark.parametrize(("batch_size", "summed"), [(4, 0), (5, 20)])
def test_who_asks_for_small_batches_gets_them(
    batch_size: int, summed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 5)
    source = SummingSource(events_of([("Seen", 1, {"who": "a"})] * 20))
    assert rebuild(memory(), source, batch_size=batch_size).events_summed == summed


def test_a_source_that_cannot_sum_these_events_is_read() -> None:
    events = events_of([("Seen", 1, {"who": "a"})] * 20)
    rebuild(memory_engine := memory(), source := Unable(events))
    assert source.summed == 0
    assert stored(memory_engine) == right(events)
