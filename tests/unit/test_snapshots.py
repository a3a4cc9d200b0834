"""Snapshots: folding, loading, going stale, and being rebuilt beside the live ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.pool import StaticPool

from eventmig.errors import JobLockedError, RebuildError
from eventmig.events import Event
from eventmig.rebuild import (
    Aggregate,
    RebuildProgress,
    compare_snapshots,
    load,
    rebuild_snapshots,
    rollback_snapshots,
)
from eventmig.rebuild.bookkeeping import generations, snapshots
from tests.unit.rebuild_helpers import MemorySource, engine_at, history, same

ROOT = Path(__file__).resolve().parents[2]


class ItemAdded(msgspec.Struct):
    sku: str
    n: int


class Cart(msgspec.Struct):
    items: dict[str, int] = {}
    closed: bool = False


class Basket(BaseModel):
    items: dict[str, int] = Field(default={}, alias="itemList")


def cart(version: int = 1) -> Aggregate[Cart]:
    made = Aggregate("cart", category="cart", state=Cart, version=version)

    @made.on("ItemAdded")
    def added(state: Cart | None, item: ItemAdded, event: Event) -> Cart:
        items = {} if state is None else state.items
        return Cart(items=items | {item.sku: items.get(item.sku, 0) + item.n})

    @made.on("Closed")
    def closed(state: Cart | None) -> Cart:
        return Cart(items={} if state is None else state.items, closed=True)

    return made


def carts(count: int, streams: int = 5) -> list[Event]:
    entries = []
    for n in range(count):
        stream = f"cart-{n % streams}" if n % 4 else f"order-{n % streams}"
        type_ = "Closed" if n % 11 == 10 else "Seen" if n % 13 == 12 else "ItemAdded"
        entries.append((stream, type_, {"sku": f"s{n % 3}", "n": n}))
    return history(entries)


def replayed(events: list[Event], stream: str) -> Cart | None:
    return cart().fold(event for event in events if event.stream == stream)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = engine_at(tmp_path / "snapshots.db")
    yield made
    made.dispose()


def options(source: MemorySource, engine: Engine, /, **more: Any) -> dict[str, Any]:
    return {"source": source, "upcast": same, "engine": engine, "release": "1"} | more


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        query = (
            select(snapshots.c.stream, snapshots.c.slot, snapshots.c.stream_position)
            .join(generations, snapshots.c.generation == generations.c.generation)
            .where(generations.c.state == "live")
            .order_by(snapshots.c.stream, snapshots.c.slot)
        )
        return [tuple(row) for row in connection.execute(query)]


class StopError(Exception):
    """Raised by a progress callback in place of a kill."""


def stop_at(events_read: int) -> Any:
    def tell(progress: RebuildProgress) -> None:
        if progress.events_read >= events_read:
            raise StopError

    return tell


# --- loading


def test_a_snapshot_and_the_events_after_it_make_the_state(engine: Engine) -> None:
    events = carts(60)
    (result,) = rebuild_snapshots([cart()], **options(MemorySource(events[:40]), engine))
    assert (result.generation, result.events_read, result.rows) == (
        1,
        40,
        {"eventmig_snapshots": 5},
    )
    source = MemorySource(events)
    for stream in (f"cart-{n}" for n in range(5)):
        loaded = load(cart(), stream, **options(source, engine))
        mine = [event for event in events if event.stream == stream]
        assert loaded.state == replayed(events, stream)
        assert loaded.from_snapshot
        assert loaded.stale is None
        assert loaded.stream_position == mine[-1].stream_position
        assert loaded.events_replayed == sum(event.global_position > 40 for event in mine)


def test_without_snapshots_all_events_are_replayed(engine: Engine) -> None:
    events = carts(30)
    loaded = load(cart(), "cart-1", **options(MemorySource(events), engine))
    assert loaded.state == replayed(events, "cart-1")
    assert (loaded.from_snapshot, loaded.stale) == (False, None)
    empty = load(cart(), "cart-99", **options(MemorySource(events), engine))
    assert (empty.state, empty.stream_position, empty.events_replayed) == (None, 0, 0)
    with pytest.raises(RebuildError, match="not of the category cart"):
        load(cart(), "order-1", **options(MemorySource(events), engine))


@pytest.mark.parametrize(
    ("aggregate", "change", "reason"),
    [
        (cart(version=2), {}, "its state, fold or release is another"),
        (cart(), {"release": "2"}, "its state, fold or release is another"),
        (cart(), {"source": MemorySource(carts(40), "copy")}, "another source"),
        (
            cart(),
            {"source": MemorySource([e._replace(id=f"x-{e.id}") for e in carts(40)])},
            "not at its position any more",
        ),
        (
            cart(),
            {"source": MemorySource([e for e in carts(40) if e.global_position < 20])},
            "not at its position any more",
        ),
    ],
)
def test_a_stale_snapshot_is_never_used(
    engine: Engine, aggregate: Aggregate[Cart], change: dict[str, Any], reason: str
) -> None:
    source = MemorySource(carts(40))
    rebuild_snapshots([cart()], **options(source, engine))
    with engine.begin() as connection:  # a state that would be seen if it were used
        connection.execute(snapshots.update().values(state='{"items": {"wrong": 1}}'))
    now: MemorySource = change.get("source", source)
    loaded = load(aggregate, "cart-1", **options(source, engine, **change))
    assert loaded.state == replayed(now.events, "cart-1")
    assert not loaded.from_snapshot
    assert reason in str(loaded.stale)


def test_another_fold_or_state_is_another_fingerprint() -> None:
    other = Aggregate("cart", category="cart", state=Cart)

    @other.on("ItemAdded")
    def added(state: Cart | None, item: ItemAdded, event: Event) -> Cart:
        return Cart(items={item.sku: item.n})

    wider = Aggregate("cart", category="cart", state=msgspec.defstruct("Cart", ["items", "more"]))
    found = {
        cart().fingerprint("1"),
        cart().fingerprint("2"),
        cart(version=2).fingerprint("1"),
        other.fingerprint("1"),
        wider.fingerprint("1"),
        Aggregate("cart", category="cart", state=Cart).fingerprint("1"),
    }
    assert len(found) == 6
    assert cart().fingerprint("1") == cart().fingerprint("1")


def test_the_state_as_it_was_is_loaded_from_the_snapshot_before(engine: Engine) -> None:
    events = carts(80, streams=2)
    source = MemorySource(events)
    rebuild_snapshots([cart()], **options(source, engine, every=4, batch_size=7))
    mine = [event for event in events if event.stream == "cart-1"]
    assert len([row for row in stored(engine) if row[0] == "cart-1"]) > 3
    for at in range(1, len(mine) + 1):
        loaded = load(cart(), "cart-1", **options(source, engine, upto=at))
        assert loaded.state == cart().fold(mine[:at])
        assert loaded.stream_position == at
        assert loaded.events_replayed < 8 or not loaded.from_snapshot


# --- kinds of state


def test_the_state_may_be_pydantic_or_a_dict(engine: Engine) -> None:
    basket = Aggregate("basket", category="cart", state=Basket)
    plain = Aggregate("plain", category="cart", state=dict)

    @basket.on("ItemAdded")
    def added(state: Basket | None, item: ItemAdded) -> Basket:
        items = {} if state is None else state.items
        return Basket(itemList=items | {item.sku: item.n})

    @plain.on("ItemAdded", "Closed")
    def anything(event: Event, state: dict | None, data: dict) -> dict | None:  # type: ignore[type-arg]
        return None if event.type == "Closed" else {**(state or {}), data["sku"]: data["n"] / 4}

    source = MemorySource(carts(60))
    both: list[Aggregate[Any]] = [basket, plain]
    rebuild_snapshots(both, **options(source, engine, batch_size=9, max_states=2, sample=None))
    for aggregate in both:
        loaded = load(aggregate, "cart-2", **options(source, engine))
        assert loaded.state == aggregate.fold(e for e in source.events if e.stream == "cart-2")
        assert loaded.from_snapshot


def test_a_state_that_does_not_come_back_from_json_is_found_out(engine: Engine) -> None:
    wrong: Aggregate[Any] = Aggregate("wrong", category="cart", state=dict)

    @wrong.on("ItemAdded")
    def added(state: dict | None, item: ItemAdded) -> dict:  # type: ignore[type-arg]
        return {"seen": (state or {}).get("seen", ()) + (item.sku,)}  # noqa: RUF005

    events = carts(60)
    with pytest.raises(RebuildError, match=r"a handler raised TypeError") as raised:
        rebuild_snapshots(
            [wrong], **options(MemorySource(events), engine, batch_size=5, max_states=1)
        )
    assert str(raised.value.where.handler).endswith("added")

    @wrong.on("Closed")
    def closed(state: dict | None) -> dict:  # type: ignore[type-arg]
        return {}

    calls = 0
    impure: Aggregate[Any] = Aggregate("impure", category="cart", state=dict)

    @impure.on("ItemAdded")
    def counted(state: dict | None, item: ItemAdded) -> dict:  # type: ignore[type-arg]
        nonlocal calls
        calls += 1
        return {"calls": calls}

    with pytest.raises(RebuildError, match="5 of 5 snapshots of impure do not lead") as raised:
        rebuild_snapshots([impure], **options(MemorySource(events), engine))
    assert raised.value.where.stream == "cart-0"
    assert stored(engine) == []


def test_aggregates_that_cannot_be_rebuilt_are_refused(engine: Engine) -> None:
    source = MemorySource(carts(3))
    none: Aggregate[Any] = Aggregate("none", category="cart", state=dict)
    with pytest.raises(RebuildError, match="none folds no event type"):
        rebuild_snapshots([none], **options(source, engine))
    with pytest.raises(RebuildError, match="cart is named twice"):
        rebuild_snapshots([cart(), cart()], **options(source, engine))


def test_a_fold_that_raises_names_the_event(engine: Engine) -> None:
    events = carts(40)
    events[22] = events[22]._replace(data=b'{"sku": 1}')
    with pytest.raises(RebuildError, match="does not fit its handler") as raised:
        rebuild_snapshots([cart()], **options(MemorySource(events), engine))
    assert raised.value.where.event_id == "event-23"
    assert str(raised.value.where.handler).endswith("added")


# --- rebuilding


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=60),
    st.integers(1, 20),
    st.integers(0, 4),
    st.none() | st.integers(1, 5),
    st.integers(0, 60),
)
def test_any_cut_and_any_stop_gives_the_states_of_a_full_replay(
    entries: list[tuple[int, int]],
    batch_size: int,
    max_states: int,
    every: int | None,
    stop: int,
) -> None:
    events = history((f"cart-{s}", "ItemAdded", {"sku": "a", "n": n}) for s, n in entries)
    source = MemorySource(events)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with_all = options(source, engine, batch_size=batch_size, max_states=max_states, every=every)
    try:
        rebuild_snapshots([cart()], **with_all, progress=stop_at(stop))
    except StopError:
        rebuild_snapshots([cart()], **with_all)
    (found,) = compare_snapshots([cart()], **options(source, engine), sample=None)
    assert (found.checked, found.stale) == (len({s for s, _ in entries}), 0)
    assert found.mismatches == ()
    for stream in {event.stream for event in events}:
        loaded = load(cart(), stream, **options(source, engine))
        assert (loaded.state, loaded.events_replayed) == (replayed(events, stream), 0)
    engine.dispose()


def test_a_killed_process_resumes(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from eventmig.rebuild import rebuild_snapshots
        from tests.unit.rebuild_helpers import MemorySource, engine_at
        from tests.unit.test_snapshots import cart, carts, options

        def tell(progress):
            if progress.events_read >= 30:
                os.kill(os.getpid(), signal.SIGKILL)

        source = MemorySource(carts(60))
        rebuild_snapshots([cart()], **options(source, engine_at(sys.argv[1])),
                          batch_size=10, max_states=2, progress=tell)
        """
    )
    path = tmp_path / "snapshots.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    engine = engine_at(path)
    events = carts(60)
    (result,) = rebuild_snapshots([cart()], **options(MemorySource(events), engine))
    assert (result.resumed, result.events_read) == (True, 60)
    for n in range(5):
        loaded = load(cart(), f"cart-{n}", **options(MemorySource(events), engine))
        assert loaded.state == replayed(events, f"cart-{n}")
    engine.dispose()


def test_the_live_snapshots_stay_until_the_new_ones_are_all_there(engine: Engine) -> None:
    source = MemorySource(carts(60))
    rebuild_snapshots([cart()], **options(source, engine))
    with pytest.raises(StopError):
        rebuild_snapshots(
            [cart(version=2)], **options(source, engine, batch_size=10), progress=stop_at(30)
        )
    assert load(cart(), "cart-1", **options(source, engine)).from_snapshot
    (again,) = rebuild_snapshots([cart()], **options(source, engine))
    assert again.restarted is not None


def test_rollback_and_what_is_kept(engine: Engine) -> None:
    source = MemorySource(carts(60))
    rebuild_snapshots([cart()], **options(source, engine))
    with pytest.raises(RebuildError, match="no earlier generation"):
        rollback_snapshots(["cart"], engine=engine)
    (second,) = rebuild_snapshots([cart(version=2)], **options(source, engine))
    assert second.kept == 1
    assert load(cart(), "cart-1", **options(source, engine)).stale is not None
    assert rollback_snapshots(["cart"], engine=engine) == {"cart": 1}
    assert load(cart(), "cart-1", **options(source, engine)).from_snapshot
    rebuild_snapshots([cart()], **options(source, engine))
    with engine.connect() as connection:
        numbers = set(connection.execute(select(snapshots.c.generation)).scalars())
    assert len(numbers) == 2


def test_a_second_rebuild_is_refused_while_one_runs(engine: Engine) -> None:
    source = MemorySource(carts(20))

    def tell(progress: RebuildProgress) -> None:
        with pytest.raises(JobLockedError, match="the aggregate cart"):
            rebuild_snapshots([cart()], **options(source, engine))

    rebuild_snapshots([cart()], **options(source, engine), progress=tell)


def test_named_streams_are_renewed_in_place(engine: Engine) -> None:
    events = carts(60)
    source = MemorySource(events)
    with pytest.raises(RebuildError, match="no snapshots of this source"):
        rebuild_snapshots([cart()], **options(source, engine), streams=["cart-1"])
    rebuild_snapshots([cart()], **options(MemorySource(events[:30]), engine))
    newer = cart(version=2)
    (result,) = rebuild_snapshots([newer], **options(source, engine), streams=["cart-1", "cart-77"])
    assert result.rows == {"eventmig_snapshots": 1}
    one, two = (load(newer, f"cart-{n}", **options(source, engine)) for n in (1, 2))
    assert (one.from_snapshot, one.events_replayed) == (True, 0)
    assert (two.from_snapshot, two.stale is not None) == (False, True)
    (found,) = compare_snapshots([newer], **options(source, engine), sample=None)
    assert (found.checked, found.stale, found.mismatches) == (5, 4, ())
    with pytest.raises(RebuildError, match="not of the category"):
        rebuild_snapshots([cart()], **options(source, engine), streams=["order-1"])


def test_comparing_finds_a_snapshot_that_is_wrong(engine: Engine) -> None:
    source = MemorySource(carts(60))
    with pytest.raises(RebuildError, match="has no snapshots"):
        compare_snapshots([cart()], **options(source, engine))
    rebuild_snapshots([cart()], **options(source, engine))
    with engine.begin() as connection:
        wrong = snapshots.update().where(snapshots.c.stream == "cart-3")
        connection.execute(wrong.values(state='{"items":{"s0":1}}'))
    (found,) = compare_snapshots([cart()], **options(source, engine), sample=None)
    assert found.checked == 5
    assert [wrong.stream for wrong in found.mismatches] == ["cart-3"]
    assert "a full replay gives" in found.mismatches[0].reason
