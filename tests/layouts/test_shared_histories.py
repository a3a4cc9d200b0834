"""Histories that other libraries wrote, migrated, and read back by those libraries."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from eventmig import commands
from tests.acceptance.support import project
from tests.layouts import dumps, shop_steps

SHOP_DIGEST = "60f021e10c80d86f"


def read_back(folder: Path, *arguments: str, version: int) -> str:
    """What the owner's reader prints; it also appends one event."""
    done = subprocess.run(
        [sys.executable, str(folder / "read_back.py"), *arguments],
        env=os.environ
        | {"SHOP_VERSION": str(version), "SHOP_NO_UPCAST": str(version - 1)}
        | ({"COMPRESSOR_TOPIC": "zlib"} if "zlib" in arguments[1] else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("layout", ["eventsourcing", "eventsourcing-zlib"])
def test_the_eventsourcing_library_reads_its_migrated_file(
    tmp_path: Path, shared_layout: Callable[[str], Path], layout: str
) -> None:
    folder = shared_layout("eventsourcing")
    name = "shop_v1_zlib" if layout.endswith("zlib") else "shop_v1"
    source, target = tmp_path / f"{name}.sqlite", tmp_path / f"new_{name}.sqlite"
    shutil.copy(folder / f"{name}.sqlite", source)
    source.chmod(0o644)
    before = source.read_bytes()

    shop = project(
        tmp_path,
        shop_steps.registry,
        source=f"sqlite:///{source}?layout={layout}",
        target=f"sqlite:///{target}?layout={layout}",
    )
    report = commands.upcast(shop)

    assert report.ready
    assert (report.job.tally.read, report.job.tally.upcast) == (531, 435)
    assert source.read_bytes() == before
    assert not list(tmp_path.glob(f"{name}.sqlite-*"))
    printed = read_back(folder, "sqlite", str(target), version=2)
    assert "HOLE" not in printed
    assert "DISAGREE" not in printed
    assert f"summary digest {SHOP_DIGEST}" in printed
    assert "append ok: notification 532" in printed
    columns = sqlite3.connect(target)
    found = [row[1] for row in columns.execute("PRAGMA table_info(stored_events)")]
    columns.close()
    assert found == ["originator_id", "originator_version", "topic", "state"]


def test_the_eventsourcing_library_reads_its_migrated_schema(
    tmp_path: Path, shared_layout: Callable[[str], Path], postgres_url: str
) -> None:
    folder = shared_layout("eventsourcing")
    dumps.load(postgres_url, folder / "shop_v1.pg.sql")
    option = "&" if "?" in postgres_url else "?"
    here = f"{postgres_url}{option}layout=eventsourcing&table=shop_events"

    shop = project(tmp_path, shop_steps.registry, source=here, target=f"{here}&schema=v2")
    report = commands.upcast(shop)

    assert report.ready
    assert (report.job.tally.read, report.job.tally.upcast) == (531, 435)
    place = make_url(postgres_url)
    host = str(place.query.get("host", place.host))
    where = [str(place.database), host, str(place.port or 5432), str(place.username)]
    printed = read_back(folder, "postgres", *where, "v2", version=2)
    assert "HOLE" not in printed
    assert "DISAGREE" not in printed
    assert f"summary digest {SHOP_DIGEST}" in printed
    assert "append ok: notification 532" in printed
