"""What a KurrentDB store reads and leaves out, keeps and carries."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from eventmig.errors import ConfigError, DataError
from eventmig.events import Event, NewEvent, Origin
from eventmig.stores.kurrent.envelope import Envelope, seal, unseal
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate, public, with_ledger
from eventmig.stores.open import open_store
from tests.kurrent_server.log import Proposal, State
from tests.kurrent_server.server import Node, running


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with running() as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    shared.log.__init__(clock=shared.log._clock, max_append=1 << 20)  # type: ignore[misc]
    return shared


def put(node: Node, stream: str, *types: str, data: bytes = b"{}", **parts: object) -> None:
    for type_ in types:
        new = Proposal(id=str(uuid.uuid4()), type=type_, data=data, **parts)  # type: ignore[arg-type]
        node.log.append(stream, State.ANY, [new])


def rule(node: Node, stream: str, **rules: object) -> None:
    named = {f"${name}": value for name, value in rules.items()}
    put(node, f"$${stream}", "$metadata", data=json.dumps(named).encode())


def places(node: Node, query: str = "") -> list[tuple[str, int]]:
    with KurrentStore(locate(node.url + query), mode="read") as store:
        read = [e for batch in store.read_all() for e in batch]
        for stream in {e.stream for e in read}:
            assert list(store.read_stream(stream)) == [e for e in read if e.stream == stream]
        assert store.count() == len(read)
        assert sum(head.count for head in store.heads()) == len(read)
        assert store.head_position() == max((e.global_position for e in read), default=0)
        return [(e.stream, e.stream_position) for e in read]


# what is read ------------------------------------------------------------------------------


def test_what_is_the_servers_own_is_left_out(node: Node) -> None:
    put(node, "a-1", "T", "$>", "T")
    put(node, "$ce-a", "$>")
    put(node, "eventmig-ledger", "LedgerEntry")
    rule(node, "a-1", acl={"$r": "$all"})
    assert places(node) == [("a-1", 0), ("a-1", 2)]


def test_a_truncated_stream_begins_where_its_readers_see_it(node: Node) -> None:
    for stream in ("before-1", "count-1", "age-1", "both-1"):
        put(node, stream, *"TTTT")
    rule(node, "before-1", tb=2)
    rule(node, "count-1", maxCount=1)
    rule(node, "age-1", maxAge=3600)
    rule(node, "both-1", tb=1, maxCount=2)
    node.log.scavenge()
    assert sorted(places(node)) == [
        *(("age-1", n) for n in range(4)),
        ("before-1", 2),
        ("before-1", 3),
        ("both-1", 2),
        ("both-1", 3),
        ("count-1", 3),
    ]


def test_what_is_older_than_its_stream_allows_is_left_out(node: Node) -> None:
    now = node.log._clock
    node.log._clock = lambda: now() - 10 * 10_000_000
    put(node, "s", "T")
    node.log._clock = now
    put(node, "s", "T")
    rule(node, "s", maxAge=5)
    assert places(node) == [("s", 1)]


@pytest.mark.parametrize("scavenged", [False, True])
def test_a_deleted_stream_is_not_read(node: Node, scavenged: bool) -> None:
    for stream in ("soft", "gone", "back", "kept"):
        put(node, stream, "T", "T")
    node.log.delete("soft", State.ANY)
    node.log.tombstone("gone", State.ANY)
    node.log.delete("back", State.ANY)
    put(node, "back", "T")
    if scavenged:
        node.log.scavenge()
    assert places(node) == [("kept", 0), ("kept", 1), ("back", 2)]


def test_a_url_names_some_of_the_streams(node: Node) -> None:
    for stream in ("a-1", "b-1", "r2.a-1", "r2.b-1", "ab-1"):
        put(node, stream, "T")
    assert [s for s, _ in places(node, "&category=a")] == ["a-1"]
    assert [s for s, _ in places(node, "&category=b,a")] == ["a-1", "b-1"]
    assert [s for s, _ in places(node, "&prefix=r2.")] == ["a-1", "b-1"]
    assert [s for s, _ in places(node, "&prefix=r2.&category=b")] == ["b-1"]
    assert [s for s, _ in places(node, "&without=r2.")] == ["a-1", "b-1", "ab-1"]


@pytest.mark.parametrize(
    ("query", "types", "sent"),
    [
        ("", None, ["a-1", "a-1", "b-1", "r2.a-1"]),
        ("", ["T"], ["a-1", "b-1"]),
        ("&category=a", None, ["a-1", "a-1"]),
        ("&prefix=r2.", None, ["r2.a-1"]),
    ],
)
def test_the_server_sends_no_more_than_is_asked_for(
    query: str, types: list[str] | None, sent: list[str]
) -> None:
    with running() as node:  # of its own: what it sends is counted
        put(node, "a-1", "T", "Other")
        put(node, "b-1", "T")
        put(node, "r2.a-1", "Other")
        put(node, "eventmig-ledger", *["LedgerEntry"] * 9)
        with KurrentStore(locate(node.url + query), mode="read") as store:
            head = node.log.records[-1].position
            before = node.faults._read
            read = [e for batch in store.read_all(until=head, types=types) for e in batch]
            assert [store.stored_name(e.stream) for e in read] == sent
            rules = 1  # the log's last event, to see whether its rules have changed
            assert node.faults._read - before == len(sent) + rules


def test_a_deletion_is_seen_by_the_next_read(node: Node) -> None:
    put(node, "a", "T")
    put(node, "b", "T")
    with KurrentStore(locate(node.url), mode="read") as store:
        assert store.count() == 2
        node.log.delete("a", State.ANY)
        assert store.count() == 1
        assert [h.stream for h in store.heads()] == ["b"]


# what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"{}", "application/json"),
        (b"{}", "application/octet-stream"),
        (b"\x00\xff", "application/octet-stream"),
    ],
)
def test_the_content_type_is_kept(node: Node, data: bytes, content_type: str) -> None:
    put(node, "s", "T", data=data, content_type=content_type, metadata=b'{"a": 1.10}')
    with (
        KurrentStore(locate(node.url + "&without=r2."), mode="read") as source,
        KurrentStore(locate(node.url + "&prefix=r2."), mode="write") as target,
    ):
        (event,) = source.read_stream("s")
        with target.begin() as tx:
            tx.append_copied([event._replace(origins=(Origin("s", 0),))])
        (copied,) = target.read_stream("s")
    assert (copied.data, copied.metadata) == (event.data, event.metadata)
    (stored,) = node.log.visible("r2.s")
    assert (stored.event.data, stored.event.content_type) == (data, content_type)
    kept = json.loads(stored.event.metadata)
    assert kept["a"] == 1.1
    assert kept["eventmig"].items() >= {"stream": "s", "stream_position": 0}.items()
    assert kept["eventmig"]["recorded_at"] == event.recorded_at


def test_an_application_that_needs_no_envelope_gets_none(node: Node) -> None:
    with KurrentStore(locate(node.url), mode="write") as store:
        store.append("s", [NewEvent("T", b"{}", metadata=b'{"a":1}')], expected=None)
        store.append("s", [NewEvent("T", b"{}", 3, id="order 7")], expected=0)
        plain, sealed = store.read_stream("s")
    assert [r.event.metadata for r in node.log.visible("s")] == [
        b'{"a":1}',
        b'{"eventmig":{"format":1,"schema_version":3,"id":"order 7"}}',
    ]
    assert (plain.schema_version, sealed.schema_version, sealed.id) == (1, 3, "order 7")
    assert (plain.metadata, sealed.metadata) == (b'{"a":1}', None)


def test_a_schema_version_of_an_applications_own_is_read(node: Node) -> None:
    put(node, "s", "T", metadata=b'{"schemaVersion": 4}')
    put(node, "s", "T", metadata=b'{"schemaVersion": "x"}')
    with KurrentStore(locate(node.url), mode="read") as store:
        assert [e.schema_version for e in store.read_stream("s")] == [4, 1]


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        b"",
        b"{}",
        b"null",
        b"\xff",
        b'{"a":1} ',
        b'{"a":{"eventmig":{}}}',
        b'{"eventmig":{"format":1}}',
        b'{"eventmig":{"format":2,"new":1}}',
        b'{"a":"\\"eventmig\\":{"}',
    ],
)
def test_metadata_comes_out_as_it_went_in(metadata: bytes | None) -> None:
    envelope = Envelope(format=1, stream="s", stream_position=1, recorded_at=5)
    sealed = seal(metadata, envelope)
    json.loads(sealed)
    original, found = unseal(sealed)
    assert original == metadata
    assert found is not None
    assert (found.stream, found.recorded_at) == ("s", 5)


def test_what_only_looks_like_an_envelope_stays(node: Node) -> None:
    for metadata in (b'{"x":{"eventmig":{"format":1}}}', b'{"a":1,"eventmig":{"format":2}}'):
        assert unseal(metadata) == (metadata, None)


@pytest.mark.parametrize(
    ("stream", "type_"), [("$s", "T"), ("eventmig-ledger-x", "T"), ("s", "$T"), ("s\0", "T")]
)
def test_names_of_the_servers_own_are_refused(node: Node, stream: str, type_: str) -> None:
    event = Event(0, stream, 0, str(uuid.uuid4()), type_, 1, b"{}", None, 1)
    with (
        KurrentStore(locate(node.url), mode="write") as store,
        pytest.raises(DataError, match=r"stream|type"),
        store.begin() as tx,
    ):
        tx.append_copied([event])
    assert node.log.records == []


# URLs --------------------------------------------------------------------------------------


def test_a_url_never_shows_a_password() -> None:
    url = "esdb://ann:secret@a:1,b:2?Tls=false&ledger=postgresql://bob:hidden@h/db&prefix=r2."
    location = locate(url)
    assert location.servers == ("a:1", "b:2")
    assert location.uri == "esdb://ann:secret@a:1,b:2?Tls=false"
    for text in (location.url, public(url), public(with_ledger(url, str))):
        assert "secret" not in text
        assert "hidden" not in text
    assert location.ledger == "postgresql://bob:hidden@h/db"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("prefix=$x", "cannot begin"),
        ("prefix=eventmig-ledger", "cannot begin"),
        ("category=a-b", "no category"),
        ("order=any", "no order"),
        ("prefix=a&prefix=b", "stands twice"),
    ],
)
def test_a_url_that_says_nonsense_is_refused(query: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        locate(f"esdb://localhost?{query}")


def test_an_option_that_nobody_knows_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="RELEASE") as caught:
        open_store("esdb://127.0.0.1:1?Tls=false&release=2")
    assert "prefix, category, without, ledger, order, fence" in caught.value.remedy


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("esdb://h", "kurrentdb://H:2113?prefix=r2.", True),
        ("esdb://h?without=r2.", "esdb://h?prefix=r2.", False),
        ("esdb://h?prefix=r1.", "esdb://h?prefix=r2.", False),
        ("esdb://h?prefix=r", "esdb://h?prefix=r2.", True),
        ("esdb://h?category=a", "esdb://h?category=b,a", True),
        ("esdb://h?category=a", "esdb://h?category=ab", False),
        ("esdb://h", "esdb://g", False),
        ("esdb://h,i", "esdb://i,j", True),
    ],
)
def test_two_urls_may_name_the_same_streams(one: str, other: str, overlap: bool) -> None:
    assert locate(one).overlaps(locate(other)) is overlap
    assert locate(other).overlaps(locate(one)) is overlap
