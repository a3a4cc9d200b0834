"""Jobs on described tables: failed and resumed, tampered with, on a live PostgreSQL."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import Registry, commands, data_upcaster, split_upcaster
from eventmig.errors import EventmigError, JobLockedError, StoreError, UpcastError
from eventmig.project import Project
from eventmig.stores.layouts.description import Guard
from eventmig.stores.layouts.guard import Guarding
from eventmig.stores.layouts.presets import resolve
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, project, sql
from tests.layouts.library import sqlite, till
from tests.layouts.test_message_db import STEPS, append, layout, make, messages
from tests.postgres import Server

RUNG = "till:Sale.Rung"


@data_upcaster(RUNG, 1)
def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"cents": int(data.pop("price").replace(".", ""))}


def moved(folder: Path, registry: Registry, **config: Any) -> Project:
    return project(
        folder,
        registry,
        source=f"sqlite:///{folder}/till.db?layout=eventsourcing",
        target=f"sqlite:///{folder}/new.db?layout=eventsourcing",
        **config,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    till(tmp_path, "write", 1, **sqlite(tmp_path / "till.db", create=True))
    return tmp_path


def rows(path: Path, *tables: str) -> list[list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    try:
        return [
            connection.execute(f"SELECT rowid, * FROM {table} ORDER BY 1").fetchall()
            if not table.startswith("eventmig")
            else connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in tables
        ]
    finally:
        connection.close()


BOTH = ("stored_events", "eventmig_layout_origins")


def test_a_job_that_failed_midway_ends_as_if_it_had_not(folder: Path) -> None:
    broken = []

    @data_upcaster(RUNG, 1)
    def breaks(data: dict[str, Any]) -> dict[str, Any]:
        if data["price"] == "7.09" and broken:
            raise ValueError("not today")
        return data | {"cents": int(data.pop("price").replace(".", ""))}

    shop = moved(folder, Registry([breaks]), batch_size=9)
    broken.append(True)
    with pytest.raises(UpcastError, match="not today"):
        commands.upcast(shop)
    assert 0 < len(rows(folder / "new.db", "stored_events")[0]) < 78
    broken.clear()
    report = commands.upcast(shop)
    assert (report.ready, report.resumed) == (True, True)
    resumed = rows(folder / "new.db", *BOTH)

    (folder / "new.db").unlink()
    assert commands.upcast(moved(folder, Registry([breaks]))).ready
    assert rows(folder / "new.db", *BOTH) == resumed


def test_a_split_renumbers_and_keeps_every_origin(folder: Path) -> None:
    @split_upcaster(RUNG, 1, into=[(RUNG, 2), (RUNG, 2)])
    def twice(data: dict[str, Any]) -> list[tuple[str, Any]]:
        cents = int(data.pop("price").replace(".", ""))
        return [(RUNG, data | {"cents": cents}), (RUNG, data | {"cents": 0})]

    assert commands.upcast(moved(folder, Registry([twice]))).ready
    store = open_store(f"sqlite:///{folder}/new.db?layout=eventsourcing")
    events = [e for batch in store.read_all() for e in batch]
    assert len({e.id for e in events}) == len(events) == 12 + 2 * 66
    assert all(len(e.origins) == 1 for e in events)
    assert store.event(events[-1].id) == events[-1]
    store.close()
    old = till(folder, "read", 1, **sqlite(folder / "till.db"))
    new = till(folder, "read", 2, **sqlite(folder / "new.db"))
    assert [row[:2] for row in eval(new)] == [row[:2] for row in eval(old)]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM stored_events WHERE rowid = 40",
        "UPDATE stored_events SET state = replace(state, 'cents', 'cent') WHERE rowid = 41",
        "UPDATE stored_events SET topic = 'till:Sale.Other' WHERE rowid = 41",
        "UPDATE stored_events SET originator_version = 90 WHERE rowid = 41",
        "UPDATE stored_events SET rowid = 990 WHERE rowid = 41",
        "INSERT INTO stored_events SELECT originator_id, 91, topic, state FROM stored_events"
        " WHERE rowid = 41",
        "UPDATE eventmig_layout_origins SET stream_position = 77 WHERE global_position = 41",
    ],
)
def test_the_verifier_finds_what_was_tampered_with(folder: Path, damage: str) -> None:
    shop = moved(folder, Registry([in_cents]))
    assert commands.upcast(shop).ready
    sql(folder / "new.db", damage)
    found = commands.verify(shop).verification
    assert found is not None
    assert not found.right


@pytest.mark.parametrize("opaque", ["'{\"a\": tru}'", "'gAAAA'", "x''", "'{\"price\":1}'"])
def test_what_the_sample_did_not_see_is_found_before_it_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, opaque: str
) -> None:
    monkeypatch.setattr("eventmig.stores.layouts.read._PARTS", 1)
    monkeypatch.setattr("eventmig.stores.layouts.read._SAMPLE", 5)
    broken = f"UPDATE stored_events SET state = CAST({opaque} AS BLOB) WHERE rowid = 40"
    if "price" in opaque:
        broken = broken.replace(opaque, "replace(CAST(state AS TEXT), '2', 'x')")
    sql(folder / "till.db", broken)
    with pytest.raises(EventmigError) as raised:
        commands.upcast(moved(folder, Registry([in_cents]), batch_size=9))
    assert raised.value.where.global_position == 40
    assert [row[0] for row in rows(folder / "new.db", "stored_events")[0]] == list(range(1, 37))


def test_one_job_at_a_time(folder: Path) -> None:
    target = f"sqlite:///{folder}/new.db?layout=eventsourcing"
    holder = open_store(target, mode="create")
    with holder.lock(), pytest.raises(JobLockedError):
        commands.upcast(moved(folder, Registry([in_cents])))
    holder.close()


def test_one_job_at_a_time_on_postgres(postgres_url: str) -> None:
    make(postgres_url)
    first, second = (open_store(layout(postgres_url), mode="write") for _ in range(2))
    with first.lock():
        assert second.held()
        with pytest.raises(JobLockedError), second.lock():
            pass
    assert not second.held()
    with second.lock():
        pass
    first.close()
    second.close()


def test_the_safe_head_waits_for_a_lower_position(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(postgres_url)
    slow = psycopg.connect(postgres_url)
    insert = (
        "INSERT INTO message_store.messages (stream_name, position, type, data)"
        " VALUES ('order-1', 0, 'Slow', '{}')"
    )
    slow.execute(insert)
    append(postgres_url, "order-2", 0)  # a higher position, committed first
    store = open_store(layout(postgres_url))
    timer = threading.Timer(0.3, slow.commit)
    timer.start()
    assert store.head_position() == 2
    timer.join()
    assert [e.type for batch in store.read_all() for e in batch] == ["Slow", "AfterMigration"]

    monkeypatch.setattr("eventmig.stores.layouts.postgres._LOCK_WAIT", "300ms")
    slow.execute(insert.replace("0", "1"))
    with pytest.raises(StoreError, match=r"was not given within 300ms: it waits for session \d+ "):
        store.head_position()
    slow.rollback()
    slow.close()
    store.close()


NOT_GIVEN = r"the lock that the owner takes .* not given within 100ms: session \d+ \(the shop\)"


def test_an_owner_who_keeps_its_lock_is_waited_for_and_named(
    tmp_path: Path, postgres_url: str
) -> None:
    """As long as any lock of others is; then the job says what it waited for, and goes on later."""
    make(postgres_url)
    with open_store(layout(postgres_url), mode="write") as store, store.begin() as tx:
        assert tx.connection.exec_driver_sql("SHOW lock_timeout").scalar() == "30s"
    fill(tmp_path / "source.db", [event("order-1", "Placed", {"customerName": "Ada L"})])
    impatient = layout(postgres_url, more="&options=-c lock_timeout=100ms")
    its = project(tmp_path, Registry(STEPS), target=impatient)
    with psycopg.connect(postgres_url, application_name="the shop") as holder:
        holder.execute("SELECT message_store.acquire_lock('order')")
        with pytest.raises(StoreError, match=NOT_GIVEN):
            commands.upcast(its)
    assert commands.upcast(its).ready
    assert len(messages(postgres_url)) == 1


def test_an_owner_who_keeps_its_table_is_named_too(postgres_url: str) -> None:
    make(postgres_url)
    preset = resolve("message-db", "postgresql")
    exclusive = preset.model_copy(update={"guard": Guard.EXCLUSIVE, "lock": ""})
    url = layout(postgres_url, more="&options=-c lock_timeout=100ms")
    with (
        psycopg.connect(postgres_url, application_name="the shop") as holder,
        open_store(url, mode="write") as store,
    ):
        holder.execute("LOCK TABLE message_store.messages IN EXCLUSIVE MODE")
        with pytest.raises(StoreError, match=NOT_GIVEN), store.begin() as tx:
            Guarding(tx.connection, exclusive, url).lock(["order-1"])


def test_no_event_of_a_live_store_is_missed(
    tmp_path: Path, postgres_url: str, postgres_server: Server
) -> None:
    make(postgres_url)
    written: list[int] = []
    enough = threading.Event()

    def writer(number: int) -> None:
        chance = random.Random(number)
        with psycopg.connect(postgres_url) as connection:
            position = 0
            while not enough.is_set():
                connection.execute(
                    "INSERT INTO message_store.messages (stream_name, position, type, data)"
                    " VALUES (%s, %s, 'Placed', '{\"customerName\": \"Ada L\"}')",
                    [f"order-{number}", position],
                )
                time.sleep(chance.random() / 50)
                if chance.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                    position += 1
            written.append(position)

    writers = [threading.Thread(target=writer, args=[n]) for n in range(6)]
    with postgres_server.database() as other:
        make(other)
        shop = project(tmp_path, Registry(STEPS), source=layout(postgres_url), target=layout(other))
        for thread in writers:
            thread.start()
        for _ in range(6):
            commands.upcast(shop, verify=False)
        enough.set()
        for thread in writers:
            thread.join()
        report = commands.upcast(shop)
        assert report.ready
        assert report.job.tally.written == sum(written) == len(messages(other))


def test_a_missing_privilege_is_named(postgres_url: str) -> None:
    make(postgres_url)
    user = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN")  # type: ignore[arg-type]
        connection.execute(f"GRANT USAGE ON SCHEMA message_store TO {user}")  # type: ignore[arg-type]
        store = open_store(layout(postgres_url.replace("postgres@", f"{user}@")))
        with closing(store), pytest.raises(StoreError, match="denied for table messages"):
            store.head_position()
        connection.execute(f"DROP OWNED BY {user}")  # type: ignore[arg-type]
        connection.execute(f"DROP ROLE {user}")  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_said_without_the_password() -> None:
    url = "postgresql://ada:secret@127.0.0.1:1/shop?layout=castore&connect_timeout=2"
    with pytest.raises(StoreError, match="connection to the server") as raised:
        open_store(url)
    assert "secret" not in str(raised.value)
