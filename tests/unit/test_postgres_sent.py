"""A statement under way on a session's connection, and what else the session is asked meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from eventmig.errors import StoreError, StoreUnavailableError
from eventmig.events import NewEvent
from eventmig.stores.open import open_store
from eventmig.stores.postgres.store import PostgresStore


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    with open_store(postgres_url, mode="create") as made:
        assert isinstance(made, PostgresStore)
        made.append("s-1", [NewEvent("T", b'{"n": %d}' % n) for n in range(900)], expected=None)
        yield made


def positions(store: PostgresStore) -> Iterator[list[int]]:
    for batch in store.read_lines(after=0, until=900, types=None, members={}, batch_size=900):
        yield [n for some in batch for n in some.global_positions]


def test_other_reads_wait_for_it_and_its_rows_stay(store: PostgresStore) -> None:
    found = []
    for page in positions(store):
        found += page
        assert store.count() == 900
        assert [n for other in positions(store) for n in other] == [*range(1, 901)]
    assert found == [*range(1, 901)]


def test_a_fold_has_the_next_page_under_way_and_a_copy_nothing(store: PostgresStore) -> None:
    def under_way() -> bool:
        return store._sent is not None and store._sent._results is None

    assert [under_way() for _ in positions(store)] == [True, False]
    found = []
    for stretch in store.read_grouped(after=0, until=900, batch_size=300, without=[]):
        assert not under_way()
        found.append((stretch.first, stretch.last, len(stretch.groups[0].data)))
    assert found == [(1, 300, 300), (301, 600, 300), (601, 900, 300)]


def test_what_it_fails_with_is_raised_where_its_rows_are_taken(store: PostgresStore) -> None:
    sent = store._send("SELECT 1 / %(n)s::int", {"n": 0})
    assert store.count() == 900
    with pytest.raises(psycopg.errors.DivisionByZero):
        store._rows_of(sent)
    assert store._rows_of(store._send("SELECT %(n)s::text", {"n": "a%'\\"})) == [("a%'\\",)]


def test_a_connection_that_is_lost_meanwhile_is_told(
    store: PostgresStore, postgres_url: str
) -> None:
    sent = store._send("SELECT pg_backend_pid(), pg_sleep(%(s)s)", {"s": 60})
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s "
            "AND datname = current_database() AND pid <> pg_backend_pid()",
            ["SELECT pg_backend_pid(), pg_sleep%"],
        )
    with pytest.raises(StoreUnavailableError, match="lost"):
        store._rows_of(sent)
    with pytest.raises(StoreUnavailableError, match="lost"):
        store._rows_of(sent)
    assert store.count() == 900


def test_events_are_counted_while_they_are_read(store: PostgresStore) -> None:
    with store.counting(until=800, types=["T"]) as count:
        assert len([n for page in positions(store) for n in page]) == 900
        assert (count.wait(), count.there(), count.wait()) == (800, True, 800)
    with store.counting(until=900, types=["other"]) as count:
        assert count.wait() == 0


def test_a_count_that_nobody_waits_for_is_given_up(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "SELECT count(*) FROM generate_series(1, %(until)s::bigint)"
    monkeypatch.setattr(store, "_counted", lambda *_: slow)
    with store.counting(until=10**12, types=None) as count:
        assert not count.there()
    with psycopg.connect(postgres_url, autocommit=True) as other:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active'"
        end = time.monotonic() + 20
        while other.execute(asked, [slow[:40] + "%"]).fetchone() != (0,):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_reading_ends_with_the_store(store: PostgresStore) -> None:
    pages = positions(store)
    next(pages)
    store.close()
    with pytest.raises(StoreError):
        next(pages)
    with pytest.raises(StoreError, match="closed"):
        store._send("SELECT 1", {})
    assert store.count() == 900
