"""Snapshots in the form of the library that owns the tables, loaded by that library."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from msgspec import Struct
from pydantic import BaseModel, Field
from rich.console import Console

from eventmig import Registry, commands, data_upcaster
from eventmig.cli import render, render_rebuilds
from eventmig.errors import DataError, JobLockedError, RebuildError, StoreDamagedError
from eventmig.project import Project, opened
from eventmig.rebuild import Aggregate, EventsourcingAggregate, handing_over, snapshot_rows
from eventmig.stores.layouts import LayoutStore, owner_states
from eventmig.stores.owned import OwnerSnapshot
from tests.acceptance.support import event, fill, project
from tests.layouts import dumps, shop_steps
from tests.layouts.library import postgres, sqlite
from tests.layouts.library import till as run_till
from tests.layouts.shop_aggregates import accounts, orders

LOADED = """
import json, shop_domain
from eventsourcing.utils import get_topic

shop = shop_domain.Shop()
ids = list(dict.fromkeys(n.originator_id for n in shop.recorder.select_notifications(1, 1000)))
taken = 0
for each in ids:
    loaded, replayed = shop.repository.get(each), None
    for event in shop.events.get(each):
        replayed = event.mutate(replayed)
    assert vars(loaded) == vars(replayed), (vars(loaded), vars(replayed))
    assert type(loaded) is type(replayed)
    for snapshot in shop.snapshots.get(each):
        taken += 1
        then = None
        for event in shop.events.get(each, lte=snapshot.originator_version):
            then = event.mutate(then)
        own = type(then).Snapshot.take(then)
        assert snapshot.topic == own.topic
        assert snapshot.state == own.state, (snapshot.state, own.state)
        assert get_topic(type(snapshot)) == get_topic(type(own))
        assert list(snapshot.state) == list(own.state)
    at = list(shop.snapshots.get(each, desc=True, limit=1))
    assert at and at[0].originator_version == loaded.version, each
print(len(ids), taken)
shop.close()
"""


def loaded_by_the_library(folder: Path, settings: dict[str, str]) -> str:
    """Load each aggregate by its snapshot, and again by its events alone; how many, then."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=os.environ
        | {"SHOP_VERSION": "2", "SHOP_NO_UPCAST": "1", "PYTHONPATH": str(folder)}
        | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shop(folder: Path, *, source: str, target: str, **config: Any) -> Project:
    made = project(
        folder, shop_steps.registry, source=source, target=target, projections="x:y", **config
    )
    made.__dict__["projections"] = (orders(), accounts())
    return made


def migrated(tmp_path: Path, folder: Path, layout: str = "eventsourcing") -> Project:
    """The shop in a file of its library, migrated to another one."""
    name = "shop_v1_zlib" if layout.endswith("zlib") else "shop_v1"
    shutil.copy(folder / f"{name}.sqlite", tmp_path / "old.db")
    (tmp_path / "old.db").chmod(0o644)
    made = shop(
        tmp_path,
        source=f"sqlite:///{tmp_path}/old.db?layout={layout}",
        target=f"sqlite:///{tmp_path}/new.db?layout={layout}",
    )
    assert commands.upcast(made).ready
    return made


@pytest.mark.parametrize("layout", ["eventsourcing", "eventsourcing-zlib"])
def test_the_library_loads_what_was_written_into_its_file(
    tmp_path: Path, shared_layout: Callable[[str], Path], layout: str
) -> None:
    folder = shared_layout("eventsourcing")
    made = migrated(tmp_path, folder, layout)
    before = (tmp_path / "old.db").read_bytes()

    found = commands.rebuild(made, snapshots=True)

    assert found.owners is not None
    assert (found.owners.why_not, found.owners.astray) == ((), 0)
    assert [(w.name, w.table, w.streams, w.written, w.replaced) for w in found.owners.written] == [
        ("order", "stored_snapshots", 40, 40, 0),
        ("account", "stored_snapshots", 8, 8, 0),
    ]
    settings = sqlite(tmp_path / "new.db")
    if layout.endswith("zlib"):
        settings["COMPRESSOR_TOPIC"] = "zlib"
    assert loaded_by_the_library(folder, settings) == "48 48"
    again = commands.rebuild(made, ["order"], snapshots=True, every=5).owners
    assert again is not None
    (orders_again,) = again.written
    assert (orders_again.streams, orders_again.replaced) == (40, 40)
    assert orders_again.written > 60
    assert loaded_by_the_library(folder, settings) == f"48 {orders_again.written + 8}"
    some = [row[0] for row in rows(tmp_path / "new.db")[::9]]
    named = commands.rebuild(made, streams=some).owners
    assert named is not None
    assert sum(one.streams for one in named.written) == len(set(some))
    loaded_by_the_library(folder, settings)
    assert (tmp_path / "old.db").read_bytes() == before


def test_the_library_loads_what_was_written_into_its_schema(
    tmp_path: Path, shared_layout: Callable[[str], Path], postgres_url: str
) -> None:
    folder = shared_layout("eventsourcing")
    dumps.load(postgres_url, folder / "shop_v1.pg.sql")
    here = f"{postgres_url}{'&' if '?' in postgres_url else '?'}layout=eventsourcing"
    here += "&table=shop_events"
    made = shop(tmp_path, source=here, target=f"{here}&schema=v2")
    commands.upcast(made)
    with psycopg.connect(postgres_url) as connection:
        before = connection.execute("SELECT * FROM public.shop_snapshots ORDER BY 1, 2").fetchall()

    found = commands.rebuild(made, snapshots=True, every=4)

    assert found.owners is not None
    assert [(w.table, w.streams) for w in found.owners.written] == [
        ("shop_snapshots", 40),
        ("shop_snapshots", 8),
    ]
    written = sum(w.written for w in found.owners.written)
    assert loaded_by_the_library(folder, postgres(postgres_url, "v2")) == f"48 {written}"
    checked = commands.check_snapshots(made, sample=None)
    assert checked.right
    assert sum(one.checked for one in checked.owners) == written
    with psycopg.connect(postgres_url) as connection:
        after = connection.execute("SELECT * FROM public.shop_snapshots ORDER BY 1, 2").fetchall()
    assert after == before


# where not, and why --------------------------------------------------------------------------


def rows(path: Path, query: str = "SELECT * FROM stored_snapshots ORDER BY 1, 2") -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a small application of the library wrote: twelve sales, three snapshots."""
    folder = tmp_path_factory.mktemp("till")
    run_till(folder, "write", 1, **sqlite(folder / "old.db", create=True))
    with closing(sqlite3.connect(folder / "old.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # one file
    return folder / "old.db"


@pytest.fixture
def till(tmp_path: Path, written: Path) -> Project:
    """That application, migrated."""
    shutil.copy(written, tmp_path / "old.db")
    made = project(
        tmp_path,
        Registry([price_in_cents]),
        source="sqlite:///old.db?layout=eventsourcing",
        target="sqlite:///new.db?layout=eventsourcing",
        projections="x:y",
        read_models="sqlite:///views.db",
    )
    made.__dict__["projections"] = (sales(),)
    assert commands.upcast(made).ready
    return made


@data_upcaster("till:Sale.Rung", 1)
def price_in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "cents": int(Decimal(data.pop("price")) * 100)}


def sales(*, owned: bool = True, more: Sequence[str] = ()) -> Aggregate[dict[str, Any]]:
    owner = EventsourcingAggregate("till:Sale") if owned else None
    sale = Aggregate("sale", state=dict[str, Any], owner=owner)

    @sale.on("till:Sale.Opened")
    def opened(data: dict[str, Any]) -> dict[str, Any]:
        return {"clerk": data["clerk"], "cents": 0, **dict.fromkeys(more)}

    @sale.on("till:Sale.Rung")
    def rung(state: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {**state, "cents": state["cents"] + data["cents"]}

    return sale


def owners(made: Project, *names: str, **options: Any) -> commands.OwnersSnapshots:
    found = commands.rebuild(made, names, snapshots=True, **options).owners
    assert found is not None
    return found


def test_a_source_is_never_written(till: Project, tmp_path: Path) -> None:
    before = (tmp_path / "old.db").read_bytes()
    found = owners(till, source="sqlite:///old.db?layout=eventsourcing")
    assert found.written == ()
    assert "no job made the events there" in found.why_not[0]
    assert (tmp_path / "old.db").read_bytes() == before
    assert rows(tmp_path / "new.db") == []


def test_who_names_no_class_or_another_library_is_told(till: Project, tmp_path: Path) -> None:
    till.__dict__["projections"] = (sales(owned=False),)
    assert "sale has no `owner=`" in owners(till).why_not[0]
    till.__dict__["projections"] = (sales(),)
    native = owners(till, source=str(fill_native(tmp_path)))
    assert native.why_not == ("sale: these are no tables of eventsourcing",)
    till.__dict__["projections"] = (sales(owned=False),)
    assert commands.rebuild(till, snapshots=True, source=str(fill_native(tmp_path))).owners is None


def fill_native(folder: Path) -> str:
    fill(folder / "native.db", [event("a-1", "till:Sale.Opened", {"clerk": "x"})])
    return "sqlite:///native.db"


def test_what_was_there_of_a_stream_goes_and_what_cannot_be_is_deleted(
    till: Project, tmp_path: Path
) -> None:
    old = rows(tmp_path / "old.db")
    stray = (old[0][0], 99, *old[0][2:])  # beyond the end: the library would stand there
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        connection.executemany("INSERT INTO stored_snapshots VALUES (?, ?, ?, ?)", old)
        connection.execute("INSERT INTO stored_snapshots VALUES (?, ?, ?, ?)", stray)
        connection.execute(
            "INSERT INTO stored_snapshots VALUES (?, ?, ?, ?)", ("gone", *old[0][1:])
        )
        connection.commit()
    report = commands.upcast(till)
    assert [str(one) for one in report.in_target] == ["5 snapshots in stored_snapshots"]
    assert "in the target are 5 snapshots" in shown(render.job(report))
    found = owners(till)
    assert (found.written[0].replaced, found.astray) == (4, 1)
    assert [row[:2] for row in rows(tmp_path / "new.db")] == rows(
        tmp_path / "new.db",
        "SELECT originator_id, max(originator_version) FROM stored_events GROUP BY 1 ORDER BY 1",
    )
    text = shown(render_rebuilds.rebuilt(commands.rebuild(till, snapshots=True)))
    assert "12 snapshots of 12 streams written into stored_snapshots" in text
    assert "12 old ones went" in text


def shown(what: Any) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(what)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_named_streams_alone_are_renewed(till: Project, tmp_path: Path) -> None:
    owners(till)
    path = tmp_path / "new.db"
    ids = [row[0] for row in rows(path)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE stored_snapshots SET state = 'x'")
        connection.commit()
    found = commands.rebuild(till, streams=ids[:2]).owners
    assert found is not None
    assert (found.written[0].streams, found.written[0].replaced) == (2, 2)
    assert [row[0] for row in rows(path) if row[3] != "x"] == ids[:2]


def test_the_owners_snapshots_are_compared_with_full_replays(till: Project, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    owners(till)
    found = commands.check_snapshots(till, sample=None)
    assert [(one.checked, one.mismatches) for one in found.owners] == [(12, ())]
    assert "sale, its owner's" in shown(render_rebuilds.compared(found))
    ids = [row[0] for row in rows(path)]
    with closing(sqlite3.connect(path)) as connection:
        for id_, change in zip(
            ids,
            (
                """state = replace(state, '"cents":', '"sense":')""",
                """state = replace(state, 'till:Sale', 'till:Return')""",
                "topic = 'till:Snapshot'",
                "state = x'00'",
                "state = '[]'",
                "originator_version = 99",
            ),
            strict=False,
        ):
            connection.execute(
                f"UPDATE stored_snapshots SET {change} WHERE originator_id = ?",
                (id_,),
            )
        connection.commit()
    found = commands.check_snapshots(till, sample=None)
    assert not found.right
    (compared,) = found.owners
    assert (compared.checked, {one.stream for one in compared.mismatches}) == (12, set(ids[:6]))
    reasons = {one.stream: one.reason for one in compared.mismatches}
    for id_, reason in zip(
        ids,
        (
            "another cents, sense",
            "a eventsourcing.domain:Snapshot of till:Return",
            "a till:Snapshot of till:Sale",
            "opaque",
            "no snapshot of this form",
            "where no event is",
        ),
        strict=False,
    ):
        assert reason in reasons[id_]
    owners(till)
    assert commands.check_snapshots(till, sample=None).right
    assert (
        commands.check_snapshots(till, source="sqlite:///old.db?layout=eventsourcing").owners == ()
    )


def test_a_job_that_takes_events_back_takes_their_snapshots(till: Project, tmp_path: Path) -> None:
    owners(till)
    assert len(rows(tmp_path / "new.db")) == 12
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute(
            "INSERT INTO stored_events SELECT originator_id, originator_version + 1, topic, state "
            "FROM stored_events WHERE rowid = (SELECT max(rowid) FROM stored_events)"
        )
        connection.commit()
    commands.upcast(till)  # what comes after a snapshot leaves it right
    assert len(rows(tmp_path / "new.db")) == 12
    commands.cancel(till)
    assert rows(tmp_path / "new.db") == []
    assert commands.upcast(till).ready


def test_while_a_job_holds_the_store_nothing_is_written(till: Project, tmp_path: Path) -> None:
    url = till.url("target", None, "2")
    with opened(url, "write") as target, target.lock(), pytest.raises(JobLockedError):
        owners(till)
    assert rows(tmp_path / "new.db") == []
    assert owners(till).written[0].written == 12


def test_killed_in_between_the_same_command_ends_it(
    till: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing_over, "_STREAMS_AT_ONCE", 5)
    replace = LayoutStore.replace_snapshots
    done: list[tuple[str, int]] = []

    def killed(self: LayoutStore, *arguments: Any) -> tuple[str, int]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(replace(self, *arguments))
        return done[-1]

    with monkeypatch.context() as patched:
        patched.setattr(LayoutStore, "replace_snapshots", killed)
        with pytest.raises(KeyboardInterrupt):
            owners(till)
    assert len(rows(tmp_path / "new.db")) == 10
    found = owners(till)
    assert (found.written[0].written, found.written[0].replaced) == (12, 10)
    before = rows(tmp_path / "new.db")
    owners(till)
    assert rows(tmp_path / "new.db") == before, "the same however often it is made"


def test_events_that_are_others_by_now_are_found_out(
    till: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_streams = snapshot_rows.of_streams

    def other(*arguments: Any) -> Any:
        return (dataclasses.replace(one, event_id="other") for one in of_streams(*arguments))

    monkeypatch.setattr(snapshot_rows, "of_streams", other)
    with pytest.raises(StoreDamagedError, match="not at its place any more"):
        owners(till)
    assert rows(tmp_path / "new.db") == []


@pytest.mark.parametrize("name", ["_id", "class_version", "_modified_on"])
def test_what_the_library_keeps_itself_is_no_member(till: Project, name: str) -> None:
    till.__dict__["projections"] = (sales(more=[name]),)
    with pytest.raises(DataError, match=f"has a member '{name}'"):
        owners(till)


class Tray(Struct):
    day: date


def test_a_value_without_a_transcoding_is_named(till: Project) -> None:
    tray = Aggregate("tray", state=Tray, owner=EventsourcingAggregate("till:Tray"))

    @tray.on("till:Sale.Opened")
    def opened(state: Tray | None) -> Tray:
        return Tray(date(2026, 1, 2))

    till.__dict__["projections"] = (tray,)
    with pytest.raises(DataError, match=r"holds a date \(datetime.date\(2026, 1, 2\)\)"):
        owners(till)


class Purse(BaseModel):
    sum_: Decimal = Field(alias="_sum")
    owner: UUID
    opened: datetime
    coins: tuple[int, ...] = ()
    note: str | None = None


def test_a_pydantic_model_is_written_by_its_aliases() -> None:
    purse = Aggregate("purse", state=Purse)
    state = Purse(
        _sum=Decimal("1.10"), owner=UUID(int=1), opened=datetime(2026, 1, 2, tzinfo=UTC), coins=(1,)
    )
    made = owner_states.eventsourcing(
        OwnerSnapshot("s", 1, "e", "x:Purse", 3, "k", purse.members(purse.encode(state))),
        b'{"timestamp": "first"}',
        b'{"timestamp": "last"}',
    )
    assert json.loads(made) == {
        "timestamp": "last",
        "topic": "x:Purse",
        "state": {
            "_created_on": "first",
            "_modified_on": "last",
            "_sum": {"_type_": "decimal_str", "_data_": "1.10"},
            "owner": {"_type_": "uuid_hex", "_data_": f"{1:032x}"},
            "opened": {"_type_": "datetime_iso", "_data_": "2026-01-02T00:00:00+00:00"},
            "coins": [1],
            "note": None,
            "class_version": 3,
        },
    }
    with pytest.raises(DataError, match="no 'timestamp'"):
        owner_states.eventsourcing(OwnerSnapshot("s", 1, "e", "x", 1, "k", {}), b"{}", b"{}")


def test_a_state_that_is_no_object_is_refused() -> None:
    numbers = Aggregate("numbers", state=list[int])
    with pytest.raises(RebuildError, match="no object with members"):
        numbers.members("[1]")


def test_beside_the_source_in_the_same_tables_its_snapshots_stay(
    tmp_path: Path, written: Path
) -> None:
    shutil.copy(written, tmp_path / "old.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("INSERT INTO stored_snapshots VALUES ('nobody', 7, 'x', x'00')")
        connection.commit()
    theirs = rows(tmp_path / "old.db")
    beside = project(
        tmp_path,
        Registry([price_in_cents]),
        source="sqlite:///old.db?layout=eventsourcing",
        target="sqlite:///old.db?layout=eventsourcing&release=2",
        naming="{stream}-{release}",
        projections="x:y",
    )
    beside.__dict__["projections"] = (sales(),)
    report = commands.upcast(beside)
    assert (report.ready, report.in_target) == (True, ())
    assert [str(one) for one in report.left_behind] == ["4 snapshots in stored_snapshots"]
    found = owners(beside)
    assert (found.written[0].written, found.written[0].replaced, found.astray) == (12, 0, 0)
    both = rows(tmp_path / "old.db")
    assert [row for row in both if not row[0].endswith("-2")] == theirs
    assert len(both) == len(theirs) + 12
    commands.cancel(beside)
    assert rows(tmp_path / "old.db") == theirs
