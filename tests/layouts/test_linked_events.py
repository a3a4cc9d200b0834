"""Rails Event Store: events in several streams, without positions, read and written.

The owner cannot run here: what it relies on is asked in its own queries, in our own words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eventmig import (
    Registry,
    commands,
    data_upcaster,
    drop_event,
    ops,
    rename_streams,
    split_upcaster,
    upcaster,
)
from eventmig.errors import DataError, StoreDamagedError, UpcastError
from eventmig.events import Event
from eventmig.release import Lock
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, project, url
from tests.layouts.tables import CASES, ID
from tests.layouts.test_documented_tables import place, run

RENAME = Registry([upcaster("Added", 1, ops.rename("price", "amount"))])
CASE = next(case for case in CASES if case.layout == "rails-event-store")
HISTORY = (  # stream, event (from 1), type; None where the event is in a stream already
    ("cart-1", 1, "Opened"),
    ("$by_type_Opened", 1, None),
    ("cart-2", 2, "Opened"),
    ("cart-1", 3, "Added"),
    ("$by_type_Added", 3, None),
    ("$by_type_Opened", 2, None),  # after a later event, by a slow handler
    ("cart-1_snapshots", 4, "Snapshot"),
    ("$by_type_Snapshot", 4, None),
    ("mail", 5, "Sent"),
    ("cart-2", 6, "Added"),
    ("report", 6, None),
    ("report", 3, None),
    ("cart-1", 7, "Added"),
)
SEEN = "SELECT e.event_id::text, s.position FROM event_store_events_in_streams s JOIN"
SEEN += " event_store_events e USING (event_id) WHERE s.stream = '{}' ORDER BY s.id"
GLOBAL = "SELECT event_id::text, event_type, data, metadata, created_at, valid_at"
GLOBAL += " FROM event_store_events ORDER BY id"
STREAMS = sorted({stream for stream, _, _ in HISTORY if "napshot" not in stream})


def written() -> list[str]:
    """The history, as the library writes it: positions only in the streams of carts."""
    statements: list[str] = []
    heads: dict[str, int] = {}
    for n, (stream, number, type_) in enumerate(HISTORY):
        id_, time = ID.format(number), f"2026-01-02 03:04:05.{n:06}"
        if type_ is not None:
            data = json.dumps({"price": f"{number}.50"} if type_ == "Added" else {"n": number})
            valid = "'2025-12-24'" if number == 5 else "NULL"
            statements.append(
                "INSERT INTO event_store_events (event_id, event_type, metadata, data,"
                f" created_at, valid_at) VALUES ('{id_}', '{type_}', '{{\"who\":\"ada\"}}',"
                f" '{data}', '{time}', {valid})"
            )
        at = "NULL"
        if stream in ("cart-1", "cart-2"):
            heads[stream] = heads.get(stream, -1) + 1
            at = str(heads[stream])
        statements.append(
            "INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at)"
            f" VALUES ('{stream}', {at}, '{id_}', '{time}')"
        )
    return statements


@pytest.fixture
def its(postgres_url: str) -> Callable[[str], str]:
    """The store of a schema; `old` has the history, `new` the tables."""
    run(postgres_url, "old", *CASE.tables, *written())
    run(postgres_url, "new", *CASE.tables)
    return lambda schema: place(postgres_url, CASE.layout, schema)


def streams(url_: str, schema: str) -> dict[str, list[str]]:
    """Each stream as the library reads it: ids in the order of its rows."""
    return {s: [id_ for id_, _ in run(url_, schema, SEEN.format(s))] for s in STREAMS}


def events(store_url: str) -> list[Event]:
    with closing(open_store(store_url)) as store:
        return [e for batch in store.read_all(batch_size=3) for e in batch]


def test_links_are_events_of_their_own(its: Callable[[str], str]) -> None:
    found = events(its("old"))
    assert [(e.stream, e.type, e.stream_position) for e in found] == [
        ("cart-1", "Opened", 0),
        ("$by_type_Opened", "$>", 0),
        ("cart-2", "Opened", 0),
        ("cart-1", "Added", 1),
        ("$by_type_Added", "$>", 0),
        ("$by_type_Opened", "$>", 1),
        ("mail", "Sent", 0),
        ("cart-2", "Added", 1),
        ("report", "$>", 0),
        ("report", "$>", 1),
        ("cart-1", "Added", 2),
    ]
    link = found[8]
    assert json.loads(link.data) == {"event_id": ID.format(6)}
    assert link.recorded_at == found[7].recorded_at + 1
    assert len({e.id for e in found}) == len(found)
    with closing(open_store(its("old"))) as store:
        for one in found:
            assert store.event(one.id) == one
            at = one.stream_position
            assert list(store.read_stream(one.stream, first=at, last=at)) == [one]
        linked = [e for batch in store.read_all(types=["$>"]) for e in batch]
        assert linked == [e for e in found if e.type == "$>"]
        counts = {(c.type, c.count) for c in store.type_counts()}
        assert counts == {("Opened", 2), ("Added", 3), ("Sent", 1), ("$>", 5)}
        heads = {h.stream: (h.first, h.last, h.count) for h in store.heads()}
        assert heads["cart-1"] == (0, 2, 3)
        assert heads["$by_type_Opened"] == (0, 1, 2)


def test_a_migrated_store_has_every_event_in_every_stream(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    moved = project(tmp_path, RENAME, source=its("old"), target=its("new"), batch_size=4)
    found = commands.inspect(moved, its("old"))
    assert (found.layout, found.refused, found.writable) == (CASE.layout, (), True)
    assert [str(one) for one in found.left_behind] == [r"1 events of streams like %\_snapshots"]
    report = commands.upcast(moved)
    assert report.ready
    assert (report.job.tally.copied, report.job.tally.upcast) == (8, 3)
    assert streams(postgres_url, "new") == streams(postgres_url, "old")
    old = [row for row in run(postgres_url, "old", GLOBAL) if row[1] != "Snapshot"]
    for row, was in zip(run(postgres_url, "new", GLOBAL), old, strict=True):
        if was[1] == "Added":
            was = (was[0], "Added_v2", {"amount": was[2]["price"]}, *was[3:])
        assert row == was
    positions = [at for _, at in run(postgres_url, "new", SEEN.format("$by_type_Opened"))]
    assert positions == [0, 1]
    run(postgres_url, "new", *CASE.append)  # the next of its sequences
    assert commands.verify(moved).verification
    damage = f"UPDATE event_store_events_in_streams SET event_id = '{ID.format(1)}'"
    run(postgres_url, "new", damage + " WHERE stream = 'report' AND position = 1")
    found_wrong = commands.verify(moved).verification
    assert found_wrong is not None
    assert not found_wrong.right


def test_a_link_made_after_its_event_was_copied_comes_along(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    moved = project(tmp_path, RENAME, source=its("old"), target=its("new"))
    commands.upcast(moved)
    late = "INSERT INTO event_store_events_in_streams (stream, event_id, created_at) VALUES"
    run(postgres_url, "old", f"{late} ('report', '{ID.format(1)}', now())")
    report = commands.upcast(moved)
    assert (report.ready, report.job.tally.read) == (True, 12)
    assert streams(postgres_url, "new") == streams(postgres_url, "old")
    assert commands.cancel(moved) == 12
    for table in ("event_store_events", "event_store_events_in_streams"):
        assert run(postgres_url, "new", f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_job_that_failed_midway_goes_on(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    broken = [True]

    @data_upcaster("Added", 1)
    def breaks(data: dict[str, Any]) -> dict[str, Any]:
        if data["price"] == "7.50" and broken:
            raise ValueError("not today")
        return {"amount": data["price"]}

    both = {"source": its("old"), "target": its("new")}
    moved = project(tmp_path, Registry([breaks]), batch_size=4, **both)
    with pytest.raises(UpcastError, match="not today"):
        commands.upcast(moved)
    assert 0 < len(events(its("new"))) < 11
    broken.clear()
    report = commands.upcast(moved)
    assert (report.ready, report.resumed) == (True, True)
    assert streams(postgres_url, "new") == streams(postgres_url, "old")


def test_an_event_stays_when_a_link_to_it_is_taken_back(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    moved = project(tmp_path, RENAME, source=its("old"), target=its("new"))
    commands.upcast(moved)
    found = events(its("new"))
    with closing(open_store(its("new"), mode="write")) as store, store.begin() as tx:
        assert tx.truncate_after(found[7].global_position) == 3
        assert tx.heads(["report", "cart-1"]) == {"report": -1, "cart-1": 1}
    assert [e.id for e in events(its("new"))] == [e.id for e in found[:8]]
    left = run(postgres_url, "new", "SELECT count(*) FROM event_store_events")
    assert left == [(5,)], "all but the last of cart-1"


def test_there_and_back_through_another_kind_of_store(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    nothing = Registry([upcaster("Never", 1, ops.rename("a", "b"))])
    between = url(tmp_path / "between.db")
    assert commands.upcast(project(tmp_path, nothing, source=its("old"), target=between)).ready
    assert [e.type for e in events(between)].count("$>") == 5
    lock = Lock().with_release(nothing.freeze("2"))
    back = project(tmp_path, nothing, source=between, target=its("new"), release="3", lock=lock)
    assert commands.upcast(back).ready
    assert streams(postgres_url, "new") == streams(postgres_url, "old")
    old = [row for row in run(postgres_url, "old", GLOBAL) if row[1] != "Snapshot"]
    assert run(postgres_url, "new", GLOBAL) == old


@split_upcaster("$>", 1, into=[("$>", 2)])
def without_reports(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is said of mails is not linked."""
    return [] if data["event_id"] == ID.format(6) else [("$>", data)]


def test_a_link_to_an_event_that_was_dropped_is_named(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    gone = drop_event("Added", 1, why="carts are elsewhere now")
    both = {"source": its("old"), "target": its("new")}
    with pytest.raises(DataError, match="the target does not have") as raised:
        commands.upcast(project(tmp_path, Registry([gone]), **both))
    assert raised.value.where.stream == "$by_type_Added"
    assert ID.format(3) in raised.value.what
    assert run(postgres_url, "new", "SELECT count(*) FROM event_store_events") == [(0,)]


def test_a_step_may_take_links_away(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    moved = project(tmp_path, Registry([without_reports]), source=its("old"), target=its("new"))
    report = commands.upcast(moved)
    assert (report.ready, report.job.tally.dropped) == (True, 1)
    was = streams(postgres_url, "old")
    assert streams(postgres_url, "new") == was | {"report": [ID.format(3)]}
    assert ("$>", 2, 4) in commands.inspect(moved, its("new")).types


def test_new_streams_in_the_same_tables_link_the_new_events(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    route = rename_streams("new", "{id}", to="v2.{id}")
    registry = Registry([route, upcaster("Added", 1, ops.rename("price", "amount"))])
    target = f"{its('old')}&release={{release}}"
    assert commands.upcast(project(tmp_path, registry, source=its("old"), target=target)).ready
    new = [id_ for id_, _ in run(postgres_url, "old", SEEN.format("v2.report"))]
    carts = [id_ for id_, _ in run(postgres_url, "old", SEEN.format("v2.cart-2"))]
    assert new[0] == carts[1] != ID.format(6)


def test_events_in_no_stream_are_refused_by_name(
    tmp_path: Path, postgres_url: str, its: Callable[[str], str]
) -> None:
    loose = "INSERT INTO event_store_events (event_id, event_type, data, created_at) VALUES"
    run(postgres_url, "old", f"{loose} ('{ID.format(99)}', 'Loose', '{{}}', now())")
    moved = project(tmp_path, RENAME, source=its("old"), target=its("new"))
    with pytest.raises(StoreDamagedError, match="1 events that were published to no stream"):
        commands.upcast(moved)


def test_a_link_with_metadata_is_refused(tmp_path: Path, its: Callable[[str], str]) -> None:
    fill(
        tmp_path / "source.db",
        [
            event("a", "Opened", {}, id=ID.format(1)),
            event("b", "$>", {"event_id": ID.format(1)}, id=ID.format(2)),
        ],
    )
    with pytest.raises(DataError, match="a link has metadata"):
        commands.upcast(project(tmp_path, RENAME, target=its("new")))
