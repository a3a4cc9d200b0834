"""What every test may use: the real histories, the libraries that own other stores, a PostgreSQL
server, and how hypothesis runs.

The real histories do not belong to the repository. They are looked for in the folder that
EVENTMIG_SHARED names, else in ../shared beside the checkout. A test that needs one asks for the
fixture; without the files it is skipped, and the run says at its end how many were. So it is with
owners' libraries (`tests/owners.py`), which come from npm and pip.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import owners, postgres
from tests.disk import Database, database_on_a_disk
from tests.postgres import OwnServer, Server

ROOT = Path(__file__).resolve().parent.parent
MEMORY = Path("/dev/shm")  # a tmpfs, where there is one
ROOM = 4 << 30  # bytes; a run needs less than one GiB
REAL_HISTORIES = ("vcdb", "gharchive")
_ABSENT = "real data absent"
_UNPROVEN = "an owner's library absent"

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
_owners = pytest.StashKey[dict[str, str]]()  # by library: why it is not here, or ""


def _shared() -> Path:
    named = os.environ.get("EVENTMIG_SHARED")
    if named and not Path(named).is_dir():
        raise pytest.UsageError(f"EVENTMIG_SHARED names no folder: {named}")
    return Path(named).resolve() if named else ROOT.parent / "shared"


def _history(name: str) -> Path | None:
    folder = _shared() / "realdata" / name
    return folder if folder.is_dir() else None


def _work_in_memory(config: pytest.Config) -> None:
    """Let tests have their files in memory, where there is room and nobody chose another place.

    What they kill are processes, never the machine: what these have written, the system keeps.
    Waiting for a disk at each of their commits proves nothing, and took a third of the time.
    """
    chosen = ("PYTEST_DEBUG_TEMPROOT", "TMPDIR")
    if config.option.basetemp is not None or any(map(os.environ.get, chosen)):
        return
    with suppress(OSError, AttributeError):  # no such folder; no such call
        found = os.statvfs(MEMORY)
        room = found.f_bavail * found.f_frsize >= ROOM
        if room and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
            os.environ["TMPDIR"] = str(MEMORY)
            tempfile.tempdir = None  # looked up anew


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun by `nohup … &`
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start is interrupted
    _shared()
    _work_in_memory(config)
    config.stash[_not_run] = []
    config.stash[_owners] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: then no process is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What is imported by now stays: neither the collector nor a fork looks through it again."""
    gc.collect()
    gc.freeze()


def _presence() -> str:
    states = (f"{name} {'present' if _history(name) else 'absent'}" for name in REAL_HISTORIES)
    return f"real histories: {', '.join(states)}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On one of several processes: what the run's summary is to say goes to the first one."""
    if (said := getattr(session.config, "workeroutput", None)) is not None:
        said["not_run"] = session.config.stash[_not_run]
        said["owners"] = session.config.stash[_owners]
        said["postgres"] = session.config.stash.get(_postgres, None)
        said["disks"] = session.config.stash.get(_disks, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The other end of `pytest_sessionfinish`."""
    said = getattr(node, "workeroutput", {})
    node.config.stash[_not_run] += said.get("not_run", [])
    node.config.stash[_owners].update(said.get("owners", {}))
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
    where = os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir()
    terminalreporter.write_line(f"stores: SQLite in files in {where}, PostgreSQL {used}")
    if disks := config.stash.get(_disks, None):
        terminalreporter.write_line(f"full disks of servers: {disks}")
    here = [library for library, why in config.stash[_owners].items() if not why]
    terminalreporter.write_line(f"owners' libraries: {', '.join(sorted(here)) or 'not used'}")
    for library, why in sorted(config.stash[_owners].items()):
        if why:
            terminalreporter.write_line(f"NOT PROVEN with {library}: {why}")


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
def owner(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Ask for the folder where an owner's library is installed, with the programs that use it.

    Installs it the first time; skips the test where that cannot be done, and the run says so.
    """
    told = request.config.stash[_owners]

    def folder(name: str) -> Path:
        library = owners.described(name)
        if not told.get(library):
            told[library] = ""
            try:
                return owners.installed(name)
            except owners.NotInstalledError as error:
                told[library] = str(error)
        pytest.skip(f"{_UNPROVEN}: {library}: {told[library]}")

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
