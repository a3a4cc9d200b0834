"""Killed anywhere, the same command resumes, and ends as if it had never been killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventmig import Registry, commands
from eventmig.errors import JobLockedError, JobLostError
from eventmig.migrate import ledger
from eventmig.migrate.batch import Transformed
from eventmig.migrate.job import UpcastJob
from eventmig.migrate.setting import Setting
from eventmig.stores.open import open_store
from tests.acceptance.support import (
    cli,
    contents,
    driver,
    environment,
    fill,
    history,
    project,
    project_in_files,
    read,
    steps,
    url,
)

MARK = "EVENTMIG_TEST_RUN"

# The driver is imported once and forks a process for every run. A run is killed either just
# before the n-th statement that it sends to the target's database, or in the n-th report of
# progress (which come after each commit, and before the first).
DRIVER = """
import os, signal, sys
from pathlib import Path
from eventmig import commands
from eventmig.project import Project
from eventmig.stores.sqlite import store as sqlite

connect = sqlite.connect_writer
from tests.forks import forked

its = Project.open()
its.registry

def run(target, workers, kind, kill_at):
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
    if kind == "statement":
        sqlite.connect_writer = traced
    report = commands.upcast(its, target=target, workers=workers,
                             on_progress=point if kind == "progress" else None)
    os._exit(0 if report.ready else 9)

if not Path("undisturbed.db").exists():
    assert forked(run, "sqlite:///undisturbed.db", 1, "never", 0) == 0

workers, kind, first, step = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kill_at, code = first, -9
while code == -9:
    target = f"sqlite:///killed-{kind}-{kill_at}.db"
    code = forked(run, target, workers, kind, kill_at)
    assert code in (0, -9), code
    if code == -9:
        assert forked(run, target, workers, "never", 0) == 0
    kill_at += step
print(kill_at)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project in files, with its history."""
    made = project_in_files(tmp_path / "in files")
    fill(made / "source.db", history(21))
    return made


def assert_all_equal(folder: Path, *, at_least: int) -> None:
    wanted = contents(folder / "undisturbed.db")
    killed = sorted(folder.glob("killed-*.db"))
    assert len(killed) >= at_least
    for path in killed:
        assert contents(path) == wanted, path.name
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "first", "step", "at_least"), [("progress", 1, 2, 6), ("statement", 3, 23, 6)]
)
def test_killed_at_any_point_it_ends_as_if_it_had_not_been(
    folder: Path, kind: str, first: int, step: int, at_least: int
) -> None:
    done = driver(folder, DRIVER, 1, kind, first, step)
    assert done.returncode == 0, done.stderr
    assert_all_equal(folder, at_least=at_least)


def test_killed_with_a_second_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(folder))
    done = driver(folder, DRIVER, 2, "progress", 4, 6)
    assert done.returncode == 0, done.stderr
    assert_all_equal(folder, at_least=2)
    assert_no_process_of(folder)


def test_killed_again_and_again_it_still_arrives(folder: Path) -> None:
    again = DRIVER.replace(
        'assert forked(run, target, workers, "never", 0) == 0',
        """
        times = 0
        while code == -9:
            times += 1
            code = forked(run, target, workers, kind, kill_at + times)
        assert code == 0, code
        assert times > 4
        break""",
    )
    done = driver(folder, again, 1, "progress", 3, 1)
    assert done.returncode == 0, done.stderr
    assert_all_equal(folder, at_least=1)


def test_killed_while_it_catches_up(folder: Path) -> None:
    """The source grew, and the run that follows it is killed."""
    for name in ("undisturbed.db", "killed-progress-2.db"):
        assert cli(folder, "upcast", "--target", f"sqlite:///{name}").returncode == 0
    fill(folder / "source.db", [e._replace(id=f"more-{e.id}") for e in history(14)[:6]])
    assert cli(folder, "upcast", "--target", "sqlite:///undisturbed.db").returncode == 0
    done = driver(folder, DRIVER, 1, "progress", 2, 1000)
    assert done.returncode == 0, done.stderr
    (folder / "killed-progress-1002.db").unlink()  # the run that was not reached, on a new target
    assert_all_equal(folder, at_least=1)


# processes ---------------------------------------------------------------------------------------


def processes_of(folder: Path) -> list[str]:
    """Processes that were started with MARK set to this folder, and their command lines."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def assert_no_process_of(folder: Path) -> None:
    if not Path("/proc/self/environ").exists():
        return
    deadline = time.monotonic() + 10
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


SLOW = """
import time
from pathlib import Path
from eventmig import Registry, data_upcaster
from tests.acceptance.support import steps

@data_upcaster("Untouched", 1)
def slow(data):
    if Path(__file__).with_name("slowly").exists():
        time.sleep(1)
    return data

registry = Registry([*steps(), slow])
"""


@pytest.fixture
def slow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = project_in_files(tmp_path / "slow", registry=SLOW)
    monkeypatch.setenv(MARK, str(made))
    clean = [e._replace(data=b'{"x":1}') if e.type == "Untouched" else e for e in history(210)]
    fill(made / "source.db", clean)
    return made


def begun(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A job that has committed at least two batches, still running, and slowly."""
    (folder / "slowly").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "eventmig", "upcast", *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What starts this suite in the background may have Ctrl-C ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        target = folder / "target.db"
        if target.exists() and batches(target) >= 2:
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    return process


def batches(target: Path) -> int:
    try:
        store = open_store(url(target))
    except Exception:  # noqa: BLE001 - it is being made
        return 0
    try:
        with store.reading() as connection:
            jobs = ledger.jobs(connection) if ledger.exists(connection) else []
            return len(list(ledger.batches(connection, jobs[0]))) if jobs else 0
    finally:
        store.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_a_job_that_resumes(slow_folder: Path, workers: str) -> None:
    process = begun(slow_folder, "--workers", workers)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    out, err = process.communicate(timeout=20)
    (slow_folder / "slowly").unlink()

    assert process.returncode == 130, err
    assert out == ""
    assert "the same command resumes" in " ".join(err.split())
    assert "Traceback" not in err
    assert_no_process_of(slow_folder)
    state = json.loads(cli(slow_folder, "status", "--json").stdout)
    assert state["job"]["state"] == "backfilling"
    assert not state["running"]
    resumed = json.loads(cli(slow_folder, "upcast", "--json").stdout)
    assert resumed["ready"]
    assert resumed["resumed"]
    assert resumed["job"]["tally"]["read"] == 210


def test_killed_from_outside_no_process_stays_behind(slow_folder: Path) -> None:
    process = begun(slow_folder, "--workers", "2")
    process.kill()
    _, err = process.communicate(timeout=20)
    (slow_folder / "slowly").unlink()

    assert_no_process_of(slow_folder)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert cli(slow_folder, "upcast", "--workers", "2").returncode == 0


def test_two_jobs_on_one_target_the_second_is_refused(slow_folder: Path) -> None:
    process = begun(slow_folder)
    second = cli(slow_folder, "upcast", "--json")
    status = json.loads(cli(slow_folder, "status", "--json").stdout)
    others = [cli(slow_folder, *c) for c in (["cancel"], ["verify"], ["quarantine", "retry"])]
    process.terminate()
    process.communicate(timeout=20)
    (slow_folder / "slowly").unlink()

    assert second.returncode == 5
    assert json.loads(second.stdout)["error"]["kind"] == "JobLockedError"
    assert status["running"]
    assert [o.returncode for o in others] == [5, 5, 5]
    assert cli(slow_folder, "upcast").returncode == 0


def test_the_lock_is_seen_within_one_process_too(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, Registry(steps()))
    commands.upcast(its)
    store = open_store(url(tmp_path / "target.db"), mode="write")
    with store.lock(), pytest.raises(JobLockedError):
        commands.upcast(its)
    store.close()
    assert commands.upcast(its).ready


@contextmanager
def job_in(folder: Path, **options: Any) -> Iterator[UpcastJob]:
    """A job from source.db to target.db, which is made, in batches of five events."""
    fill(folder / "source.db", history())
    its = project(folder, Registry(steps()))
    release = its.release()
    with (
        closing(open_store(url(folder / "source.db"))) as reader,
        closing(open_store(url(folder / "target.db"), mode="create")) as target,
    ):
        setting = Setting(
            release="2",
            steps_done=(),
            source_name=reader.url,
            naming="{stream}",
            registry_fingerprint=release.fingerprint(),
        )
        pipeline = its.pipeline(release, reader)
        yield UpcastJob(reader, target, pipeline, setting, batch_size=5, **options)


def test_who_lost_the_job_writes_nothing_more(tmp_path: Path) -> None:
    seen = []

    def taken_over(progress: object) -> None:
        seen.append(progress)
        if len(seen) == 3:  # after the second batch
            with job.target.begin() as tx:
                ledger.take_over(tx.connection, job.job, registry_fingerprint="x")
            before.update(contents(tmp_path / "target.db"))

    before: dict[str, list[tuple[object, ...]]] = {}
    with job_in(tmp_path, on_progress=taken_over) as job:
        job.begin_or_resume()
        with pytest.raises(JobLostError, match="another process took"):
            job.run()
        with pytest.raises(JobLostError):
            job.enter(job.job.state, "once more")
    assert contents(tmp_path / "target.db") == before
    assert len(read(tmp_path / "target.db")) > 0


@pytest.mark.parametrize("where", ["amid a commit", "between two"])
def test_who_is_stopped_reads_no_further(tmp_path: Path, where: str) -> None:
    """The source is closed next: a batch read ahead must not open it again."""
    seen: list[object] = []
    ended: list[str] = []

    def progress(report: object) -> None:
        seen.append(report)
        if len(seen) == 3:
            if where == "between two":
                raise KeyError("stopped")
            with job.target.begin() as tx:
                ledger.take_over(tx.connection, job.job, registry_fingerprint="x")

    def watched(*span: Any) -> Iterator[Transformed]:
        try:
            yield from job._copying._in_process(*span)
        finally:
            ended.append("closed")

    with job_in(tmp_path, on_progress=progress, transforming=watched) as job:
        job.begin_or_resume()
        with pytest.raises((JobLostError, KeyError)) as stopped:
            job.run()
        assert ended == ["closed"]
    assert stopped.type is (KeyError if where == "between two" else JobLostError)
