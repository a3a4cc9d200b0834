"""What PostgreSQL sums is what Python does, or nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig.events import Event, NewEvent
from eventmig.stores.base import ANY
from eventmig.stores.faster import Addend, Member, NotSummedError, Part, Summing
from eventmig.stores.open import open_store
from eventmig.stores.postgres import summed as postgres_summed
from eventmig.stores.postgres.store import PostgresStore
from tests.unit.summing_source import columns_of, summed

TYPES = ["T", 'it\'s "%" {0}']
KEYS = ["a", "100 %s", "it's", 'a "quoted" é', "back\\slash"]
NAMES = ["x", "", "it's %", "é\n"]
whole = st.one_of(st.integers(-3, 3), st.sampled_from([2**58, -(2**58)]))
members = st.one_of(
    whole.map(str),
    st.sampled_from(NAMES).map(json.dumps),
    st.sampled_from(["1.0", "2.5", "1e2", "null", "true", "[1]", '{"a": 1}', '"7"']),
)


def documents(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    found = st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    return found.map(lambda d: "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in d.items()) + "}")


numbers = st.sampled_from(KEYS[:3]).map(lambda key: Member((key,), int))
texts = st.sampled_from(KEYS[3:]).map(lambda key: Member((key,), str))
deep = st.lists(st.sampled_from(KEYS), min_size=2, max_size=2).map(
    lambda path: Member(tuple(path), int)
)
fitting = st.fixed_dictionaries(
    dict.fromkeys(KEYS[:3], whole) | dict.fromkeys(KEYS[3:], st.sampled_from(NAMES))
).map(json.dumps)
data = st.one_of(fitting, fitting, documents(st.one_of(members, documents(members))))
events = st.lists(
    st.tuples(st.sampled_from(TYPES), st.integers(1, 2), data.map(str.encode)), max_size=12
)
keys: st.SearchStrategy[tuple[Part, ...]] = st.tuples(
    st.one_of(texts, st.sampled_from(NAMES)), st.one_of(numbers, st.integers(-5, 5))
)
amounts = st.one_of(numbers, deep, st.integers(-5, 5), st.none())
addends = st.builds(
    Addend, keys, st.tuples(amounts, amounts), st.lists(numbers, max_size=1).map(tuple)
)
KINDS = [(type_, version) for type_ in TYPES for version in (1, 2)]
sums = st.dictionaries(st.sampled_from(KINDS), addends, min_size=1)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_summed, "_FIRST", 3)


def append(store: Any, kept: list[tuple[str, int, bytes]]) -> list[Event]:
    if kept:
        new = [NewEvent(type_, body, version) for type_, version, body in kept]
        store.append("s-1", new, expected=ANY)
    return [event for batch in store.read_all() for event in batch]


def each(
    events: Sequence[Event], wanted: Sequence[Mapping[tuple[str, int], Addend]]
) -> list[list[Sequence[Any]]]:
    known = {kind for one in wanted for kind in one}
    return [columns_of(summed(events, one, known)) for one in wanted]


@pytest.mark.usefixtures("_small")
def test_sums_are_those_of_one_event_at_a_time(postgres_url: str) -> None:
    number = itertools.count()

    @settings(max_examples=100, deadline=None)
    @given(
        events,
        st.lists(sums, min_size=1, max_size=3),
        st.integers(0, 4),
        st.integers(1, 3),
        st.booleans(),
    )
    def check(
        kept: list[tuple[str, int, bytes]],
        wanted: list[Mapping[tuple[str, int], Addend]],
        after: int,
        at_once: int,
        typed: bool,
    ) -> None:
        types = [TYPES[1], "other"] if typed else None
        with open_store(f"{postgres_url}&tables=n{next(number)}_", mode="create") as store:
            stored = append(store, kept)
            assert isinstance(store, Summing)
            head = store.head_position()
            found = store.read_sums(
                after=after, until=head, types=types, sums=wanted, at_once=at_once
            )
            read = [
                event
                for event in stored
                if event.global_position > after and (types is None or event.type in types)
            ]
            try:
                for range_ in found:
                    here = [event for event in read if event.global_position <= range_.until]
                    read = read[len(here) :]
                    assert range_.events == len(here)
                    for columns, rows in zip(range_.sums, each(here, wanted), strict=True):
                        assert {*zip(*columns, strict=True)} == {*zip(*rows, strict=True)}
            except NotSummedError:
                with pytest.raises(NotSummedError):
                    each(read, wanted)
            else:
                assert not read

    check()


@pytest.mark.usefixtures("_small")
def test_what_there_is_to_sum(postgres_url: str) -> None:
    with open_store(postgres_url, mode="create") as store:
        append(store, [("A", 1, b"{}"), ("B", 2, b"{}"), ("A", 1, b"{}"), ("A", 2, b"{}")])
        assert isinstance(store, Summing)
        span: dict[str, Any] = {"after": 1, "until": 3, "types": None}
        assert store.kinds_to_sum(**span) == {("B", 2): 2, ("A", 1): 3}
        assert store.kinds_to_sum(**span | {"types": ["A"]}) == {("A", 1): 3}
        assert store.kinds_to_sum(**span | {"after": 4, "until": 4}) == {}


def by_key(store: Any, **more: Any) -> Any:
    addend = Addend((Member(("k",), str),), (Member(("n",), int),))
    wanted = {"after": 0, "types": None, "sums": [{("A", 1): addend}], "at_once": 1}
    return store.read_sums(until=store.head_position(), **wanted | more)


@pytest.mark.parametrize("column", ["json", "text", "bytea"])
def test_data_that_is_no_jsonb_is_not_summed(postgres_url: str, column: str) -> None:
    with open_store(f"{postgres_url}&data={column}", mode="create") as store:
        append(store, [("A", 1, b'{"k": "x", "n": 1}')])
        assert isinstance(store, Summing)
        assert store.kinds_to_sum(after=0, until=1, types=None) is None
        with pytest.raises(NotSummedError):
            next(by_key(store))


def test_streams_of_another_release_are_not_summed_along(postgres_url: str) -> None:
    with open_store(postgres_url, mode="create") as store:
        append(store, [("A", 1, b'{"k": "x", "n": 1}')])
        with open_store(f"{postgres_url}&release=2", mode="create") as other:
            other.append("s-2", [NewEvent("A", b'{"k": "x", "n": 1}', 1)], expected=ANY)  # type: ignore[attr-defined]
        assert isinstance(store, Summing)
        assert store.kinds_to_sum(after=0, until=2, types=None) is None
        with pytest.raises(NotSummedError):
            next(by_key(store))


def test_a_sum_beyond_64_bits_is_left_to_python(postgres_url: str) -> None:
    body = json.dumps({"k": "x", "n": 2**62}).encode()
    with open_store(postgres_url, mode="create") as store:
        append(store, [("A", 1, body)])
        (found,) = by_key(store)
        assert found.sums == [[("x",), (2**62,)]]
        append(store, [("A", 1, body)])
        with pytest.raises(NotSummedError):
            next(by_key(store))


@pytest.mark.parametrize(
    "part", ["nul\0", 2**63, Member(("nul\0",), str), Member(("\ud800",), str)]
)
def test_what_postgresql_cannot_hold_is_left_to_python(postgres_url: str, part: Any) -> None:
    with open_store(postgres_url, mode="create") as store:
        append(store, [("A", 1, b"{}")])
        with pytest.raises(NotSummedError):
            next(by_key(store, sums=[{("A", 1): Addend((part,), (1,))}]))


@pytest.mark.usefixtures("_small")
def test_who_stops_amid_the_sums_leaves_no_connection(postgres_url: str) -> None:
    with open_store(postgres_url, mode="create") as store:
        append(store, [("A", 1, b'{"k": "x", "n": 1}')] * 20)
        assert isinstance(store, PostgresStore)
        found = by_key(store, at_once=3)
        next(found)
        with psycopg.connect(postgres_url.partition("&")[0]) as connection:
            asked = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'eventmig'"""

            def connections() -> int:
                connection.rollback()
                return int(connection.execute(asked).fetchall()[0][0])

            before = connections()
            found.close()
            while connections() > before - 3:
                pass
