"""A job on PostgreSQL resumes from whatever stopped it: its own death, a server's, a
connection's. Never a duplicate, never a hole.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from sqlalchemy import make_url

from eventmig import Registry, commands
from eventmig.errors import StoreUnavailableError
from eventmig.migrate.job import Progress
from eventmig.project import Project
from tests.acceptance.support import cli, driver, project, project_in_files, steps
from tests.acceptance.test_postgres_jobs import clean_history, fill, held
from tests.postgres import OwnServer

EVENTS = 21
BATCH = 3

# One process that is forked for every run. A run is killed just before the n-th time that it
# talks to a server, or in the n-th report of progress.
DRIVER = """
import os, signal, sys
import psycopg
from eventmig import commands
from eventmig.project import Project

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

def forked(*arguments):
    child = os.fork()
    if child == 0:
        try:
            run(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        os._exit(8)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

target, kind, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kill_at, code = first, -9
while code == -9:
    url = f"{target}&schema={kind}_{kill_at}"
    code = forked(url, kind, kill_at)
    assert code in (0, -9), code
    if code == -9:
        assert forked(url, "never", 0) == 0
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


def test_a_server_that_crashes_in_the_middle(
    its: Project, own_postgres_server: OwnServer, reference: list[tuple[object, ...]]
) -> None:
    with own_postgres_server.database() as url:
        reports = 0

        def crash(progress: Progress) -> None:
            nonlocal reports
            reports += 1
            if reports == 5:
                own_postgres_server.stop_hard()

        target = f"{url}&schema=a"
        try:
            with pytest.raises(StoreUnavailableError) as error:
                commands.upcast(its, target=target, on_progress=crash)
            assert "same command again" in error.value.remedy
        finally:
            own_postgres_server.start()
        assert 0 < len(held(target)) < len(reference)
        resumed = commands.upcast(its, target=target)
        assert resumed.resumed
        assert resumed.ready
        assert_whole(its, target, reference)


# --- a connection that is cut


class Proxy:
    """Stands between a client and the server's socket, and cuts the connection at a COMMIT.

    `cut_at` is which one (counted over all connections, from 1; 0: none); `before` cuts
    instead of passing it on, else its answer is read from the server and not passed on.
    """

    def __init__(self, folder: Path, server: Path, *, cut_at: int, before: bool) -> None:
        self.commits = 0
        self.cut = False
        self._cut_at = cut_at
        self._before = before
        self._server = str(server / ".s.PGSQL.5432")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            if select.select([self._listening], [], [], 0.02)[0]:
                client, _ = self._listening.accept()
                self._threads.append(threading.Thread(target=self._pass_on, args=(client,)))
                self._threads[-1].start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            while not self._stopped.is_set():
                for ready in select.select([client, server], [], [], 0.02)[0]:
                    data = b""
                    with suppress(ConnectionError):
                        data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client and b"COMMIT\0" in data:
                        self.commits += 1
                        if self.commits == self._cut_at:
                            self.cut = True
                            if not self._before:
                                server.sendall(data)
                                server.recv(1 << 16)
                            return
                    (server if ready is client else client).sendall(data)


@contextmanager
def through_a_proxy(
    server: OwnServer, url: str, *, cut_at: int, before: bool = True
) -> Iterator[tuple[str, Proxy]]:
    with TemporaryDirectory(prefix="eventmig-proxy-") as folder:
        proxy = Proxy(Path(folder), server.folder, cut_at=cut_at, before=before)
        try:
            near = make_url(url).update_query_dict({"host": folder})
            yield near.render_as_string(hide_password=False), proxy
        finally:
            proxy.close()


@pytest.fixture
def upcast_through(its: Project, own_postgres_server: OwnServer) -> Callable[..., int]:
    """Run the job through a proxy; returns how many COMMITs there were."""

    def run(url: str, *, cut_at: int, before: bool = True) -> int:
        with through_a_proxy(own_postgres_server, url, cut_at=cut_at, before=before) as (
            near,
            proxy,
        ):
            if cut_at:
                with pytest.raises(StoreUnavailableError) as error:
                    commands.upcast(its, target=near)
                assert proxy.cut
                assert "same command again" in error.value.remedy
            else:
                assert commands.upcast(its, target=near).ready
            return proxy.commits

    return run


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_connection_cut_at_a_commit(
    its: Project,
    own_postgres_server: OwnServer,
    upcast_through: Callable[..., int],
    reference: list[tuple[object, ...]],
    before: bool,
) -> None:
    """Whether the server got it or not: the outcome is in its ledger, and the job reads it."""
    with own_postgres_server.database() as url:
        commits = upcast_through(f"{url}&schema=whole", cut_at=0)
        assert commits > 10
        for cut_at in range(2, commits + 1, 4):
            target = f"{url}&schema=cut_{cut_at}"
            upcast_through(target, cut_at=cut_at, before=before)
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
