"""Following a live PostgreSQL store by position: nothing missed, no stream out of order,
nobody blocked."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig.errors import CrossingError, StoreDamagedError
from eventmig.events import Event, NewEvent
from eventmig.stores.open import open_store
from eventmig.stores.postgres import tail
from eventmig.stores.postgres.store import PostgresStore
from tests.postgres import Server

Opener = Callable[[], PostgresStore]


@pytest.fixture
def opened(postgres_url: str) -> Iterator[Opener]:
    """Opens store objects of one new store; closes them."""
    stores: list[PostgresStore] = []

    def one() -> PostgresStore:
        # Whoever is blocked says so instead of hanging.
        url = f"{postgres_url}&options=-c lock_timeout=5s"
        store = open_store(url, mode="create")
        assert isinstance(store, PostgresStore)
        stores.append(store)
        return store

    yield one
    for store in stores:
        store.close()


def an_event(stream: str, position: int) -> Event:
    return Event(0, stream, position, str(uuid.uuid4()), "T", 1, b"{}", None, 0)


class _RolledBackError(Exception):
    pass


@contextmanager
def appending(store: PostgresStore, stream: str, count: int = 1) -> Iterator[None]:
    """What `append` does, with its transaction held open for the block."""
    with store.begin() as tx:
        head = tx.head_alone(stream)
        tx.append_stored([an_event(stream, head + n) for n in range(1, count + 1)])
        yield


def positions(store: PostgresStore, after: int = 0) -> list[int]:
    return [e.global_position for batch in store.read_all(after=after) for e in batch]


def test_a_lower_position_that_commits_later_is_waited_for(opened: Opener) -> None:
    slow, fast, reader = opened(), opened(), opened()
    fast.append("a", [NewEvent("T", b"{}")], expected=None)
    with appending(slow, "slow", 2):
        (later,) = fast.append("fast", [NewEvent("T", b"{}")], expected=None)
        assert later.global_position == 4
        assert reader.head_position() == 1
        assert positions(reader) == [1]
        assert [e.stream for e in reader.read_stream("fast")] == ["fast"]
        waiting = reader.held_up()
        assert waiting is not None
        assert waiting.events == 1
        assert f"pg_terminate_backend({waiting.by.pid})" in waiting.remedy
        assert reader.held_up(open_for_s=3_600) is None
    assert reader.head_position() == 4
    assert reader.held_up() is None
    assert positions(reader, after=1) == [2, 3, 4]


def test_a_fence_names_who_appends(opened: Opener) -> None:
    slow, crossing = opened(), opened()
    with (
        appending(slow, "slow"),
        pytest.raises(CrossingError, match=r"still open after 0\.1 s: session \d+ ") as error,
    ):
        crossing.set_fence(closed=True, job_id="job", epoch=1, wait_s=0.1)
    assert "pg_terminate_backend" in error.value.remedy
    assert crossing.fence() is None


def test_positions_that_rolled_back_are_not_waited_for(opened: Opener) -> None:
    slow, fast, reader = opened(), opened(), opened()
    with suppress(_RolledBackError), appending(slow, "slow", 3):
        fast.append("fast", [NewEvent("T", b"{}")], expected=None)
        assert reader.head_position() == 0
        raise _RolledBackError
    assert reader.head_position() == 4
    assert positions(reader) == [4]


def test_a_head_is_the_position_of_an_event(opened: Opener) -> None:
    """Positions handed out and rolled back may be handed out again after a crash."""
    store, reader = opened(), opened()
    store.append("a", [NewEvent("T", b"{}")], expected=None)
    with suppress(_RolledBackError), appending(store, "b", 3):
        raise _RolledBackError
    assert reader.head_position() == 1


def test_a_prepared_transaction_is_waited_for(opened: Opener, postgres_url: str) -> None:
    store = opened()
    found = store._found
    with psycopg.connect(postgres_url) as connection:
        cursor = connection.cursor()
        tail.announce(cursor, table=found.events, sequence=found.positions)
        cursor.execute("INSERT INTO streams (name) VALUES ('two-phase')")
        cursor.execute(
            "INSERT INTO events SELECT nextval('events_position'), 1, 1, 0, NULL, NULL, NULL, 1,"
            " 'id', 'T', '{}', NULL"
        )
        cursor.execute("PREPARE TRANSACTION 'waiting'")
    store.append("one-phase", [NewEvent("T", b"{}")], expected=None)
    assert store.head_position() == 0
    waiting = store.held_up()
    assert waiting is not None
    assert (waiting.events, waiting.by.pid, waiting.by.prepared) == (1, None, "waiting")
    assert str(waiting).startswith(
        "1 event waits for a transaction that is open on the server: "
        "the prepared transaction 'waiting' in the database "
    )
    assert "COMMIT PREPARED 'waiting'" in waiting.remedy
    assert store.held_up(open_for_s=3_600) is None
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("COMMIT PREPARED 'waiting'")
    assert positions(store) == [1, 2]


def test_an_idle_transaction_elsewhere_holds_nobody_up(
    opened: Opener, postgres_url: str, postgres_server: Server
) -> None:
    store = opened()
    with (
        postgres_server.database() as other,
        psycopg.connect(other) as far,
        psycopg.connect(postgres_url) as near,
    ):
        for connection in (far, near):  # with a transaction id of their own
            connection.execute("CREATE TABLE idle (n int)")
        near.execute("SELECT count(*) FROM events")
        store.append("a", [NewEvent("T", b"{}")], expected=None)
        assert store.head_position() == 1
        assert positions(store) == [1]


def test_two_sets_of_tables_do_not_wait_for_each_other(opened: Opener, postgres_url: str) -> None:
    busy = opened()
    with open_store(f"{postgres_url}&tables=t_", mode="create") as apart, appending(busy, "a"):
        apart.append("a", [NewEvent("T", b"{}")], expected=None)
        assert apart.head_position() == 1
        assert busy.head_position() == 0


def test_writers_of_one_stream_go_one_after_the_other(opened: Opener) -> None:
    first, second, reader = opened(), opened(), opened()
    begun = threading.Event()
    stored: list[Event] = []

    def append() -> None:
        begun.set()
        stored.extend(second.append("s", [NewEvent("T", b"{}")], expected=1))

    waiting = threading.Thread(target=append)
    with appending(first, "s"):
        waiting.start()
        begun.wait()
        time.sleep(0.1)
        assert stored == []
    waiting.join(timeout=10)
    assert [(e.global_position, e.stream_position) for e in stored] == [(2, 2)]
    assert [e.stream_position for e in reader.read_stream("s")] == [1, 2]


# --- sequences that hand out values out of order


def test_a_sequence_that_caches_is_refused(opened: Opener, postgres_url: str) -> None:
    store = opened()
    store.append("a", [NewEvent("T", b"{}")], expected=None)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("ALTER SEQUENCE events_position CACHE 20")
    with pytest.raises(StoreDamagedError, match=r"events_position has CACHE 20") as error:
        store.head_position()
    assert "ALTER SEQUENCE" in error.value.remedy
    with pytest.raises(StoreDamagedError, match="CACHE 20"):
        next(store.read_all())
    assert [damage.what for damage in store.preflight()] == [error.value.what]


def test_a_position_that_a_session_took_long_before_is_refused(
    opened: Opener, postgres_url: str
) -> None:
    old, new = opened(), opened()
    with psycopg.connect(postgres_url) as connection:
        connection.execute("ALTER SEQUENCE events_position CACHE 20")
    old.append("a", [NewEvent("T", b"{}")], expected=None)  # this session has 2 to 20 in store
    new.append("b", [NewEvent("T", b"{}")], expected=None)
    with pytest.raises(StoreDamagedError, match="gave the position 2, and 40 was taken"):
        old.append("a", [NewEvent("T", b"{}")], expected=1)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("ALTER SEQUENCE events_position CACHE 1")
    assert positions(new) == [1, 21]


def test_a_sequence_behind_its_table_is_damage(opened: Opener, postgres_url: str) -> None:
    store = opened()
    store.append("a", [NewEvent("T", b"{}")] * 3, expected=None)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT setval('events_position', 2)")
    (damage,) = store.preflight()
    assert "global position 3" in damage.what
    assert "setval('public.events_position', 3)" in damage.remedy


@settings(max_examples=200, deadline=None)
@given(
    table=st.integers(0, 2**32 - 1),
    lower=st.integers(0, 2**62),
    ahead=st.integers(0, 2**40 - 1),
)
def test_a_lock_says_below_what_no_position_comes(table: int, lower: int, ahead: int) -> None:
    key = tail.lock_key(table, lower)
    assert -(2**63) <= key < 2**63
    assert tail.lower_bound(key, lower + ahead) == lower


# --- all at once


def test_twelve_writers_and_a_reader_that_misses_nothing(opened: Opener, postgres_url: str) -> None:
    """10% of the transactions roll back, some stay open, several write to the same streams."""
    writers, appends, streams = 12, 40, 8
    committed: list[str] = []
    faults: list[BaseException] = []
    running = threading.Semaphore(0)

    def write(number: int, store: PostgresStore) -> None:
        dice = random.Random(number)
        try:
            for _ in range(appends):
                stream = f"s-{dice.randrange(streams)}"
                ids: list[str] = []
                try:
                    with store.begin() as tx:
                        head = tx.head_alone(stream)
                        events = [an_event(stream, head + n) for n in range(1, dice.randint(2, 5))]
                        ids = [e.id for e in tx.append_stored(events)]
                        time.sleep(dice.choice([0, 0, 0, 0.002, 0.02]))
                        if dice.random() < 0.1:
                            raise _RolledBackError
                    committed.extend(ids)
                except _RolledBackError:
                    continue
        except BaseException as error:  # noqa: BLE001 - told by the test
            faults.append(error)
        finally:
            running.release()

    reader = opened()
    threads = [threading.Thread(target=write, args=(n, opened())) for n in range(writers)]
    seen: list[Event] = []
    naive: set[int] = set()
    naive_last = 0
    with psycopg.connect(postgres_url, autocommit=True) as by_position:
        for thread in threads:
            thread.start()
        ended = 0
        while ended < writers or reader.head_position() > (seen[-1].global_position if seen else 0):
            while running.acquire(blocking=False):
                ended += 1
            after = seen[-1].global_position if seen else 0
            seen += [e for batch in reader.read_all(after=after) for e in batch]
            rows = by_position.execute(
                "SELECT global_position FROM events WHERE global_position > %s", [naive_last]
            ).fetchall()
            naive.update(row[0] for row in rows)
            naive_last = max(naive, default=0)
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(committed) > writers * appends
    assert sorted(e.id for e in seen) == sorted(committed)
    assert [e.global_position for e in seen] == sorted({e.global_position for e in seen})
    heads: dict[str, int] = {}
    for event in seen:
        assert event.stream_position == heads.get(event.stream, 0) + 1
        heads[event.stream] = event.stream_position
    # The test can fail: who reads `position > last` has missed some.
    assert len(naive) < len(seen)
