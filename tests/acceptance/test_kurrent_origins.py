"""A copy in KurrentDB names its origins' global positions, and a verification reads them back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventmig import commands
from eventmig.events import Event
from eventmig.stores.kurrent.url import locate
from tests import kurrent
from tests.acceptance.kurrent_support import everything, into_kurrent, job
from tests.acceptance.support import cli, fill, history, project_in_files
from tests.kurrent_server.faults import Fault
from tests.kurrent_server.log import Proposal, Record
from tests.kurrent_server.server import Node, running


@pytest.fixture
def node() -> Iterator[Node]:
    with running() as node:
        yield node


def records(node: Node, target: str) -> list[Record]:
    return [r for r in node.log.records if r.stream.startswith(locate(target).prefix)]


def envelope(record: Record) -> dict[str, Any]:
    member: dict[str, Any] = json.loads(record.event.metadata)["eventmig"]
    return member


def last_origin(event: Event, source: list[Event]) -> int:
    """The global position, in the source, of the last event that this one was made from."""
    positions = {(e.stream, e.stream_position): e.global_position for e in source}
    return max(positions[o.stream, o.stream_position] for o in event.origins)


@pytest.mark.parametrize("of", ["sqlite", "kurrentdb"])
def test_every_event_names_its_origins_global_position(tmp_path: Path, node: Node, of: str) -> None:
    target = kurrent.fresh(node.url)
    if of == "sqlite":
        url, source = "sqlite:///source.db", fill(tmp_path / "source.db", history(40))
    else:
        url = kurrent.fresh(node.url)
        source = into_kurrent(url, history(40))
    assert commands.upcast(job(tmp_path, url, target)).ready
    made = everything(target)
    assert any(len(e.origins) > 1 for e in made)
    assert any(e.origins[0].ordinal for e in made)
    told = [envelope(record)["global_position"] for record in records(node, target)]
    assert told == [last_origin(event, source) for event in made]


def test_what_a_second_process_made_names_it_too(tmp_path: Path, node: Node) -> None:
    folder = project_in_files(tmp_path / "in files")
    source = fill(folder / "source.db", history(40))
    target = kurrent.fresh(node.url)
    done = cli(folder, "upcast", "--target", target, "--workers", "2")
    assert done.returncode == 0, done.stderr
    told = [envelope(record)["global_position"] for record in records(node, target)]
    assert told == [last_origin(event, source) for event in everything(target)]


def test_a_batch_that_is_sent_again_is_the_same(tmp_path: Path, node: Node) -> None:
    fill(tmp_path / "source.db", history(21))
    target = kurrent.fresh(node.url)
    node.faults.on_append(4, Fault.ANSWER_LOST)
    assert commands.upcast(job(tmp_path, "sqlite:///source.db", target)).ready
    again = kurrent.fresh(node.url)
    assert commands.upcast(job(tmp_path, "sqlite:///source.db", again)).ready
    first, second = ([r.event for r in records(node, t)] for t in (target, again))
    assert first == second


@pytest.mark.parametrize("order", ["global", "stream"])
@pytest.mark.parametrize("wrong", [None, 1, 10_000])
def test_a_wrong_position_is_found(
    tmp_path: Path, node: Node, wrong: int | None, order: str
) -> None:
    fill(tmp_path / "source.db", history(40))
    its = job(tmp_path, "sqlite:///source.db", kurrent.fresh(node.url, order=order))
    assert commands.upcast(its).ready
    victim = records(node, its.config.target or "")[12]
    right = envelope(victim)["global_position"]
    there = b'"global_position":%d,' % right
    assert there in victim.event.metadata
    instead = b"" if wrong is None else b'"global_position":%d,' % wrong
    metadata = victim.event.metadata.replace(there, instead)
    change(victim, victim.event._replace(metadata=metadata))
    found = commands.verify(its).verification
    assert found is not None
    (mismatch,) = found.shown
    assert (mismatch.kind, mismatch.field) == ("differs", "origin_global_position")
    assert (mismatch.expected, mismatch.found) == (str(right), str(wrong or 0))
    assert mismatch.stream == victim.stream.removeprefix(locate(its.config.target or "").prefix)
    assert mismatch.stream_position == victim.revision


def change(record: Record, event: Proposal) -> None:
    """Change what the log holds, which no client could."""
    object.__setattr__(record, "event", event)
