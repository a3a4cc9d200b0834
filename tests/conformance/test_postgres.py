"""The conformance suite on PostgreSQL, for every way to name a store and every type of data."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from eventmig import codec
from eventmig.events import Event
from eventmig.stores.base import all_events
from eventmig.stores.faster import SpellingTarget
from eventmig.stores.open import open_store
from tests.conformance.suite import Make, Store, StoreConformance
from tests.conformance.values import moments, texts
from tests.postgres import Server

WAYS = {
    "schema": "",
    "tables and release": "&tables=v2_&release=r2",
}
_numbers = count(1)


def fresh(url: str) -> str:
    """The URL of a schema that is not there yet, with a name that must be quoted."""
    return f'{url}{"&" if make_url(url).query else "?"}schema=a "schema" %25 {next(_numbers)}'


@pytest.fixture(scope="module")
def database(postgres_server: Server) -> Iterator[str]:
    """One database for the module; each test has a schema of its own."""
    with postgres_server.database() as url:
        yield url


class TestPostgresBytes(StoreConformance):
    """`bytea` holds what SQLite's text holds: the suite as it is."""

    @pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
    def make(self, database: str, request: pytest.FixtureRequest) -> Make:
        plain = fresh(database) + "&data=bytea"
        if request.param:  # beside another set of tables, and another release's streams
            for beside in ("", "&tables=v2_"):
                with open_store(plain + beside, mode="create"):
                    pass
        return lambda: open_store(plain + request.param, mode="create")


json_texts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3).filter(lambda d: d != 0)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
).map(codec.encode) | st.sampled_from(
    [b'{"a":1.10}', b'{ "b": 12345678901234567890, "a":1e400 }', b"null", b'"\\u00e9\\n\\""']
)


class TestPostgresJson(StoreConformance):
    """The types that hold JSON: the suite, with JSON where it writes any bytes."""

    @pytest.fixture(params=["jsonb", "json"])
    def make(self, database: str, request: pytest.FixtureRequest) -> Make:
        url = f"{fresh(database)}&data={request.param}"
        return lambda: open_store(url, mode="create")

    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        rows=st.lists(st.tuples(texts, texts, json_texts, st.none() | json_texts, moments)),
        cut=st.integers(1, 31),
    )
    def test_what_is_written_is_read_back_whatever_the_batches(
        self, store: Store, rows: list[tuple[str, str, bytes, bytes | None, int]], cut: int
    ) -> None:
        heads: dict[str, int] = {}
        events = []
        for stream, type_, data, metadata, moment in rows:
            heads[stream] = heads.get(stream, 0) + 1
            position, id_ = heads[stream], str(uuid.uuid4())
            events.append(Event(0, stream, position, id_, type_, 1, data, metadata, moment))
        for at in range(0, len(events), cut):
            with store.begin() as transaction:
                transaction.append_copied(events[at : at + cut])
        read = [e._replace(global_position=0) for e in all_events(store.read_all())]
        assert isinstance(store, SpellingTarget)
        assert read == store.as_held(events)
        for ours, theirs in zip(events, read, strict=True):
            assert codec.same(codec.decode_strict(ours.data), codec.decode_strict(theirs.data))
            assert ours.metadata == theirs.metadata
        with store.begin() as transaction:
            transaction.truncate_after(0)
