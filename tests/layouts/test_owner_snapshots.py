"""Snapshots in the form of the library that owns the tables, loaded by that library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import commands
from eventmig.project import Project
from tests.acceptance.support import project
from tests.layouts import dumps, shop_steps
from tests.layouts.library import postgres, sqlite
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
    with psycopg.connect(postgres_url) as connection:
        after = connection.execute("SELECT * FROM public.shop_snapshots ORDER BY 1, 2").fetchall()
    assert after == before
