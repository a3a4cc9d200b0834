"""Appending many events: when their requests are made, how they are carried, when it rests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import grpc
import pytest

from eventmig.stores.kurrent import exchange, gather
from eventmig.stores.kurrent.append import Appender
from eventmig.stores.kurrent.client import BatchAppendResp, Connection
from eventmig.stores.kurrent.exchange import CoreExchange, PublicExchange
from eventmig.stores.kurrent.gather import Gather
from eventmig.stores.kurrent.under_way import Item, Request, UnderWay
from eventmig.stores.kurrent.url import locate
from eventmig.stores.kurrent.wire import proposed, request
from tests.kurrent_server.faults import Fault
from tests.kurrent_server.server import Node, running

METHOD = "/event_store.client.streams.Streams/BatchAppend"


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with running() as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    shared.log.__init__(clock=shared.log._clock, max_append=1 << 20)  # type: ignore[misc]
    yield shared
    shared.faults.appends.clear()
    shared.streams.leader = None


def an_item(number: int, stream: str, revision: int = 0, size: int = 2) -> Item:
    id_ = str(uuid.UUID(int=number))
    data = b"x" * size
    message = proposed(id_, "T", "application/octet-stream", data, b"")
    return Item(stream, revision, id_, message, size)


# requests ----------------------------------------------------------------------------------


def test_requests_are_made_when_there_is_room() -> None:
    made = count()
    under_way = UnderWay(Request([an_item(next(made), "s")], 100) for _ in range(10_000))
    sent = sum(1 for _ in iter(under_way.next, None))
    assert 0 < sent < 10_000
    assert len(under_way.requests) == next(made) <= sent + 1
    assert not under_way.answered()
    under_way.refused(0)
    assert under_way.next() is None, "nothing more after a refusal"
    for number in range(1, sent):
        under_way.refused(number)
    assert under_way.answered()
    assert under_way.begun() == under_way.requests[:sent]


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER_LOST, Fault.TIMEOUT, None])
def test_items_that_are_taken_as_there_is_room_are_written_once(
    node: Node, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones, runs of a stream, and ones that are tried alone first, as they are large."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    heads: dict[str, int] = {}
    items = []
    for n in range(40):
        stream = f"s-{n // 3 % 5}"
        size = 100_000 + n * 10_000 if n in (5, 11, 12, 30) else 10
        heads[stream] = heads.get(stream, -1) + 1
        items.append(an_item(n, stream, heads[stream], size))
    with closing(Connection(locate(node.url))) as connection:
        for at in range(1, 30, 1 if fault else 30):
            node.log.__init__(clock=node.log._clock, max_append=1 << 20)  # type: ignore[misc]
            node.faults.appends.clear()
            if fault is not None:
                node.faults.on_append(at, fault)
            last = Appender(connection).append(iter(items), ordered=fault is not Fault.TIMEOUT)
            read = [(r.stream, r.revision, r.event.id) for r in node.log.records]
            assert sorted(read) == sorted((i.stream, i.revision, i.id) for i in items), at
            assert last == node.log.records[-1].position
            if fault is not Fault.TIMEOUT:
                assert [id_ for _, _, id_ in read] == [i.id for i in items], at


# how they are carried ----------------------------------------------------------------------


@pytest.fixture(params=[CoreExchange, PublicExchange])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Both ways to carry a call; the second one where the first is out of reach."""
    if request.param is PublicExchange:
        monkeypatch.setattr(exchange, "_core", lambda channel: None)
    kind: type = request.param
    return kind


def answers(call: exchange.Exchange, wanted: int) -> Iterator[BatchAppendResp]:
    for _ in range(wanted):
        answer = call.next(many=False)
        assert answer is not None
        yield BatchAppendResp.FromString(answer)


def test_answers_come_in_the_order_of_the_requests(node: Node, kind: type) -> None:
    with closing(Connection(locate(node.url))) as connection:
        call = connection.batch_append(timeout=20)
        assert type(call) is kind
        with closing(call):
            numbers = []
            for n in range(50):
                call.send(request(n, f"s-{n}", 0, [an_item(n, "").message]), more=n < 49)
            for told in answers(call, 50):
                assert told.WhichOneof("result") == "success"
                numbers.append(told.correlation_id.structured.least_significant_bits)
        assert numbers == [*range(50)]
        assert len(node.log.records) == 50


def test_a_call_that_breaks_says_how(node: Node, kind: type) -> None:
    with closing(Connection(locate(node.url))) as connection:
        node.streams.leader = "127.0.0.1", 1

        def append() -> None:  # the answer may come before all is sent
            with closing(connection.batch_append(timeout=20)) as call:
                call.send(request(0, "s", 0, [an_item(0, "").message]), more=False)
                next(answers(call, 1))

        with pytest.raises(grpc.RpcError) as error:
            append()
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert "Leader info" in error.value.details()
    assert ("exception", "not-leader") in [tuple(pair) for pair in error.value.trailing_metadata()]


def test_a_call_is_over_in_time_and_may_be_closed_twice(node: Node, kind: type) -> None:
    with closing(Connection(locate(node.url))) as connection:
        call = connection.batch_append(timeout=0.05)
        with pytest.raises(grpc.RpcError) as error:
            next(answers(call, 1))
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        call.close()
        call.close()


def test_a_closed_channel_takes_no_call(node: Node, kind: type) -> None:
    connection = Connection(locate(node.url))
    connection.close()
    with pytest.raises(ValueError, match=r"[Cc]losed"):
        connection.batch_append(timeout=1)


class _Interceptor(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details, requests)


def begun(channel: grpc.Channel) -> exchange.Exchange:
    return exchange.begun(channel, METHOD, metadata=None, credentials=None, timeout=20)


def test_a_channel_that_something_wrapped_is_used_by_its_public_calls(node: Node) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{node.port}") as plain:
        wrapped = grpc.intercept_channel(plain, _Interceptor())
        for channel, kind in ((plain, CoreExchange), (wrapped, PublicExchange)):
            with closing(begun(channel)) as call:
                assert type(call) is kind
                stream = kind.__name__
                call.send(request(7, stream, 0, [an_item(0, "").message]), more=False)
                (told,) = answers(call, 1)
                assert told.success.current_revision == 0


@pytest.mark.parametrize("gone", ["cygrpc", "part", "arguments"])
def test_another_version_of_grpc_is_used_by_its_public_calls(
    node: Node, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        if gone == "cygrpc":
            monkeypatch.setattr(exchange, "cygrpc", None)
        elif gone == "part":
            monkeypatch.setattr(exchange, "_PARTS", ("NoSuchOperation",))
        else:

            class Core:
                def segregated_call(self, method: str) -> None: ...

            monkeypatch.setattr(exchange, "_core", lambda channel: Core())
        with closing(begun(channel)) as call:
            assert type(call) is PublicExchange


# resting -----------------------------------------------------------------------------------


class _Clock:
    """A thread's time: `worked` on the processor, `waited` off it; `rests` are its naps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked = self.waited = 0.0
        self.rests = 0
        monkeypatch.setattr(gather, "time", self)

    def perf_counter(self) -> float:
        return self.worked + self.waited

    def thread_time(self) -> float:
        return self.worked

    def sleep(self, seconds: float) -> None:
        self.waited += seconds
        self.rests += 1


def taken(clock: _Clock, its: Gather, *, waits: Iterator[float]) -> list[int]:
    """How many rests there were before each answer; each costs 1 ms of work, and a wait."""
    rests = []
    for wait in waits:
        its.rest()
        rests.append(clock.rests)
        clock.worked += 0.001
        clock.waited += wait
        its.took()
    return rests


def test_answers_gather_where_they_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    waiting = taken(clock, Gather(20), waits=iter([0.0001] * 60))
    assert waiting[:20] == [0] * 20, "the first ones are taken as they come"
    assert waiting[20] == 1
    assert waiting[-1] <= 1 + 40 // 8, "some are taken between two rests, whatever the clock says"


def test_answers_that_are_there_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    its = Gather(0)
    assert taken(clock, its, waits=iter([0.0] * 40))[-1] == 0
    clock.waited += 5  # who takes them was busy elsewhere
    assert taken(clock, its, waits=iter([0.0] * 40))[-1] == 0
    assert taken(clock, its, waits=iter([0.0001, 0.0, 0.0]))[-1] == 1
