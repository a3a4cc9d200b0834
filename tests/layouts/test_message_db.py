"""Message DB: a history its own functions wrote, beside itself and in another database.

Message DB's SQL is not part of this repository: the documented table stands in for it, and
the rules its functions rely on are checked here. `test_owner_message_db` runs its functions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import Registry, commands, data_upcaster
from eventmig.errors import ConflictError, VerifyError
from eventmig.routes import rename_streams
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, history, project, steps
from tests.layouts import dumps, tables
from tests.postgres import Server

DIGESTS = {1: "95111243a26394f7", 2: "539ee12d83b30d7a"}


@data_upcaster("Placed", 1)
def name_in_two(data: dict[str, Any]) -> dict[str, Any]:
    first, _, last = data.pop("customerName").partition(" ")
    return data | {"customer": {"first": first, "last": last}}


@data_upcaster("LineAdded", 1)
def minor_units(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"unitPriceMinor": int(Decimal(data.pop("unitPrice")) * 100)}


STEPS = [name_in_two, minor_units]
BESIDE = [
    rename_streams("orders beside", "order-{id}", to="orderV2-{id}"),
    rename_streams("accounts beside", "account-{id}", to="accountV2-{id}"),
    rename_streams("commands beside", "account:command-{id}", to="accountV2:command-{id}"),
]


@pytest.fixture
def store(postgres_url: str) -> str:
    """The URL of an empty Message DB, for psycopg."""
    make(postgres_url)
    return postgres_url


def make(url: str) -> None:
    with psycopg.connect(url) as connection:
        for statement in tables.MESSAGE_DB:
            connection.execute(statement)  # type: ignore[arg-type]


def layout(url: str, name: str = "message-db", more: str = "") -> str:
    option = "&" if "?" in url else "?"
    return f"{url}{option}layout={name}&schema=message_store{more}"


def messages(url: str, like: str = "%") -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT stream_name, position, global_position, type, data, metadata, id, time"
            " FROM message_store.messages WHERE stream_name LIKE %s"
            " ORDER BY global_position",
            [like],
        ).fetchall()


def digest(rows: list[tuple[Any, ...]]) -> str:
    """The digest that read_back.py of the shared history prints."""
    total = hashlib.sha256()
    for stream, in_stream in groupby(sorted(rows, key=lambda row: row[0]), lambda row: row[0]):
        found = sorted(in_stream, key=lambda row: row[2])
        assert [row[1] for row in found] == list(range(len(found)))
        for row in found:
            text = json.dumps([stream, row[1], *row[3:5]], sort_keys=True, ensure_ascii=False)
            total.update(text.encode())
    return total.hexdigest()[:16]


def append(url: str, stream: str, position: int) -> int:
    """One message as write_message inserts it; returns its global position."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "INSERT INTO message_store.messages (stream_name, position, type, data)"
            " VALUES (%s, %s, 'AfterMigration', '{}') RETURNING global_position",
            [stream, position],
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_another_database_holds_what_a_right_migration_makes(
    tmp_path: Path, shared_layout: Callable[[str], Path], store: str, postgres_server: Server
) -> None:
    dumps.load(store, shared_layout("message_db") / "store_v1.data_only.sql")
    assert digest(messages(store)) == DIGESTS[1]
    everything = {"preset": "message-db", "stream": {"left_out": []}}
    with postgres_server.database() as other:
        make(other)
        shop = project(
            tmp_path,
            Registry(STEPS),
            source=layout(store, "everything"),
            target=layout(other, "everything"),
            layouts={"everything": everything},
        )
        report = commands.upcast(shop)
        assert report.ready
        migrated = messages(other)
        assert (len(migrated), digest(migrated)) == (370, DIGESTS[2])
        for (*_, before, id_, time), (*_, type_, _, after, new_id, new_time) in zip(
            messages(store), migrated, strict=True
        ):
            changed = type_ in ("Placed", "LineAdded")
            assert after == ((before or {}) | {"schemaVersion": "2"} if changed else before)
            assert (new_id, new_time) == (id_, time)
        assert append(other, "order-1", sum(row[0] == "order-1" for row in migrated)) == 371


def test_new_streams_stand_beside_the_old_ones(
    tmp_path: Path, shared_layout: Callable[[str], Path], store: str
) -> None:
    dumps.load(store, shared_layout("message_db") / "store_v1.data_only.sql")
    before = messages(store)
    shop = project(
        tmp_path,
        Registry([*STEPS, *BESIDE]),
        source=layout(store),
        target=layout(store, more="&release=2"),
    )
    report = commands.upcast(shop)

    assert report.ready
    after = messages(store)
    assert [row for row in after if "V2" not in row[0]] == before
    made = [row for row in after if "V2" in row[0]]
    left_out = [row for row in before if ":snapshot-" in row[0] or ":position-" in row[0]]
    assert len(made) == len(before) - len(left_out) == report.job.tally.written
    assert sum(one.number for one in report.left_behind) == len(left_out)
    assert [one.streams for one in report.left_behind] == ["%:snapshot-%", "%:position-%"]
    assert not {row[6] for row in made} & {row[6] for row in before}
    digest(made)  # positions of each stream, without holes
    assert min(row[2] for row in made) > max(row[2] for row in before)
    assert append(store, "orderV2-1", sum(row[0] == "orderV2-1" for row in made)) == (
        max(row[2] for row in made) + 1
    )
    commands.verify(shop, derive=False)
    assert commands.current(shop).events == len(before) - len(left_out)

    assert commands.cancel(shop) == len(made)
    assert [row for row in messages(store) if row[3] != "AfterMigration"] == before


def test_a_native_history_goes_into_its_table_and_is_verified(tmp_path: Path, store: str) -> None:
    fill(
        tmp_path / "source.db",
        [
            event("order-1", "Placed", {"customerName": "Ada Lovelace"}),
            event("order-1", "Odd", b'{ "b" : 1.10,  "aa":[1e2, {"z":1,"y":2}]}', metadata=None),
            event("order-2", "Placed", {"customerName": "Cher"}, metadata=b'{"z": 1, "a": 2}'),
        ],
    )
    shop = project(tmp_path, Registry(STEPS), target=layout(store))
    assert commands.upcast(shop).ready
    assert [row[4:6] for row in messages(store)] == [
        ({"customer": {"first": "Ada", "last": "Lovelace"}}, {"who": "ada", "schemaVersion": "2"}),
        ({"b": 1.10, "aa": [100, {"z": 1, "y": 2}]}, None),
        ({"customer": {"first": "Cher", "last": ""}}, {"z": 1, "a": 2, "schemaVersion": "2"}),
    ]


def test_every_kind_of_step_ends_right_in_its_table(tmp_path: Path, store: str) -> None:
    usual = [one for one in history(70) if one.type != "Untouched"]
    fill(tmp_path / "source.db", usual)
    shop = project(tmp_path, Registry(steps()), target=layout(store), batch_size=7)
    report = commands.upcast(shop)
    tally = report.job.tally
    assert report.ready
    assert min(tally.upcast, tally.split, tally.merged, tally.dropped) > 0
    digest(messages(store))  # positions of each stream, without holes
    with closing(open_store(layout(store))) as target:
        events = [e for batch in target.read_all(batch_size=9) for e in batch]
        merged = [e for e in events if e.type == "Whole"]
        assert {len(e.origins) for e in merged} == {2}
        assert {len(e.origins) for e in events if e.type != "Whole"} == {1}
        assert [target.event(e.id) for e in merged] == merged
    again = commands.verify(shop)
    assert again.verification is not None
    assert again.verification.right


def test_what_jsonb_would_change_is_found(tmp_path: Path, store: str) -> None:
    fill(tmp_path / "source.db", [event("order-1", "Odd", b'{"a": 1, "a": 2}')])
    shop = project(tmp_path, Registry(STEPS), target=layout(store))
    with pytest.raises(VerifyError, match=r'data is \{"a": 2\}, must be \{"a": 1, "a": 2\}'):
        commands.upcast(shop)


def test_streams_that_keep_their_names_are_refused(tmp_path: Path, store: str) -> None:
    append(store, "order-1", 0)
    shop = project(
        tmp_path,
        Registry([*STEPS, rename_streams("nothing", "cart-{id}", to="basket-{id}")]),
        source=layout(store),
        target=layout(store, more="&release=2"),
        naming="{stream}",
    )
    before = messages(store)
    with pytest.raises(ConflictError, match="is in this table already"):
        commands.upcast(shop)
    assert messages(store) == before


def test_new_streams_in_an_old_category_are_refused(tmp_path: Path, store: str) -> None:
    append(store, "order-1", 0)
    shop = project(
        tmp_path,
        Registry(STEPS),
        source=layout(store),
        target=layout(store, more="&release=2"),
        naming="{stream}-{release}",
    )
    before = messages(store)
    with pytest.raises(ConflictError, match="in the category 'order', as 'order-1' is"):
        commands.upcast(shop)
    assert messages(store) == before
