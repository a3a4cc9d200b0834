"""Events in several tables (commanded), and events from elsewhere in tables that demand more."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import Registry, commands, drop_event, ops, upcaster
from eventmig.errors import ConfigError, ConflictError, CrossingError, StoreDamagedError, StoreError
from eventmig.migrate.states import State
from eventmig.stores.layouts.presets import described, preset
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, project
from tests.layouts.tables import CASES, ID, Case
from tests.layouts.test_documented_tables import place, run

RENAME = Registry([upcaster("Added", 1, ops.rename("price", "amount"))])
FORWARD = """SELECT se.stream_version, e.event_id::text, s.stream_uuid, se.original_stream_version,
    e.event_type, e.data, e.created_at FROM stream_events se
    JOIN streams s ON s.stream_id = se.original_stream_id JOIN events e USING (event_id)
    WHERE se.stream_id = (SELECT stream_id FROM streams WHERE stream_uuid = '{}')
    AND se.stream_version >= s.stream_origin ORDER BY se.stream_version"""
VERSIONS = "SELECT stream_uuid, stream_version FROM streams ORDER BY stream_id"


def case_of(layout: str) -> Case:
    return next(case for case in CASES if case.layout == layout)


@pytest.fixture
def commanded(postgres_url: str) -> dict[str, str]:
    """Two stores of commanded: `old` has the carts, `new` nothing."""
    case = case_of("commanded")
    run(postgres_url, "old", *case.tables, *case.rows)
    run(postgres_url, "new", *case.tables)
    return {s: place(postgres_url, "commanded", s) for s in ("old", "new")}


def test_a_job_writes_what_the_library_reads(
    tmp_path: Path, postgres_url: str, commanded: dict[str, str]
) -> None:
    gone = Registry([drop_event("Opened", 1, why="carts open themselves")])
    moved = project(tmp_path, gone, source=commanded["old"], target=commanded["new"], batch_size=2)
    heard: list[str] = []
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute('LISTEN "new.events"')
        assert commands.upcast(moved).ready
        heard = [n.payload for n in listener.notifies(timeout=0.3)]
    every = run(postgres_url, "new", FORWARD.format("$all"))
    assert [(row[0], row[2], row[3]) for row in every] == [
        (1, "cart-1", 1),
        (2, "cart-1", 2),
        (3, "cart-2", 1),
    ]
    assert [row[0] for row in run(postgres_url, "new", FORWARD.format("cart-1"))] == [1, 2]
    assert run(postgres_url, "new", VERSIONS) == [("$all", 3), ("cart-1", 2), ("cart-2", 1)]
    # What its subscribers are told: stream, number, first and last new version.
    assert {tuple(payload.split(",")[:1]) for payload in heard} == {
        ("$all",),
        ("cart-1",),
        ("cart-2",),
    }
    firsts = sorted(int(p.split(",")[2]) for p in heard if p.startswith("$all"))
    lasts = sorted(int(p.split(",")[3]) for p in heard if p.startswith("$all"))
    assert (firsts[0], lasts[-1]) == (1, 3)
    assert firsts[1:] == [last + 1 for last in lasts[:-1]], "one after the other, without gaps"


def test_cancel_leaves_the_tables_as_they_were(
    tmp_path: Path, postgres_url: str, commanded: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventmig.stores.layouts.deletion._AT_ONCE", 2)
    moved = project(tmp_path, RENAME, source=commanded["old"], target=commanded["new"])
    commands.upcast(moved)
    assert commands.cancel(moved) == 5
    for table in ("events", "stream_events"):
        assert run(postgres_url, "new", f"SELECT count(*) FROM {table}") == [(0,)]
    assert run(postgres_url, "new", VERSIONS) == [("$all", 0)]
    assert commands.upcast(moved).ready


def test_tables_that_never_allow_a_delete_say_so(
    tmp_path: Path, postgres_url: str, commanded: dict[str, str]
) -> None:
    moved = project(tmp_path, RENAME, source=commanded["old"], target=commanded["new"])
    commands.upcast(moved)
    run(
        postgres_url,
        "new",
        "CREATE TRIGGER older BEFORE DELETE ON events FOR EACH STATEMENT EXECUTE PROCEDURE never()",
    )
    with pytest.raises(StoreError, match=r"refuses that .*EventStore: cannot"):
        commands.cancel(moved)
    assert run(postgres_url, "new", "SELECT count(*) FROM events") == [(5,)]


def late(stream: str, position: int) -> Any:
    one = event(stream, "Late", {}, id=ID.format(50 + position))
    return one._replace(stream_position=position)


def test_the_owner_waits_for_a_batch_and_counts_on(
    postgres_url: str, commanded: dict[str, str]
) -> None:
    waiting = threading.Event()

    def append() -> None:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("SET search_path TO old")
            waiting.set()
            connection.execute(
                "UPDATE streams SET stream_version = stream_version + 1 WHERE stream_id = 0"
            )

    owner = threading.Thread(target=append)
    with closing(open_store(commanded["old"], mode="write")) as store:
        with store.begin() as tx:
            assert tx.heads(["cart-1"]) == {"cart-1": 3}
            assert tx.append_copied([late("cart-1", 4), late("cart-3", 1)]) == 7
            owner.start()
            waiting.wait()
            owner.join(0.2)
            assert owner.is_alive()
        owner.join()
        with pytest.raises(ConflictError), store.begin() as tx:
            tx.append_copied([late("cart-1", 2)])
    assert run(postgres_url, "old", VERSIONS)[0] == ("$all", 8)


@pytest.mark.parametrize("layout", ["commanded", "rails-event-store"])
def test_across_and_back(tmp_path: Path, postgres_url: str, layout: str) -> None:
    case = case_of(layout)
    run(postgres_url, "old", *case.tables, *case.rows)
    run(postgres_url, "new", *case.tables)
    both = {s: place(postgres_url, layout, s) for s in ("old", "new")}
    moved = project(tmp_path, RENAME, source=both["old"], target=both["new"])
    commands.upcast(moved)
    if layout == "rails-event-store":
        alone = "INSERT INTO event_store_events (event_id, event_type, data, created_at) VALUES"
        alone += f" ('{ID.format(70)}', 'Loose', '{{}}', now())"
        run(postgres_url, "old", alone)
        with pytest.raises(CrossingError, match="published to no stream"):
            commands.cutover(moved)
        run(
            postgres_url,
            "old",
            "INSERT INTO event_store_events_in_streams (stream, event_id, created_at)"
            f" VALUES ('unfiled', '{ID.format(70)}', now())",
        )
    assert commands.cutover(moved).job.state is State.REVERSE_WINDOW
    for statement in case.append[:1]:
        with pytest.raises(psycopg.Error, match="applications may not append"):
            run(postgres_url, "old", statement)
    run(postgres_url, "new", *case.append)
    assert commands.reverse(moved).job.state is State.REVERSED
    assert any("Late" in row for row in run(postgres_url, "old", case.after))
    with pytest.raises(psycopg.Error, match="applications may not append"):
        run(postgres_url, "new", case.append[0].replace("009", "010"))


def test_an_id_that_is_there_is_named(commanded: dict[str, str]) -> None:
    twice = late("cart-1", 4)._replace(id=ID.format(1))
    with (
        closing(open_store(commanded["old"], mode="write")) as store,
        pytest.raises(StoreError, match="event id is stored already"),
        store.begin() as tx,
    ):
        tx.append_copied([twice])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "INSERT INTO streams VALUES (9, 'report', 1); INSERT INTO stream_events VALUES"
            f" ('{ID.format(1)}', 9, 1, 1, 1)",
            "1 links of events into other streams",
        ),
        ("UPDATE streams SET deleted_at = now() WHERE stream_id = 2", r"1 streams .* deleted"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(
    tmp_path: Path, postgres_url: str, commanded: dict[str, str], damage: str, said: str
) -> None:
    run(postgres_url, "old", damage)
    moved = project(tmp_path, RENAME, source=commanded["old"], target=commanded["new"])
    with pytest.raises(StoreDamagedError, match=said):
        commands.upcast(moved)
    run(postgres_url, "old", "ALTER TABLE streams DROP COLUMN deleted_at")
    assert ("deleted" in said) is not any(commands.inspect(moved, commanded["old"]).refused)


ELSEWHERE = {
    "patchlevel": (
        "SELECT new_stream_start, archived, custom_headers::text FROM event_store ORDER BY id",
        [(False, False, "[]"), (False, False, '{"who": "ada"}'), (False, False, "{}")],
    ),
    "pekko-jdbc": (
        "SELECT writer, adapter_manifest, event_ser_id FROM event_journal ORDER BY ordering",
        [("eventmig", "", 31)] * 3,
    ),
    "axon": (
        "SELECT type, time_stamp, meta_data FROM domain_event_entry ORDER BY global_index",
        [
            (None, "2020-09-13T12:26:40.000000Z", b"{}"),
            (None, "2020-09-13T12:26:40.000000Z", b'{"who": "ada"}'),
            (None, "2020-09-13T12:26:40.000000Z", b"{}"),
        ],
    ),
    "commanded": (
        "SELECT causation_id, correlation_id, extract(epoch FROM created_at)::int, metadata"
        " FROM events ORDER BY event_type",
        [
            (None, None, 1_600_000_000, b"{}"),
            (None, None, 1_600_000_000, b'{"who": "ada"}'),
            (None, None, 1_600_000_000, b"{}"),
        ],
    ),
    "rails-event-store": (
        "SELECT s.position, valid_at, e.created_at = s.created_at, metadata FROM"
        " event_store_events e JOIN event_store_events_in_streams s USING (event_id) ORDER BY s.id",
        [(0, None, True, {}), (1, None, True, {"who": "ada"}), (2, None, True, {})],
    ),
}


@pytest.mark.parametrize("layout", list(ELSEWHERE))
def test_a_history_from_elsewhere_has_what_the_owner_demands(
    tmp_path: Path, postgres_url: str, layout: str
) -> None:
    stamp = 1_600_000_000_000_000
    opened = event("cart-1", "Added", {"price": 1}, metadata=None)
    added = event("cart-1", "Closed", {})
    empty = event("cart-1", "Emptied", {}, metadata=b"{}")
    every = [e._replace(recorded_at=stamp) for e in (opened, added, empty)]
    fill(tmp_path / "source.db", every)
    run(postgres_url, "new", *case_of(layout).tables)
    target = place(postgres_url, layout, "new")
    assert commands.upcast(project(tmp_path, RENAME, target=target)).ready
    query, expected = ELSEWHERE[layout]
    assert run(postgres_url, "new", query) == expected


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"elsewhere": {"other": 1}}, "names columns of passed_through"),
        ({"links": True, "id": {"column": "event_id"}}, "links go with an id"),
        ({"heads": None}, "'streams.stream_uuid' is in a joined table"),
        (
            {"heads": {"table": "streams", "columns": ["stream_uuid"], "position": "v"}},
            "heads.number goes with a join",
        ),
    ],
)
def test_a_description_that_cannot_be_written_is_refused(more: dict[str, Any], why: str) -> None:
    whole = preset("commanded", "postgresql").model_dump(mode="json", exclude_defaults=True)
    del whole["name"], whole["dialect"]
    assert described("own", whole, "postgresql").counter is not None
    with pytest.raises(ConfigError, match=why):
        described("own", whole | more, "postgresql")
