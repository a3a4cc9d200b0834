"""As a new user would: a database of the eventsourcing library, and nothing but the commands."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from eventmig import commands
from eventmig.project import Project
from eventmig.stores.open import open_store
from tests.acceptance.support import cli, event, imported, project
from tests.layouts.library import begin_till, postgres, sqlite, till

UPCASTERS = '''
"""One step: prices are whole cents."""

from decimal import Decimal

from eventmig import Registry, data_upcaster


@data_upcaster("till:Sale.Rung", 1)
def in_cents(data: dict) -> dict:
    """Text was a bad idea."""
    return data | {"cents": int(Decimal(data.pop("price")) * 100)}


registry = Registry([in_cents])
'''
PROJECTION = """
from eventmig import Event
from eventmig.rebuild import ReadModel, Rows
from sqlalchemy import Column, Integer, MetaData, String, Table

rung = Table(
    "rung", MetaData(), Column("key", String, primary_key=True), Column("count", Integer, default=0)
)
model = ReadModel("rung", tables=[rung])


@model.on("till:Sale.Rung")
def count(data: dict, event: Event, rows: Rows) -> None:
    rows.increment(rung, key="all", count=1)


projections = [model]
"""
CONFIG = """
registry = "upcasters:registry"
source = "{source}"
target = "sqlite:///till-{{release}}.db?layout={layout}"
"""


def test_from_a_database_of_the_library_to_its_reader_on_the_result(tmp_path: Path) -> None:
    database = tmp_path / "till.db"
    settings = sqlite(database, create=True)
    till(tmp_path, "write", 1, **settings)
    expected = till(tmp_path, "read", 1, **settings)
    mode = sqlite3.connect(database)
    assert mode.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    mode.close()
    before = database.read_bytes()

    looked = cli(tmp_path, "inspect", "sqlite:///till.db")
    assert looked.returncode == 0, looked.stderr
    assert "eventsourcing 9 (Python)" in looked.stdout
    assert max(map(len, looked.stdout.splitlines())) <= 80
    found = json.loads(cli(tmp_path, "inspect", "sqlite:///till.db", "--json").stdout)
    assert (found["layout"], found["events"], found["streams"]) == ("eventsourcing", 78, 12)
    assert len(found["shown"]) == 10
    assert found["types"] == [["till:Sale.Opened", 1, 12], ["till:Sale.Rung", 1, 66]]
    assert found["refused"] == []
    assert found["left_behind"] == [{"number": 3, "table": "stored_snapshots", "streams": ""}]
    assert "3 snapshots in stored_snapshots stay behind" in looked.stdout
    assert database.read_bytes() == before

    work = tmp_path / "work"
    assert cli(tmp_path, "init", "work").returncode == 0
    (work / "upcasters" / "__init__.py").write_text(UPCASTERS)
    config = CONFIG.format(source=found["source"], layout="eventsourcing")
    (work / "eventmig.toml").write_text(config)
    assert cli(work, "release", "3").returncode == 0
    planned = cli(work, "plan")
    assert planned.returncode == 0, planned.stderr
    assert "66 upcast" in planned.stdout
    assert "3 snapshots in stored_snapshots stay behind" in planned.stdout
    done = cli(work, "upcast")
    assert done.returncode == 0, done.stderr
    assert "0 mismatches" in done.stdout
    assert "3 snapshots in stored_snapshots stay behind" in done.stdout
    assert database.read_bytes() == before

    result = sqlite(work / "till-3.db")
    assert till(tmp_path, "read", 2, **result) == expected
    assert till(tmp_path, "add", 2, **result) == "79 13"
    again = json.loads(cli(work, "inspect", "sqlite:///till-3.db", "--json").stdout)
    assert again["types"] == [["till:Sale.Opened", 1, 12], ["till:Sale.Rung", 2, 67]]


def test_compressed_states_stay_compressed(tmp_path: Path) -> None:
    zlib = {"COMPRESSOR_TOPIC": "zlib"}
    source, target = tmp_path / "till.db", tmp_path / "new.db"
    till(tmp_path, "write", 1, **sqlite(source, create=True, **zlib))
    (tmp_path / "steps_here.py").write_text(UPCASTERS)
    assert commands.inspect(Project.open(), f"sqlite:///{source}").layout == "eventsourcing-zlib"
    moved = project(
        tmp_path,
        imported(tmp_path / "steps_here.py").registry,
        source=f"sqlite:///{source}?layout=eventsourcing-zlib",
        target=f"sqlite:///{target}?layout=eventsourcing-zlib",
    )
    assert commands.upcast(moved).ready
    expected = till(tmp_path, "read", 1, **sqlite(source, **zlib))
    assert till(tmp_path, "read", 2, **sqlite(target, **zlib)) == expected
    assert till(tmp_path, "add", 2, **sqlite(target, **zlib)) == "79 13"


def test_on_postgres_the_library_reads_and_appends_in_the_new_schema(
    tmp_path: Path, postgres_url: str
) -> None:
    till(tmp_path, "write", 1, **postgres(postgres_url, create=True))
    (tmp_path / "steps_here.py").write_text(UPCASTERS)
    found = commands.inspect(Project.open(), postgres_url)
    assert (found.layout, found.table, found.events) == ("eventsourcing", "till_events", 78)
    moved = project(
        tmp_path,
        imported(tmp_path / "steps_here.py").registry,
        source=found.source,
        target=f"{found.source}&schema=v2".replace("&schema=public", ""),
    )
    assert commands.upcast(moved).ready
    expected = till(tmp_path, "read", 1, **postgres(postgres_url))
    assert till(tmp_path, "read", 2, **postgres(postgres_url, "v2")) == expected
    assert till(tmp_path, "add", 2, **postgres(postgres_url, "v2")) == "79 13"


def test_a_subscriber_of_the_library_is_woken_by_a_job(tmp_path: Path, postgres_url: str) -> None:
    till(tmp_path, "write", 1, **postgres(postgres_url, create=True))
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA v2")
    target = postgres(postgres_url, "v2", create=True)
    with begin_till(tmp_path, "follow", 2, LAST="78", **target) as subscriber:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "following\n"
        (tmp_path / "steps_here.py").write_text(UPCASTERS)
        option = "&" if "?" in postgres_url else "?"
        source = f"{postgres_url}{option}layout=eventsourcing&table=till_events"
        registry = imported(tmp_path / "steps_here.py").registry
        moved = project(tmp_path, registry, source=source, target=f"{source}&schema=v2")
        assert commands.upcast(moved).ready
        try:
            printed, _ = subscriber.communicate(timeout=60)
        finally:
            subscriber.kill()
    assert printed.split() == [str(n) for n in range(1, 79)]


def test_the_library_waits_for_a_batch(tmp_path: Path, postgres_url: str) -> None:
    """It takes this lock itself, before it appends."""
    till(tmp_path, "write", 1, **postgres(postgres_url, create=True))
    option = "&" if "?" in postgres_url else "?"
    url = f"{postgres_url}{option}layout=eventsourcing&table=till_events"
    state = {"timestamp": {"_type_": "datetime_iso", "_data_": "1970-01-01T00:00:00+00:00"}}
    one = event("00000000-0000-4000-8000-000000000001", "till:Sale.Opened", state, metadata=None)
    lock = "LOCK TABLE till_events IN EXCLUSIVE MODE NOWAIT"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        with closing(open_store(url, mode="write")) as store, store.begin() as tx:
            tx.append_copied([one._replace(stream_position=1, recorded_at=0)])
            with pytest.raises(psycopg.errors.LockNotAvailable), connection.transaction():
                connection.execute(lock)
        with connection.transaction():
            connection.execute(lock)


def test_encrypted_states_are_refused_by_name(tmp_path: Path) -> None:
    key = {"CIPHER_TOPIC": "cipher:Cipher", "CIPHER_KEY": "a secret"}
    (tmp_path / "cipher.py").write_text(
        "class Cipher:\n"
        "    def __init__(self, environment): pass\n"
        "    def encrypt(self, text): return bytes(byte ^ 0xA5 for byte in text)\n"
        "    decrypt = encrypt\n"
    )
    till(tmp_path, "write", 1, **sqlite(tmp_path / "till.db", create=True, **key))
    looked = cli(tmp_path, "inspect", "sqlite:///till.db")
    assert looked.returncode == 1
    assert "encrypted, or packed in a way nobody can see" in " ".join(looked.stdout.split())
    (tmp_path / "upcasters.py").write_text(UPCASTERS)
    source = "sqlite:///till.db?layout=eventsourcing"
    config = CONFIG.format(source=source, layout="eventsourcing")
    (tmp_path / "eventmig.toml").write_text(config)
    assert cli(tmp_path, "release", "2").returncode == 0
    refused = cli(tmp_path, "upcast")
    assert refused.returncode == 4
    assert "encrypted" in refused.stderr
    assert not (tmp_path / "till-2.db").exists()


def test_read_models_can_live_beside_the_owners_events(tmp_path: Path) -> None:
    till(tmp_path, "write", 1, **sqlite(tmp_path / "till.db", create=True))
    (tmp_path / "views.py").write_text(PROJECTION)
    (tmp_path / "upcasters.py").write_text(UPCASTERS)
    config = CONFIG.format(source="sqlite:///till.db?layout=eventsourcing", layout="eventsourcing")
    (tmp_path / "eventmig.toml").write_text('projections = "views:projections"' + config)
    for command in (["release", "2"], ["upcast", "--workers", "2"], ["rebuild", "--all"]):
        done = cli(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    connection = sqlite3.connect(tmp_path / "till-2.db")
    assert connection.execute("SELECT * FROM rung").fetchall() == [("all", 66)]
    connection.close()
    assert till(tmp_path, "add", 2, **sqlite(tmp_path / "till-2.db")) == "79 13"
