"""Read models rebuilt from KurrentDB and kept up to date, through reads that drop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from eventmig.errors import StoreUnavailableError
from eventmig.project import sql_engine
from eventmig.rebuild import load, rebuild_snapshots
from eventmig.rebuild.following import bring_up_to_date, follow
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate
from tests import kurrent
from tests.acceptance.kurrent_support import into_kurrent
from tests.kurrent_server.server import Node, running
from tests.unit.read_model_helpers import daily, orders, rebuild, sales, sums
from tests.unit.rebuild_helpers import engine_at, rows_of, same
from tests.unit.test_read_model_following import until
from tests.unit.test_snapshots import cart, carts


@pytest.fixture
def node() -> Iterator[Node]:
    with running() as node:
        yield node


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database for what is rebuilt: both kinds."""
    if request.param == "sqlite":
        made = engine_at(tmp_path / "read.db")
        yield made
        made.dispose()
    else:
        with sql_engine(request.getfixturevalue("postgres_url")) as made:
            yield made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = engine_at(tmp_path / "read.db")
    yield made
    made.dispose()


def answers(url: str) -> bool:
    """Whether a new connection is served: grpc backs off from a server that was just away."""
    try:
        KurrentStore(locate(url), mode="read").close()
    except StoreUnavailableError:
        return False
    return True


def test_a_read_model_is_rebuilt_and_kept_up_to_date(node: Node, engine: Engine) -> None:
    url, events = kurrent.fresh(node.url), orders(60)
    into_kurrent(url, events[:30])
    with KurrentStore(locate(url), mode="read") as source:
        node.faults.on_read(12)
        rebuild(daily(), engine, source)
        assert rows_of(engine, sales) == sums(30)
        into_kurrent(url, events[30:45])
        node.faults.on_read(9)
        bring_up_to_date([daily()], source=source, upcast=same, engine=engine)
        assert rows_of(engine, sales) == sums(45)

        end = threading.Event()
        following = threading.Thread(
            target=lambda: follow(
                [daily()], source=source, upcast=same, engine=engine, stop=end.is_set
            )
        )
        following.start()
        try:
            node.stop()  # while it follows
            node.start()
            until(lambda: answers(url))
            into_kurrent(url, events[45:])
            until(lambda: rows_of(engine, sales) == sums(60))
        finally:
            end.set()
            following.join()


def test_read_models_and_snapshots_are_rebuilt_into_either_database(
    node: Node, either: Engine
) -> None:
    url, other = kurrent.fresh(node.url), kurrent.fresh(node.url)
    into_kurrent(url, orders(30))
    into_kurrent(other, carts(60)[:40])
    with KurrentStore(locate(url), mode="read") as source:
        rebuild(daily(), either, source)
        assert rows_of(either, sales) == sums(30)
        into_kurrent(url, orders(45)[30:])
        bring_up_to_date([daily()], source=source, upcast=same, engine=either)
        assert rows_of(either, sales) == sums(45)
    with KurrentStore(locate(other), mode="read") as source:
        how: Any = {"source": source, "upcast": same, "engine": either, "release": "1"}
        (result,) = rebuild_snapshots([cart()], **how)
        assert result.events_read == 40
        events = into_kurrent(other, carts(60)[40:])
        for stream in (f"cart-{n}" for n in range(5)):
            loaded = load(cart(), stream, **how)
            assert loaded.from_snapshot
            assert loaded.events_replayed
            assert loaded.state == cart().fold(e for e in events if e.stream == stream)


def test_a_follower_subscribes_and_goes_on_where_its_subscription_drops(
    node: Node, engine: Engine
) -> None:
    url, events = kurrent.fresh(node.url), orders(200)
    into_kurrent(url, events[:40])
    with KurrentStore(locate(url), mode="read") as source:
        rebuild(daily(), engine, source)
        end = threading.Event()
        following = threading.Thread(
            target=lambda: follow(
                [daily()], source=source, upcast=same, engine=engine, stop=end.is_set
            )
        )
        following.start()
        try:
            for seen in range(50, 201, 10):
                node.faults.on_told(4)
                node.faults.on_told(9)
                into_kurrent(url, events[seen - 10 : seen])
                until(lambda seen=seen: rows_of(engine, sales) == sums(seen))
        finally:
            end.set()
            following.join()
    begun = node.streams.subscribed_after
    assert len(begun) > 5, "it dropped, and was begun anew"
    assert begun == sorted(begun), "each from where the one before had come to"
    assert begun[0] >= 40


def test_who_waits_asks_the_server_nothing(node: Node, engine: Engine) -> None:
    url = kurrent.fresh(node.url)
    into_kurrent(url, orders(10))
    with KurrentStore(locate(url), mode="read") as source:
        rebuild(daily(), engine, source)
        calls: list[int] = []

        def looked_often() -> bool:
            calls.append(node.streams.calls)
            return len(calls) > 7

        follow([daily()], source=source, upcast=same, engine=engine, stop=looked_often)
    assert calls[3] == calls[-1], "no look at the rows asked for more"
    assert len(node.streams.subscribed_after) == 1
    assert rows_of(engine, sales) == sums(10)


def test_a_subscription_passes_by_what_is_not_its_own(node: Node) -> None:
    mine, others = kurrent.fresh(node.url), kurrent.fresh(node.url)
    (first,) = into_kurrent(mine, orders(1))
    with (
        KurrentStore(locate(mine), mode="read") as source,
        source.subscribed(after=first.global_position) as subscription,
    ):
        until(lambda: len(node.streams.subscribed_after) == 1)
        last = into_kurrent(others, orders(30))[-1]
        until(lambda: subscription._goes_on_after >= last.global_position)  # a checkpoint
        assert subscription.position() == first.global_position
        node.faults.on_told(1)
        added = into_kurrent(mine, orders(2)[1:])[-1]
        until(lambda: subscription.position() == added.global_position)
    assert node.streams.subscribed_after[-1] >= last.global_position, "not searched again"


def test_a_subscription_that_cannot_go_on_says_so_to_who_waits(node: Node) -> None:
    with (
        KurrentStore(locate(kurrent.fresh(node.url)), mode="read", patience=0.2) as source,
        source.subscribed(after=0) as subscription,
    ):
        until(lambda: len(node.streams.subscribed_after) == 1)
        node.stop()
        subscription.wait(after=0, timeout_s=30)
        with pytest.raises(StoreUnavailableError):
            subscription.position()


def test_a_connection_that_one_thread_makes_anew_serves_the_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = kurrent.fresh(node.url)
    events = into_kurrent(url, orders(20))
    with (
        KurrentStore(locate(url), mode="read") as source,
        source.subscribed(after=0) as subscription,
    ):
        connection = source._connection
        until(lambda: subscription.position() == events[-1].global_position)
        batches = source.read_all(batch_size=5)
        found = next(batches)
        connection._client.reconnect()  # amid a read, and under the subscription
        for batch in batches:
            found += batch
        assert found == events

        stub, late = connection._stub, []

        def closed_meanwhile() -> object:
            taken = stub()
            if not late:
                late.append(taken)
                connection._client.reconnect()
            return taken

        monkeypatch.setattr(connection, "_stub", closed_meanwhile)
        assert source.head_position() == events[-1].global_position
        assert late
        added = into_kurrent(url, orders(21)[20:])[-1]
        until(lambda: subscription.position() == added.global_position)
