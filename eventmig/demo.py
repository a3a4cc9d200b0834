"""The demo: a history of release 1, taken through the main job, stage by stage.

In a project whose configuration names a `history` (`module:function`, called with a
store's URL and a number of events) it works on that project's domain; elsewhere on the
project that `eventmig init` writes. All files go into one folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from eventmig import commands
from eventmig.config import load_object
from eventmig.errors import ConfigError, Where
from eventmig.migrate.job import OnProgress, Progress
from eventmig.project import Project

Report = Callable[[str, int, int], None]
"""Told (what is going on, done, total); total 0 where it is not known."""

Reporting = Callable[[], AbstractContextManager[Report]]
"""Opens something to report one stage's progress to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage that is done: the command that does the same, its result, and how long it took."""

    command: str
    result: object
    seconds: float


def run(project: Project, *, events: int, folder: Path, reporting: Reporting) -> Iterator[Stage]:
    """Yield each stage when it is done. Writes into `folder`, which must be empty."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            "the demo needs an empty folder",
            where=Where(file=str(folder)),
            remedy="name another with --folder, or none at all",
        )
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    if project.config.history is None:
        result: object = commands.init(folder)
        project = Project.open(folder / "eventmig.toml")
        made = "eventmig init"
    else:
        write = load_object(
            project.config, project.config.history, key="history", kind=FunctionType
        )
        project = _in_folder(project, folder)
        source = project.url("source", None)
        result = {"events": write(source, events)}
        made = f"(a seeded history of {events:,} events)"
    yield Stage(command=made, result=result, seconds=time.perf_counter() - begin)

    for command, stage in _STAGES:
        begin = time.perf_counter()
        with reporting() as report:
            result = stage(project, report)
        yield Stage(command=command, result=result, seconds=time.perf_counter() - begin)


def _in_folder(project: Project, folder: Path) -> Project:
    urls = {
        "source": f"sqlite:///{folder.resolve()}/history.db",
        "target": f"sqlite:///{folder.resolve()}/history-{{release}}.db",
        "read_models": f"sqlite:///{folder.resolve()}/views.db",
    }
    return Project(project.config.model_copy(update=urls))


def _job_progress(report: Report) -> OnProgress:
    def on_progress(progress: Progress) -> None:
        report(progress.phase.value, progress.done, progress.total)

    return on_progress


def _rebuild(project: Project, report: Report) -> object:
    return commands.rebuild(
        project,
        all_=True,
        on_progress=lambda p: report(p.name, p.events_read, p.events_expected),
    )


_STAGES: tuple[tuple[str, Callable[[Project, Report], object]], ...] = (
    ("eventmig plan", lambda project, report: commands.plan(project)),
    (
        "eventmig upcast",
        lambda project, report: commands.upcast(project, on_progress=_job_progress(report)),
    ),
    (
        "eventmig verify",
        lambda project, report: commands.verify(project, on_progress=_job_progress(report)),
    ),
    ("eventmig rebuild --all", _rebuild),
)
