"""Stores of JavaScript libraries: each writes one, it is migrated, and each reads it and appends.

Where npm is not at hand they are skipped, and the run's end says which owner proved nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from eventmig import commands
from eventmig.project import Project
from tests.acceptance.support import project
from tests.layouts.carts import (
    REGISTRY,
    Library,
    followed,
    history,
    message,
    migrated,
    priced,
    server,
)
from tests.postgres import Server

CARTS = [f"cart-{n}" for n in range(1, 5)]
CASTORE_CARTS = [f"CART-00000000-0000-4000-8000-00000000000{n}" for n in range(1, 5)]
SOME = 7
"""Events of a batch: few, so that a job has several."""


def layout(url: str, name: str, more: str = "") -> str:
    return f"{url}{'&' if '?' in url else '?'}layout={name}{more}"


def mode(file: Path) -> str:
    """The journal mode of a SQLite file."""
    connection = sqlite3.connect(file)
    found = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    return str(found[0])


def wal(file: Path) -> None:
    """Make an empty SQLite file in WAL mode."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


@pytest.mark.parametrize("place", ["table=event_v2", "schema=v2", "table=event_v2 of text ids"])
def test_castore_reads_and_appends(
    tmp_path: Path, owner: Callable[[str], Path], postgres_url: str, place: str
) -> None:
    found = server(postgres_url)
    if text_ids := place.endswith("ids"):
        found |= {"TEXT_IDS": "1"}
    there = {"TABLE": "event_v2"}
    if place.startswith("schema"):
        there = {"DATABASE_URL": f"{found['DATABASE_URL']}?search_path=v2"}
    folder = owner("castore")
    old, new = Library(folder, **found), Library(folder, **found | there)
    streams = [f"CART-my-cart-{n}" for n in range(1, 5)] if text_ids else CASTORE_CARTS
    old.make()
    assert "refused" not in old.append(history(streams, bare=True))
    before, _ = old.read()
    looked = commands.inspect(Project.open(), postgres_url)
    assert (looked.layout, looked.events, looked.refused) == ("castore", 40, ())

    if text_ids:  # the table that a job makes holds UUIDs
        new.make()
    source = layout(postgres_url, "castore")
    target = f"{source}&{place.split()[0]}"
    moved = project(tmp_path, REGISTRY, source=source, target=target, batch_size=SOME)
    report = commands.upcast(moved)
    assert report.ready
    assert min(report.job.tally.copied, report.job.tally.upcast, report.job.tally.dropped) > 0

    after, _ = new.read()
    assert after == migrated(before)
    assert old.read()[0] == before
    cart = streams[0]
    last = len(after[cart])
    assert new.append([message(cart, last), message(cart, last)]) == [last + 1, "refused"]
    assert new.read()[0][cart][-1]["data"] == {"amount": "99.00"}
    with psycopg.connect(postgres_url) as connection:
        names = connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name IN ('event', 'event_v2')"
        ).fetchall()
    assert len(names) == 2 * len(set(names)) == 16


def test_emmett_on_postgresql_reads_follows_and_appends(
    tmp_path: Path, owner: Callable[[str], Path], postgres_url: str, postgres_server: Server
) -> None:
    folder = owner("emmett-postgresql")
    with postgres_server.database() as other:
        old, new = (Library(folder, **server(url)) for url in (postgres_url, other))
        old.make()
        with psycopg.connect(postgres_url) as early:
            early.execute("SELECT pg_current_xact_id()")
            assert "refused" not in old.append(history(CARTS))
            early.execute(
                "SELECT emt_append_to_stream(ARRAY['e-1'], ARRAY['{\"price\": 1}'::jsonb],"
                " ARRAY['{}'::jsonb], ARRAY['1'], ARRAY['Added'], ARRAY['E'], 'early', 'early', 0,"
                " 'emt:default')"
            )
        before, order = old.read()
        assert order[0] == ["early", 1, "Added"], "by transaction, though its position is the last"
        looked = commands.inspect(Project.open(), postgres_url)
        assert (looked.layout, looked.events, looked.refused) == ("emmett", 41, ())
        assert looked.order == ("transaction_id", "global_position")

        new.make()
        source, target = (layout(url, "emmett") for url in (postgres_url, other))
        moved = project(tmp_path, REGISTRY, source=source, target=target, batch_size=SOME)
        assert commands.upcast(moved).ready
        old.append([priced("cart-5", 0), priced("cart-1", len(before["cart-1"]))])
        before, order = old.read()
        assert commands.upcast(moved).job.tally.read == 43

        after, seen = new.read()
        assert (after, seen) == (migrated(before), followed(order))
        last = len(after["cart-1"])
        given = [message("cart-1", last), message("cart-1", last), message("cart-9", 0)]
        assert new.append(given) == [last + 1, "refused", 1]
        again, seen = new.read()
        assert again["cart-1"][-1]["data"] == {"amount": "99.00"}
        assert seen[-2:] == [["cart-1", last + 1, "Added"], ["cart-9", 1, "Added"]]


@pytest.mark.parametrize(
    ("version", "made_by"), [("0.38", "eventmig"), ("0.38", "Emmett"), ("0.42", "eventmig")]
)
def test_emmett_on_sqlite_reads_follows_and_appends(
    tmp_path: Path, owner: Callable[[str], Path], version: str, made_by: str
) -> None:
    folder = owner("emmett-sqlite")
    source, target = tmp_path / "emmett.db", tmp_path / "new.db"
    old, new = (
        Library(folder, EMMETT=version, DATABASE_FILE=str(file)) for file in (source, target)
    )
    wal(source)  # 0.42 cannot make a new file reliably: it switches and writes at once
    old.make()
    assert "refused" not in old.append(history(CARTS))
    before, order = old.read(LAST="40")
    looked = commands.inspect(Project.open(), f"sqlite:///{source}")
    assert (looked.layout, looked.events, looked.refused) == ("emmett", 40, ())

    if made_by == "Emmett":
        wal(target)
        new.make()
    urls = {
        name: f"sqlite:///{file}?layout=emmett"
        for name, file in (("source", source), ("target", target))
    }
    report = commands.upcast(project(tmp_path, REGISTRY, batch_size=SOME, **urls))
    assert report.ready
    assert mode(target) == "wal"

    new.make()  # the tables of its consumers
    written = report.job.tally.written
    after, seen = new.read(LAST=str(written))
    assert (after, seen) == (migrated(before), followed(order))
    last = len(after["cart-1"])
    given = [message("cart-1", last), message("cart-9", 0), message("cart-2", 1)]
    assert new.append(given) == [last + 1, 1, "refused"]
    again, seen = new.read(LAST=str(written + 2))
    assert again["cart-1"][-1]["data"] == {"amount": "99.00"}
    assert seen[-2:] == [["cart-1", last + 1, "Added"], ["cart-9", 1, "Added"]]
    connection = sqlite3.connect(target)
    heads = dict(connection.execute("SELECT stream_id, stream_position FROM emt_streams"))
    connection.close()
    assert heads["cart-3"] == len(after["cart-3"])
