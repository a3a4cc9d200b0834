"""Whole jobs with KurrentDB on either side, and what a copy keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from eventmig import Registry, commands
from eventmig.errors import JobError
from eventmig.migrate.states import State
from eventmig.stores.open import open_store
from tests import kurrent
from tests.acceptance.kurrent_support import essence, everything, into_kurrent, job, reference
from tests.acceptance.support import fill, history, project, read, steps


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for the jobs that meet no fault: the tests' own, or a real one."""
    with kurrent.server() as url:
        yield url


# every direction --------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["global", "stream"])
@pytest.mark.parametrize("where", ["stream", "database"])
def test_sqlite_to_kurrentdb(tmp_path: Path, url: str, where: str, order: str) -> None:
    events = history(40)
    fill(tmp_path / "source.db", events)
    target = kurrent.fresh(url, order=order)
    if where == "database":
        target += "&ledger=sqlite:///ledger.db"
    its = job(tmp_path, "sqlite:///source.db", target)
    report = commands.upcast(its)
    assert report.ready
    assert report.verification is not None
    assert report.verification.target_events == report.job.tally.written > 0
    made = essence(everything(target), 0)
    wanted = essence(reference(tmp_path / "sqlite", events), 1)
    if order == "stream":
        made.sort(key=lambda e: e.stream)
        wanted.sort(key=lambda e: e.stream)
    assert made == wanted
    assert (tmp_path / "ledger.db").exists() == (where == "database")
    again = commands.upcast(its)
    assert again.resumed
    assert again.job.tally == report.job.tally
    assert commands.verify(its).verification.right  # type: ignore[union-attr]


def test_kurrentdb_to_sqlite(tmp_path: Path, url: str) -> None:
    source = kurrent.fresh(url)
    events = history(40)
    into_kurrent(source, events)
    its = job(tmp_path, source, "sqlite:///target.db")
    assert commands.upcast(its).ready
    made = essence(read(tmp_path / "target.db"), 1)
    assert made == essence(reference(tmp_path / "sqlite", events), 1)


def test_kurrentdb_to_postgresql_and_back(tmp_path: Path, url: str, postgres_url: str) -> None:
    source, target = kurrent.fresh(url), f"{postgres_url}&data=bytea"
    events = [e for e in history(40) if e.type != "Untouched"]
    into_kurrent(source, events)
    assert commands.upcast(job(tmp_path, source, target)).ready
    with open_store(target) as store:
        made = [e for batch in store.read_all() for e in batch]
    wanted = essence(reference(tmp_path / "sqlite", events), 1)
    assert essence(made, 1) == wanted

    back = f"{kurrent.fresh(url)}&ledger={quote(postgres_url, safe='')}"
    its = project(tmp_path, Registry(steps()), source=target, target=back)
    assert commands.upcast(its).ready
    again = essence(everything(back), 0)
    assert [e._replace(origins=()) for e in again] == [e._replace(origins=()) for e in wanted]
    assert commands.status(its).job.state is State.READY


def test_kurrentdb_to_kurrentdb(tmp_path: Path, url: str) -> None:
    source, target = kurrent.fresh(url), kurrent.fresh(url)
    events = history(40)
    into_kurrent(source, events)
    assert commands.upcast(job(tmp_path, source, target)).ready
    made = essence(everything(target), 0)
    assert made == essence(reference(tmp_path / "sqlite", events), 1)
    assert len(everything(source)) == 40, "the source stays as it is"


def test_a_job_never_reads_what_it_writes(tmp_path: Path, url: str) -> None:
    source = kurrent.fresh(url)
    into_kurrent(source, history(7))
    inside = source.replace(".&", ".new.&")
    with pytest.raises(JobError, match="share streams"):
        commands.upcast(job(tmp_path, source, inside))
    with pytest.raises(JobError, match="the target is the source"):
        commands.upcast(job(tmp_path, source, source))
    assert len(everything(source)) == 7


def test_what_comes_later_is_caught_up(tmp_path: Path, url: str) -> None:
    source, target = kurrent.fresh(url), kurrent.fresh(url)
    events = history(40)
    into_kurrent(source, events[:20])
    its = job(tmp_path, source, target)
    assert commands.upcast(its).ready
    into_kurrent(source, events[20:])
    report = commands.upcast(its)
    assert report.resumed
    assert report.ready
    made = sorted(essence(everything(target), 0), key=lambda e: (e.stream, e.stream_position))
    wanted = essence(reference(tmp_path / "sqlite", events), 1)
    assert made == sorted(wanted, key=lambda e: (e.stream, e.stream_position))
