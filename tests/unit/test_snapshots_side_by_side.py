"""Snapshots gathered by several processes are those of one event at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.pool import StaticPool

from bench.domain import order
from bench.workspace import Workspace, url_of
from eventmig import commands
from eventmig.errors import RebuildError
from eventmig.events import Event, Origin
from eventmig.fold_workers import fold_processes
from eventmig.rebuild import (
    Aggregate,
    gathering,
    rebuild_snapshots,
    sharing,
)
from eventmig.rebuild.bookkeeping import generations, snapshots
from eventmig.rebuild.gathering import Gathered, gather, gather_range, packed, unpacked
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.sharing import Work
from eventmig.stores.open import open_store
from tests.unit.rebuild_helpers import (
    Helpers,
    MemorySource,
    engine_at,
    history,
    same,
    same_data,
)
from tests.unit.test_snapshots import Cart, ItemAdded, StopError, cart, carts, options, stop_at


class Item(BaseModel):
    sku: str
    n: int


def narrow_cart(category: str | None = "cart", item: type = ItemAdded) -> Aggregate[Cart]:
    """The cart of the other tests, whose handlers take no event."""
    made = Aggregate("cart", category=category, state=Cart)

    def added(state: Cart | None, data: Any) -> Cart:
        items = {} if state is None else state.items
        return Cart(items=items | {data.sku: items.get(data.sku, 0) + data.n})

    added.__annotations__["data"] = item
    made.on("ItemAdded")(added)

    @made.on("Closed")
    def closed(state: Cart | None) -> Cart:
        return Cart(items={} if state is None else state.items, closed=True)

    @made.on("Begun")
    def begun(data: dict) -> Cart:  # type: ignore[type-arg]
        return Cart(items={"begun": data["n"]})

    return made


def plan_of(source: MemorySource, size: int = 3, **more: Any) -> Replay:
    values: dict[str, Any] = {"source": source, "upcast": same, "types": None, "upto": 0}
    values |= {"batch_size": size, "max_rows": 100, "data_upcaster": same_data}
    return Replay(**values | more)


def helpers(made: Aggregate[Any], plan: Replay, count: int, seed: int) -> Helpers:
    def work(after: int, until: int) -> tuple[int, bytes] | None:
        found = gather_range(gather(made, plan, after, until), until)
        return None if found is None else (found[0], packed(found[1]))

    return Helpers({Work.GATHER_STREAMS: work}, count, seed)


def live(engine: Engine) -> list[tuple[Any, ...]]:
    columns = [c for c in snapshots.columns if c.name not in {"generation", "fingerprint"}]
    query = (
        select(*columns)
        .join(generations, snapshots.c.generation == generations.c.generation)
        .where(generations.c.state == "live")
        .order_by(snapshots.c.stream, snapshots.c.slot)
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def reference(
    made: Aggregate[Any], events: list[Event], every: int | None
) -> list[tuple[Any, ...]]:
    """The snapshots of one stream after the other, one event at a time."""
    rows = []
    for stream in sorted({event.stream for event in events}):
        if made.category is not None and not made.covers(stream):
            continue
        state, folded, slot = None, 0, 0
        before: Event | None = None
        for event in (event for event in events if event.stream == stream):
            if before is not None and every and folded // every > slot:
                slot = folded // every
                at = (before.stream_position, before.id, folded, made.encode(state))
                rows.append(("cart", stream, slot, *at))
            before = event
            if event.type in made.types:
                state = made.apply(state, event)
                folded += 1
        if before is not None and (folded or made.category is not None):
            at = (before.stream_position, before.id, folded, made.encode(state))
            rows.append(("cart", stream, 0, *at))
    return sorted(rows)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    monkeypatch.setattr(gathering, "_AT_ONCE", 2)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = engine_at(tmp_path / "snapshots.db")
    yield made
    made.dispose()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cart-0", "cart-1", "cart", "cartoon-1", "order-1"]),
            st.sampled_from(["ItemAdded", "ItemAdded", "Closed", "Seen", "Begun"]),
        ),
        max_size=30,
    ),
    st.sampled_from([narrow_cart(), narrow_cart(None), narrow_cart(item=Item), cart()]),
    st.tuples(st.integers(1, 12), st.integers(0, 4), st.none() | st.integers(1, 4)),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 10_000), st.integers(0, 50)),
)
def test_any_cut_and_any_number_of_processes_give_those_of_one_event_at_a_time(
    entries: list[tuple[str, str]],
    made: Aggregate[Any],
    sizes: tuple[int, int, int | None],
    chance: tuple[int, int, int, int],
) -> None:
    events = history((s, t, {"sku": "a", "n": n}) for n, (s, t) in enumerate(entries))
    source = MemorySource(events)
    (batch_size, max_states, every), (before, after, seed, stop) = sizes, chance
    plan = plan_of(source, batch_size)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    how = options(source, engine, batch_size=batch_size, max_states=max_states, every=every)
    how["data_upcaster"] = same_data

    def with_helpers(count: int) -> dict[str, Any]:
        return how | {"helpers": helpers(made, plan, count, seed) if count else None}

    try:
        rebuild_snapshots([made], **with_helpers(before), progress=stop_at(stop))
    except StopError:
        rebuild_snapshots([made], **with_helpers(after))
    assert live(engine) == reference(made, events, every)
    engine.dispose()


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("wrong", [b'{"sku": 1}', b'{"sku": "a", "n": 1'])
def test_data_that_does_not_fit_stops_at_its_event(
    engine: Engine, count: int, wrong: bytes
) -> None:
    events = carts(60)
    events[22] = events[22]._replace(data=wrong)
    source, made = MemorySource(events), narrow_cart()
    with pytest.raises(RebuildError) as raised:
        rebuild_snapshots(
            [made],
            **options(source, engine, data_upcaster=same_data),
            helpers=helpers(made, plan_of(source), count, 1) if count else None,
        )
    assert raised.value.where.event_id == "event-23"
    assert str(raised.value.where.handler).endswith("added")
    assert live(engine) == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_fold_that_raises_names_event_and_handler(engine: Engine, count: int) -> None:
    made = narrow_cart()

    @made.on("Seen")
    def seen(state: Cart | None) -> Cart:
        raise LookupError("no such cart")

    source = MemorySource(carts(60))
    with pytest.raises(RebuildError, match="no such cart") as raised:
        rebuild_snapshots(
            [made],
            **options(source, engine, data_upcaster=same_data),
            helpers=helpers(made, plan_of(source), count, 1) if count else None,
        )
    first = next(e for e in source.events if e.type == "Seen" and made.covers(e.stream))
    assert raised.value.where.event_id == first.id
    assert str(raised.value.where.handler).endswith("seen")


def test_a_range_that_is_too_much_is_folded_page_by_page(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, made = MemorySource(carts(60)), narrow_cart()
    beside = helpers(made, plan_of(source), 2, 4)
    monkeypatch.setattr(gathering, "_MOST_BYTES", 20)
    reached, pages = gather_range(gather(made, plan_of(source), 0, 60), 60) or (0, [])
    assert 0 < reached < 60
    assert sum(page.events_read for page in pages) == reached
    how = options(source, engine, data_upcaster=same_data, helpers=beside)
    rebuild_snapshots([made], **how)
    assert beside.asked
    assert live(engine) == reference(made, source.events, None)


def listed(page: Gathered) -> list[Any]:
    """A page whose columns are lists, whatever they were."""
    return [list(part) if isinstance(part, tuple) else part for part in page]


@pytest.mark.parametrize("upcaster", [same_data, None])
def test_what_was_gathered_comes_back_as_it_was(upcaster: Any) -> None:
    events = [e._replace(origins=(Origin("ä", 1, 0),), metadata=b"{}") for e in carts(30)]
    events[7] = events[7]._replace(data=b'{\n"sku": "b",\n"n": 1}')
    source = MemorySource(events)
    for made in (narrow_cart(), narrow_cart(item=Item), cart()):
        found = list(gather(made, plan_of(source, data_upcaster=upcaster), 3, 25))
        assert sum(page.events_read for page in found) == 22
        back = unpacked(packed(found))
        assert [listed(page) for page in back] == [listed(page) for page in found]
        whole = upcaster is None or any("event" in h.takes for h in made.handlers.values())
        assert all((page.whole is not None) is whole for page in found)


def test_events_that_need_to_be_whole_are(engine: Engine) -> None:
    def not_seen(type_: str, schema_version: int) -> Any:
        return None if type_ == "Seen" else same_data(type_, schema_version)

    source, made = MemorySource(carts(60)), narrow_cart()
    found = list(gather(made, plan_of(source, data_upcaster=not_seen), 0, 60))
    first = next(e for e in source.events if e.type == "Seen" and made.covers(e.stream))
    for page in found:
        assert (page.whole is not None) is (page.until >= first.global_position)
    assert sum(page.events_read for page in found) == 60
    rebuild_snapshots([made], **options(source, engine, data_upcaster=not_seen))
    assert live(engine) == reference(made, source.events, None)


# --- between processes


def test_another_process_gathers_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workspace(tmp_path)
    work.make(events=4_000, streams=200)
    commands.rebuild(work.project(), ["order"], read_models=url_of(work.store("one")), workers=1)
    answered: list[int] = []

    def counted(message: bytes) -> Any:
        found = unpacked(message)
        answered.extend(page.events_read for page in found)
        return found

    monkeypatch.setattr(gathering, "unpacked", counted)
    project, url = work.project(), url_of(work.source)
    two, alone = engine_at(work.store("two")), engine_at(work.store("one"))
    store = open_store(url)
    try:
        with fold_processes(project, [order], count=1, source=url, max_rows=1_000) as processes:
            end = time.monotonic() + 60
            while not processes.ready(0) and time.monotonic() < end:
                time.sleep(0.01)
            rebuild_snapshots(
                [order],
                source=store,
                upcast=project.registry.upcast_batch,
                engine=two,
                release=commands.release_mark(project),
                source_types=project.registry.sources_of,
                data_upcaster=project.registry.data_upcaster,
                helpers=processes,
            )
            (child,) = processes._children
        assert child.poll() is not None
        assert 0 < sum(answered) < 4_000
        assert live(two) == live(alone)
        assert len(live(two)) == 200
    finally:
        store.close()
        two.dispose()
        alone.dispose()
