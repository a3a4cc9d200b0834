"""What every store must do: one suite, run for each by a factory.

A store's test file subclasses `StoreConformance` and gives it the fixture
`make`: a function that opens a fresh, empty store, or (called again) the same
one. What a store cannot do is a missing `Capability`; its tests are skipped.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventmig.errors import ConflictError, DataError, DuplicateIdError, JobLockedError
from eventmig.events import Event, Held, NewEvent, Origin, StreamHead
from eventmig.stores.base import (
    ANY,
    NONE,
    Capability,
    DataRow,
    EventAppender,
    JobTarget,
    TargetTransaction,
    all_events,
)
from eventmig.stores.faster import HeldReader
from tests.conformance.values import moments, texts, utf8


class Store(JobTarget, EventAppender, Protocol):
    """A store that can do everything; what one lacks its capabilities say."""


_types = texts.filter(lambda name: not name.startswith("$"))  # KurrentDB's own
Make = Callable[[], Store]


def an_event(n: int, *, data: bytes = b'{"n":1}', type_: str = "Counted") -> NewEvent:
    return NewEvent(type_, data, id=str(uuid.UUID(int=n)), recorded_at=1_700_000_000_000_000 + n)


def copied(stream: str, position: int, n: int, *origins: Origin, data: bytes = b"{}") -> Event:
    return Event(0, stream, position, str(uuid.UUID(int=n)), "T", 1, data, None, n, origins)


def placed(store: JobTarget, *events: Event) -> list[Event]:
    """The events, written down with positions from 1, at the store's own positions."""
    base = store.first_position - 1
    return [event._replace(stream_position=event.stream_position + base) for event in events]


def everything(store: JobTarget) -> list[Event]:
    return list(all_events(store.read_all()))


def data_of(events: Iterable[Event]) -> list[DataRow]:
    return [(e.global_position, e.type, e.schema_version, e.data) for e in events]


def undone(store: JobTarget, work: Callable[[TargetTransaction], object]) -> None:
    """Do the work in a transaction that then fails."""
    with store.begin() as transaction:
        work(transaction)
        raise ZeroDivisionError


class StoreConformance:
    """Inherit, and give the fixture `make`."""

    @pytest.fixture
    def store(self, make: Make) -> Iterable[Store]:
        store = make()
        yield store
        store.close()

    @pytest.fixture(autouse=True)
    def capable(self, request: pytest.FixtureRequest, store: Store) -> None:
        for mark in request.node.iter_markers("needs"):
            missing = set(mark.args) - store.capabilities
            if missing:
                pytest.skip(f"{store.url} lacks {', '.join(missing)}")

    # --- an empty store

    def test_an_empty_store_answers_every_question(self, store: Store) -> None:
        assert everything(store) == []
        assert list(store.read_data()) == []
        assert list(store.read_pages()) == []
        assert list(store.read_stream("nobody")) == []
        assert store.event("nothing") is None
        assert list(store.heads()) == []
        assert list(store.heads(["nobody"])) == []
        assert store.categories() == []
        assert store.type_counts() == []
        assert store.head_position() == 0
        assert store.count() == 0
        assert list(store.preflight()) == []

    # --- appending

    def test_append_returns_what_is_read_back(self, store: Store) -> None:
        first = store.append("cart-1", [an_event(1), an_event(2)], expected=NONE)
        second = store.append("cart-2", [an_event(3)], expected=NONE)
        third = store.append("cart-1", [an_event(4)], expected=first[-1].stream_position)
        assert everything(store) == [*first, *second, *third]
        assert [e.stream_position for e in first + third] == [
            store.first_position + n for n in range(3)
        ]

    def test_missing_ids_and_times_are_filled_in(self, store: Store) -> None:
        (event,) = store.append("s", [NewEvent("T", b"{}")], expected=ANY)
        assert uuid.UUID(event.id).version == 4
        assert event.recorded_at > 1_700_000_000_000_000

    def test_no_metadata_is_not_empty_metadata(self, store: Store) -> None:
        news = [NewEvent("T", b"{}"), NewEvent("T", b"{}", metadata=b"{}")]
        store.append("s", news, expected=NONE)
        assert [e.metadata for e in store.read_stream("s")] == [None, b"{}"]

    @pytest.mark.parametrize("away", [-2, -1, 1])
    def test_another_position_than_expected_is_a_conflict(self, store: Store, away: int) -> None:
        before = store.append("s", [an_event(1), an_event(2)], expected=NONE)
        head = store.first_position + 1
        expected = head + away
        said = rf"'s' is at position {head}.*position {expected}"
        with pytest.raises(ConflictError, match=said) as e:
            store.append("s", [an_event(3)], expected=expected)
        assert e.value.where.stream == "s"
        assert everything(store) == before

    def test_a_stream_that_exists_is_a_conflict_with_none(self, store: Store) -> None:
        store.append("s", [an_event(1)], expected=NONE)
        with pytest.raises(ConflictError, match="no such stream"):
            store.append("s", [an_event(2)], expected=NONE)

    def test_a_stream_that_is_not_there_is_a_conflict_with_a_position(self, store: Store) -> None:
        with pytest.raises(ConflictError, match="not there"):
            store.append("s", [an_event(1)], expected=1)

    @pytest.mark.needs(Capability.UNIQUE_IDS)
    def test_an_id_is_stored_once(self, store: Store) -> None:
        before = store.append("s", [an_event(1)], expected=NONE)
        with pytest.raises(DuplicateIdError, match=before[0].id) as error:
            store.append("t", [an_event(2), an_event(1)], expected=NONE)
        assert error.value.where.stream == "s"
        with pytest.raises(DuplicateIdError, match="twice"):
            store.append("t", [an_event(3), an_event(3)], expected=NONE)
        assert everything(store) == before

    @pytest.mark.parametrize(
        "new",
        [
            NewEvent("T", b"{}", schema_version=0),
            NewEvent("", b"{}"),
            NewEvent("T\0", b"{}"),
            NewEvent("T", b"{}", id="\0"),
            NewEvent("\ud800", b"{}"),
        ],
    )
    def test_what_cannot_be_stored_is_refused(self, store: Store, new: NewEvent) -> None:
        with pytest.raises(DataError) as error:
            store.append("s", [an_event(1), new], expected=NONE)
        assert error.value.remedy
        str(error.value).encode()
        assert everything(store) == []

    @pytest.mark.needs(Capability.CHECKS_TEXT)
    @pytest.mark.parametrize(
        "new", [NewEvent("T", b"\xff"), NewEvent("T", b"{}", metadata=b"\xed\xa0\x80")]
    )
    def test_what_is_no_text_is_refused(self, store: Store, new: NewEvent) -> None:
        with pytest.raises(DataError):
            store.append("s", [an_event(1), new], expected=NONE)
        assert everything(store) == []

    @pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
    def test_what_cannot_name_a_stream_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(DataError):
            store.append(name, [an_event(1)], expected=NONE)
        assert everything(store) == []

    # --- reading

    def test_read_all_is_bounded_on_both_sides(self, store: Store) -> None:
        events = store.append("s", [an_event(n) for n in range(7)], expected=NONE)
        after, until = events[1].global_position, events[4].global_position
        read = list(all_events(store.read_all(after=after, until=until, batch_size=2)))
        assert read == events[2:5]
        assert store.count(until=until) == 5
        assert store.count(until=0) == 0
        narrow = store.read_data(after=after, until=until, batch_size=2)
        assert [*chain.from_iterable(narrow)] == data_of(read)
        pages = [*store.read_pages(after=after, until=until, batch_size=2)]
        assert [event for page in pages for event in page.events()] == read
        assert [len(page.ids) for page in pages] == [2, 1]

    def test_read_all_filters_by_type(self, store: Store) -> None:
        store.append("s", [an_event(n, type_="AB"[n % 2]) for n in range(6)], expected=NONE)
        read = [*all_events(store.read_all(types=["B", "C"], batch_size=2))]
        first = store.first_position
        assert [e.stream_position for e in read] == [first + n for n in (1, 3, 5)]
        assert list(store.read_all(types=[])) == []
        narrow = [*chain.from_iterable(store.read_data(types=["B", "C"], batch_size=2))]
        assert narrow == data_of(read)
        assert list(store.read_data(types=[])) == []
        pages = store.read_pages(types=["B", "C"], batch_size=2)
        assert [event for page in pages for event in page.events()] == read
        assert list(store.read_pages(types=[])) == []
        assert (store.count(types=["B", "C"]), store.count(types=[])) == (3, 0)
        assert store.count(types=["A", "B"], until=read[1].global_position) == 4

    def test_whole_events_column_by_column_are_the_events(self, store: Store) -> None:
        if not isinstance(store, HeldReader):
            pytest.skip(f"{store.url} hands out events one by one")
        (one,) = store.append("s", [an_event(1)], expected=NONE)
        with store.begin() as tx:
            a, b, c = Origin("s", 7, 0), Origin("other", 8, 1), Origin("third", 9, 1)
            tx.append_copied(
                placed(
                    store,
                    copied("t", 1, 2, Origin("t", 1, 0)),
                    copied("t", 2, 3, b),
                    copied("u", 1, 4, a, b, c),
                    copied("t", 3, 5, c, data=b'{"a":[1]}'),
                )
            )
        events = everything(store)
        last = events[-1].global_position
        pages = list(store.read_held(after=0, until=last, batch_size=2))
        assert [event for page in pages for event in page.events()] == events
        assert pages == [Held.of(events[n : n + 2]) for n in (0, 2, 4)]
        (page,) = store.read_held(after=one.global_position, until=last - 1)
        assert page == Held.of(events[1:-1])
        assert list(store.read_held(after=last, until=last)) == []

    def test_read_all_ends_at_the_head_it_found(self, store: Store) -> None:
        events = store.append("s", [an_event(n) for n in range(4)], expected=NONE)
        batches = store.read_all(batch_size=2)
        narrow = store.read_data(batch_size=2)
        read, rows = next(batches), next(narrow)
        store.append("s", [an_event(9)], expected=ANY)
        assert read + list(all_events(batches)) == events
        assert [*rows, *chain.from_iterable(narrow)] == data_of(events)

    @pytest.mark.needs(Capability.LARGE)
    def test_a_batch_of_large_events_is_shorter(self, store: Store) -> None:
        large = b'"' + b"x" * 9_000_000 + b'"'
        store.append("s", [an_event(n, data=large) for n in range(4)], expected=NONE)
        sizes = [len(batch) for batch in store.read_all()]
        assert sum(sizes) == 4
        assert max(sizes) == 2
        assert [len(batch) for batch in store.read_data()] == sizes
        store.append("t", [an_event(9)], expected=NONE)
        batches = list(store.read_streams(["t", "s"]))
        assert sum(map(len, batches)) == 5
        assert max(sum(len(e.data) for e in batch) for batch in batches) <= 2 * 9_000_002

    def test_reading_leaves_the_garbage_collector_as_it_was(self, store: Store) -> None:
        store.append("s", [an_event(n) for n in range(4)], expected=NONE)
        for on in (True, False):
            (gc.enable if on else gc.disable)()
            try:
                for batches in (store.read_all(batch_size=2), store.read_data(batch_size=2)):
                    assert [gc.isenabled() for _ in batches] == [on, on]
            finally:
                gc.enable()

    def test_read_stream_is_bounded_on_both_sides(self, store: Store) -> None:
        events = store.append("s", [an_event(n) for n in range(1, 2_502)], expected=NONE)
        store.append("t", [an_event(9_999)], expected=NONE)
        assert list(store.read_stream("s")) == events
        first = store.first_position
        assert list(store.read_stream("s", first=first + 1, last=first + 3)) == events[1:4]

    def test_several_streams_are_read_one_after_the_other(self, store: Store) -> None:
        for start in range(3):
            for stream in ("b", "a", "long", "d"):
                more = [an_event(9_000 + n) for n in range(1_100 if stream == "long" else 3)]
                more = [m._replace(id=str(uuid.uuid4())) for m in more]
                store.append(stream, more, expected=ANY if start else NONE)
        found = list(all_events(store.read_streams(["long", "none", "a", "d"])))
        order = list(dict.fromkeys(event.stream for event in found))
        assert sorted(order) == ["a", "d", "long"]
        assert found == [event for stream in order for event in store.read_stream(stream)]
        assert list(store.read_streams([])) == []

    def test_heads_categories_and_types_are_counted(self, store: Store) -> None:
        store.append("order-2", [an_event(1), an_event(2, type_="A")], expected=NONE)
        store.append("order-1", [an_event(3)], expected=NONE)
        store.append("cart", [an_event(4)], expected=NONE)
        first = store.first_position
        two = StreamHead("order-2", first, first + 1, 2)
        assert list(store.heads()) == [
            StreamHead("cart", first, first, 1),
            StreamHead("order-1", first, first, 1),
            two,
        ]
        assert list(store.heads(["order-2", "none"])) == [two]
        assert store.categories() == [("cart", 1, 1), ("order", 2, 3)]
        assert store.type_counts() == [("A", 1, 1), ("Counted", 1, 3)]
        (one, *_) = store.read_stream("order-2")
        assert store.type_counts(until=one.global_position) == [("Counted", 1, 1)]

    def test_an_event_is_found_by_id(self, store: Store) -> None:
        (event,) = store.append("s", [an_event(5)], expected=NONE)
        assert store.event(event.id) == event

    def test_closing_twice_is_harmless(self, store: Store) -> None:
        store.close()
        store.close()

    # --- what a job needs

    @pytest.mark.needs(Capability.TARGET)
    def test_copied_events_keep_all_their_parts(self, store: Store) -> None:
        events = placed(
            store,
            copied("a", 1, 1, Origin("a", 7, 0)),
            copied("a", 2, 2, Origin("other", 7, 3)),
            copied("b", 1, 3, Origin("b", 1), Origin("c", 2), Origin("other", 9, 1)),
            copied("b", 2, 4),
        )
        with store.begin() as transaction:
            last = transaction.append_copied(events)
        read = everything(store)
        assert read[-1].global_position == last
        assert [e._replace(global_position=0) for e in read] == events

    @pytest.mark.needs(Capability.TARGET, Capability.UNDO)
    @pytest.mark.parametrize("defer", [False, True])
    def test_heads_inside_a_transaction(self, make: Make, store: Store, defer: bool) -> None:
        with store.begin() as transaction:
            if defer:
                assert transaction.defer_indexes()
            transaction.append_copied([copied("a", 1, 1), copied("b", 1, 2), copied("a", 2, 3)])
            assert transaction.heads(["a", "b", "c"]) == {"a": 2, "b": 1, "c": 0}

        def more(transaction: TargetTransaction) -> None:
            transaction.append_copied([copied("a", 3, 4), copied("c", 1, 5)])
            assert transaction.heads(["a", "c"]) == {"a": 3, "c": 1}

        with pytest.raises(ZeroDivisionError):
            undone(store, more)
        with store.begin() as transaction:
            assert transaction.heads(["a", "b", "c"]) == {"a": 2, "b": 1, "c": 0}
        again = make()
        with again.begin() as transaction:
            assert transaction.heads(["a", "b", "c"]) == {"a": 2, "b": 1, "c": 0}
            transaction.build_indexes()
        again.append("a", [an_event(6)], expected=2)
        with store.begin() as transaction:
            assert transaction.heads(["a"]) == {"a": 3}
        again.close()

    @pytest.mark.needs(Capability.TARGET, Capability.SQL)
    def test_events_and_ledger_commit_together(self, store: Store) -> None:
        def count() -> int:
            with store.reading() as connection:
                return int(connection.exec_driver_sql("SELECT count(*) FROM mark").scalar_one())

        with store.begin() as transaction:
            transaction.connection.exec_driver_sql("CREATE TABLE mark (n INTEGER)")

        def both(transaction: TargetTransaction) -> None:
            transaction.append_copied([copied("a", 1, 1)])
            transaction.connection.exec_driver_sql("INSERT INTO mark VALUES (1)")

        with pytest.raises(ZeroDivisionError):
            undone(store, both)
        assert (count(), store.count()) == (0, 0)
        with store.begin() as transaction:
            both(transaction)
        assert (count(), store.count()) == (1, 1)

    @pytest.mark.needs(Capability.TARGET, Capability.UNDO)
    def test_truncate_after_takes_back_the_end(self, store: Store) -> None:
        with store.begin() as transaction:
            kept = transaction.append_copied([copied("a", 1, 1)])
            transaction.append_copied(
                [copied("a", 2, 2, Origin("x", 1), Origin("x", 2)), copied("b", 1, 3)]
            )
        with store.begin() as transaction:
            assert transaction.truncate_after(kept) == 2
            assert transaction.heads(["a", "b"]) == {"a": 1, "b": 0}
        with store.begin() as transaction:
            transaction.append_copied([copied("a", 2, 2, Origin("y", 1), Origin("y", 2))])
        assert [e.stream_position for e in everything(store)] == [1, 2]
        assert everything(store)[-1].origins == (Origin("y", 1), Origin("y", 2))

    @pytest.mark.needs(Capability.TARGET, Capability.UNDO, Capability.UNIQUE_IDS)
    @pytest.mark.parametrize("defer", [False, True])
    def test_a_repeated_id_or_position_is_refused(self, store: Store, defer: bool) -> None:

        def write(second: Event) -> None:
            with store.begin() as transaction:
                if defer:
                    transaction.defer_indexes()
                transaction.append_copied([copied("a", 1, 1)])
                transaction.append_copied([second])
                transaction.build_indexes()

        with pytest.raises(DuplicateIdError):
            write(copied("b", 1, 1))
        with pytest.raises(ConflictError):
            write(copied("a", 1, 2))
        assert everything(store) == []

    @pytest.mark.needs(Capability.TARGET)
    def test_indexes_are_deferred_only_while_empty(self, store: Store) -> None:
        store.append("s", [an_event(1)], expected=NONE)
        with store.begin() as transaction:
            assert not transaction.defer_indexes()

    @pytest.mark.needs(Capability.TARGET, Capability.UNDO)
    def test_an_application_waits_for_the_job(self, store: Store) -> None:
        with store.begin() as transaction:
            transaction.defer_indexes()
            transaction.append_copied([copied("a", 1, 1)])
        with pytest.raises(Exception, match="a job is filling this store"):
            store.append("a", [an_event(2)], expected=1)
        with store.begin() as transaction:
            transaction.build_indexes()
            transaction.build_indexes()
        store.append("a", [an_event(2)], expected=1)

    @pytest.mark.needs(Capability.TARGET)
    def test_one_job_at_a_time(self, make: Make, store: Store) -> None:
        other = make()
        with store.lock():
            with pytest.raises(JobLockedError) as error, other.lock():
                pass
            assert error.value.remedy
        with other.lock():
            pass
        other.close()

    # --- the governing property

    @pytest.mark.needs(Capability.TARGET)
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        rows=st.lists(
            st.tuples(
                texts, _types, utf8, st.none() | utf8, moments, st.lists(st.tuples(texts, moments))
            ),
            max_size=30,
        ),
        cut=st.integers(1, 31),
        page=st.integers(1, 31),
    )
    def test_what_is_written_is_read_back_whatever_the_batches(
        self,
        store: Store,
        rows: list[tuple[str, str, bytes, bytes | None, int, list[tuple[str, int]]]],
        cut: int,
        page: int,
    ) -> None:
        heads: dict[str, int] = {}
        events = []
        before, example = store.head_position(), uuid.uuid4().hex
        for name, type_, data, metadata, moment, origins in rows:
            stream = f"{example}-{name}"
            heads[stream] = heads.get(stream, store.first_position - 1) + 1
            events.append(
                Event(
                    0, stream, heads[stream], str(uuid.uuid4()), type_, 1, data, metadata, moment,
                    tuple(Origin(*origin) for origin in origins),
                )
            )  # fmt: skip
        for at in range(0, len(events), cut):
            with store.begin() as transaction:
                transaction.append_copied(events[at : at + cut])
        read = list(all_events(store.read_all(after=before, batch_size=page)))
        wanted = events
        if Capability.GLOBAL_ORDER not in store.capabilities:
            wanted = sorted(events, key=lambda e: e.stream)
            read.sort(key=lambda e: e.stream)
        assert [e._replace(global_position=0) for e in read] == wanted
        narrow = [*chain.from_iterable(store.read_data(after=before, batch_size=page))]
        assert narrow == data_of(sorted(read, key=lambda e: e.global_position))
        assert {h.stream: h.last for h in store.heads(list(heads))} == heads
        for stream in heads:
            assert list(store.read_stream(stream)) == [e for e in read if e.stream == stream]
        together = list(all_events(store.read_streams(list(heads))))
        assert len(together) == len(read)
        assert sorted(together, key=lambda e: e.stream) == sorted(read, key=lambda e: e.stream)
        if Capability.UNDO in store.capabilities:
            with store.begin() as transaction:
                transaction.truncate_after(0)
