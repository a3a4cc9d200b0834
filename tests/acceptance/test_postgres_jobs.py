"""Jobs from any store to any store: what arrives is the same, whatever holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmig import Registry, codec, commands
from eventmig.errors import DataError
from eventmig.events import Event
from eventmig.stores.open import open_store
from tests.acceptance.support import history, project, steps

Compared = tuple[object, ...]


def clean_history(count: int = 40) -> list[Event]:
    """The history of the other tests without what only bytes can hold."""
    plain = b'{ "x" : 1.10, "y": 1e2, "long": 12345678901234567890.10 }'
    return [e._replace(data=plain) if e.type == "Untouched" else e for e in history(count)]


def fill(url: str, events: list[Event]) -> None:
    heads: dict[str, int] = {}
    with open_store(url, mode="create") as store, store.begin() as tx:
        for event in events:
            heads[event.stream] = heads.get(event.stream, 0) + 1
            tx.append_copied([event._replace(stream_position=heads[event.stream])])


def held(url: str) -> list[Compared]:
    """What a store holds, but for global positions and the spelling of data."""
    with open_store(url) as store:
        return [
            (*event._replace(global_position=0, data=b""), codec.decode_strict(event.data))
            for batch in store.read_all()
            for event in batch
        ]


@pytest.fixture
def urls(tmp_path: Path, postgres_url: str) -> dict[str, str]:
    """The places of a history and of its copies, by name."""
    return {
        "sqlite": f"sqlite:///{tmp_path}/other.db",
        "jsonb": f"{postgres_url}&schema=one",
        "json": f"{postgres_url}&schema=one&tables=j_&data=json",
        "bytea": f"{postgres_url}&schema=other&data=bytea",
    }


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sqlite", "jsonb"),
        ("sqlite", "bytea"),
        ("jsonb", "sqlite"),
        ("jsonb", "json"),
        ("json", "jsonb"),
        ("bytea", "jsonb"),
    ],
)
def test_any_source_to_any_target(
    tmp_path: Path, urls: dict[str, str], source: str, target: str
) -> None:
    events = clean_history()
    fill(f"sqlite:///{tmp_path}/source.db", events)
    its = project(tmp_path, Registry(steps()))
    reference = f"sqlite:///{tmp_path}/reference.db"
    assert commands.upcast(its, target=reference, batch_size=7).ready
    fill(urls[source], events)
    report = commands.upcast(its, source=urls[source], target=urls[target], batch_size=7)
    assert report.ready
    assert held(urls[target]) == held(reference)
    again = commands.verify(its, source=urls[source], target=urls[target])
    assert again.verification is not None
    assert again.verification.right
    assert commands.cancel(its, target=urls[target]) == len(held(reference))
    assert held(urls[target]) == []


def test_new_streams_in_the_same_tables(tmp_path: Path, urls: dict[str, str]) -> None:
    fill(urls["jsonb"], clean_history())
    its = project(tmp_path, Registry(steps()))
    reference = f"sqlite:///{tmp_path}/reference.db"
    assert commands.upcast(its, source=urls["jsonb"], target=reference).ready
    before = held(urls["jsonb"])
    target = f"{urls['jsonb']}&release=2"
    report = commands.upcast(
        its, source=urls["jsonb"], target=target, naming="{stream}-{release}", batch_size=7
    )
    assert report.ready
    assert held(urls["jsonb"]) == before
    renamed = [(row[1], row[2], row[4]) for row in held(target)]
    assert renamed == [(f"{row[1]}-2", row[2], row[4]) for row in held(reference)]


@pytest.mark.parametrize(
    ("data", "path", "what"),
    [
        (b'{"a": {"b": [1, "x\\u0000y"]}}', "a.b[1]", "NUL"),
        (b'{"a": "\\ud800"}', "a", "surrogate"),
        (b'{"a": [1, -0.0]}', "a[1]", "sign"),
        (b'{"a": {"k": 1, "k" : 2}}', "a.k", "twice"),
        (b'{"a": [{"k": 1, "\\u006b": 2}]}', "a[0].k", "twice"),
        (b'{"a": 1e200000}', "a", "digits"),
        (b"[" * 100_000 + b"]" * 100_000, "", "deep"),
        (b"no json", "", "no JSON"),
    ],
)
def test_what_jsonb_would_change_or_refuse_is_named(
    tmp_path: Path, postgres_url: str, data: bytes, path: str, what: str
) -> None:
    events = clean_history(8)
    odd = events[0]._replace(stream="odd", type="Odd", id="the-odd-one", data=data)
    fill(f"sqlite:///{tmp_path}/source.db", [*events[1:5], odd, *events[5:]])
    its = project(tmp_path, Registry(steps()))
    with pytest.raises(DataError, match=what) as error:
        commands.upcast(its, target=f"{postgres_url}&schema=a", batch_size=3)
    where = error.value.where
    assert (where.stream, where.stream_position, where.type) == ("odd", 1, "Odd")
    assert where.event_id == "the-odd-one"
    assert where.path == (path or None)
    assert "?data=" in error.value.remedy
    assert commands.upcast(its, target=f"{postgres_url}&schema=b&data=text").ready
