"""A verification shared with a second process finds what one process finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eventmig import commands
from eventmig.commands import jobs
from eventmig.errors import JobError
from eventmig.migrate.verify import run
from eventmig.project import Project
from tests.acceptance.support import fill, history, project_in_files, sql

CHANGES = {
    "nothing": "SELECT 1",
    "data in the first half": "UPDATE events SET data = '{}' WHERE global_position = 2",
    "data in the second half": """UPDATE events SET data = '{}' WHERE global_position =
        (SELECT max(global_position) - 1 FROM events)""",
    "both": "UPDATE events SET metadata = NULL WHERE global_position % 9 = 1",
    "the end": """DELETE FROM events WHERE global_position =
        (SELECT max(global_position) FROM events)""",
}


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project_in_files(tmp_path_factory.mktemp("verified"))
    fill(folder / "source.db", history(60))
    commands.upcast(Project.open(folder / "eventmig.toml"))
    return folder


@pytest.fixture
def folder(verified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "WORTH_A_HELPER", 0)
    monkeypatch.setattr(run, "_BLOCK", 20)
    shutil.copytree(verified, tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("derive", [True, False])
def test_two_find_what_one_finds(folder: Path, change: str, derive: bool) -> None:
    sql(folder / "target.db", CHANGES[change])
    alone = commands.verify(
        Project.open(folder / "eventmig.toml"), derive=derive, workers=1
    ).verification
    shared = commands.verify(
        Project.open(folder / "eventmig.toml"), derive=derive, workers=2
    ).verification
    assert alone is not None
    assert shared is not None
    assert shared == alone
    assert alone.right == (change == "nothing")


def test_a_helper_goes_by_the_naming_that_is_given(folder: Path) -> None:
    alone, shared = (
        commands.verify(
            Project.open(folder / "eventmig.toml"), naming="{stream}-{release}", workers=workers
        ).verification
        for workers in (1, 2)
    )
    assert alone is not None
    assert {mismatch.field for mismatch in alone.shown} == {"stream"}
    assert shared == alone


def test_a_helper_with_other_code_is_refused(folder: Path) -> None:
    project = Project.open(folder / "eventmig.toml")
    assert project.registry is not None  # loaded; the helper loads what is there now
    (folder / "steps_here.py").write_text("from eventmig import Registry\nregistry = Registry([])")
    with pytest.raises(JobError, match="loaded another registry"):
        commands.verify(project, workers=2)
