"""eventsourcing-django itself, in an environment of its own: it writes, reads back and appends.

It needs an older `eventsourcing` than the other tests use.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from eventmig import Registry, commands, data_upcaster
from eventmig.project import Project
from tests.acceptance.support import project
from tests.postgres import Server


@data_upcaster("till:Sale.Rung", 1)
def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"cents": int(Decimal(data.pop("price")) * 100)}


def till(folder: Path, version: int, database: dict[str, object], *what: str) -> list[Any]:
    """Run the project on a database (Django's settings for it); what each action returned."""
    done = subprocess.run(
        [folder / "venv" / "bin" / "python", "-c", f"import till; till.main(*{what!r})"],
        cwd=folder,
        env=os.environ | {"VERSION": str(version), "DATABASE": json.dumps(database)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))


def on_sqlite(file: Path) -> dict[str, object]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}


def on_postgresql(url: str) -> dict[str, object]:
    place = make_url(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place.database,
        "HOST": place.query.get("host", place.host),
        "PORT": place.port or 5432,
        "USER": place.username,
        "PASSWORD": place.password or "unused",
    }


def migrate_and_read_back(
    folder: Path, work: Path, stores: tuple[str, str], databases: tuple[dict[str, object], ...]
) -> None:
    """Write with the library, migrate, and have it read and append, in both applications."""
    old, new = databases
    *_, before = till(folder, 1, old, "migrate", "write", "read")
    looked = commands.inspect(Project.open(), stores[0])
    assert (looked.layout, looked.events, looked.streams) == ("eventsourcing-django", 72, 16)
    assert looked.refused == ()
    assert [(one.table, one.number) for one in looked.left_behind] == [("snapshots", 1)]

    till(folder, 2, new, "migrate")
    source, target = (
        f"{url}{'&' if '?' in url else '?'}layout=eventsourcing-django" for url in stores
    )
    moved = project(work, Registry([in_cents]), source=source, target=target, batch_size=7)
    report = commands.upcast(moved)
    assert report.ready
    assert (report.job.tally.copied, report.job.tally.upcast) == (16, 56)
    assert till(folder, 2, new, "read", "add") == [before, [[73, 1], [74, 1]]]
    assert till(folder, 1, old, "read") == [before]


def test_it_reads_and_appends_in_a_migrated_file(
    tmp_path: Path, owner: Callable[[str], Path]
) -> None:
    files = tmp_path / "till.db", tmp_path / "new.db"
    migrate_and_read_back(
        owner("eventsourcing-django"),
        tmp_path,
        (f"sqlite:///{files[0]}", f"sqlite:///{files[1]}"),
        (on_sqlite(files[0]), on_sqlite(files[1])),
    )
    connection = sqlite3.connect(files[1])
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'stored_events'")
    assert last.fetchone() == (74,)
    connection.close()


def test_it_reads_and_appends_in_a_migrated_database(
    tmp_path: Path, owner: Callable[[str], Path], postgres_url: str, postgres_server: Server
) -> None:
    with postgres_server.database() as other:
        migrate_and_read_back(
            owner("eventsourcing-django"),
            tmp_path,
            (postgres_url, other),
            (on_postgresql(postgres_url), on_postgresql(other)),
        )
