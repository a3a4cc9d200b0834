"""What does not change is copied inside PostgreSQL; the result is that of the other way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import Registry, commands, data_upcaster, drop_event, ops, upcaster
from eventmig.commands import Pushdown
from eventmig.errors import DataError, DuplicateIdError, StoreDamagedError, UpcastError
from eventmig.events import Event, Kept, NewEvent, Renewed
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
from eventmig.stores.postgres.pushdown import Pusher
from eventmig.stores.postgres.store import PostgresStore
from tests.acceptance.support import driver, event, project, project_in_files

METADATA = [None, b"{}", '{"é":  "\u2028"}'.encode()]
STREAMS = ["cart-1", "cart-2", "straße 'x' %s"]
KINDS: list[tuple[str, int, bytes]] = [
    ("Opened", 1, b'{"name":"a","n":1.10,"deep":{"b": [1, 2]}}'),
    ("Opened", 1, '{"name":"é\\n"}'.encode()),
    ("Opened", 2, b'{"title":"a","n":12345678901234567890.10}'),
    ("Opened", 3, b'{"title":"a", "currency":"EUR"}'),
    ("Free", 7, b'{"a":1e3}'),
    ("Free", 7, b'{"a":"\\\\","b":{}}'),
]


def registry(*more: Any) -> Registry:
    return Registry(
        [
            upcaster("Opened", 1, ops.rename("name", "title")),
            upcaster("Opened", 2, ops.add("currency", "EUR")),
            *more,
        ]
    )


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each run copied inside PostgreSQL."""
    counts: list[int] = []
    keep = Pusher.keep

    def counting(self: Pusher, run: Any, taken: Any) -> int:
        counts.append(run.events)
        return keep(self, run, taken)

    monkeypatch.setattr(Pusher, "keep", counting)
    return counts


@contextlib.contextmanager
def all_through_python() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresStore, "keeps", lambda self, source: False)
        yield


def opened(n: int, stream: str = "cart-1") -> Event:
    return event(stream, "Opened", {"name": f"é{n}", "n": n}, metadata=METADATA[n % 3])


def mixed(count: int) -> list[Event]:
    """Events of every kind, in an order that repeats nothing soon."""
    made = []
    for n in range(count):
        type_, version, data = KINDS[n * n % 7 % len(KINDS)]
        metadata = METADATA[n % 3]
        made.append(event(STREAMS[n % 5 % 3], type_, data, version=version, metadata=metadata))
    return made


def fill(url: str, events: list[Event]) -> None:
    with open_store(url, mode="create") as store:
        for one in events:
            new = NewEvent(one.type, one.data, one.schema_version, one.metadata, one.id)
            store.append(one.stream, [new], expected=ANY)


def lose_a_position(url: str) -> None:
    """Take a position in a transaction that is rolled back."""
    with (
        open_store(url, mode="write") as store,
        contextlib.suppress(ZeroDivisionError),
        store.begin() as tx,
    ):
        tx.append_copied([opened(1, "gone-1")._replace(stream_position=1)])
        raise ZeroDivisionError


def held(url: str) -> list[Event]:
    with open_store(url) as store:
        return [e for batch in store.read_all() for e in batch]


def run_sql(url: str, statement: Any, values: list[str] | None = None) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement, values)


class Place:
    """A history in one schema, and its copies in others."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.source = self.at("old")

    def at(self, schema: str) -> str:
        return f"{self.url}&schema={schema}"

    def upcast(self, schema: str, steps: Registry, **options: Any) -> list[Event]:
        """Run the job; what the target then holds."""
        commands.upcast(
            project(self.folder, steps, source=self.source, target=self.at(schema)),
            pushdown=Pushdown.NEVER,
            **options,
        )
        return held(self.at(schema))


@pytest.fixture
def place(tmp_path: Path, postgres_url: str) -> Place:
    return Place(tmp_path, postgres_url)


@pytest.mark.parametrize("batch_size", [7, 10, 200])
def test_a_copy_with_kept_columns_is_the_copy_through_python(
    place: Place, kept: list[int], batch_size: int
) -> None:
    """With holes in the positions, new streams later, and an end by an event that is dropped."""
    steps = registry(drop_event("Noise", 1, why="nobody reads it"))
    more = [[*mixed(30), opened(1, "new-2")], [event("cart-1", "Noise", {}), *mixed(20)]]
    fill(place.source, mixed(30))
    lose_a_position(place.source)
    fill(place.source, mixed(30))
    for events in ([], *more):
        fill(place.source, events)
        lose_a_position(place.source)
        inside = place.upcast("inside", steps, batch_size=batch_size)
        with all_through_python():
            through = place.upcast("through", steps, batch_size=batch_size)
        assert inside == through
    assert sum(kept) > 30 or batch_size == 200
    (stored,) = appended(place.at("inside"), "new-2")
    assert held(place.at("inside"))[-1] == stored


def appended(url: str, stream: str) -> list[Event]:
    with open_store(url, mode="write") as store:
        return store.append(stream, [NewEvent("Free", b"{}")], expected=ANY)


def test_streams_get_the_keys_that_they_have_in_the_source(place: Place) -> None:
    """Also by the first batch, which goes through Python whole."""
    fill(place.source, [opened(n, f"z-{n}") for n in range(9, 0, -1)])
    place.upcast("inside", registry(), batch_size=2)
    with psycopg.connect(place.url) as connection:
        keys = [
            connection.execute(
                f"SELECT stream_id, name FROM {schema}.streams ORDER BY 1"
            ).fetchall()
            for schema in ("old", "inside")
        ]
    assert keys[0] == keys[1]


def test_streams_that_have_other_keys_in_the_target(place: Place, kept: list[int]) -> None:
    fill(place.source, [opened(n, STREAMS[n % 3]) for n in range(40)])
    with open_store(place.at("inside"), mode="create") as store, store.begin() as tx:
        tx.connection.exec_driver_sql("INSERT INTO inside.streams (name) VALUES ('cart-2'), ('z')")
    inside = place.upcast("inside", registry(), batch_size=10)
    assert kept == [10, 10, 10]  # the first batch is upcast twice, event by event
    with all_through_python():
        assert inside == place.upcast("through", registry(), batch_size=10)


def test_a_stream_that_was_committed_late(place: Place, kept: list[int]) -> None:
    """Its key is lower than one that a follower has seen."""
    fill(place.source, [opened(n, "cart-3") for n in range(30)])
    place.upcast("inside", registry(), batch_size=10)
    with (
        open_store(place.source, mode="write") as early,
        open_store(place.at("inside"), mode="write") as target,
        open_store(place.source) as source,
    ):
        assert target.keeps(source)
        with early.begin() as tx:
            tx.append_copied([opened(1, "early-1")._replace(stream_position=1)])
            fill(place.source, [opened(n, "late-1") for n in range(5)])
            place.upcast("inside", registry(), batch_size=2)
    place.upcast("inside", registry(), batch_size=2)
    fill(place.source, [opened(n, "late-2") for n in range(5)])
    inside = place.upcast("inside", registry(), batch_size=2)
    with all_through_python():
        assert inside == place.upcast("through", registry())


@pytest.mark.parametrize(
    ("bad", "raised"),
    [
        (-0.0, DataError),
        ("a\0b", DataError),
        ({"a": ["\ud800"]}, UpcastError),
        (ValueError("not this one"), UpcastError),
    ],
    ids=["minus zero", "NUL", "half a character", "an error"],
)
def test_an_event_that_does_not_fit_is_named_and_nothing_of_its_batch_stays(
    place: Place, bad: object, raised: type[Exception]
) -> None:
    def choosy(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] != 25:
            return data
        if isinstance(bad, Exception):
            raise bad
        return data | {"n": bad}

    fill(place.source, [opened(n, f"cart-{n % 2}") for n in range(40)])
    steps = registry(data_upcaster("Opened", 3)(choosy))
    errors = []
    for schema in ("inside", "through"):
        with (
            all_through_python() if schema == "through" else contextlib.nullcontext(),
            pytest.raises(raised) as caught,
        ):
            place.upcast(schema, steps, batch_size=10)
        errors.append(str(caught.value).replace(schema, "target"))
        assert len(held(place.at(schema))) == 20
    assert errors[0] == errors[1]
    assert "cart-1" in errors[0]


def test_a_doubled_id_is_named(place: Place) -> None:
    """The indexes stand in a job's second run: an event somebody else wrote is in the way."""
    fill(place.source, [opened(n) for n in range(20)])
    place.upcast("inside", registry(), batch_size=10)
    later = [opened(n, "cart-2") for n in range(20, 40)]
    fill(place.source, later)
    run_sql(
        place.url,
        "UPDATE inside.events SET event_id = %s WHERE global_position = 1",
        [later[15].id],
    )
    with pytest.raises(DuplicateIdError, match=later[15].id):
        place.upcast("inside", registry(), batch_size=10)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DELETE FROM old.events WHERE global_position = 3", "and then 19"),
        ("UPDATE old.events SET type = 'Other' WHERE global_position = 3", "and then others"),
    ],
    ids=["gone", "others"],
)
def test_rows_that_are_not_those_that_were_read_are_missed(
    place: Place, change: str, found: str
) -> None:
    fill(place.source, [opened(n) for n in range(20)])
    with (
        open_store(place.at("inside"), mode="create") as target,
        open_store(place.source) as source,
    ):
        assert target.keeps(source)
        run_sql(place.url, change)
        renewed = Renewed(("Other", 1), ("Other", 2), [2], [b"{}"])
        with pytest.raises(StoreDamagedError, match=found) as caught, target.begin() as tx:
            tx.append_kept(Kept(1, 20, 20, [renewed]))
    assert caught.value.remedy
    assert not held(place.at("inside"))


def test_data_that_is_too_much_for_one_value_is_read_in_smaller_parts(
    place: Place, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server refuses it: a value has at most 1 GB."""
    fill(place.source, mixed(60))
    send = PostgresStore._send

    def refusing(self: PostgresStore, sql: str, bound: Any) -> Any:
        if bound["limit"] > 2:
            sql = sql.replace("count(*)::bigint", "length(repeat(type, 2000000000))", 1)
        return send(self, sql, bound)

    monkeypatch.setattr(PostgresStore, "_send", refusing)
    inside = place.upcast("inside", registry(), batch_size=20)
    assert sum(kept) == 40
    with all_through_python():
        assert inside == place.upcast("through", registry())


def test_what_is_kept_is_what_stands_in_one_database_as_jsonb(
    place: Place, kept: list[int]
) -> None:
    fill(place.source, mixed(30))
    fill(f"{place.source}&tables=text_&data=text", mixed(30))
    whole = Place(place.folder, place.url)
    whole.source = f"{place.source}&tables=text_&data=text"
    whole.upcast("first", registry(), batch_size=10)
    place.upcast("second&data=json", registry(), batch_size=10)
    assert kept == []


def test_with_two_workers_it_is_kept_too(tmp_path: Path, postgres_url: str) -> None:
    steps = """
from eventmig import Registry, ops, upcaster
registry = Registry([upcaster("Opened", 1, ops.rename("name", "title"))])
"""
    fill(f"{postgres_url}&schema=old", [opened(n, STREAMS[n % 3]) for n in range(60)])
    config = f'registry = "steps_here:registry"\nsource = "{postgres_url}&schema=old"\n'
    folder = project_in_files(tmp_path / "its", registry=steps, config=config)
    code = """
import sys
from eventmig import commands
from eventmig.project import Project
from eventmig.stores.postgres.pushdown import Pusher
counts, keep = [], Pusher.keep
Pusher.keep = lambda self, run, taken: counts.append(run.events) or keep(self, run, taken)
for workers in (2, 1):
    report = commands.upcast(
        Project.open(), target=f"{sys.argv[1]}&schema=by_{workers}", workers=workers,
        batch_size=10, pushdown=commands.Pushdown.NEVER,
    )
    assert report.ready
assert counts == [10] * 10, counts
"""
    done = driver(folder, code, postgres_url)
    assert done.returncode == 0, done.stderr
    assert held(f"{postgres_url}&schema=by_2") == held(f"{postgres_url}&schema=by_1")
