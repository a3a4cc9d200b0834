"""What the commands about read models and snapshots are asked for: names, store, database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventmig.errors import NotAStoreError, RebuildError
from eventmig.project import Project, finished_job, opened
from eventmig.rebuild import Aggregate, ReadModel


def release_mark(project: Project) -> str:
    """What snapshots and read models are marked with: release and registry together."""
    name = project.lock.latest.name if project.lock.latest else "unreleased"
    return f"{name}@{project.registry.fingerprint()}"


def source_of_rebuild(project: Project, given: str | None) -> str:
    """The store a rebuild reads: the one given, else a ready target, else the source."""
    latest = project.lock.latest
    if given is None and latest is not None and project.config.target is not None:
        url = project.url("target", None, latest.name)
        try:
            with opened(url) as store:
                if finished_job(store) is not None:
                    return url
        except NotAStoreError:
            pass
    return project.url("source", given, latest.name if latest else None)


def named(project: Project, names: Sequence[str], all_: bool) -> list[ReadModel | Aggregate[Any]]:
    """The read models and aggregates of these names, or all; raises `RebuildError`."""
    known = {p.name: p for p in project.projections}
    unknown = [n for n in names if n not in known]
    if unknown or not (names or all_):
        what = f"there is no projection {unknown[0]!r}" if unknown else "nothing is named"
        raise RebuildError(
            f"{what} (there are: {', '.join(known) or 'none'})",
            remedy="name some of those, or all of them: --all",
        )
    return list(known.values()) if all_ else [known[n] for n in dict.fromkeys(names)]


def read_models_url(project: Project, given: str | None, source_url: str) -> str:
    """The read models' database: the one given, the configured one, else the store's own."""
    name = project.lock.latest.name if project.lock.latest else None
    return project.config.url(given or project.config.read_models or source_url, release=name)
