"""A job on PostgreSQL resumes from whatever stopped it: its own death, a server's, a
connection's. Never a duplicate, never a hole.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from eventmig import Registry, commands
from eventmig.errors import StoreUnavailableError
from eventmig.migrate.job import Progress
from eventmig.project import Project
from tests.acceptance.support import cli, driver, project, project_in_files, steps
from tests.acceptance.test_postgres_jobs import clean_history, fill, held
from tests.postgres import OwnServer
from tests.proxy import Cut, Proxy

EVENTS = 21
BATCH = 3

# One process that is forked for every run. A run is killed just before the n-th time that it
# talks to a server, or in the n-th report of progress.
DRIVER = """
import os, signal, sys
import psycopg
from eventmig import commands
from eventmig.project import Project
from tests.forks import forked

its = Project.open()
its.registry
wait = psycopg.Connection.wait

def run(target, kind, kill_at):
    count = 0
    def point(*ignored):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    def traced(*args, **kwargs):
        point()
        return wait(*args, **kwargs)
    if kind == "statement":
        psycopg.Connection.wait = traced
    report = commands.upcast(its, target=target, on_progress=point if kind == "progress" else None)
    os._exit(0 if report.ready else 9)

target, kind, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kill_at, code = first, -9
while code == -9:
    url = f"{target}&schema={kind}_{kill_at}"
    code = forked(run, url, kind, kill_at)
    assert code in (0, -9), code
    if code == -9:
        assert forked(run, url, "never", 0) == 0
        print(url)
    kill_at += step
"""


@pytest.fixture
def reference(tmp_path: Path) -> list[tuple[object, ...]]:
    """What a job that nobody disturbs makes of source.db."""
    fill(f"sqlite:///{tmp_path}/source.db", clean_history(EVENTS))
    its = project(tmp_path, Registry(steps()))
    assert commands.upcast(its, target=f"sqlite:///{tmp_path}/reference.db").ready
    return held(f"sqlite:///{tmp_path}/reference.db")


@pytest.fixture
def its(tmp_path: Path) -> Project:
    return project(tmp_path, Registry(steps()), batch_size=BATCH)


def assert_whole(its: Project, url: str, reference: list[tuple[object, ...]]) -> None:
    assert held(url) == reference
    report = commands.verify(its, target=url)
    assert report.verification is not None
    assert report.verification.right
    assert report.job.tally.read == EVENTS
    assert report.job.tally.written == len(reference)


@pytest.mark.parametrize(
    ("kind", "first", "step", "at_least"), [("progress", 2, 5, 2), ("statement", 9, 61, 5)]
)
def test_killed_at_any_point_it_ends_as_if_it_had_not_been(
    tmp_path: Path,
    its: Project,
    postgres_url: str,
    reference: list[tuple[object, ...]],
    kind: str,
    first: int,
    step: int,
    at_least: int,
) -> None:
    folder = project_in_files(tmp_path / "in files")
    fill(f"sqlite:///{folder}/source.db", clean_history(EVENTS))
    done = driver(folder, DRIVER, postgres_url, kind, first, step)
    assert done.returncode == 0, done.stderr
    killed = done.stdout.split()
    assert len(killed) >= at_least
    for url in killed:
        assert held(url) == reference, url
    assert_whole(its, killed[-1], reference)


def test_two_workers_from_one_database_to_another(
    tmp_path: Path, postgres_url: str, reference: list[tuple[object, ...]]
) -> None:
    folder = project_in_files(tmp_path / "in files")
    fill(f"{postgres_url}&schema=old", clean_history(EVENTS))
    target = f"{postgres_url}&schema=new"
    done = cli(
        folder, "upcast", "--source", f"{postgres_url}&schema=old", "--target", target,
        "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert held(target) == reference


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "not flushed"])
def test_a_server_that_crashes_in_the_middle(
    its: Project,
    own_postgres_server: OwnServer,
    reference: list[tuple[object, ...]],
    flushed: bool,
) -> None:
    """Batches of a new target do not wait for the disk: the last of them may be gone."""
    with own_postgres_server.database() as url:
        reports = 0

        def crash(progress: Progress) -> None:
            nonlocal reports
            reports += 1
            if reports == 5:
                if flushed:
                    own_postgres_server.run("CHECKPOINT")
                own_postgres_server.stop_hard()

        target = f"{url}&schema=a"
        try:
            with pytest.raises(StoreUnavailableError) as error:
                commands.upcast(its, target=target, on_progress=crash)
            assert "same command again" in error.value.remedy
        finally:
            own_postgres_server.start()
        assert (0 if flushed else -1) < len(held(target)) < len(reference)
        resumed = commands.upcast(its, target=target)
        assert resumed.resumed
        assert resumed.ready
        assert_whole(its, target, reference)


# --- a connection that is cut


@pytest.mark.parametrize("when", [Cut.BEFORE, Cut.AFTER])
def test_a_connection_cut_at_a_commit(
    its: Project, postgres_url: str, reference: list[tuple[object, ...]], when: Cut
) -> None:
    """Whether the server got it or not: the outcome is in its ledger, and the job reads it."""
    with Proxy(postgres_url) as proxy:
        assert commands.upcast(its, target=proxy.near(f"{postgres_url}&schema=whole")).ready
        commits = proxy.commits
        assert commits > 10
        for at in range(2, commits + 1, 4):
            target = f"{postgres_url}&schema=cut_{at}"
            proxy.cut(at, when)
            with pytest.raises(StoreUnavailableError) as error:
                commands.upcast(its, target=proxy.near(target))
            assert proxy.cuts == 1
            assert "same command again" in error.value.remedy
            assert commands.upcast(its, target=target).ready
            assert held(target) == reference
    assert_whole(its, target, reference)


def test_mutations_behind_the_jobs_back_are_found(
    its: Project, postgres_url: str, reference: list[tuple[object, ...]]
) -> None:
    target = f"{postgres_url}&schema=a"
    assert commands.upcast(its, target=target).ready
    mutations = {
        "dropped": "DELETE FROM a.events WHERE global_position = 5",
        "changed": "UPDATE a.events SET data = data || '{\"more\": 1}' WHERE global_position = 5",
        "in time": "UPDATE a.events SET recorded_at = recorded_at + 1 WHERE global_position = 5",
        "metadata": 'UPDATE a.events SET metadata = \'{"who":"ada"}\' WHERE global_position = 5',
        "renamed": "UPDATE a.events SET event_id = 'x' WHERE global_position = 5",
        "swapped": """UPDATE a.events e SET event_id = o.event_id || '' FROM a.events o
            WHERE (e.global_position, o.global_position) IN ((1, 2), (2, 1))""",
        "origin": "UPDATE a.events SET origin_position = 77 WHERE global_position = 1",
    }
    for mutation in mutations.values():
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE a.kept AS TABLE a.events")
            connection.execute("DROP INDEX a.events_by_id")  # two ids change places
            connection.execute(mutation.encode())
        found = commands.verify(its, target=target).verification
        assert found is not None
        assert not found.right, mutation
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DELETE FROM a.events")
            connection.execute("INSERT INTO a.events TABLE a.kept")
            connection.execute("DROP TABLE a.kept")
            connection.execute("CREATE UNIQUE INDEX events_by_id ON a.events (event_id)")
    assert_whole(its, target, reference)
