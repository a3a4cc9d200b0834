"""A schema version deep inside of data or metadata: read there, written there, nothing else."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from eventmig import Registry, commands, ops, upcaster
from eventmig.errors import DataError
from eventmig.project import Project
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, project, sql
from tests.layouts.tables import CASES, RENAMED
from tests.layouts.test_documented_tables import place, run

RENAME = Registry([upcaster("Added", 1, ops.rename("price", "amount"))])
MICROS = {"column": "time", "encoding": "us"}
JOURNAL = (
    "CREATE TABLE journal (no INTEGER PRIMARY KEY, id TEXT UNIQUE, stream TEXT, at INTEGER,"
    " type TEXT, data TEXT, meta TEXT, time INTEGER, UNIQUE (stream, at))"
)


def journal(
    path: Path,
    where: str,
    name: str = "about.schema.version",
    *,
    time: dict[str, str] | None = MICROS,
    **more: object,
) -> str:
    """A store of our own on SQLite, with the schema version at a path of data or metadata."""
    description = {
        "name": "own",
        "table": "journal",
        "position": "no",
        "tail": "single",
        "stream": {"columns": ["stream"], "position": "at"},
        "id": {"column": "id"},
        "type": {"column": "type"},
        "version": {"place": where, "name": name, **more},
        "data": {"column": "data"},
        "metadata": {"column": "meta"},
        "time": time,
    }
    return f"sqlite:///{path}?layout={quote(json.dumps(description))}"


def inserted(*rows: tuple[str, int, str, str, str | None]) -> list[str | tuple[str, Any]]:
    """Statements that make a journal of (stream, position, type, data, metadata)."""
    insert = "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, 7)"
    made: list[str | tuple[str, Any]] = [JOURNAL]
    for n, (stream, at, type_, *payloads) in enumerate(rows, 1):
        made.append((insert, (n, f"id-{n}", stream, at, type_, *payloads)))
    return made


def versions(source: str) -> list[tuple[str, int, bytes, bytes | None]]:
    with closing(open_store(source)) as store:
        events = [e for batch in store.read_all() for e in batch]
        pages = [row for batch in store.read_data(types=["Added"]) for row in batch]
        assert [e.data for e in events if e.type == "Added"] == [row[3] for row in pages]
        assert {(c.type, c.schema_version) for c in store.type_counts()} == {
            (e.type, e.schema_version) for e in events
        }
        for one in events:
            assert one in list(store.read_stream(one.stream))
        return [(e.type, e.schema_version, e.data, e.metadata) for e in events]


def test_it_is_read_written_and_verified_in_the_data(tmp_path: Path) -> None:
    sql(
        tmp_path / "old.db",
        *inserted(
            ("a-1", 1, "Added", '{ "price":1.10, "about" : {"by":"ada"} }', None),
            ("a-1", 2, "Added", '{"about":{"schema":{"version":2,"x":1}},"amount":2.0}', None),
            ("a-1", 3, "Added", '{"price":"about version"}', '{"about":1}'),
            ("a-1", 4, "Closed", '{"about":{"schema":{"version":1 }}, "n":1e5}', None),
        ),
    )
    old, new = (journal(tmp_path / f"{name}.db", "data") for name in ("old", "new"))
    sql(tmp_path / "new.db", JOURNAL)
    kinds = [(type_, version) for type_, version, _, _ in versions(old)]
    assert kinds == [("Added", 1), ("Added", 2), ("Added", 1), ("Closed", 1)]
    report = commands.upcast(project(tmp_path, RENAME, source=old, target=new))
    assert report.ready
    assert (report.job.tally.copied, report.job.tally.upcast) == (2, 2)
    stored = sql_rows(tmp_path / "new.db", "SELECT data, meta FROM journal ORDER BY no")
    assert stored[1] == ('{"about":{"schema":{"x":1,"version":2}},"amount":2.0}', None)
    assert stored[3] == ('{"about":{"schema":{"version":1 }}, "n":1e5}', None)
    first, third = (json.loads(stored[n][0]) for n in (0, 2))
    assert first == {"amount": 1.10, "about": {"by": "ada", "schema": {"version": 2}}}
    assert third == {"amount": "about version", "about": {"schema": {"version": 2}}}
    assert [version for _, version, _, _ in versions(new)] == [2, 2, 2, 1]


def test_it_is_written_into_metadata(tmp_path: Path) -> None:
    fill(
        tmp_path / "source.db",
        [
            event("a-1", "Added", {"price": 1}, metadata=b'{ "trace" : {"id":1.10} }'),
            event("a-1", "Added", {"price": 2}, metadata=None),
            event("a-1", "Closed", {}, metadata=b'{"trace":{"id":2}}'),
        ],
    )
    new = journal(tmp_path / "new.db", "metadata", "trace.version", text=True)
    sql(tmp_path / "new.db", JOURNAL)
    assert commands.upcast(project(tmp_path, RENAME, target=new)).ready
    assert sql_rows(tmp_path / "new.db", "SELECT meta FROM journal ORDER BY no") == [
        ('{ "trace" : {"id":1.10,"version":"2"} }',),
        ('{"trace":{"version":"2"}}',),
        ('{"trace":{"id":2}}',),
    ]
    assert [version for _, version, _, _ in versions(new)] == [2, 2, 1]


def test_where_no_object_is_the_event_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [event("a-1", "Added", {"price": 1, "about": "me"})])
    sql(tmp_path / "new.db", JOURNAL)
    moved = project(tmp_path, RENAME, target=journal(tmp_path / "new.db", "data"))
    with pytest.raises(DataError, match=r"no object to hold that at 'about\.schema\.version'"):
        commands.upcast(moved)


def test_a_time_that_has_no_place_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [event("a-1", "Closed", {}, metadata=None)])
    sql(tmp_path / "new.db", JOURNAL)
    target = journal(tmp_path / "new.db", "data", time=None)
    with pytest.raises(DataError, match="has no place for it"):
        commands.upcast(project(tmp_path, RENAME, target=target))


@pytest.mark.parametrize("where", ["data", "metadata"])
def test_it_is_verified_as_jsonb_spells_it(tmp_path: Path, postgres_url: str, where: str) -> None:
    case = next(case for case in CASES if case.layout == "castore")
    run(postgres_url, "old", *case.tables, *case.rows)
    run(postgres_url, "new", *case.tables)
    version = {"place": where, "name": "about.version"}
    own = quote(json.dumps({"name": "own", "preset": "castore", "version": version}))
    moved = project(
        tmp_path,
        RENAME,
        source=place(postgres_url, own, "old"),
        target=place(postgres_url, own, "new"),
    )
    assert commands.upcast(moved).ready
    column = {"data": "data", "metadata": "coalesce(metadata, '{}')"}[where]
    held = f"SELECT ({column} #>> '{{about,version}}')::int FROM event ORDER BY id"
    assert [n for (n,) in run(postgres_url, "new", held)] == [None, None, 2, 2, 2]
    amounts = run(postgres_url, "new", "SELECT data ->> 'amount' FROM event ORDER BY id")
    assert {f'{{"amount":"{a}"}}' for (a,) in amounts if a} <= set(RENAMED.values())
    assert commands.inspect(Project.open(), place(postgres_url, own, "new")).types == (
        ("Added", 2, 3),
        ("Opened", 1, 2),
    )


def sql_rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()
