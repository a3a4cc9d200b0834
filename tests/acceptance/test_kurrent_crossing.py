"""Across and back with KurrentDB on one side or both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from esdbclient import EventStoreDBClient, StreamState
from esdbclient import NewEvent as ClientEvent
from esdbclient.exceptions import AccessDeniedError, NotFound

from eventmig import commands
from eventmig.errors import CrossingError, FencedError
from eventmig.events import NewEvent
from eventmig.live import look_up
from eventmig.migrate import failpoints
from eventmig.migrate.states import State
from eventmig.project import Project
from eventmig.stores.crossing import PublishedRoute
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate
from tests import kurrent
from tests.acceptance.kurrent_support import into_kurrent
from tests.acceptance.support import fill, project
from tests.acceptance.test_crossings import (
    OPENED_1,
    OPENED_2,
    append,
    append_to,
    events,
    history,
    registry,
    said,
    urls,
)
from tests.kurrent_server.faults import Fault
from tests.kurrent_server.log import Proposal
from tests.kurrent_server.log import State as Expect
from tests.kurrent_server.server import Node, running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with kurrent.server() as url:
        yield url


@pytest.fixture(params=["to kurrentdb", "from kurrentdb", "both"])
def its(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Project:
    made = {"source": "sqlite:///source.db", "target": "sqlite:///target.db"}
    if request.param != "from kurrentdb":
        made["target"] = kurrent.fresh(url)
    if request.param == "to kurrentdb":
        fill(tmp_path / "source.db", history())
    else:
        made["source"] = kurrent.fresh(url)
        into_kurrent(made["source"], history())
    return project(tmp_path, registry(), **made)


def test_across_back_and_across_again(its: Project) -> None:
    old_url, new_url = urls(its)
    assert commands.upcast(its).ready
    append(its, "cart-1", NewEvent("Opened", b'{"name":"late"}'))
    assert commands.cutover(its, dry_run=True).lag_events == 1
    assert commands.cutover(its).job.state is State.REVERSE_WINDOW
    for stream in ("cart-1", "new-1"):
        with pytest.raises(FencedError):
            append_to(old_url, stream, OPENED_1)
    appended = append(its, "cart-1", OPENED_2)
    append(its, "cart-9", NewEvent("New", b'{"n":9}'))
    assert said(events(new_url))[-3:] == [
        ("Opened", 2, {"title": "late"}),
        ("Opened", 2, {"title": "t"}),
        ("New", 1, {"n": 9}),
    ]

    assert commands.keep_up_once(its).state is State.REVERSE_WINDOW
    back = events(old_url)[-2:]
    assert said(back) == [("Opened", 1, {"name": "t"}), ("Old", 1, {"n": 9})]
    assert [e.stream for e in back] == ["cart-1", "cart-9"]
    assert back[0].origins[0][:2] == (appended.stream, appended.stream_position)

    append(its, "cart-1", OPENED_2)
    assert commands.reverse(its).job.state is State.REVERSED
    assert said(events(old_url))[-1] == ("Opened", 1, {"name": "t"})
    with pytest.raises(FencedError):
        append_to(new_url, "unheard-of", OPENED_2)

    append(its, "cart-1", NewEvent("Opened", b'{"name":"again"}'))
    assert commands.cutover(its).job.state is State.REVERSE_WINDOW
    new = events(new_url)
    assert said(new)[-1] == ("Opened", 2, {"title": "again"})
    assert len(new) == 12 + 1 + 3 + 1, "nothing twice"
    assert len(events(old_url)) == len(new)
    append(its, "cart-2", OPENED_2)
    checked = commands.verify(its)
    assert checked.verification is not None
    assert checked.verification.right, checked.verification.shown
    assert commands.complete(its).dropped is None
    assert commands.complete(its, drop=True).dropped == len(new) + 1
    if old_url.startswith("esdb"):
        assert events(old_url) == []
    append(its, "cart-2", OPENED_2)
    assert len(events(new_url)) == len(new) + 2
    for side in (old_url, new_url):
        if side.startswith("esdb"):
            said_there = [(r["epoch"], r["side"], r["final"]) for r in routes(side)]
            assert said_there == [
                (1, "new", False),
                (2, "old", False),
                (3, "new", False),
                (3, "new", True),
            ]


def routes(url: str) -> list[dict[str, object]]:
    """What applications find published there, oldest first."""
    location = locate(url)
    with EventStoreDBClient(location.uri) as client, suppress(NotFound):
        return [json.loads(e.data) for e in client.get_stream(location.route_stream)]
    return []


@pytest.fixture
def node() -> Iterator[Node]:
    with running() as node:
        yield node


def test_into_another_cluster_the_streams_keep_their_names(tmp_path: Path, node: Node) -> None:
    """Two servers share no streams, so neither side needs a prefix; across, and back."""
    into_kurrent(node.url, history())
    before = [(r.stream, r.revision, r.event) for r in node.log.records]
    with running() as other:
        its = project(tmp_path, registry(), source=node.url, target=other.url)
        assert commands.upcast(its).ready
        assert [(r.stream, r.revision, r.event) for r in node.log.records] == before
        assert {e.stream for e in events(other.url)} == {name for name, _, _ in before}
        commands.cutover(its)
        with pytest.raises(FencedError):
            append_to(node.url, "cart-1", OPENED_1)
        written = append(its, "cart-1", OPENED_2)
        assert other.log.visible("cart-1")[-1].event.id == written.id
        assert commands.reverse(its).job.state is State.REVERSED
        assert said(events(node.url))[-1] == ("Opened", 1, {"name": "t"})


def test_another_client_finds_out_that_its_stream_has_moved(tmp_path: Path, node: Node) -> None:
    source = kurrent.fresh(node.url)
    into_kurrent(source, history())
    its = project(tmp_path, registry(), source=source, target=kurrent.fresh(node.url))
    commands.upcast(its)
    name = locate(source).prefix + "cart-1"
    head = node.log.visible(name)[-1].revision
    commands.cutover(its)
    mark = node.log.visible(name)[-1]
    assert (mark.event.type, mark.revision) == ("eventmig.StreamMoved", head + 1)
    fence = json.loads(mark.event.data)["fence"]
    assert [json.loads(r.event.data)["closed"] for r in node.log.visible(fence)] == [True]
    with pytest.raises(Exception, match="Actual version"):
        node.log.append(name, head, [Proposal(id="x", type="T", data=b"{}")])
    commands.reverse(its)
    with KurrentStore(locate(source), mode="write") as store:
        (event,) = store.append("cart-1", [OPENED_1], expected=head)
        assert event.stream_position == head + 2
        assert store.append("cart-1", [OPENED_1], expected=head + 2)


def test_a_writer_that_expects_nothing_makes_the_crossing_fall_back(
    tmp_path: Path, node: Node
) -> None:
    source = kurrent.fresh(node.url)
    into_kurrent(source, history())
    its = project(tmp_path, registry(), source=source, target=kurrent.fresh(node.url))
    commands.upcast(its)
    name = locate(source).prefix + "cart-1"
    count = 0

    def write() -> None:
        nonlocal count
        count += 1
        new = Proposal(id=f"{count:032x}", type="Plain", data=b"{}")
        node.log.append(name, Expect.ANY, [new])

    for at in range(1, 60, 2):
        node.faults.on_append(at, write)
    with pytest.raises(CrossingError, match=r"did not see|went on appending"):
        commands.cutover(its, budget_s=2)
    node.faults.appends.clear()
    assert commands.cutover(its).job.state is State.REVERSE_WINDOW
    moved = [e for e in events(urls(its)[1]) if e.type == "Plain"]
    assert len(moved) == 4 + count


def test_metadata_of_streams_comes_after_everything_else(tmp_path: Path, node: Node) -> None:
    source, target = kurrent.fresh(node.url), kurrent.fresh(node.url)
    into_kurrent(source, history())
    theirs = {"$maxCount": 3, "$acl": {"$w": ["ann"]}, "owner": "sales", "$tb": 1}
    data = json.dumps(theirs).encode()
    new = Proposal(id="0" * 32, type="$metadata", data=data)
    name, into = (locate(url).prefix + "cart-1" for url in (source, target))
    node.log.append(f"$${name}", Expect.ANY, [new])
    its = project(tmp_path, registry(), source=source, target=target)
    assert commands.upcast(its).ready
    commands.cutover(its)
    assert node.log.metadata(into) == {}, "nothing may be trimmed while there is a way back"
    commands.complete(its)
    assert node.log.metadata(into) == {k: v for k, v in theirs.items() if k != "$tb"}
    commands.complete(its)
    assert len(node.log.visible(f"$${into}")) == 1


def test_access_lists_keep_writers_out(tmp_path: Path) -> None:
    with running(tls=True) as node:
        node.access.users = {"admin": "changeit", "ann": "secret"}
        node.access.all_readers = {"ann"}
        source, target = (kurrent.fresh(f"{node.url}&fence=acl") for _ in range(2))

        def by(user: str, url: str) -> str:
            return url.replace("://", f"://{user}:{node.access.users[user]}@")

        into_kurrent(by("ann", source), history())
        name = locate(source).prefix + "cart-1"
        theirs = {"$acl": {"$w": ["ann"], "$r": "$all"}, "owner": "sales"}
        data = json.dumps(theirs).encode()
        node.log.append(
            f"$${name}", Expect.ANY, [Proposal(id="0" * 32, type="$metadata", data=data)]
        )
        its = project(tmp_path, registry(), source=by("admin", source), target=by("admin", target))
        commands.upcast(its)
        commands.cutover(its)
        count = len(node.log.visible(name))
        with EventStoreDBClient(locate(by("ann", source)).uri) as client:
            for stream in ("cart-0", "cart-1"):
                with pytest.raises(AccessDeniedError):
                    client.append_to_stream(
                        locate(source).prefix + stream,
                        current_version=StreamState.ANY,
                        events=[ClientEvent(type="T", data=b"{}")],
                    )
            commands.reverse(its)
            assert node.log.metadata(name) == theirs
            client.append_to_stream(
                name,
                current_version=count - 1,
                events=[ClientEvent(type="T", data=b"{}")],
            )


class Killed(BaseException):
    """The process ends here: nothing of eventmig's catches it."""


@pytest.mark.parametrize("point", ["switch: after", "publish: before", "publish: after"])
def test_killed_around_the_publishing_the_next_holder_mends(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    source, target = kurrent.fresh(node.url), kurrent.fresh(node.url)
    into_kurrent(source, history())
    its = project(tmp_path, registry(), source=source, target=target, naming="{stream}-{release}")
    commands.upcast(its)

    reached: list[str] = []

    def kill(name: str) -> None:
        reached.append(name)
        if name == point and "switch: after" in reached:  # not while it mends before
            raise Killed

    for number, cross in enumerate((commands.cutover, commands.reverse), 1):
        reached.clear()
        monkeypatch.setattr(failpoints, "handler", kill)
        with pytest.raises(Killed):
            cross(its)
        for url in (source, target):
            assert len(routes(url)) == number - (point != "publish: after")
        monkeypatch.setattr(failpoints, "handler", None)
        commands.keep_up_once(its)
        with KurrentStore(locate(target), mode="read") as store:
            live = look_up(store)
        for url in (source, target):
            found = routes(url)
            assert [route["epoch"] for route in found] == list(range(1, number + 1))
            prefix = locate(target if live.side == "new" else source).prefix
            assert (found[-1]["side"], found[-1]["release"]) == (live.side, live.release)
            assert str(found[-1]["naming"]).format(stream="cart-1") == prefix + live.stream(
                "cart-1"
            )
            assert str(found[-1]["store"]).endswith(prefix)


def test_killed_between_the_end_and_its_publishing(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = kurrent.fresh(node.url), kurrent.fresh(node.url)
    into_kurrent(source, history())
    its = project(tmp_path, registry(), source=source, target=target)
    commands.upcast(its)
    commands.cutover(its)

    def die(self: KurrentStore, route: PublishedRoute) -> None:
        if route.final:
            raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(KurrentStore, "publish", die)
        with pytest.raises(Killed):
            commands.complete(its)
    assert [route["final"] for route in routes(target)] == [False]
    commands.complete(its)
    assert [route["final"] for route in routes(target)] == [False, True]


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER_LOST, Fault.TIMEOUT])
def test_a_route_stands_once_and_behind_no_later_one(node: Node, fault: Fault) -> None:
    url = kurrent.fresh(node.url)
    first = PublishedRoute("job", 1, False, "new", "2", "{stream}", "there")
    second, others = first._replace(epoch=2, side="old"), first._replace(job_id="another")
    with KurrentStore(locate(url), mode="write") as store:
        node.faults.on_append(1, fault)
        for route in (first, first, second, first, others, second, second._replace(final=True)):
            store.publish(route)
        assert list(store.heads()) == [], "the stream is none of the store's"
    found = [(r["job_id"], r["epoch"], r["final"]) for r in routes(url)]
    assert found == [("job", 1, False), ("job", 2, False), ("another", 1, False), ("job", 2, True)]
