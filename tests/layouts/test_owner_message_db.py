"""Message DB itself, from npm: its functions write a history, read the migrated one, and append."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import Registry, commands
from eventmig.project import Project
from eventmig.routes import rename_streams
from eventmig.stores.open import open_store
from tests.acceptance.support import event, project
from tests.layouts.carts import STEPS, Message, Streams, history, message, migrated, priced
from tests.postgres import Server

CARTS = [f"cart-{n}+customer{n % 2}" for n in range(1, 4)] + ["basket-1"]
BESIDE = [
    rename_streams("carts beside", "cart-{id}", to="cartV2-{id}"),
    rename_streams("baskets beside", "basket-{id}", to="basketV2-{id}"),
]
PARTS = ("tables", "types", "functions", "indexes", "views")
"""Folders of its SQL, but for its role and grants, which the whole server would keep, and for the
extension pgcrypto, whose function PostgreSQL has had itself since version 13."""


class Store:
    """A database with Message DB's functions, spoken to as its clients do."""

    def __init__(self, url: str) -> None:
        self.url = url

    def install(self, folder: Path) -> None:
        """Run its SQL, in the order of its install script; functions may name later ones."""
        database = folder / "node_modules" / "@eventide" / "message-db" / "database"
        with self._connect() as connection:
            connection.execute("CREATE SCHEMA message_store")
            connection.execute("SET check_function_bodies = off")
            for part in PARTS:
                for file in sorted((database / part).glob("*.sql")):
                    connection.execute(file.read_bytes())

    def append(self, messages: list[Message]) -> list[int | str]:
        """`write_message` of each, which counts from 0 and calls "none yet" -1."""
        results: list[int | str] = []
        for one in messages:
            known = None if one["metadata"] is None else json.dumps(one["metadata"])
            given = [uuid.uuid4(), one["stream"], one["type"], json.dumps(one["data"]), known]
            try:
                results.append(self.write(*given, one["expected"] - 1) + 1)
            except psycopg.errors.RaiseException as error:
                if "Wrong expected version" not in str(error):
                    raise
                results.append("refused")
        return results

    def write(self, *given: Any) -> int:
        with self._connect() as connection:
            return int(one(connection, WRITE, *given))

    def read(self, *categories: str) -> tuple[Streams, list[int]]:
        """`get_category_messages` of each, put in order by `get_stream_messages`."""
        places: list[int] = []
        streams: Streams = {}
        with self._connect() as connection:
            for category in categories:
                messages = connection.execute(
                    "SELECT stream_name, global_position FROM get_category_messages(%s)", [category]
                ).fetchall()
                assert [place for _, place in messages] == sorted(place for _, place in messages)
                places += [place for _, place in messages]
                for name in {name for name, _ in messages}:
                    found = connection.execute(
                        "SELECT position, type, data, metadata, id, time"
                        " FROM get_stream_messages(%s)",
                        [name],
                    ).fetchall()
                    assert one(connection, "SELECT stream_version(%s)", name) == found[-1][0]
                    streams[name] = [
                        {
                            "position": position + 1,
                            "type": type_,
                            "data": json.loads(data),
                            "metadata": None if known is None else json.loads(known),
                            "id": id_,
                            "time": time,
                        }
                        for position, type_, data, known, id_, time in found
                    ]
        return streams, sorted(places)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        options = "-c search_path=message_store,public -c lock_timeout=200ms"
        return psycopg.connect(self.url, options=options)


WRITE = "SELECT write_message(%s::varchar, %s, %s, %s::jsonb, %s::jsonb, %s)"


def one(connection: psycopg.Connection[Any], statement: str, *given: Any) -> Any:
    row = connection.execute(statement, given).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


@pytest.fixture
def store(owner: Callable[[str], Path], postgres_url: str) -> Store:
    """An empty Message DB."""
    made = Store(postgres_url)
    made.install(owner("message-db"))
    return made


def layout(store: Store, more: str = "") -> str:
    option = "&" if "?" in store.url else "?"
    return f"{store.url}{option}layout=message-db&schema=message_store{more}"


def versioned(streams: Streams, to: Callable[[str], str], *, same_ids: bool) -> Streams:
    """What `STEPS` make of streams, in Message DB: the schema version is in the metadata."""
    out = {}
    for name, messages in migrated(streams).items():
        for one in messages:
            if one["type"] == "Added":
                one["metadata"] = {**(one["metadata"] or {}), "schemaVersion": "2"}
            if not same_ids:
                del one["id"]
        out[to(name)] = messages
    return out


def without_ids(streams: Streams) -> Streams:
    return {name: [{k: v for k, v in one.items() if k != "id"} for one in messages]
            for name, messages in streams.items()}  # fmt: skip


def ids(*several: Streams) -> list[str]:
    return [one["id"] for streams in several for messages in streams.values() for one in messages]


def test_new_streams_beside_the_old_ones(tmp_path: Path, store: Store) -> None:
    assert "refused" not in store.append(history(CARTS))
    store.write(uuid.uuid4(), "cart:snapshot-1", "Recorded", "{}", None, None)
    before, places = store.read("cart", "basket")
    found = commands.inspect(Project.open(), store.url)
    assert (found.layout, found.events, found.refused) == ("message-db", 40, ())

    moved = project(
        tmp_path,
        Registry([*STEPS, *BESIDE]),
        source=layout(store),
        target=layout(store, "&release=2"),
        batch_size=7,
    )
    assert commands.upcast(moved).ready
    store.append([priced("cart-9", 0), priced("basket-1", len(before["basket-1"]))])
    before, places = store.read("cart", "basket")
    assert commands.upcast(moved).job.tally.read == 42

    after, new_places = store.read("cartV2", "basketV2")
    expected = versioned(before, lambda name: name.replace("-", "V2-", 1), same_ids=False)
    assert without_ids(after) == expected
    assert len(set(ids(before, after))) == len(ids(before, after))
    assert not set(new_places) & set(places)
    assert store.read("cart", "basket") == (before, places)
    cart = next(name for name in after if name.startswith("cartV2-1"))
    last = len(after[cart])
    assert store.append([message(cart, last), message(cart, last)]) == [last + 1, "refused"]
    assert store.read("cartV2")[1][-1] == new_places[-1] + 1


def test_another_database(
    tmp_path: Path, store: Store, owner: Callable[[str], Path], postgres_server: Server
) -> None:
    store.append(history(CARTS))
    before, _ = store.read("cart", "basket")
    with postgres_server.database() as url:
        other = Store(url)
        other.install(owner("message-db"))
        moved = project(
            tmp_path, Registry(STEPS), source=layout(store), target=layout(other), batch_size=7
        )
        assert commands.upcast(moved).ready
        after, places = other.read("cart", "basket")
        assert after == versioned(before, str, same_ids=True)
        last = len(after["basket-1"])
        assert other.append([message("basket-1", last), message("basket-2", 0)]) == [last + 1, 1]
        assert other.read("basket")[1][-2:] == [places[-1] + 1, places[-1] + 2]


def test_its_writers_wait_for_a_batch_in_their_category(store: Store) -> None:
    """So that a consumer of the category meets its messages in the order of their positions."""
    with closing(open_store(layout(store), mode="write")) as target, target.begin() as tx:
        tx.append_copied([event("cart-1", "Opened", {})])
        held = [uuid.uuid4(), "cart-2", "Opened", "{}", None, None]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            store.write(*held)
        assert store.write(uuid.uuid4(), "basket-1", "Opened", "{}", None, None) == 0
    assert store.write(*held) == 0
