"""Reading a live store of others in the order of (transaction, position), without a lock: nothing
missed, no stream out of order, and who holds a transaction open delays the reader alone."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from sqlalchemy import column

from eventmig import Registry, commands, ops, upcaster
from eventmig.cli import render, render_lifecycle
from eventmig.cli.inspecting import text
from eventmig.cli.jsons import to_json
from eventmig.errors import (
    ConfigError,
    CrossingError,
    DataError,
    JobError,
    NotAStoreError,
    StoreDamagedError,
)
from eventmig.events import Event
from eventmig.migrate import failpoints
from eventmig.migrate.states import State
from eventmig.project import Project
from eventmig.stores import held_up
from eventmig.stores.base import EventReader
from eventmig.stores.layouts.columns import Kind
from eventmig.stores.layouts.late import places_of
from eventmig.stores.layouts.order import Order, numbered
from eventmig.stores.layouts.presets import described, preset
from eventmig.stores.open import open_store
from tests.acceptance.support import event, project
from tests.layouts.tables import CASES
from tests.layouts.test_documented_tables import place, run
from tests.postgres import Server

RENAME = Registry([upcaster("Added", 1, ops.rename("price", "amount"))])
TABLES = next(case.tables for case in CASES if case.layout == "emmett")
HELD = "SELECT pg_current_xact_id()"
ORDER = "(transaction_id, global_position)"


class Writer:
    """A session of the owner's, which may have several statements in one transaction."""

    def __init__(self, url: str, schema: str = "old") -> None:
        self._connection = psycopg.connect(url)
        self._connection.execute("SET lock_timeout = '20s'")
        self._connection.execute("SELECT set_config('search_path', %s, false)", [schema])
        self._connection.commit()

    def begin(self) -> int:
        """Have a transaction with a number; returns it."""
        found = self._connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert found is not None
        return int(found[0])

    def append(self, stream: str, count: int = 1) -> list[str]:
        """What Emmett's function does where no version is expected; returns ids."""
        run = self._connection.execute
        run("SELECT pg_current_xact_id()")
        run(
            "INSERT INTO emt_streams VALUES (%s, 0, 'emt:default', 'cart', '{}')"
            " ON CONFLICT (stream_id, partition, is_archived) DO NOTHING",
            [stream],
        )
        found = run(
            "UPDATE emt_streams SET stream_position = stream_position + %s WHERE stream_id = %s"
            " RETURNING stream_position",
            [count, stream],
        ).fetchone()
        assert found is not None
        ids = [f"{stream}/{found[0] - count + n}" for n in range(1, count + 1)]
        for n, event_id in enumerate(ids, found[0] - count + 1):
            run(
                "INSERT INTO emt_messages (stream_id, stream_position, partition, message_data,"
                " message_metadata, message_schema_version, message_type, message_id,"
                " transaction_id) VALUES (%s, %s, 'emt:default', %s, '{}', '1', 'Added', %s,"
                " pg_current_xact_id())",
                [stream, n, json.dumps({"price": n}), event_id],
            )
        return ids

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def url(postgres_url: str) -> str:
    """The URL of a store in Emmett's tables; theirs is `postgres_url`."""
    run(postgres_url, "old", *TABLES)
    return place(postgres_url, "emmett", "old")


@pytest.fixture
def store(url: str) -> Iterator[EventReader]:
    with closing(open_store(url)) as opened:
        yield opened


@contextmanager
def writers(url: str, count: int) -> Iterator[list[Writer]]:
    made = [Writer(url) for _ in range(count)]
    yield made
    for one in made:
        one.close()


def ids(store: EventReader, after: int = 0, size: int = 5_000) -> list[str]:
    return [e.id for batch in store.read_all(after=after, batch_size=size) for e in batch]


def by_columns(url: str) -> list[str]:
    """The ids in the order of the columns, whatever is late."""
    found = run(url, "old", f"SELECT message_id FROM emt_messages ORDER BY {ORDER[1:-1]}")
    return [row[0] for row in found]


# --- what is open, and what is late


def test_a_lower_transaction_that_commits_later_is_waited_for(
    postgres_url: str, store: EventReader
) -> None:
    with writers(postgres_url, 2) as (slow, fast):
        slow.append("slow", 2)
        fast.append("fast")
        fast.commit()
        assert (store.head_position(), ids(store)) == (0, [])
        assert [e.id for e in store.read_stream("fast")] == ["fast/1"]
        slow.commit()
        assert ids(store) == ["slow/1", "slow/2", "fast/1"]


def test_a_lower_position_of_a_later_transaction_comes_behind(
    postgres_url: str, store: EventReader
) -> None:
    """By position alone it would come first, and be missed by who has read on."""
    with writers(postgres_url, 2) as (first, second):
        first.begin()
        second.append("second")
        first.append("first")
        first.commit()
        assert ids(store) == ["first/1"]
        read = store.head_position()
        second.commit()
        assert ids(store, after=read) == ["second/1"]
    positions = run(postgres_url, "old", "SELECT message_id, global_position FROM emt_messages")
    assert dict(positions) == {"first/1": 2, "second/1": 1}


def test_a_transaction_elsewhere_on_the_server_delays_and_loses_nothing(
    postgres_url: str, url: str, store: EventReader, postgres_server: Server
) -> None:
    with (
        postgres_server.database() as elsewhere,
        psycopg.connect(elsewhere, application_name="far away") as idle,
        writers(postgres_url, 1) as (writer,),
    ):
        writer.append("s")
        writer.commit()
        idle.execute(HELD)
        writer.append("s", 2)
        writer.commit()
        assert ids(store) == ["s/1"]
        looked = commands.inspect(Project.open(), url)
        assert looked.events == 3
        assert looked.held_up is not None
        assert looked.held_up.events == 2
        assert looked.order == ("transaction_id", "global_position")
        said = printed(text(looked))
        assert f"read in the order of {ORDER}" in said
        assert "2 events wait for a transaction that is open on the server: session" in said
        pid, begun = idle.info.backend_pid, looked.held_up.by.since
        assert begun is not None
        assert (
            f"session {pid} (far away) in the database {idle.info.dbname}, "
            f"since {begun:%Y-%m-%d %H:%M:%S} UTC" in said
        )
        assert f"SELECT pg_terminate_backend({pid})" in said
        idle.rollback()
        assert ids(store, after=store.head_position()) == []
        assert ids(store) == ["s/1", "s/2", "s/3"]
        assert commands.inspect(Project.open(), url).held_up is None


def printed(what: RenderableType) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_a_job_says_for_whom_it_waits(
    tmp_path: Path, postgres_url: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of `inspect`: its report, what a cut-over and a follower say, `status`."""
    monkeypatch.setattr(held_up, "LONG_S", 0)
    moved = project(tmp_path, RENAME, source=url, target="sqlite:///new.db")
    with psycopg.connect(postgres_url) as idle, writers(postgres_url, 1) as (writer,):
        writer.append("s")
        writer.commit()
        assert commands.upcast(moved).held_up is None
        idle.execute(HELD)
        writer.append("s", 2)
        writer.commit()
        found = commands.upcast(moved)
        assert (found.ready, found.job.tally.read) == (True, 1)
        said = str(commands.inspect(Project.open(), url).held_up)
        assert said.startswith("2 events wait for a transaction that is open on the server")
        assert said in printed(render.job(found))
        assert json.loads(to_json(found))["held_up"]["by"]["pid"] == idle.info.backend_pid
        looked = commands.measure(moved)
        assert (str(looked.held_up), looked.lag_events) == (said, 2)
        assert said in printed(render_lifecycle.measured(looked))
        dry = commands.cutover(moved, dry_run=True)
        assert said in printed(render_lifecycle.crossing(dry))

        heard: list[tuple[str, str]] = []

        def hear(what: str, why: str) -> None:
            heard.append((what, why))
            commands.steer(moved, paused=True)
            idle.rollback()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            commands.keep_up(moved, on_event=hear)
        (told,) = heard
        remedy = f"SELECT pg_terminate_backend({idle.info.backend_pid})"
        assert told == ("waiting", f"{said}; end it if nobody needs it any more: {remedy}")
        assert commands.upcast(moved).held_up is None


def test_a_transaction_of_a_moment_is_not_spoken_of(postgres_url: str, store: EventReader) -> None:
    with writers(postgres_url, 2) as (slow, fast):
        slow.begin()
        fast.append("s")
        fast.commit()
        assert held_up.held_up(store) is None
        assert isinstance(store, held_up.Waiting)
        assert store.held_up() is not None


def a_late_event(url: str) -> None:
    """The second event of a stream, by a transaction that began before that of the first."""
    with writers(url, 3) as (late, early, other):
        late.begin()
        other.append("other", 2)
        early.append("s")
        early.commit()
        other.commit()
        late.append("t")
        late.append("s", 2)
        late.append("u")
        late.commit()
        other.append("other")
        other.commit()


LATE = ["t/1", "u/1", "other/1", "other/2", "s/1", "s/2", "s/3", "other/3"]


def test_a_late_event_is_read_behind_its_predecessor(postgres_url: str, store: EventReader) -> None:
    a_late_event(postgres_url)
    moved = by_columns(postgres_url)
    assert moved.index("s/2") < moved.index("s/1"), "else this shows nothing"
    whole = [event for batch in store.read_all() for event in batch]
    assert [event.id for event in whole] == LATE
    places = [event.global_position for event in whole]
    assert places == sorted(set(places))
    for number, one in enumerate(whole, 1):
        for size in (1, 2, 3):
            assert ids(store, after=one.global_position, size=size) == LATE[number:]
        until = one.global_position
        assert store.count(until=until) == number
        assert sum(kind.count for kind in store.type_counts(until=until)) == number
        assert [e.id for b in store.read_all(until=until) for e in b] == LATE[:number]
        assert store.event(one.id) == one
    with closing(open_store(store.url.replace(":***", ""))) as fresh:
        assert list(fresh.read_stream("s")) == [e for e in whole if e.stream == "s"]
        assert list(fresh.read_stream("s", first=3)) == [whole[6]]
    assert list(store.preflight()) == []


def test_a_late_event_waits_for_its_predecessors_transaction(
    postgres_url: str, store: EventReader
) -> None:
    with writers(postgres_url, 3) as (late, idle, early):
        late.append("before")
        idle.begin()
        early.append("s")
        early.commit()
        late.append("s")
        late.commit()
        assert ids(store) == ["before/1"]
        head = store.head_position()
        assert [e.id for e in store.read_stream("s") if e.global_position <= head] == []
        idle.rollback()
        assert ids(store, after=head) == ["s/1", "s/2"]


def test_positions_that_a_session_took_long_before(postgres_url: str, store: EventReader) -> None:
    """With CACHE the later event of a stream has the lower position, and here is late as well."""
    run(postgres_url, "old", "ALTER SEQUENCE emt_global_message_position CACHE 20")
    with writers(postgres_url, 2) as (late, early):
        late.append("first")
        late.commit()
        late.begin()
        early.append("s", 2)
        early.commit()
        late.append("s", 2)
        late.commit()
    assert by_columns(postgres_url) == ["first/1", "s/3", "s/4", "s/1", "s/2"]
    for size in (1, 2, 9):
        assert ids(store, size=size) == ["first/1", "s/1", "s/2", "s/3", "s/4"]


@st.composite
def streams(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Streams of (transaction, position); a position stands once in all of them."""
    events = draw(st.lists(st.tuples(st.integers(3, 9), st.integers(0, 3)), max_size=30))
    positions = draw(st.permutations(range(1, len(events) + 1)))
    found: list[list[tuple[int, int]]] = [[], [], [], []]
    for (transaction, stream), position in zip(events, positions, strict=True):
        found[stream].append((transaction, position))
    return found


@given(streams=streams(), settled=st.integers(3, 9))
def test_no_place_is_twice_and_what_is_settled_never_changes(
    streams: list[list[tuple[int, int]]], settled: int
) -> None:
    order = Order(
        preset("emmett", "postgresql"), column("p"), numbered(column("t"), Kind.XID8, "t", "")
    )

    def read(stream: Sequence[tuple[int, int]]) -> list[int]:
        places = [order.at(position, str(transaction)) for transaction, position in stream]
        late = places_of(places, order)
        assert all(own != place for own, place in late.items())
        return [late.get(place, place) for place in places]

    everything = [place for stream in streams for place in read(stream)]
    assert len(set(everything)) == len(everything)
    for stream in streams:
        places = read(stream)
        assert places == sorted(places)
        transactions = [transaction for transaction, _ in stream]
        highest = [max(transactions[: n + 1]) for n in range(len(stream))]
        assert list(map(order.transaction, places)) == highest
        # Later transactions append behind what those below `settled` wrote.
        ended = next((n for n, t in enumerate(highest) if t >= settled), len(stream))
        assert read(stream[:ended]) == places[:ended]
        if highest == transactions and stream == sorted(stream):
            assert places == [order.at(position, str(number)) for number, position in stream]


# --- all at once


def test_twelve_writers_and_a_reader_that_misses_nothing(
    postgres_url: str, store: EventReader, postgres_server: Server
) -> None:
    """10% of the transactions roll back, some stay open, several write to the same streams, the
    sequence caches, and for a while a transaction is idle elsewhere."""
    run(postgres_url, "old", "ALTER SEQUENCE emt_global_message_position CACHE 7")
    committed: list[str] = []
    faults: list[BaseException] = []
    running = threading.Semaphore(0)

    def write(number: int) -> None:
        dice = random.Random(number)
        writer = Writer(postgres_url)
        try:
            for _ in range(25):
                writer.begin()
                time.sleep(dice.choice([0, 0, 0.002, 0.01]))
                done: list[str] = []
                for stream in sorted({dice.randrange(8) for _ in range(dice.randint(1, 2))}):
                    done += writer.append(f"s-{stream}", dice.randint(1, 3))
                time.sleep(dice.choice([0, 0, 0, 0.002, 0.02]))
                if dice.random() < 0.1:
                    writer.rollback()
                else:
                    writer.commit()
                    committed.extend(done)
        except BaseException as error:  # noqa: BLE001 - told by the test
            faults.append(error)
        finally:
            writer.close()
            running.release()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(12)]
    seen: list[Event] = []
    naive: list[str] = []
    naive_last = 0
    with (
        postgres_server.database() as elsewhere,
        psycopg.connect(elsewhere) as idle,
        psycopg.connect(postgres_url, autocommit=True) as by_position,
    ):
        idle.execute(HELD)
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads) or len(seen) < len(committed):
            while running.acquire(blocking=False):
                ended += 1
            if len(committed) > 100 or faults:
                idle.rollback()
            after = seen[-1].global_position if seen else 0
            seen += [e for batch in store.read_all(after=after, batch_size=50) for e in batch]
            rows = by_position.execute(
                "SELECT global_position, message_id FROM old.emt_messages"
                " WHERE global_position > %s",
                [naive_last],
            ).fetchall()
            naive += [row[1] for row in rows]
            naive_last = max([naive_last, *(row[0] for row in rows)])
            if ended == len(threads) and faults:
                break
    for thread in threads:
        thread.join()
    assert faults == []
    assert sorted(e.id for e in seen) == sorted(committed)
    assert [e.global_position for e in seen] == sorted({e.global_position for e in seen})
    last: dict[str, int] = {}
    for one in seen:
        assert one.stream_position == last.get(one.stream, 0) + 1
        last[one.stream] = one.stream_position
    # The test can fail: who reads `position > last` has missed some, and who reads by the two
    # columns alone gets streams out of order.
    assert len(naive) < len(seen)
    assert [event.id for event in seen] != by_columns(postgres_url)
    whole = [event for batch in store.read_all(batch_size=77) for event in batch]
    assert whole == seen


# --- jobs


def test_a_job_copies_late_events_in_order_and_goes_on(
    tmp_path: Path, postgres_url: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_late_event(postgres_url)
    run(postgres_url, "new", *TABLES, "ALTER SEQUENCE emt_global_message_position CACHE 5")
    target = place(postgres_url, "emmett", "new")
    moved = project(tmp_path, RENAME, source=url, target=target, batch_size=2)
    batches = iter(range(2))

    def stop(point: str) -> None:
        if point == "batch: after" and next(batches, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(failpoints, "handler", stop)
    with pytest.raises(KeyboardInterrupt):
        commands.upcast(moved)
    monkeypatch.undo()
    assert 0 < len(run(postgres_url, "new", "SELECT 1 FROM emt_messages")) < len(LATE)
    assert commands.upcast(moved).ready
    ours = f"SELECT message_id FROM emt_messages ORDER BY {ORDER[1:-1]}"
    assert [row[0] for row in run(postgres_url, "new", ours)] == LATE
    with writers(postgres_url, 1) as (writer,):
        more = writer.append("s", 2)
        writer.commit()
    report = commands.upcast(moved)
    assert (report.ready, report.job.tally.read) == (True, 10)
    again = commands.verify(moved).verification
    assert again is not None
    assert (again.right, again.target_events) == (True, 10)
    assert [row[0] for row in run(postgres_url, "new", ours)] == [*LATE, *more]
    by_position = "SELECT message_id FROM emt_messages ORDER BY global_position"
    assert run(postgres_url, "new", by_position) == run(postgres_url, "new", ours)
    assert commands.cancel(moved) == 10
    assert run(postgres_url, "new", "SELECT count(*) FROM emt_messages") == [(0,)]


def test_a_job_that_an_open_transaction_holds_up_goes_on_later(
    tmp_path: Path, postgres_url: str, url: str
) -> None:
    target = place(postgres_url, "emmett", "new")
    run(postgres_url, "new", *TABLES)
    with writers(postgres_url, 2) as (open_one, writer):
        writer.append("s", 3)
        writer.commit()
        open_one.append("t")
        writer.append("s", 1)
        writer.commit()
        moved = project(tmp_path, RENAME, source=url, target=target, batch_size=2)
        first = commands.upcast(moved)
        assert (first.ready, first.job.tally.read) == (True, 3)
        open_one.commit()
        second = commands.upcast(moved)
    assert (second.ready, second.job.tally.read) == (True, 5)
    with closing(open_store(target)) as copied:
        assert ids(copied) == ["s/1", "s/2", "s/3", "t/1", "s/4"]


def test_a_job_passes_over_positions_that_its_session_cached(postgres_url: str, url: str) -> None:
    """Else its later batch would stand before others, for who reads by position."""
    run(postgres_url, "old", "ALTER SEQUENCE emt_global_message_position CACHE 20")
    with closing(open_store(url, mode="write")) as store, writers(postgres_url, 1) as (writer,):
        for n in range(1, 4):
            copied = event("s", "Added", {"price": n})._replace(stream_position=n)
            with store.begin() as tx:  # type: ignore[attr-defined]
                last = tx.append_copied([copied])
            assert store.head_position() == last
            highest = "SELECT max(global_position) FROM emt_messages WHERE stream_id {} 's'"
            ours, others = (run(postgres_url, "old", highest.format(x))[0][0] for x in ("=", "!="))
            assert ours > (others or 0)
            writer.append("w")
            writer.commit()


def test_across_and_back_nobody_can_append_before_what_was_copied(
    tmp_path: Path, postgres_url: str, url: str
) -> None:
    """A transaction that is older than the last event could, once it finds the fence open."""
    run(postgres_url, "new", *TABLES)
    target = place(postgres_url, "emmett", "new")
    moved = project(tmp_path, RENAME, source=url, target=target, batch_size=2)
    old, old_too, idle, new = (Writer(postgres_url, s) for s in ("old", "old", "old", "new"))
    a_late_event(postgres_url)
    assert commands.upcast(moved).ready

    idle.begin()
    old.append("s")
    old.commit()
    with pytest.raises(CrossingError, match=r"older than the last event .* session \d+ ") as error:
        commands.cutover(moved, budget_s=3)
    assert "pg_terminate_backend" in error.value.remedy
    idle.append("idle")  # the old side is open again
    idle.commit()

    idle.begin()
    waiting = threading.Timer(0.5, idle.rollback)
    waiting.start()
    assert commands.cutover(moved).job.state is State.REVERSE_WINDOW
    waiting.join()
    with pytest.raises(psycopg.Error, match="may not append"):
        old_too.append("s")
    old_too.rollback()
    new.append("s")
    new.append("new")
    new.commit()
    commands.keep_up_once(moved)
    new.append("s")
    new.commit()
    assert commands.reverse(moved).job.state is State.REVERSED
    old.append("s")
    old.commit()
    assert commands.cutover(moved).job.state is State.REVERSE_WINDOW
    with closing(open_store(url)) as one, closing(open_store(target)) as other:
        assert [e.stream for e in one.read_stream("idle")] == ["idle"]
        assert ids(one) == ids(other)
        assert len(ids(one)) == len(LATE) + 6
    checked = commands.verify(moved).verification
    assert checked is not None
    assert checked.right, checked.shown
    for writer in (old, old_too, idle, new):
        writer.close()


def test_the_same_rows_under_another_order_are_no_target(
    tmp_path: Path, postgres_url: str, url: str
) -> None:
    other = {"name": "own", "preset": "emmett", "transaction": {"bits": 30}}
    target = place(postgres_url, quote(json.dumps(other)), "old")
    with pytest.raises(JobError, match="share streams"):
        commands.upcast(project(tmp_path, RENAME, source=url, target=target))


def test_numbers_in_other_types(tmp_path: Path, postgres_url: str, url: str) -> None:
    alter = "ALTER TABLE emt_messages ALTER transaction_id TYPE {} USING transaction_id::text"
    with writers(postgres_url, 1) as (writer,):
        for _ in range(3):
            writer.append("s")
            writer.commit()
    run(postgres_url, "old", alter.format("text"))
    run(postgres_url, "new", *TABLES, alter.format("bigint") + "::bigint")
    target = place(postgres_url, "emmett", "new")
    moved = project(tmp_path, RENAME, source=url, target=target, batch_size=2)
    assert commands.upcast(moved).ready
    with closing(open_store(target)) as copied:
        assert ids(copied) == ["s/1", "s/2", "s/3"]


# --- what is refused


def test_numbers_of_32_bits_are_refused_by_name(postgres_url: str, url: str) -> None:
    alter = "ALTER TABLE emt_messages ALTER transaction_id TYPE xid USING transaction_id::text::xid"
    run(postgres_url, "old", alter)
    with pytest.raises(NotAStoreError, match=r"'transaction_id' does not hold .* 64 bits") as error:
        open_store(url)
    assert "xid8, bigint or text" in error.value.remedy


def test_events_of_another_servers_transactions_are_refused(
    postgres_url: str, store: EventReader
) -> None:
    with writers(postgres_url, 1) as (writer,):
        writer.append("s", 2)
        writer.commit()
        run(postgres_url, "old", "UPDATE emt_messages SET transaction_id = '99999999'")
        with pytest.raises(
            StoreDamagedError, match=r"of transaction 99999999, .* another"
        ) as error:
            store.head_position()
        assert "UPDATE emt_messages SET transaction_id = '3'" in error.value.remedy
        looked = commands.inspect(Project.open(), postgres_url)
        assert (looked.events, looked.shown) == (2, ())
        assert "they come from another server" in looked.refused[0]
        run(postgres_url, "old", error.value.remedy.split(": ")[1].split(";")[0])
        writer.append("s")
        writer.commit()
        assert ids(store) == ["s/1", "s/2", "s/3"]


def test_what_does_not_fit_a_position_is_refused(
    tmp_path: Path, postgres_url: str, url: str
) -> None:
    narrow = {"name": "own", "preset": "emmett", "transaction": {"bits": 16}}
    small = place(postgres_url, quote(json.dumps(narrow)), "old")
    run(postgres_url, "old", "SELECT setval('emt_global_message_position', 65534)")
    with writers(postgres_url, 1) as (writer,):
        writer.append("s")
        writer.commit()
        with closing(open_store(small)) as store:
            assert ids(store) == ["s/1"]
            writer.append("s")
            writer.commit()
            with pytest.raises(DataError, match=r"the second 2\^16 or more") as error:
                ids(store)
        assert "transaction.bits" in error.value.remedy
    moved = project(tmp_path, RENAME, source=small)
    with pytest.raises(StoreDamagedError, match="does not fit"):
        commands.upcast(moved)
    moved = project(tmp_path, RENAME, source=url)
    assert commands.upcast(moved).job.tally.read == 2


@pytest.mark.parametrize(
    ("dialect", "more", "why"),
    [
        ("postgresql", {"tail": "transactions"}, "goes with transaction"),
        ("postgresql", {"transaction": {"column": "x"}}, "goes with transaction"),
        ("sqlite", {"tail": "transactions", "transaction": {"column": "x"}}, "one writer"),
        ("postgresql", {"tail": "transactions", "transaction": {"column": "x", "bits": 60}}, "47"),
    ],
)
def test_an_order_that_cannot_be_is_refused(
    dialect: Literal["postgresql", "sqlite"], more: dict[str, object], why: str
) -> None:
    description = {
        "table": "t", "position": "id", "tail": "barrier", "data": {"column": "data"},
        "stream": {"columns": ["s"], "position": "p"}, "type": {"column": "type"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=why):
        described("own", description | more, dialect)


def test_inspect_proposes_the_order_of_a_table_with_transactions(postgres_url: str) -> None:
    run(
        postgres_url,
        "own",
        "CREATE TABLE journal (id bigint PRIMARY KEY, txid xid8 NOT NULL, stream_id text,"
        " version bigint, event_type text, payload jsonb, UNIQUE (stream_id, version))",
        "INSERT INTO journal VALUES (0, pg_current_xact_id(), 'a-1', 1, 'Opened', '{}')",
    )
    found = commands.inspect(Project.open(), postgres_url)
    assert (found.events, found.refused) == (1, ())
    assert found.order == ("txid", "id")
    assert found.description is not None
    for line in ('tail = "transactions"', "first = 0", "[layouts.own.transaction]"):
        assert line in found.description.splitlines()
