"""A described store reads what the native one reads: eventmig's own tables, as a layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from eventmig.errors import ConfigError, NotAStoreError
from eventmig.stores.base import EventReader
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, history, url

OWN_TABLES: dict[str, Any] = {
    "name": "native",
    "table": "events",
    "position": "global_position",
    "tail": "single",
    "read_only": "this is a test",
    "joins": [{"table": "streams", "on": {"stream_id": "stream_id"}}],
    "stream": {"columns": ["streams.name"], "position": "stream_position"},
    "id": {"column": "event_id"},
    "type": {"column": "type"},
    "version": {"place": "column", "name": "schema_version"},
    "data": {"column": "data"},
    "metadata": {"column": "metadata"},
    "time": {"column": "recorded_at", "encoding": "us"},
}


def described(path: Path, **more: object) -> str:
    return url(path, f"?layout={quote(json.dumps({**OWN_TABLES, **more}))}")


@pytest.fixture(params=["read", "counted"])
def pair(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[EventReader, EventReader]]:
    path = tmp_path / "store.db"
    usual = history(60)
    odd = event("cart-ü'%_", "Odd", b'{ "x" : 1.10, "x": "\\u0000" }', version=7, metadata=None)
    fill(path, [*usual, odd])
    stream = {**OWN_TABLES["stream"], "counted": request.param == "counted"}
    its = described(path, stream=stream)
    with closing(open_store(url(path))) as native, closing(open_store(its)) as layout:
        yield native, layout


def test_every_question_has_the_same_answer(pair: tuple[EventReader, EventReader]) -> None:
    native, layout = pair
    assert list(layout.read_all(batch_size=7)) == list(native.read_all(batch_size=7))
    assert list(layout.read_all(after=3, until=20)) == list(native.read_all(after=3, until=20))
    assert list(layout.read_all(types=["Opened", "Odd"])) == list(
        native.read_all(types=["Opened", "Odd"])
    )
    assert list(layout.read_all(types=[])) == list(native.read_all(types=[])) == []
    assert [p.events() for p in layout.read_pages(batch_size=9)] == [
        p.events() for p in native.read_pages(batch_size=9)
    ]
    assert list(layout.read_data(types=["Odd"])) == list(native.read_data(types=["Odd"]))
    assert list(layout.heads()) == list(native.heads())
    assert list(layout.heads(["cart-1", "nobody"])) == list(native.heads(["cart-1", "nobody"]))
    assert layout.categories() == native.categories()
    assert layout.type_counts() == native.type_counts()
    assert layout.type_counts(until=10) == native.type_counts(until=10)
    assert layout.count() == native.count()
    assert layout.count(until=9, types=["Opened"]) == native.count(until=9, types=["Opened"])
    assert layout.head_position() == native.head_position() == 61
    assert layout.examples("Opened", 1, 3) == native.examples("Opened", 1, 3)
    assert list(layout.preflight()) == []


def test_positions_are_counted_from_anywhere(
    pair: tuple[EventReader, EventReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    native, layout = pair
    monkeypatch.setattr("eventmig.stores.layouts.counting._KEPT", 2)
    monkeypatch.setattr("eventmig.stores.layouts.counting._NAMED", 1)
    whole = [e for batch in native.read_all() for e in batch]
    for after in (0, 1, 30, 60):
        assert [e for batch in layout.read_all(after=after, batch_size=8) for e in batch] == [
            e for e in whole if e.global_position > after
        ]
        types = [whole[after].type]
        read = layout.read_all(after=after, types=types, batch_size=3)
        assert [e for batch in read for e in batch] == [
            e for e in whole if e.global_position > after and e.type in types
        ]


def test_a_page_ends_early_where_data_are_large(
    pair: tuple[EventReader, EventReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    native, layout = pair
    monkeypatch.setattr("eventmig.stores.layouts.pages._PAGE_BYTES", 100)
    pages = list(layout.read_all())
    assert len(pages) > 5
    assert [e for page in pages for e in page] == [e for page in native.read_all() for e in page]


def test_streams_and_events_are_the_same(pair: tuple[EventReader, EventReader]) -> None:
    native, layout = pair
    for head in native.heads():
        whole = list(native.read_stream(head.stream))
        assert list(layout.read_stream(head.stream)) == whole
        part = native.read_stream(head.stream, first=2, last=3)
        assert list(layout.read_stream(head.stream, first=2, last=3)) == list(part)
        assert layout.event(whole[0].id) == whole[0]
    assert list(layout.read_stream("nobody")) == []
    assert layout.event("nothing") is None


def test_heads_come_page_by_page(
    pair: tuple[EventReader, EventReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    native, layout = pair
    monkeypatch.setattr("eventmig.stores.layouts.read._HEADS_PAGE", 2)
    assert list(layout.heads()) == list(native.heads())


def test_a_description_that_is_wrong_names_every_key(tmp_path: Path) -> None:
    fill(tmp_path / "store.db", history(1))
    wrong = described(tmp_path / "store.db", tail="somehow", colour="blue")
    with pytest.raises(ConfigError, match=r"(?s)tail: .*colour: Extra inputs"):
        open_store(wrong)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "store.db", history(1))
    wrong = described(tmp_path / "store.db", type={"column": "kind"})
    with pytest.raises(NotAStoreError, match="has no column 'kind'"):
        open_store(wrong)
    with pytest.raises(NotAStoreError, match="there is no table 'journal'"):
        open_store(described(tmp_path / "store.db", table="journal"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("layout=eventsorcing", "did you mean 'eventsourcing'"),
        ("layout=castore", "only for another kind of database"),
        ("layout=eventsourcing&schema=x", "has no option schema"),
        ("layout=eventsourcing&layout=x", "stands twice"),
    ],
)
def test_a_wrong_option_says_what_there_is(tmp_path: Path, options: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_store(url(tmp_path / "store.db", f"?{options}"))
