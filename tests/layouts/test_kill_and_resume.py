"""Jobs on described tables, killed anywhere or cut off: never a duplicate, never a hole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from eventmig import commands
from eventmig.errors import StoreUnavailableError
from eventmig.migrate.job import Progress
from eventmig.project import Project
from tests.acceptance.support import cli, driver, event, fill, imported, project
from tests.layouts.library import postgres, sqlite, till
from tests.layouts.tables import CASES
from tests.layouts.test_faults import BOTH, rows
from tests.layouts.test_stranger import UPCASTERS
from tests.postgres import OwnServer
from tests.proxy import Cut, Proxy

# One process that is forked for every run. A run is killed just before the n-th statement
# that it sends to the target (SQLite), or before it talks to a server for the n-th time.
DRIVER = """
import os, signal, sys
import psycopg
from eventmig import commands
from eventmig.project import Project
from eventmig.stores.layouts import sqlite
from tests.forks import forked

its = Project.open()
its.registry
connect, wait = sqlite.connect_writer, psycopg.Connection.wait

def run(target, kill_at):
    count = 0
    def point(*ignored):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(point)
        return connection
    def waited(*args, **kwargs):
        point()
        return wait(*args, **kwargs)
    sqlite.connect_writer, psycopg.Connection.wait = traced, waited
    os._exit(0 if commands.upcast(its, target=target).ready else 9)

target, first, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kill_at, code = first, -9
while code == -9:
    name = target.replace("NUMBER", str(kill_at))
    code = forked(run, name, kill_at)
    assert code in (0, -9), code
    if code == -9:
        assert forked(run, name, 0) == 0
        print(kill_at)
    kill_at += step
"""
CONFIG = """
registry = "upcasters:registry"
source = "{source}"
target = "{target}"
batch_size = 20
"""


def in_files(folder: Path, source: str, target: str) -> None:
    (folder / "upcasters.py").write_text(UPCASTERS)
    (folder / "eventmig.toml").write_text(CONFIG.format(source=source, target=target))
    assert cli(folder, "release", "2").returncode == 0


def test_killed_at_any_statement_on_sqlite(tmp_path: Path) -> None:
    till(tmp_path, "write", 1, **sqlite(tmp_path / "till.db", create=True))
    expected = till(tmp_path, "read", 1, **sqlite(tmp_path / "till.db"))
    target = "sqlite:///killed-NUMBER.db?layout=eventsourcing"
    in_files(tmp_path, "sqlite:///till.db?layout=eventsourcing", target)
    done = driver(tmp_path, DRIVER, target, 7, 43)
    assert done.returncode == 0, done.stderr
    numbers = done.stdout.split()
    assert len(numbers) >= 4
    *others, last = [tmp_path / f"killed-{number}.db" for number in numbers]
    wanted = rows(last, *BOTH)
    assert [row[0] for row in wanted[0]] == list(range(1, 79))
    for path in others:
        assert rows(path, *BOTH) == wanted, path.name
    assert till(tmp_path, "read", 2, **sqlite(last)) == expected
    assert till(tmp_path, "add", 2, **sqlite(last)) == "79 13"


def held(url: str, schema: str) -> list[tuple[object, ...]]:
    """Events without their global positions, which a batch that failed leaves holes in."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"SELECT originator_id, originator_version, topic, state, o.stream, o.stream_position,"
            f" o.ordinal, o.number, o.event_id FROM {schema}.till_events e"
            f" LEFT JOIN {schema}.eventmig_layout_origins o"
            " ON o.global_position = e.notification_id ORDER BY notification_id".encode()
        )
        return found.fetchall()


def test_killed_at_any_statement_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    till(tmp_path, "write", 1, **postgres(postgres_url, create=True))
    expected = till(tmp_path, "read", 1, **postgres(postgres_url))
    source = f"{postgres_url}&layout=eventsourcing&table=till_events&schema=public"
    target = source.replace("=public", "=k_NUMBER")
    in_files(tmp_path, source, target)
    done = driver(tmp_path, DRIVER, target, 12, 131)
    assert done.returncode == 0, done.stderr
    numbers = done.stdout.split()
    assert len(numbers) >= 3
    found = [held(postgres_url, f"k_{number}") for number in numbers]
    assert len(found[0]) == 78
    assert all(one == found[0] for one in found)
    assert till(tmp_path, "read", 2, **postgres(postgres_url, f"k_{numbers[0]}")) == expected


RENAME = """
from eventmig import Registry, ops, upcaster

registry = Registry([upcaster("Added", 1, ops.rename("price", "amount"))])
"""


def test_killed_at_any_statement_where_an_event_is_in_several_tables(
    tmp_path: Path, postgres_url: str
) -> None:
    case = next(case for case in CASES if case.layout == "commanded")
    carts = [event(f"cart-{n % 5}", "Added", {"price": n}) for n in range(60)]
    fill(tmp_path / "source.db", carts)
    target = f"{postgres_url}&layout=own&schema=k_NUMBER"
    created = json.dumps(case.tables)  # a list of TOML, too
    own = f'\n[layouts.own]\npreset = "commanded"\ncreate = {created}\n'
    (tmp_path / "upcasters.py").write_text(RENAME)
    config = CONFIG.format(source="sqlite:///source.db", target=target)
    (tmp_path / "eventmig.toml").write_text(config + own)
    assert cli(tmp_path, "release", "2").returncode == 0
    done = driver(tmp_path, DRIVER, target, 75, 200)
    assert done.returncode == 0, done.stderr
    numbers = done.stdout.split()
    assert len(numbers) >= 2
    found = []
    for number in numbers:
        with psycopg.connect(postgres_url) as connection:
            connection.execute(f"SET search_path TO k_{number}".encode())
            found.append(connection.execute(case.after.encode()).fetchall())
    assert [row[1] for row in found[0] if row[0] == 0] == list(range(1, 61)), "without a gap"
    assert all(one == found[0] for one in found)


@pytest.fixture
def its(tmp_path: Path, own_postgres_server: OwnServer) -> Iterator[Project]:
    """A job from one schema to another, on a server that may be stopped."""
    (tmp_path / "steps_here.py").write_text(UPCASTERS)
    registry = imported(tmp_path / "steps_here.py").registry
    with own_postgres_server.database() as url:
        till(tmp_path, "write", 1, **postgres(url, create=True))
        place = f"{url}&layout=eventsourcing&table=till_events&schema="
        yield project(
            tmp_path,
            registry,
            source=f"{place}public",
            target=f"{place}new",
            batch_size=20,
        )


def assert_it_goes_on(its: Project) -> None:
    source, target = its.config.source, its.config.target
    assert source
    assert target
    report = commands.upcast(its)
    assert (report.ready, report.resumed, report.job.tally.written) == (True, True, 78)
    folder = its.config.folder
    old, new = postgres(source), postgres(target, "new")
    assert till(folder, "read", 2, **new) == till(folder, "read", 1, **old)
    assert till(folder, "add", 2, **new).endswith(" 13")


def test_a_server_that_crashes_in_the_middle(its: Project, own_postgres_server: OwnServer) -> None:
    def crash(progress: Progress) -> None:
        if progress.done == 40:
            own_postgres_server.stop_hard()

    try:
        with pytest.raises(StoreUnavailableError) as error:
            commands.upcast(its, on_progress=crash)
        assert "goes on from the last commit" in error.value.remedy
    finally:
        own_postgres_server.start()
    assert len(held(str(its.config.target).split("&layout")[0], "new")) == 40
    assert_it_goes_on(its)


@pytest.mark.parametrize("when", [Cut.BEFORE, Cut.AFTER])
def test_a_connection_cut_at_a_commit(
    its: Project, own_postgres_server: OwnServer, when: Cut
) -> None:
    """Whether the server got it or not: the outcome is in its ledger, and the job reads it."""
    target = str(its.config.target)
    whole = target.replace("schema=new", "schema=whole")
    commits: dict[int, int] = {}
    with Proxy(own_postgres_server.url) as proxy:
        commands.upcast(
            its,
            target=proxy.near(whole),
            on_progress=lambda p: commits.setdefault(p.done, proxy.commits),
        )
        proxy.cut(commits[40], when)
        with pytest.raises(StoreUnavailableError) as error:
            commands.upcast(its, target=proxy.near(target))
        assert proxy.cuts == 1
    assert "goes on from the last commit" in error.value.remedy
    assert 0 < len(held(target.split("&layout")[0], "new")) < 78
    assert_it_goes_on(its)
