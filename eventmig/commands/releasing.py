"""Beginning and freezing: init, check, release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from eventmig import scaffold
from eventmig.check import EXAMPLES, CheckReport, check_registry_and_lock
from eventmig.commands.histories import import_history
from eventmig.commands.jobs import history
from eventmig.commands.naming import outdated_read_models
from eventmig.config import FILE
from eventmig.errors import (
    JobError,
    NotAStoreError,
    ReleaseError,
    Where,
)
from eventmig.files import write_atomically
from eventmig.migrate.states import State
from eventmig.project import (
    Project,
    public,
)
from eventmig.release import Release, format_lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `init` wrote: files, and a source store with sample events of release 1."""

    files: tuple[Path, ...]
    store: str
    events: int
    release: str


FIRST_RELEASE = "2"


def init(folder: Path) -> Started:
    """Write a first project into an empty folder: configuration, domain, sample history.

    Imports the sample events into the source store and freezes the first release, so that
    `check`, `plan`, `upcast` and `rebuild` can be run at once. Raises `ConfigError` where a
    file of that name is there; then nothing was written.
    """
    files = scaffold.init(folder)
    project = Project.open(folder / FILE)
    result = import_history(project, folder / "sample.jsonl")
    release(project, FIRST_RELEASE)
    return Started(
        files=tuple(files),
        store=public(project.url("source", None)),
        events=result.events,
        release=FIRST_RELEASE,
    )


def check(
    project: Project,
    *,
    examples: int = EXAMPLES,
    on_step: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check the registry against the lock, the schemas, and random events. Writes nothing.

    Warns of read models whose handlers or tables are not those that made their live rows.
    """
    found = check_registry_and_lock(
        project.registry, project.lock, examples=examples, on_step=on_step
    )
    return replace(found, warnings=tuple(outdated_read_models(project)))


def release(project: Project, name: str, *, amend: bool = False) -> Release:
    """Freeze the registry as it is now under a name, in the lock file.

    `amend` freezes the latest release anew, under its own name: for an upcaster that was
    mended before any job to the release was ready. Raises `ReleaseError` where the name
    is taken, or is not the latest to amend. Writes the lock file, atomically.
    """
    frozen = project.registry.freeze(name)
    if amend:
        _check_unfinished(project, name)
    lock = project.lock.amended(frozen) if amend else project.lock.with_release(frozen)
    write_atomically(project.config.lock_path, format_lock(lock))
    return frozen


def _check_unfinished(project: Project, name: str) -> None:
    """A release can be amended while no job of the configured target has been ready."""
    if project.config.target is None:
        return
    try:
        found = history(project, release=name)
    except (JobError, NotAStoreError):
        return
    for entry in found:
        ready = any(t.state is State.READY for t in entry.transitions)
        if entry.job.release == name and ready and entry.job.state is not State.CANCELLED:
            raise ReleaseError(
                f"a job to release {name} was ready already: its target is that release",
                where=Where(store=project.url("target", None, name)),
                remedy="freeze a new release (`eventmig release NAME`), or end that job first "
                "(`eventmig cancel`)",
            )
