"""The ledger's stream is kept short, and says the same at every moment of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventmig import commands
from eventmig.errors import StoreUnavailableError
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate
from tests import kurrent
from tests.acceptance.kurrent_support import (
    cut_off_and_resumed,
    essence,
    everything,
    job,
    reference,
)
from tests.acceptance.support import event, fill, history
from tests.kurrent_server.faults import Fault
from tests.kurrent_server.log import Record
from tests.kurrent_server.server import Node, running

LIMIT = 6_000
Tables = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def node() -> Iterator[Node]:
    with running() as node:
        yield node


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stream be replaced after some kilobytes, not megabytes."""
    monkeypatch.setattr("eventmig.stores.kurrent.ledger._TIDY_BYTES", LIMIT)
    monkeypatch.setattr("eventmig.stores.kurrent.ledger._TIDY_TIMES", 2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every error ends the run at once, as a kill would."""

    def pause(self: object, said: str) -> None:
        raise StoreUnavailableError(said)

    monkeypatch.setattr("eventmig.stores.kurrent.client.Patience.pause", pause)


def entries(node: Node, target: str) -> tuple[list[Record], list[Record]]:
    """All of the ledger's entries, and those that a reader of the stream sees."""
    name = locate(target).ledger_stream
    return [r for r in node.log.records if r.stream == name], node.log.visible(name)


def tables(store: KurrentStore) -> Tables:
    with store.reading() as sql:
        names = sql.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(map(tuple, sql.exec_driver_sql(f'SELECT * FROM "{name}"')), key=repr)
            for (name,) in names.all()
        }


def fresh_tables(target: str) -> Tables:
    with KurrentStore(locate(target), mode="read") as store:
        return tables(store)


def test_what_a_whole_entry_stands_for_is_truncated(tmp_path: Path, node: Node, tidy: None) -> None:
    events = [e for e in history(90) if not e.stream.startswith("pair-")]
    fill(tmp_path / "source.db", events[:10])
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url))
    target = its.config.target or ""
    commands.upcast(its)
    with KurrentStore(locate(target), mode="write") as early:
        assert tables(early)
        read_at_first = len(entries(node, target)[0])
        for n in range(10, len(events), 10):
            fill(tmp_path / "source.db", events[n : n + 10])
            assert commands.upcast(its).ready
        written, seen = entries(node, target)
        assert seen[0].revision > read_at_first, "what the early one read last is truncated"
        assert tables(early) == fresh_tables(target)
        with early.begin():
            pass
    assert json.loads(seen[0].event.data)["whole"]
    whole = sum(len(r.event.data) for r in seen if json.loads(r.event.data).get("whole"))
    assert sum(len(r.event.data) for r in seen) < max(LIMIT, 2 * whole) + 2 * LIMIT
    assert sum(len(r.event.data) for r in written) > 2 * sum(len(r.event.data) for r in seen)
    node.log.scavenge()
    assert commands.verify(its).verification.right  # type: ignore[union-attr]
    assert essence(everything(target), 0) == essence(reference(tmp_path / "sqlite", events), 1)


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER_LOST])
def test_cut_off_at_any_append_of_it_the_job_resumes(
    tmp_path: Path, node: Node, tidy: None, impatient: None, fault: Fault
) -> None:
    events = history(21)
    fill(tmp_path / "source.db", events)
    wanted = essence(reference(tmp_path / "sqlite", events), 1)
    alone = kurrent.fresh(node.url)
    before = node.faults.appended
    assert commands.upcast(job(tmp_path, "sqlite:///source.db", alone)).ready
    appends = node.faults.appended - before
    whole = [n for n, r in enumerate(node.log.records) if b'"whole"' in r.event.data]
    assert whole, "the stream was replaced in the course of it"
    cut = cut_off_and_resumed(tmp_path, node, fault, range(1, appends + 1, 3), wanted)
    assert cut > 5


def test_a_whole_entry_that_was_cut_off_is_as_if_it_were_not_there(
    tmp_path: Path, node: Node, tidy: None
) -> None:
    """Its first part is there, and nothing was truncated: the next writer's entry follows."""
    fill(tmp_path / "source.db", history(40))
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url))
    target = its.config.target or ""
    assert commands.upcast(its).ready
    before = fresh_tables(target)
    last = entries(node, target)[0][-1]
    part = {"format": 1, "part": 1, "parts": 2, "whole": True, "tables": {}, "rows": []}
    cut = last.event._replace(
        id="00000000-0000-4000-8000-000000000001", data=json.dumps(part).encode()
    )
    node.log.append(last.stream, last.revision, [cut])
    assert fresh_tables(target) == before
    fill(tmp_path / "source.db", [event("late-1", "Free", {})])
    assert commands.upcast(its).ready
    assert fresh_tables(target) != before


def test_who_may_not_truncate_writes_a_longer_stream(
    tmp_path: Path, node: Node, tidy: None
) -> None:
    node.access.users = {"ann": "secret"}
    node.access.all_readers = {""}
    fill(tmp_path / "source.db", history(60))
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url))
    assert commands.upcast(its).ready
    written, seen = entries(node, its.config.target or "")
    assert written == seen
    assert any(b'"whole"' in r.event.data for r in seen)
