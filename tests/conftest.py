"""What every test may use: the real histories, a PostgreSQL server, and how hypothesis runs.

The real histories do not belong to the repository. They are looked for in the folder that
EVENTMIG_SHARED names, else in ../shared beside the checkout. A test that needs one asks for the
fixture; without the files it is skipped, and the run says at its end how many were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import postgres
from tests.disk import Database, database_on_a_disk
from tests.postgres import OwnServer, Server

ROOT = Path(__file__).resolve().parent.parent
REAL_HISTORIES = ("vcdb", "gharchive")
_ABSENT = "real data absent"

# A shared machine is slow now and then: no deadline per example. In CI the same examples each
# time; elsewhere new ones, and a failure prints how to run it again.
settings.register_profile(
    "ci",
    deadline=None,
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

_not_run = pytest.StashKey[list[str]]()
_postgres = pytest.StashKey[str]()
_disks = pytest.StashKey[str]()


def _shared() -> Path:
    named = os.environ.get("EVENTMIG_SHARED")
    if named and not Path(named).is_dir():
        raise pytest.UsageError(f"EVENTMIG_SHARED names no folder: {named}")
    return Path(named).resolve() if named else ROOT.parent / "shared"


def _history(name: str) -> Path | None:
    folder = _shared() / "realdata" / name
    return folder if folder.is_dir() else None


def pytest_configure(config: pytest.Config) -> None:
    _shared()
    config.stash[_not_run] = []


def _presence() -> str:
    states = (f"{name} {'present' if _history(name) else 'absent'}" for name in REAL_HISTORIES)
    return f"real histories: {', '.join(states)}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On one of several processes: what the run's summary is to say goes to the first one."""
    if (said := getattr(session.config, "workeroutput", None)) is not None:
        said["not_run"] = session.config.stash[_not_run]
        said["postgres"] = session.config.stash.get(_postgres, None)
        said["disks"] = session.config.stash.get(_disks, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The other end of `pytest_sessionfinish`."""
    said = getattr(node, "workeroutput", {})
    node.config.stash[_not_run] += said.get("not_run", [])
    if said.get("postgres"):
        node.config.stash[_postgres] = said["postgres"]
    if said.get("disks"):
        node.config.stash[_disks] = said["disks"]


def pytest_report_header() -> str:
    return _presence()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    not_run = config.stash[_not_run]
    line = _presence()
    if not_run:
        line += f"; {len(not_run)} real-data tests NOT RUN (EVENTMIG_SHARED=… names the folder)"
    terminalreporter.write_line(line)
    used = config.stash.get(_postgres, "not used")
    terminalreporter.write_line(f"stores: SQLite in files, PostgreSQL {used}")
    if disks := config.stash.get(_disks, None):
        terminalreporter.write_line(f"full disks of servers: {disks}")


@pytest.fixture
def shared() -> Path:
    """The folder with `realdata/` in it; skips the test where there is none."""
    if not (_shared() / "realdata").is_dir():
        pytest.skip(f"{_ABSENT}: no folder realdata in EVENTMIG_SHARED or ../shared")
    return _shared()


@pytest.fixture
def real_history(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Ask for the folder of one real history by name; skips the test where it is absent."""

    def folder(name: str) -> Path:
        found = _history(name)
        if found is None:
            pytest.skip(f"{_ABSENT}: realdata/{name} in EVENTMIG_SHARED or ../shared")
        return found

    return folder


@pytest.fixture
def shared_layout() -> Callable[[str], Path]:
    """Ask for the folder of a history in another library's tables; skips where it is absent."""

    def folder(name: str) -> Path:
        found = _shared() / "layouts" / name
        if not found.is_dir():
            pytest.skip(f"{_ABSENT}: layouts/{name} in EVENTMIG_SHARED or ../shared")
        return found

    return folder


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The PostgreSQL server of this run; started when the first test asks for it."""
    server = postgres.start()
    kind = "started for the run" if isinstance(server, OwnServer) else f"of {postgres.VARIABLE}"
    request.config.stash[_postgres] = f"{server.version()} ({kind})"
    yield server
    server.remove()


@pytest.fixture(scope="session")
def own_postgres_server(postgres_server: Server) -> Iterator[OwnServer]:
    """A server that a test may stop (`stop_hard`) if it starts it again."""
    if isinstance(postgres_server, OwnServer):
        yield postgres_server
        return
    server = OwnServer()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def full_disk(request: pytest.FixtureRequest, own_postgres_server: OwnServer) -> Iterator[Database]:
    """A fresh PostgreSQL database whose disk can be filled; the run says how that is done."""
    with database_on_a_disk(own_postgres_server, 40) as (database, how):
        request.config.stash[_disks] = how
        yield database


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and call.excinfo and _ABSENT in str(call.excinfo.value):
        item.config.stash[_not_run].append(item.nodeid)
    return report
