"""The test server, driven by the client it is written for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from esdbclient import EventStoreDBClient, NewEvent, StreamState
from esdbclient.exceptions import (
    AccessDeniedError,
    GrpcError,
    MaximumAppendSizeExceededError,
    NotFound,
    ServiceUnavailable,
    StreamIsDeleted,
    WrongCurrentVersion,
)

from tests.kurrent_server.faults import Fault
from tests.kurrent_server.server import Node, running


def event(n: int, type_: str = "T", **parts: bytes) -> NewEvent:
    return NewEvent(type=type_, data=parts.get("data", b"{}"), id=uuid.UUID(int=n))


@pytest.fixture
def node() -> Iterator[Node]:
    with running(max_append=4096) as node:
        yield node


@pytest.fixture
def client(node: Node) -> Iterator[EventStoreDBClient]:
    client = EventStoreDBClient(node.url)
    yield client
    client.close()


def revisions(client: EventStoreDBClient, stream: str) -> list[int]:
    return [e.stream_position for e in client.get_stream(stream)]


def test_what_is_appended_is_read_back(client: EventStoreDBClient) -> None:
    new = NewEvent(
        type="Counted", data=b"\x00\xff", metadata=b"{}", content_type="application/octet-stream"
    )
    position = client.append_to_stream("a-1", current_version=StreamState.NO_STREAM, events=new)
    (read,) = client.get_stream("a-1")
    assert (read.type, read.data, read.metadata, read.id) == (new.type, new.data, b"{}", new.id)
    assert (read.content_type, read.stream_position) == ("application/octet-stream", 0)
    assert read.commit_position == position == client.get_commit_position()
    assert read.recorded_at is not None


@pytest.mark.parametrize("one", [True, False])  # the rpc Append, and BatchAppend
def test_the_expected_revision_must_hold(client: EventStoreDBClient, one: bool) -> None:
    def append(current: int | StreamState, *ns: int) -> int:
        events = [event(n) for n in ns]
        return client.append_to_stream(
            "s", current_version=current, events=events[0] if one else events
        )

    with pytest.raises(WrongCurrentVersion, match="does not exist"):
        append(0, 1)
    first = append(StreamState.NO_STREAM, 1)
    with pytest.raises(WrongCurrentVersion):
        append(StreamState.NO_STREAM, 2)
    with pytest.raises(WrongCurrentVersion, match="is 0 not 1"):
        append(1, 2)
    assert append(StreamState.NO_STREAM, 1) == first, "the same again is answered as before"
    assert append(StreamState.ANY, 1) == first
    append(0, 2)
    assert revisions(client, "s") == [0, 1]


def test_a_batch_that_overlaps_is_refused(client: EventStoreDBClient) -> None:
    client.append_to_stream("s", current_version=StreamState.NO_STREAM, events=[event(1), event(2)])
    for current, ns in ((StreamState.NO_STREAM, (1, 2, 3)), (0, (2, 3)), (0, (3,))):
        with pytest.raises(WrongCurrentVersion):
            client.append_to_stream("s", current_version=current, events=[event(n) for n in ns])
    client.append_to_stream("s", current_version=0, events=[event(2)])
    assert revisions(client, "s") == [0, 1]


def test_a_soft_deleted_stream_goes_on_counting(client: EventStoreDBClient) -> None:
    client.append_to_stream("s", current_version=StreamState.NO_STREAM, events=[event(1), event(2)])
    client.delete_stream("s", current_version=1)
    with pytest.raises(NotFound):
        client.get_stream("s")
    assert len([e for e in client.read_all() if e.stream_name == "s"]) == 2, "still in the log"
    client.append_to_stream("s", current_version=StreamState.NO_STREAM, events=[event(3)])
    assert revisions(client, "s") == [2]


def test_a_tombstoned_stream_is_gone(client: EventStoreDBClient) -> None:
    client.append_to_stream("s", current_version=StreamState.NO_STREAM, events=[event(1)])
    client.tombstone_stream("s", current_version=0)
    with pytest.raises(StreamIsDeleted):
        client.get_stream("s")
    with pytest.raises(StreamIsDeleted):
        client.append_to_stream("s", current_version=StreamState.ANY, events=[event(2)])
    system = [e.type for e in client.read_all(filter_exclude=())]
    assert system == ["T", "$streamDeleted"]


def test_metadata_truncates_a_stream(client: EventStoreDBClient) -> None:
    client.append_to_stream(
        "s", current_version=StreamState.NO_STREAM, events=[event(n) for n in range(5)]
    )
    client.set_stream_metadata("s", metadata={"$maxCount": 3})
    assert revisions(client, "s") == [2, 3, 4]
    client.set_stream_metadata("s", metadata={"$tb": 4}, current_version=0)
    assert revisions(client, "s") == [4]
    assert client.get_stream_metadata("s")[0] == {"$tb": 4}


def test_reading_all_filters_and_turns_around(client: EventStoreDBClient) -> None:
    for n, stream in enumerate(["a-1", "b-1", "a-2"], 1):
        client.append_to_stream(
            stream, current_version=StreamState.NO_STREAM, events=[event(n, "AB"[n % 2])]
        )
    client.append_to_stream(
        "l", current_version=StreamState.NO_STREAM, events=[event(9, "$>", data=b"0@a-2")]
    )
    of_a = client.read_all(filter_include=["a-.*"], filter_by_stream_name=True)
    assert [e.stream_name for e in of_a] == ["a-1", "a-2"]
    assert [e.stream_name for e in client.read_all(filter_include=["A"])] == ["b-1"]
    backwards = [e.stream_name for e in client.read_all(backwards=True, limit=2)]
    assert backwards == ["a-2", "b-1"]
    (link,) = client.get_stream("l", resolve_links=True)
    assert (link.stream_name, link.link is not None) == ("a-2", True)


def test_a_subscription_catches_up_and_goes_on(client: EventStoreDBClient) -> None:
    client.append_to_stream("s", current_version=StreamState.NO_STREAM, events=[event(1)])
    with client.subscribe_to_all(include_caught_up=True, include_checkpoints=True) as events:
        assert next(events).stream_name == "s"
        assert next(events).is_caught_up
        client.append_to_stream("s", current_version=0, events=[event(2)])
        assert next(events).stream_position == 1
        client.set_stream_metadata("s", metadata={"a": 1})
        assert next(events).is_checkpoint


def test_an_append_above_the_limit_is_refused(client: EventStoreDBClient) -> None:
    large = [event(1, data=b"x" * 5000)]
    with pytest.raises(MaximumAppendSizeExceededError, match="4096"):
        client.append_to_stream("s", current_version=StreamState.NO_STREAM, events=large)


def test_access_follows_the_metadata(node: Node, client: EventStoreDBClient) -> None:
    client.set_stream_metadata("s", metadata={"$acl": {"$w": ["ann"]}})
    node.access.users = {"ann": "secret"}
    with pytest.raises(AccessDeniedError):
        client.append_to_stream("s", current_version=StreamState.ANY, events=[event(1)])
    with pytest.raises(GrpcError, match="Access Denied"):
        list(client.read_all())
    assert node.log.visible("s") == []


def test_another_leader_is_named(client: EventStoreDBClient) -> None:
    with running(nodes=2) as first:
        second = first.cluster[1]
        follower = EventStoreDBClient(
            f"esdb://127.0.0.1:{second.port},127.0.0.1:{first.port}?Tls=false"
        )
        assert follower.connection_target.endswith(str(first.port))
        second.lead()
        follower.append_to_stream("s", current_version=StreamState.NO_STREAM, events=[event(1)])
        assert follower.connection_target.endswith(str(second.port))
        follower.close()


def test_faults_come_when_they_are_planned(node: Node, client: EventStoreDBClient) -> None:
    node.faults.on_append(1, Fault.DROPPED)
    node.faults.on_append(2, Fault.ANSWER_LOST)
    with pytest.raises(ServiceUnavailable):  # the client's own retry meets the second
        client.streams.append("s", StreamState.NO_STREAM, [event(1)])
    with pytest.raises(ServiceUnavailable):
        client.streams.append("s", StreamState.NO_STREAM, [event(1)])
    assert revisions(client, "s") == [0]
    client.append_to_stream("s", current_version=0, events=[event(n) for n in range(2, 6)])
    node.faults.on_read(3)
    with pytest.raises(ServiceUnavailable):
        list(client.read_stream("s"))
    node.stop()
    node.start()
    assert revisions(client, "s") == [0, 1, 2, 3, 4]
