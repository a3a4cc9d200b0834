"""Each preset on tables as its system documents them, in our own words.

What the owners rely on is looked at in SQL: positions, heads, where the version is, the next
append. Of some of them nobody but these checks reads the result back; others do in `test_owner…`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg
import pytest

from eventmig import Registry, commands, ops, upcaster
from eventmig.errors import ConfigError, NotAStoreError, ReadOnlyError, StoreDamagedError
from eventmig.events import NewEvent
from eventmig.project import Project
from eventmig.rebuild import Aggregate
from eventmig.stores.base import ANY
from eventmig.stores.layouts.presets import described
from eventmig.stores.open import open_store
from tests.acceptance.support import event, project
from tests.layouts import tables
from tests.layouts.tables import CASES, Case

RENAME = Registry([upcaster("Added", 1, ops.rename("price", "amount"))])
IDS = [case.layout for case in CASES]
WRITABLE = [case for case in CASES if case.after]


def run(url: str, schema: str, *statements: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS " + schema)  # type: ignore[arg-type]
        connection.execute("SET search_path TO " + schema)  # type: ignore[arg-type]
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            done = connection.execute(statement)  # type: ignore[arg-type]
            rows = done.fetchall() if done.description else []
        return rows


def place(url: str, layout: str, schema: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}layout={layout}&schema={schema}"


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_inspect_recognises_and_reads_it(postgres_url: str, case: Case) -> None:
    run(postgres_url, "old", *case.tables, *case.rows)
    found = commands.inspect(Project.open(), postgres_url)
    assert (found.layout, found.refused) == (case.layout, ())
    assert (found.events, found.streams) == (5, 2)
    assert set(found.types) == {("Added", 1, 3), ("Opened", 1, 2)}
    assert [e.stream_position for e in found.shown if "1" in e.stream[-1:]] == [
        case.first + n for n in range(3)
    ]
    assert found.writable is bool(case.after)


@pytest.mark.parametrize("case", WRITABLE, ids=[case.layout for case in WRITABLE])
def test_a_migration_keeps_what_the_owner_relies_on(
    tmp_path: Path, postgres_url: str, case: Case
) -> None:
    run(postgres_url, "old", *case.tables, *case.rows)
    before = run(postgres_url, "old", case.after)
    run(postgres_url, "new", *case.tables)
    moved = project(
        tmp_path,
        RENAME,
        source=place(postgres_url, case.layout, "old"),
        target=place(postgres_url, case.layout, "new"),
    )
    report = commands.upcast(moved)
    assert report.ready
    assert (report.job.tally.copied, report.job.tally.upcast) == (2, 3)
    assert run(postgres_url, "old", case.after) == before
    after = run(postgres_url, "new", case.after)
    assert [plain(row) for row in after] == [
        tuple(case.became.get(v, v) if isinstance(v, str) else v for v in plain(row))
        for row in before
    ]
    run(postgres_url, "new", *case.append)
    found = commands.inspect(Project.open(), place(postgres_url, case.layout, "new"))
    assert found.events == 6
    assert found.refused == ()


def plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row with its JSON as text of one spelling."""
    return tuple(
        json.dumps(value, sort_keys=True)
        if isinstance(value, dict | list)
        else value.decode()
        if isinstance(value, bytes)
        else value
        for value in row
    )


def test_a_layout_that_is_only_read_is_no_target(tmp_path: Path, postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "commanded")
    run(postgres_url, "old", *case.tables, *case.rows)
    run(postgres_url, "new", *case.tables)
    source = place(postgres_url, case.layout, "old")
    only = {"name": "own", "preset": "commanded", "read_only": "its team says so"}
    target = place(postgres_url, quote(json.dumps(only)), "new")
    with pytest.raises(ReadOnlyError, match="is only read: its team says so"):
        commands.upcast(project(tmp_path, RENAME, source=source, target=target))
    native = project(tmp_path, RENAME, source=source)
    assert commands.upcast(native).job.tally.upcast == 3


def test_what_a_copy_would_lose_is_refused(postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "pekko-jdbc")
    tag = (
        "CREATE TABLE event_tag (event_id bigint, tag varchar(255))",
        "INSERT INTO event_tag VALUES (1, 'blue')",
    )
    run(postgres_url, "old", *case.tables, *case.rows, *tag)
    found = commands.inspect(Project.open(), postgres_url)
    assert "'event_tag' holds 1 rows" in found.refused[0]


def test_large_objects_are_refused_by_name(postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "axon")
    oids = [s.replace("payload bytea", "payload oid") for s in case.tables]
    run(postgres_url, "old", *oids)
    with pytest.raises(NotAStoreError, match="large objects"):
        commands.inspect(Project.open(), place(postgres_url, "axon", "old"))


def test_events_without_a_position_are_refused(tmp_path: Path, postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "patchlevel")
    loose = "UPDATE event_store SET playhead = NULL WHERE id = 2"
    run(postgres_url, "old", *case.tables, *case.rows, loose)
    moved = project(tmp_path, RENAME, source=place(postgres_url, case.layout, "old"))
    with pytest.raises(StoreDamagedError, match="1 rows have no 'playhead'"):
        commands.upcast(moved)
    assert not (tmp_path / "target.db").exists()


SQL_STREAM_STORE: dict[str, object] = {
    "name": "own",
    "table": "messages",
    "position": "position",
    "first": 0,
    "tail": "barrier",
    "read_only": "it is only read",
    "joins": [{"table": "streams", "on": {"id_internal": "stream_id_internal"}}],
    "stream": {"columns": ["streams.id_original"], "position": "stream_version", "first": 0},
    "id": {"column": "message_id", "scope": "stream"},
    "type": {"column": "type"},
    "data": {"column": "json_data"},
    "metadata": {"column": "json_metadata"},
    "time": {"column": "created_utc"},
}


def test_a_global_position_that_begins_at_0_is_read_where_the_layout_says_so(
    tmp_path: Path, postgres_url: str
) -> None:
    run(postgres_url, "old", *tables.SQL_STREAM_STORE)
    url = place(postgres_url, quote(json.dumps(SQL_STREAM_STORE)), "old")
    moved = project(tmp_path, RENAME, source=url)
    report = commands.upcast(moved)
    assert (report.job.tally.read, report.job.tally.upcast) == (5, 3)
    with closing(open_store(url)) as store:
        assert [e.global_position for b in store.read_all(batch_size=2) for e in b] == [
            1, 2, 3, 4, 5,
        ]  # fmt: skip
        assert store.head_position() == 5
        assert store.count(until=1) == 1

    silent = place(postgres_url, quote(json.dumps(SQL_STREAM_STORE | {"first": 1})), "old")
    with pytest.raises(StoreDamagedError, match="1 rows have a 'position' below 1") as error:
        commands.upcast(project(tmp_path / "silent", RENAME, source=silent))
    assert "`first = 0`" in error.value.remedy
    run(postgres_url, "old", "UPDATE messages SET position = -7 WHERE position = 0")
    with pytest.raises(StoreDamagedError, match="1 rows have a 'position' below 0") as error:
        commands.upcast(project(tmp_path / "negative", RENAME, source=url))
    assert "(here -7)" in error.value.remedy


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_target_whose_positions_begin_at_0(tmp_path: Path, postgres_url: str, kind: str) -> None:
    made = "CREATE TABLE journal (no bigint PRIMARY KEY{}, s text, v bigint, t text, d text)"
    description: dict[str, object] = {
        "name": "own",
        "table": "journal",
        "position": "no",
        "first": 0,
        "tail": "single" if kind == "sqlite" else "barrier",
        "stream": {"columns": ["s"], "position": "v"},
        "type": {"column": "t"},
        "data": {"column": "d"},
    }
    layout = quote(json.dumps(description))
    old = f"sqlite:///{tmp_path / 'old.db'}?layout={layout}"
    new = f"sqlite:///{tmp_path / 'new.db'}?layout={layout}"
    for name in ("old", "new"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection, connection:
            connection.execute(made.format(""))
            if name == "old":
                for n in range(5):
                    row = (n, f"s-{n % 2}", n // 2 + 1, "Added", f'{{"price":{n}}}')
                    connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", row)
    if kind == "postgresql":
        counted = made.format(" GENERATED BY DEFAULT AS IDENTITY (MINVALUE 0 START 0)")
        run(postgres_url, "new", counted)
        new = place(postgres_url, layout, "new")
    moved = project(tmp_path, RENAME, source=old, target=new, batch_size=2)
    assert commands.upcast(moved).ready
    query = "SELECT no, s, d FROM journal ORDER BY no"
    if kind == "postgresql":
        found = run(postgres_url, "new", query)
    else:
        with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
            found = connection.execute(query).fetchall()
    assert found == [(n, f"s-{n % 2}", f'{{"amount":{n}}}') for n in range(5)]
    with closing(open_store(new)) as store:
        events = [e for batch in store.read_all() for e in batch]
        assert [e.origins[0].stream_position for e in events] == [1, 1, 2, 2, 3]
        assert [store.event(e.id) for e in events] == events
    assert commands.cancel(moved) == 5


def test_an_id_that_is_kept_beside_is_found_by_the_first_question(tmp_path: Path) -> None:
    description = {
        "name": "own",
        "table": "journal",
        "position": "no",
        "tail": "single",
        "stream": {"columns": ["s"], "position": "v"},
        "type": {"column": "t"},
        "data": {"column": "d"},
        "time": {"column": "at"},
    }
    old = f"sqlite:///{tmp_path / 'old.db'}"
    new = f"sqlite:///{tmp_path / 'new.db'}?layout={quote(json.dumps(description))}"
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        columns = "no integer PRIMARY KEY, s text, v bigint, t text, d text, at text"
        connection.execute(f"CREATE TABLE journal ({columns})")
    with closing(open_store(old, mode="create")) as store:
        store.append("s-1", [NewEvent("Added", b'{"price":1}', 1)], expected=ANY)  # type: ignore[attr-defined]
    assert commands.upcast(project(tmp_path, RENAME, source=old, target=new)).ready
    with closing(open_store(old)) as store:
        ((stored,),) = store.read_all()
    with closing(open_store(new)) as store:
        found = store.event(stored.id)
    assert found is not None
    assert found.id == stored.id


def test_stale_snapshots_in_a_target_are_refused(tmp_path: Path, postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "axon")
    run(postgres_url, "old", *case.tables, *case.rows)
    snapshots = "CREATE TABLE snapshot_event_entry AS SELECT 1 AS aggregate_identifier"
    run(postgres_url, "new", *case.tables, snapshots)
    moved = project(
        tmp_path,
        RENAME,
        source=place(postgres_url, case.layout, "old"),
        target=place(postgres_url, case.layout, "new"),
    )
    with pytest.raises(Exception, match="holds 1 snapshots, and no events"):
        commands.upcast(moved)


@pytest.mark.parametrize(
    ("layout", "table"),
    [
        ("axon", "snapshot_event_entry (aggregate_identifier varchar, sequence_number bigint)"),
        ("pekko-jdbc", "snapshot (persistence_id varchar, sequence_number bigint)"),
        ("commanded", "snapshots (source_uuid text, source_version bigint)"),
    ],
)
def test_snapshots_that_a_job_leaves_behind_are_told(
    tmp_path: Path, postgres_url: str, layout: str, table: str
) -> None:
    case = next(case for case in CASES if case.layout == layout)
    name = table.split()[0]
    taken = (f"CREATE TABLE {table}", f"INSERT INTO {name} VALUES ('cart-1', 2), ('cart-2', 1)")
    run(postgres_url, "old", *case.tables, *case.rows, *taken)
    source = place(postgres_url, layout, "old")
    left = [f"2 snapshots in {name}"]
    assert list(map(str, commands.inspect(Project.open(), source).left_behind)) == left

    moved = project(
        tmp_path, RENAME, source=source, projections="x:y", read_models="sqlite:///v.db"
    )
    carts = Aggregate("cart", state=dict[str, Any])

    @carts.on("Added")
    def added(data: dict[str, Any]) -> dict[str, Any]:
        return data

    moved.__dict__["projections"] = (carts,)
    assert list(commands.plan(moved).left_behind) == left
    rebuilt = commands.rebuild(moved, snapshots=True)
    assert rebuilt.results[0].rows == {"eventmig_snapshots": 2}
    assert rebuilt.owners is not None
    assert rebuilt.owners.why_not[0].startswith(f"2 snapshots in {name} are of a form that")
    assert list(map(str, commands.upcast(moved).left_behind)) == left
    assert run(postgres_url, "old", f"SELECT count(*) FROM {name}") == [(2,)]


def test_snapshots_of_events_that_are_taken_back_go(tmp_path: Path, postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "axon")
    run(postgres_url, "old", *case.tables, *case.rows)
    table = "snapshot_event_entry (aggregate_identifier varchar, sequence_number bigint)"
    run(postgres_url, "new", *case.tables, f"CREATE TABLE {table}")
    both = {name: place(postgres_url, "axon", name) for name in ("old", "new")}
    moved = project(tmp_path, RENAME, source=both["old"], target=both["new"])
    commands.upcast(moved)
    taken = "INSERT INTO snapshot_event_entry VALUES ('cart-1', 1), ('cart-9', 1)"
    run(postgres_url, "new", taken)
    commands.cancel(moved)
    left = run(postgres_url, "new", "SELECT * FROM snapshot_event_entry")
    assert left == [("cart-9", 1)], "of no stream of the job"


def test_emmett_on_sqlite(tmp_path: Path) -> None:
    source, target = tmp_path / "emmett.db", tmp_path / "new.db"
    connection = sqlite3.connect(source)
    for statement in (*tables.EMMETT_SQLITE, *tables.EMMETT_ROWS):
        connection.execute(statement)
    connection.commit()
    connection.close()
    moved = project(
        tmp_path,
        RENAME,
        source=f"sqlite:///{source}?layout=emmett",
        target=f"sqlite:///{target}?layout=emmett",
    )
    assert commands.inspect(Project.open(), f"sqlite:///{source}").layout == "emmett"
    assert commands.upcast(moved).ready
    connection = sqlite3.connect(target)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT * FROM emt_streams ORDER BY stream_id").fetchall() == [
        ("cart-1", 3, "[object Object]", "cart", "[]", 0),
        ("cart-2", 2, "[object Object]", "cart", "[]", 0),
    ]
    rows = connection.execute(
        "SELECT stream_id, stream_position, partition, message_kind, message_data,"
        " message_metadata, message_type, message_id, is_archived, global_position, created"
        " FROM emt_messages ORDER BY global_position LIMIT 2"
    ).fetchall()
    connection.close()
    time = "2026-01-02 03:04:05"
    first = ('{"name":"Zoë"}', '{"who":"ada"}', "Opened", "a-1")
    second = ('{"amount":"1.50"}', "{}", "Added", "a-2")
    assert rows == [
        ("cart-1", n, "emt:default", "E", *parts, 0, n, time)
        for n, parts in ((1, first), (2, second))
    ]
    assert commands.cancel(moved) == 5
    connection = sqlite3.connect(target)
    assert connection.execute("SELECT count(*) FROM emt_streams").fetchone() == (0,)
    connection.close()


@contextmanager
def appending(store_url: str, stream: str) -> Iterator[None]:
    """An open transaction of a job that has appended one event to this stream."""
    metadata = b'{"$columns": {"new_stream_start": "f", "archived": "f"}}'
    late = event(stream, "Late", {}, metadata=metadata)._replace(stream_position=9, recorded_at=0)
    with closing(open_store(store_url, mode="write")) as store, store.begin() as tx:
        tx.append_copied([late])
        yield


def test_the_owners_advisory_lock_is_held_until_a_batch_commits(postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "patchlevel")
    run(postgres_url, "old", *case.tables)
    free = "SELECT pg_try_advisory_xact_lock(133742)"
    with appending(place(postgres_url, case.layout, "old"), "cart-1"):
        assert run(postgres_url, "old", free) == [(False,)]
    assert run(postgres_url, "old", free) == [(True,)]


def test_a_lock_per_stream_is_another_one_for_each(postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "patchlevel")
    run(postgres_url, "old", *case.tables)
    lock = "pg_advisory_xact_lock(hashtext({stream} || '100%'))"
    described = json.dumps({"name": "own", "preset": "patchlevel", "lock": lock})
    free = "SELECT pg_try_advisory_xact_lock(hashtext('{}100%'))"
    with appending(place(postgres_url, quote(described), "old"), "cart-1"):
        assert run(postgres_url, "old", free.format("cart-1")) == [(False,)]
        assert run(postgres_url, "old", free.format("cart-2")) == [(True,)]


def test_a_function_that_is_not_there_is_named(postgres_url: str) -> None:
    case = next(case for case in CASES if case.layout == "patchlevel")
    run(postgres_url, "old", *case.tables)
    described = json.dumps({"name": "own", "preset": "patchlevel", "lock": "bolt({category})"})
    with (
        pytest.raises(NotAStoreError, match=r"lacks a function .*bolt\(text\) does not exist"),
        appending(place(postgres_url, quote(described), "old"), "cart-1"),
    ):
        pass


@pytest.mark.parametrize(
    ("dialect", "more", "why"),
    [
        ("postgresql", {"guard": "call"}, "lock goes with guard"),
        ("postgresql", {"lock": "f()"}, "lock goes with guard"),
        ("postgresql", {"guard": "call", "lock": "f({stream}, {category})"}, "not for both"),
        ("sqlite", {"guard": "exclusive"}, "SQLite has one writer"),
        ("sqlite", {"notify": "news"}, "SQLite has one writer"),
    ],
)
def test_a_guard_that_cannot_be_is_refused(
    dialect: Literal["postgresql", "sqlite"], more: dict[str, str], why: str
) -> None:
    description = {
        "table": "t", "position": "id", "tail": "barrier", "data": {"column": "data"},
        "stream": {"columns": ["s"], "position": "p"}, "type": {"column": "type"},
    }  # fmt: skip
    assert described("own", description, dialect).notify == ""
    with pytest.raises(ConfigError, match=why):
        described("own", description | more, dialect)


def test_a_second_table_of_castore_stands_beside_the_first(
    tmp_path: Path, postgres_url: str
) -> None:
    """Its indexes cannot have the names of the first one's."""
    case = next(case for case in CASES if case.layout == "castore")
    run(postgres_url, "old", *case.tables, *case.rows)
    source = place(postgres_url, case.layout, "old")
    moved = project(tmp_path, RENAME, source=source, target=f"{source}&table=event_v2")
    assert commands.upcast(moved).ready
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0"
    assert run(postgres_url, "old", columns.format("event_v2")) == run(
        postgres_url, "old", columns.format("event")
    )
    indexes = "SELECT indexname FROM pg_indexes WHERE tablename = 'event_v2' ORDER BY 1"
    assert [name for (name,) in run(postgres_url, "old", indexes)] == [
        "event_v2_aggregate_name_aggregate_id_version_key",
        "event_v2_pkey",
        "idx_event_v2_aggregate_lookup",
        "idx_event_v2_aggregate_name",
        "idx_event_v2_version",
    ]


def test_a_table_with_rules_gets_inserts(tmp_path: Path, postgres_url: str) -> None:
    """COPY would not run them."""
    case = next(case for case in CASES if case.layout == "castore")
    rule = (
        "CREATE TABLE seen (id bigint)",
        "CREATE RULE see AS ON INSERT TO event DO ALSO INSERT INTO seen VALUES (NEW.id)",
    )
    run(postgres_url, "old", *case.tables, *case.rows)
    run(postgres_url, "new", *case.tables, *rule)
    moved = project(
        tmp_path,
        RENAME,
        source=place(postgres_url, case.layout, "old"),
        target=place(postgres_url, case.layout, "new"),
    )
    assert commands.upcast(moved).ready
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM new.seen").fetchone() == (5,)
