"""What may go wrong with a KurrentDB during a job: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from eventmig import commands
from eventmig.errors import (
    ConfigError,
    ConflictError,
    DataError,
    JobLostError,
    StoreError,
    StoreUnavailableError,
    UpcastError,
    VerifyError,
)
from eventmig.events import Event, NewEvent, Origin
from eventmig.migrate import ledger
from eventmig.migrate.states import State
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate
from eventmig.stores.open import open_store
from tests import kurrent
from tests.acceptance.kurrent_support import (
    cut_off_and_resumed,
    essence,
    everything,
    into_kurrent,
    job,
    reference,
)
from tests.acceptance.support import cli, environment, event, fill, history, project_in_files
from tests.kurrent_server.faults import Fault
from tests.kurrent_server.log import Proposal
from tests.kurrent_server.log import State as Expect
from tests.kurrent_server.server import Node, running


@pytest.fixture
def node() -> Iterator[Node]:
    """A server that can be told what goes wrong."""
    with running() as node:
        yield node


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every error ends the run at once, as a kill would; nothing is tried twice."""

    def pause(self: object, said: str) -> None:
        raise StoreUnavailableError(said)

    monkeypatch.setattr("eventmig.stores.kurrent.client.Patience.pause", pause)


def undisturbed(folder: Path, events: list[Event]) -> list[Event]:
    return essence(reference(folder, events), 1)


def appends_of_a_job(folder: Path, events: list[Event]) -> int:
    """How many append requests the job sends when nothing disturbs it."""
    with running() as node:
        folder.mkdir()
        fill(folder / "source.db", events)
        assert commands.upcast(job(folder, "sqlite:///source.db", node.url)).ready
        return node.faults.appended


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER_LOST, Fault.TIMEOUT])
def test_a_job_outlives_what_comes_at_any_append(
    tmp_path: Path, node: Node, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    events = history(21)
    wanted = undisturbed(tmp_path / "sqlite", events)
    fill(tmp_path / "source.db", events)
    for at in range(1, appends_of_a_job(tmp_path / "alone", events) + 1, 3):
        target = kurrent.fresh(node.url)
        node.faults.on_append(at, fault)
        assert commands.upcast(job(tmp_path, "sqlite:///source.db", target)).ready, at
        assert essence(everything(target), 0) == wanted, at
        node.faults.appends.clear()


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER_LOST])
def test_a_job_cut_off_at_any_append_is_resumed(
    tmp_path: Path, node: Node, fault: Fault, impatient: None
) -> None:
    events = history(21)
    wanted = undisturbed(tmp_path / "sqlite", events)
    fill(tmp_path / "source.db", events)
    appends = range(1, appends_of_a_job(tmp_path / "alone", events) + 1, 2)
    cut = cut_off_and_resumed(tmp_path, node, fault, appends, wanted)
    assert cut > 8


def test_killed_at_an_append_the_command_resumes(tmp_path: Path, node: Node) -> None:
    events = history(21)
    wanted = undisturbed(tmp_path / "sqlite", events)
    folder = project_in_files(tmp_path / "in files")
    fill(folder / "source.db", events)
    for at in (3, 8):
        target = kurrent.fresh(node.url)
        command = [sys.executable, "-m", "eventmig", "upcast", "--target", target, "--json"]
        child = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE)
        node.faults.on_append(at, child.kill)
        out, _ = child.communicate(timeout=60)
        assert (child.returncode, out) == (-signal.SIGKILL, b"")
        done = cli(folder, "upcast", "--target", target, "--json")
        assert done.returncode == 0, done.stderr
        assert essence(everything(target), 0) == wanted


def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path: Path, node: Node) -> None:
    events = history(40)
    source, target = kurrent.fresh(node.url), kurrent.fresh(node.url)
    into_kurrent(source, events)
    gone = threading.Event()

    def go() -> None:
        gone.set()
        threading.Thread(target=come_back).start()

    def come_back() -> None:
        node.stop()
        node.start()

    node.faults.on_append(6, go)
    node.faults.on_read(60)
    assert commands.upcast(job(tmp_path, source, target)).ready
    assert gone.is_set()
    assert essence(everything(target), 0) == undisturbed(tmp_path / "sqlite", events)


def test_a_leader_that_changes_in_the_middle_of_a_batch_is_followed(tmp_path: Path) -> None:
    events = history(40)
    fill(tmp_path / "source.db", events)
    with running(nodes=2) as first:
        second = first.cluster[1]
        target = kurrent.fresh(f"esdb://127.0.0.1:{first.port},127.0.0.1:{second.port}?Tls=false")

        def change() -> None:
            second.lead()
            first.faults.on_append(1, Fault.NOT_LEADER)

        first.faults.on_append(8, change)
        assert commands.upcast(job(tmp_path, "sqlite:///source.db", target)).ready
        assert second.faults.appended > 10
        made = essence(everything(target), 0)
    assert made == undisturbed(tmp_path / "sqlite", events)


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.NO_LEADER])
def test_a_read_goes_on_where_it_broke_off(node: Node, fault: Fault) -> None:
    url = kurrent.fresh(node.url)
    events = into_kurrent(url, history(40))
    with KurrentStore(locate(url), mode="read") as store:
        for at in (1, 5, 23):
            node.faults.on_read(at, fault)
            assert [e for batch in store.read_all(batch_size=7) for e in batch] == events
            node.faults.on_read(3, fault)
            mine = [e for e in events if e.stream == "cart-1"]
            assert list(store.read_stream("cart-1", first=1)) == mine[1:]
    assert not node.faults.reads


def test_a_holder_that_lost_the_ledger_writes_nothing_more(tmp_path: Path, node: Node) -> None:
    fill(tmp_path / "source.db", history(21))
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url))
    report = commands.upcast(its)
    target = its.config.target or ""
    with (
        KurrentStore(locate(target), mode="write") as old,
        KurrentStore(locate(target), mode="write") as new,
    ):

        def overtaken() -> None:
            with old.begin() as tx:
                with new.begin() as other:
                    ledger.take_over(other.connection, report.job, registry_fingerprint="x")
                ledger.enter(tx.connection, report.job, State.VERIFYING)

        with pytest.raises(JobLostError, match="wrote the ledger"):
            overtaken()
        with old.reading() as connection:
            (found,) = ledger.jobs(connection)
    assert (found.epoch, found.state) == (2, State.READY)


def test_what_is_written_again_in_other_batches_is_there_once(node: Node) -> None:
    events = [
        Event(0, f"s-{n % 2}", n // 2, str(uuid.UUID(int=n)), "T", 1, b"{}", None, n,
              (Origin("o", n),))
        for n in range(20)
    ]  # fmt: skip
    url = kurrent.fresh(node.url)

    def cut_off(part: list[Event]) -> None:
        with KurrentStore(locate(url), mode="write") as store, store.begin() as tx:
            tx.append_copied(part)
            raise ZeroDivisionError

    for first, last in ((0, 9), (0, 9), (0, 4), (0, 15)):
        with pytest.raises(ZeroDivisionError):
            cut_off(events[first:last])
    with KurrentStore(locate(url), mode="write") as store:
        for first, last in ((0, 6), (6, 11), (11, 20)):
            with store.begin() as tx:
                tx.append_copied(events[first:last])
        with store.begin() as tx:
            assert tx.heads(["s-0", "s-1", "s-2"]) == {"s-0": 9, "s-1": 9, "s-2": -1}
    assert [e._replace(global_position=0) for e in everything(url)] == events
    changed = [events[0]._replace(id=str(uuid.UUID(int=99)))]
    with (
        KurrentStore(locate(url), mode="write") as store,
        pytest.raises(ConflictError, match="another event at revision 0"),
        store.begin() as tx,
    ):
        tx.append_copied(changed)


def test_a_refusal_among_many_appends_under_way_ends_them_all(node: Node) -> None:
    """What was held back when the refusal came goes out, too: every request is answered."""
    with (
        KurrentStore(locate(kurrent.fresh(node.url)), mode="write") as store,
        store.begin() as tx,
    ):
        name = f"{store.location.prefix}s-300"
        node.log.append(name, Expect.ANY, [Proposal(id=str(uuid.uuid4()), type="T", data=b"")])
        with pytest.raises(ConflictError, match="another event at revision 0") as error:
            tx.append_copied([copied(n, f"s-{n}") for n in range(2_000)])
        assert error.value.where.stream == name
    there = {r.stream for r in node.log.records if r.stream.startswith(store.location.prefix)}
    assert 300 < len(there) < 2_000


def copied(number: int, stream: str) -> Event:
    """An event of a job at the beginning of a stream."""
    id_, origins = str(uuid.UUID(int=number)), (Origin("o", number),)
    return Event(0, stream, 0, id_, "T", 1, b"{}", None, 0, origins)


@pytest.mark.parametrize("fault", [Fault.SILENT, None])
def test_many_appends_under_way_outlive_what_comes_to_one(
    node: Node, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that swallows the answer, a connection that another thread makes anew."""
    monkeypatch.setattr("eventmig.stores.kurrent.append._CALL_SECONDS", 0.5)
    events = [copied(n, f"s-{n}") for n in range(200)]
    with KurrentStore(locate(kurrent.fresh(node.url)), mode="write") as store:
        node.faults.on_append(120, fault or store._connection._client.reconnect)
        with store.begin() as tx:
            last = tx.append_copied(events)
        read = [e for batch in store.read_all() for e in batch]
    assert [e._replace(global_position=0) for e in read] == events
    assert last == read[-1].global_position
    assert not node.faults.appends


@pytest.mark.parametrize(("order", "at"), [("stream", 7), ("global", 60)])
def test_a_busy_server_is_waited_for(node: Node, order: str, at: int) -> None:
    events = [copied(n, f"s-{n:02}") for n in range(60)]
    with KurrentStore(locate(kurrent.fresh(node.url, order=order)), mode="write") as store:
        node.faults.on_append(at, Fault.BUSY)
        with store.begin() as tx:
            tx.append_copied(events)
        read = sorted((e for batch in store.read_all() for e in batch), key=lambda e: e.stream)
    assert [e._replace(global_position=0) for e in read] == events


def test_a_server_that_refuses_an_event_and_takes_later_ones_is_an_error(
    tmp_path: Path, node: Node
) -> None:
    """It cannot be mended, as nothing is taken back; and it is not left to the verification."""
    fill(tmp_path / "source.db", history(40))
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url), batch_size=100)
    node.faults.on_append(12, Fault.BUSY)
    with pytest.raises(StoreError, match="order over streams") as error:
        commands.upcast(its)
    assert error.value.where.stream
    assert commands.cancel(its) > 0
    assert commands.upcast(its).ready


def test_after_an_event_that_is_refused_for_itself_the_order_is_not_mended_in_silence(
    tmp_path: Path, node: Node
) -> None:
    events = history(40)
    large = event("big-1", "Free", b'{"x": "' + b"a" * 60_000 + b'"}')
    fill(tmp_path / "source.db", [*events[:20], large, *events[20:]])
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url), batch_size=100)
    node.log.max_event = 50_000
    with pytest.raises(DataError, match="larger than the server takes"):
        commands.upcast(its)
    node.log.max_event = 1 << 20
    with pytest.raises(StoreError, match="order over streams") as error:
        commands.upcast(its)
    assert str(error.value.where.stream).endswith("big-1")
    assert commands.cancel(its) > 0
    assert commands.upcast(its).ready


def test_what_another_process_appended_just_before_is_found_where_it_is(node: Node) -> None:
    """The server answers that it is there, and may not say where."""
    node.streams.forgetful = True
    with (
        KurrentStore(locate(kurrent.fresh(node.url)), mode="write") as store,
        store.begin() as tx,
    ):
        event = copied(1, "s-1")
        same = Proposal(id=event.id, type="T", data=b"{}")
        _, position = node.log.append(f"{store.location.prefix}s-1", Expect.NO_STREAM, [same])
        assert tx.append_copied([event]) == position


@pytest.mark.parametrize(
    ("scheme", "preference"),
    [("esdb+discover", "leader"), ("esdb", "leader"), ("esdb", "follower")],
)
def test_in_a_cluster_the_leader_is_written_whatever_is_read(
    tmp_path: Path, scheme: str, preference: str
) -> None:
    events = history(21)
    with running(nodes=2) as leader:
        follower = leader.cluster[1]
        hosts = [f"127.0.0.1:{node.port}" for node in (follower, leader)]
        seeds = hosts[0] if scheme == "esdb+discover" else ",".join(hosts)
        url = f"{scheme}://{seeds}?Tls=false&NodePreference={preference}"
        source, target = kurrent.fresh(url), kurrent.fresh(url)
        into_kurrent(source, events)
        calls = [node.streams.calls for node in (leader, follower)]
        with KurrentStore(locate(source), mode="read") as store:
            assert store.count() == len(events)
        read = [
            n - c
            for n, c in zip((leader.streams.calls, follower.streams.calls), calls, strict=True)
        ]
        assert (read[0] == 0) is (preference == "follower")
        assert (read[1] == 0) is (preference == "leader")
        assert commands.upcast(job(tmp_path, source, target)).ready
        assert follower.faults.appended == 0 < leader.faults.appended
        made = essence(everything(target), 0)
    assert made == undisturbed(tmp_path / "sqlite", events)


def test_a_stream_deleted_during_the_copy_is_found_out(tmp_path: Path, node: Node) -> None:
    source, target = kurrent.fresh(node.url), kurrent.fresh(node.url)
    into_kurrent(source, history(40))
    name = locate(source).prefix + "cart-1"
    node.faults.on_append(12, lambda: node.log.delete(name, Expect.ANY) and None)
    its = job(tmp_path, source, target)
    with pytest.raises(VerifyError, match="as when they were read"):
        commands.upcast(its)
    assert commands.status(its).job.state is State.FAILED
    assert commands.cancel(its) > 0
    assert everything(target) == []
    report = commands.upcast(its)
    assert report.ready, "the streams go on counting where they ended"
    assert "cart-1" not in {e.origins[0].stream for e in everything(target)}


def test_what_grows_too_old_between_two_commands_is_found_out(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one command a `$maxAge` is that of its begin: a copy and its verification agree."""
    source = kurrent.fresh(node.url)
    into_kurrent(source, history(40))
    name = f"$${locate(source).prefix}cart-1"
    rules = Proposal(id=str(uuid.uuid4()), type="$metadata", data=b'{"$maxAge": 600}')
    node.log.append(name, Expect.ANY, [rules])
    its = job(tmp_path, source, kurrent.fresh(node.url))
    assert commands.upcast(its).ready
    now = time.time_ns
    monkeypatch.setattr("eventmig.stores.kurrent.rules.time.time_ns", lambda: now() + 10**12)
    found = commands.verify(its).verification
    assert found is not None
    assert any("as when they were read" in m.expected for m in found.shown)


@pytest.mark.parametrize("order", ["global", "stream"])
def test_bytes_that_are_no_text_are_copied_or_refused_by_name(
    tmp_path: Path, node: Node, order: str
) -> None:
    source, target = kurrent.fresh(node.url), kurrent.fresh(node.url, order=order)
    raw = b"\x00\xff\xfe"
    put = partial(Proposal, data=raw, metadata=raw, content_type="application/octet-stream")
    stream = f"{locate(source).prefix}cart-1"
    node.log.append(stream, Expect.ANY, [put(id=str(uuid.uuid4()), type="Untouched")])
    its = job(tmp_path, source, target)
    assert commands.upcast(its).ready
    (copied,) = node.log.visible(f"{locate(target).prefix}cart-1")
    assert (copied.event.data, copied.event.content_type) == (raw, "application/octet-stream")
    (event,) = everything(target)
    assert (event.data, event.metadata) == (raw, everything(source)[0].metadata)
    with pytest.raises(DataError, match="not UTF-8") as refused:
        commands.upcast(job(tmp_path, source, "sqlite:///refused.db"))
    assert refused.value.where.stream == "cart-1"
    node.log.append(stream, Expect.ANY, [put(id=str(uuid.uuid4()), type="Opened")])
    with pytest.raises(UpcastError) as unreadable:
        commands.upcast(its)
    where = unreadable.value.where
    assert (where.stream, where.stream_position, where.type) == ("cart-1", 1, "Opened")
    assert len(everything(target)) == 1


def test_a_target_stream_deleted_during_the_copy_is_found_out(tmp_path: Path, node: Node) -> None:
    fill(tmp_path / "source.db", history(40))
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url))
    name = locate(its.config.target or "").prefix + "cart-1"
    node.faults.on_append(20, lambda: node.log.delete(name, Expect.ANY) and None)
    with pytest.raises(VerifyError, match="cart-1"):
        commands.upcast(its)


def test_an_event_above_the_limit_is_named(tmp_path: Path) -> None:
    small = b'{"x": "' + b"a" * 300 + b'"}'
    large = b'{"x": "' + b"a" * 20_000 + b'"}'
    events = [event("s-1", "Free", small) for _ in range(40)]
    with running(max_append=16_384) as node:
        fill(tmp_path / "source.db", events)
        its = job(
            tmp_path,
            "sqlite:///source.db",
            kurrent.fresh(node.url),
        )
        assert commands.upcast(its).ready, "the limit is found from the server's answer"
        fill(tmp_path / "source.db", [event("s-2", "Free", large)])
        with pytest.raises(DataError, match=r"larger than the server takes \(16,384") as error:
            commands.upcast(its)
        assert error.value.where.stream == locate(its.config.target or "").prefix + "s-2"
        node.log.max_append = 1 << 20
        assert commands.upcast(its).ready
        assert len(everything(its.config.target or "")) == 41


def test_an_event_above_the_limit_for_one_is_named_among_others(node: Node) -> None:
    """Of newer servers; their answer does not say which event of a request it means."""
    node.log.max_event = 1_000
    large = b'{"x": "' + b"a" * 2_000 + b'"}'
    events = [
        copied(n, "s-1")._replace(stream_position=n, data=large if n == 11 else b"{}")
        for n in range(20)
    ]
    with (
        KurrentStore(locate(kurrent.fresh(node.url)), mode="write") as store,
        store.begin() as tx,
    ):
        with pytest.raises(DataError, match="MaxAppendEventSize") as error:
            tx.append_copied(events)
        assert error.value.where.stream_position == 11
        node.log.max_event = 1 << 20
        tx.append_copied(events)
        assert [e.data for e in store.read_stream("s-1")] == [e.data for e in events]


def test_who_may_not_is_told_so(node: Node) -> None:
    node.access.users = {"ann": "secret"}
    with pytest.raises(StoreError, match=r"does not let this user read \$all"):
        KurrentStore(locate(node.url), mode="read")
    node.access.all_readers = {""}
    into = KurrentStore(locate(f"{node.url}&prefix=a."), mode="write")
    node.log.append("$$a.s", Expect.ANY, [acl(["ann"])])
    with into, pytest.raises(StoreError, match=r"does not let this user write the stream 'a\.s'"):
        into.append("s", [NewEvent("T", b"{}")], expected=None)


def acl(writers: list[str]) -> Proposal:
    data = json.dumps({"$acl": {"$w": writers}}).encode()
    return Proposal(id=str(uuid.uuid4()), type="$metadata", data=data)


def test_users_and_their_passwords_go_over_tls(tmp_path: Path) -> None:
    with running(tls=True) as node:
        node.access.users = {"admin": "changeit", "ann": "secret"}

        def url(user: str) -> str:
            return f"{node.url}&prefix=r2.".replace("://", f"://{user}@")

        fill(tmp_path / "source.db", history(7))
        assert commands.upcast(job(tmp_path, "sqlite:///source.db", url("admin:changeit"))).ready
        for user, said in (("ann:secret", "read \\$all"), ("ann:wrong", "user name and password")):
            with pytest.raises(StoreError, match=said) as error:
                open_store(url(user))
            assert user.split(":")[1] not in str(error.value)


@pytest.mark.parametrize(
    ("user", "query", "kind", "said"),
    [
        ("ann:secret@", "?Tls=false", StoreUnavailableError, "cannot be reached"),
        ("ann:secret@", "?Tls=false&Nonsense=1", ConfigError, "Unknown field"),
        ("", "?Tls=true", ConfigError, "Username and password are required"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_without_its_password(
    user: str, query: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        open_store(f"esdb://{user}127.0.0.1:9{query}")
    assert "secret" not in str(error.value)
