"""A failing event stops the job and says where; or it is set aside, and holds the job back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventmig import EventSchema, Registry, commands, data_upcaster, merge, ops, upcaster
from eventmig.cli.exits import ExitCode, exit_code
from eventmig.config import Config
from eventmig.errors import ConfigError, JobError, UpcastError, VerifyError
from eventmig.events import Event
from eventmig.migrate.states import State
from eventmig.project import Project
from eventmig.release import Lock
from eventmig.stream_steps import Unfinished
from tests.acceptance.support import contents, event, fill, project, read


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    n: int


@data_upcaster("Fn", 1)
def raises(data: dict[str, int]) -> dict[str, float]:
    return {"n": 1 / data["n"]}


@data_upcaster("Nothing", 1)
def nothing(data: dict[str, int]) -> dict[str, int] | None:
    return data if data["n"] else None


FAILING: list[Any] = [
    upcaster("Op", 1, ops.rename("n", "m")),
    raises,
    nothing,
    upcaster("Invalid", 1, ops.add("x", 1), why="the model does not know x"),
    merge("pair", "First", "Second", into="Whole", streams="pair-*", unfinished=Unfinished.REFUSE),
]
SCHEMAS = [EventSchema("Invalid", 2, Strict)]


@data_upcaster("Fn", 1)
def mended_raises(data: dict[str, int]) -> dict[str, float]:
    return {"n": 1 / data["n"] if data["n"] else 0}


@data_upcaster("Nothing", 1)
def mended_nothing(data: dict[str, int]) -> dict[str, int]:
    return data


MENDED: list[Any] = [
    upcaster("Op", 1, ops.drop("m"), ops.rename("n", "m")),
    mended_raises,
    mended_nothing,
    upcaster("Invalid", 1),
    merge("pair", "First", "Second", into="Whole", streams="pair-*"),
]

BAD = {
    # type: data, step, what is said
    "Op": (b'{"n":1,"m":2}', "Op v1 → v2", "there is a member at m already"),
    "Fn": (b'{"n":0}', "Fn v1 → v2", "raised ZeroDivisionError: division by zero"),
    "Nothing": (b'{"n":0}', "Nothing v1 → v2", "returned nothing"),
    "Invalid": (b'{"n":0}', "Invalid v1 → v2", "Invalid v2 rejects the data"),
    "First": (b"{}", "pair", "First has no matching Second"),
}


def failing_project(folder: Path, **config: Any) -> Project:
    return project(folder, Registry(FAILING, schemas=SCHEMAS), batch_size=2, **config)


def mended_project(folder: Path, **config: Any) -> Project:
    return project(folder, Registry(MENDED, schemas=SCHEMAS), batch_size=2, **config)


def history(bad: Event) -> list[Event]:
    """Good events before, around and after a bad one, some of them in its stream."""
    good = [event(f"s-{n % 2}", "Fn", {"n": n + 1}) for n in range(9)]
    return [*good[:5], bad, *good[5:], event(bad.stream, "Plain", {})]


def never_failed(folder: Path, events: list[Event]) -> Path:
    aside = folder / "never failed"
    aside.mkdir()
    fill(aside / "source.db", events)
    assert commands.upcast(mended_project(aside)).ready
    return aside / "target.db"


@pytest.mark.parametrize("type_", BAD)
def test_it_stops_the_job_and_says_where(tmp_path: Path, type_: str) -> None:
    data, step, what = BAD[type_]
    bad = event("pair-1" if type_ == "First" else "s-1", type_, data)
    events = history(bad)
    source = fill(tmp_path / "source.db", events)
    stored = next(e for e in source if e.id == bad.id)
    its = failing_project(tmp_path)
    with pytest.raises(UpcastError) as caught:
        commands.upcast(its)

    error = caught.value
    assert what in error.what
    assert error.remedy
    place = error.where
    assert (place.stream, place.stream_position) == (stored.stream, stored.stream_position)
    assert (place.type, place.schema_version, place.step) == (type_, 1, step)
    assert exit_code(error) == ExitCode.STOPPED
    job = commands.status(its).job
    assert job.state is State.FAILED
    assert what in job.reason
    assert len(read(tmp_path / "target.db")) == 4  # the two batches before
    job.tally.check()

    report = commands.upcast(mended_project(tmp_path))
    assert report.ready
    assert report.resumed
    wanted = never_failed(tmp_path, events)
    assert contents(tmp_path / "target.db", ledger=False) == contents(wanted, ledger=False)


@pytest.mark.parametrize("type_", BAD)
def test_set_aside_it_holds_the_job_back_until_it_passes(tmp_path: Path, type_: str) -> None:
    data, step, what = BAD[type_]
    bad = event("pair-1" if type_ == "First" else "s-1", type_, data)
    events = history(bad)
    source = fill(tmp_path / "source.db", events)
    stored = next(e for e in source if e.id == bad.id)
    its = failing_project(tmp_path)
    report = commands.upcast(its, quarantine=True)

    aside = 2 if type_ == "First" else 1  # a stream that cannot be transformed, as a whole
    assert not report.ready
    assert report.job.state is State.PAUSED
    assert report.verification is None
    assert report.job.tally.quarantined == aside
    assert report.job.tally.read == len(source)
    found = commands.quarantined(its)
    assert len(found) == aside
    assert found[0].event == stored
    assert what in found[0].what
    assert found[0].where.step == step
    assert found[0].remedy
    before = contents(tmp_path / "target.db")
    assert commands.upcast(its).job.state is State.PAUSED  # nothing changed, and nothing changes
    assert contents(tmp_path / "target.db") == before

    still, none = commands.retry_quarantined(its)
    assert none is None
    assert [q.event for q in still] == [q.event for q in found]
    assert contents(tmp_path / "target.db", ledger=False) == {
        name: rows for name, rows in before.items() if not name.startswith("eventmig_")
    }

    left, after = commands.retry_quarantined(mended_project(tmp_path))
    assert left == []
    assert after is not None
    assert after.ready
    assert after.job.tally.quarantined == 0
    assert commands.quarantined(its) == []
    wanted = never_failed(tmp_path, events)
    assert contents(tmp_path / "target.db", ledger=False) == contents(wanted, ledger=False)
    assert after.job.tally == commands.status(mended_project(wanted.parent)).job.tally


def test_several_at_once_and_the_source_growing_meanwhile(tmp_path: Path) -> None:
    bad = [event(f"s-{n}", type_, BAD[type_][0]) for n, type_ in enumerate(BAD) if type_ != "First"]
    first = [e for one in bad for e in (event(one.stream, "Plain", {}), one)]
    later = [event(e.stream, "Plain", {"later": True}) for e in bad] + [
        event("s-9", "Op", bad[0].data)
    ]
    fill(tmp_path / "source.db", first)
    its = failing_project(tmp_path)
    assert commands.upcast(its, quarantine=True).job.tally.quarantined == 4
    fill(tmp_path / "source.db", later)
    assert commands.upcast(its, quarantine=True).job.tally.quarantined == 5
    assert [q.event.id for q in commands.quarantined(its)] == [e.id for e in [*bad, later[-1]]]

    left, after = commands.retry_quarantined(mended_project(tmp_path))
    assert left == []
    assert after is not None
    assert after.ready
    wanted = never_failed(tmp_path, [*first, *later])
    assert contents(tmp_path / "target.db", ledger=False) == contents(wanted, ledger=False)


def test_a_stream_set_aside_whole_passes_when_its_rest_has_come(tmp_path: Path) -> None:
    """The refused half of a merge: the other half is appended, and the retry takes both."""
    parts = [event("pair-1", "First", {}), event("s-1", "Plain", {}), event("pair-1", "Second", {})]
    fill(tmp_path / "source.db", parts[:2])
    its = failing_project(tmp_path)
    assert commands.upcast(its, quarantine=True).job.tally.quarantined == 1
    fill(tmp_path / "source.db", parts[2:])
    report = commands.upcast(its, quarantine=True)
    assert report.job.state is State.PAUSED  # only a retry goes back
    left, after = commands.retry_quarantined(its)
    assert left == []
    assert after is not None
    assert after.ready
    assert [e.type for e in read(tmp_path / "target.db")] == ["Plain", "Whole"]


def test_a_mended_step_that_would_change_what_is_written_is_found(tmp_path: Path) -> None:
    """Going on with mended upcasters is allowed; that they agree with the past is verified."""
    fill(tmp_path / "source.db", history(event("s-1", "Op", BAD["Op"][0])))
    commands.upcast(failing_project(tmp_path), quarantine=True)

    @data_upcaster("Fn", 1)
    def another(data: dict[str, int]) -> dict[str, float]:
        return {"n": -data["n"]}

    steps = [another, *[s for s in MENDED if s is not mended_raises]]
    with pytest.raises(VerifyError, match="s-0 at 1: data is"):
        commands.retry_quarantined(
            project(tmp_path, Registry(steps, schemas=SCHEMAS), batch_size=2)
        )


def test_the_naming_of_the_job_holds_for_its_retry(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history(event("s-1", "Op", BAD["Op"][0])))
    commands.upcast(failing_project(tmp_path), quarantine=True, naming="{stream}-{release}")
    left, after = commands.retry_quarantined(mended_project(tmp_path))
    assert left == []
    assert after is not None
    assert after.ready
    assert {e.stream for e in read(tmp_path / "target.db")} == {"s-0-2", "s-1-2"}


def test_a_newer_event_is_set_aside_too(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [event("s-1", "Op", {"n": 1}, version=3), event("s-1", "Op", {})])
    its = failing_project(tmp_path)
    with pytest.raises(UpcastError, match="Op v3 is newer than what is known"):
        commands.upcast(its)
    assert commands.upcast(its, quarantine=True).job.tally.quarantined == 1


def test_a_second_process_sets_aside_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    bad = event("s-1", "Invalid", BAD["Invalid"][0])
    found = []
    for workers, name in enumerate(("one", "two"), 1):
        fill(tmp_path / name / "source.db", history(bad)[:7])
        config = Config(
            folder=tmp_path / name,
            registry="tests.acceptance.test_quarantine:registry_of_the_failing",
            source="sqlite:///source.db",
            target="sqlite:///target.db",
            batch_size=2,
        )
        lock = Lock((registry_of_the_failing.freeze("2"),))
        its = Project(config, given_lock=lock)
        with pytest.raises(UpcastError) as caught:
            commands.upcast(its, workers=workers)
        commands.upcast(its, workers=workers, quarantine=True)
        found.append((str(caught.value), contents(tmp_path / name / "target.db")))
    assert found[0][0] == found[1][0]
    ids = [[row for name in ("events", "eventmig_batches") for row in t[name]] for _, t in found]
    assert len(ids[0]) == len(ids[1])
    assert found[0][1]["eventmig_quarantine"][0][6:] == found[1][1]["eventmig_quarantine"][0][6:]


registry_of_the_failing = Registry(FAILING, schemas=SCHEMAS)


def test_a_second_process_needs_a_named_registry(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [])
    with pytest.raises(ConfigError, match="registry that the configuration names"):
        commands.upcast(failing_project(tmp_path), workers=2)
    assert not (tmp_path / "target.db").exists()


def test_nothing_to_retry_is_harmless(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [event("s-1", "Op", {"n": 1})])
    its = failing_project(tmp_path)
    with pytest.raises(Exception, match="no job has this target"):
        commands.retry_quarantined(its)
    commands.upcast(its)
    left, after = commands.retry_quarantined(its)
    assert left == []
    assert after is not None
    assert after.ready


def test_a_drifted_registry_is_not_retried_with(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history(event("s-1", "Op", BAD["Op"][0])))
    its = failing_project(tmp_path)
    commands.upcast(its, quarantine=True)
    drifted = Project(
        its.config, given_registry=Registry(MENDED, schemas=SCHEMAS), given_lock=its.lock
    )
    with pytest.raises(Exception, match="Op v1 changed after it was released"):
        commands.retry_quarantined(drifted)
    with pytest.raises(JobError, match="no job"):
        commands.status(project(tmp_path, Registry([]), target="sqlite:///source.db"))
