"""Rebuild and rollback of read models and snapshots, and loading a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from eventmig.errors import (
    NotAStoreError,
    RebuildError,
    Where,
)
from eventmig.fold_workers import FoldProcesses, fold_processes
from eventmig.project import (
    Project,
    finished_job,
    opened,
    public,
    sql_engine,
)
from eventmig.rebuild import (
    Aggregate,
    Loaded,
    ReadModel,
    RebuildProgress,
    RebuildResult,
    rebuild_read_models,
    rebuild_snapshots,
    rollback_read_models,
    rollback_snapshots,
)
from eventmig.rebuild import load as load_state
from eventmig.rebuild.rebuild_read_models import MAX_ROWS
from eventmig.stores.base import EventReader


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """What a rebuild made, per read model and aggregate, and from which events."""

    source: str
    database: str
    release: str
    results: tuple[RebuildResult, ...] = field(default_factory=tuple)


def rebuild(
    project: Project,
    names: Sequence[str] = (),
    *,
    all_: bool = False,
    source: str | None = None,
    read_models: str | None = None,
    workers: int | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> RebuildReport:
    """Rebuild read models and snapshots by name, or all of them, and swap them in.

    Reads `source`: the one given, else the latest release's target if a job made it
    ready, else the configured source. Writes the read models' database. `workers`
    processes fold read models side by side (None: as many as the configuration says).
    """
    chosen = _chosen(project, names, all_)
    mark = release_mark(project)
    source_url = source_of_rebuild(project, source)
    database = _read_models_url(project, read_models, source_url)
    models = [p for p in chosen if isinstance(p, ReadModel)]
    aggregates = [p for p in chosen if isinstance(p, Aggregate)]
    with opened(source_url) as reader, sql_engine(database) as engine:
        _check_steps_done(project, reader)
        results: list[RebuildResult] = []
        upcast_batch = project.registry.upcast_batch
        if models:
            with _helpers(project, models, workers, source_url) as helpers:
                results += rebuild_read_models(
                    models,
                    source=reader,
                    upcast=upcast_batch,
                    engine=engine,
                    release=mark,
                    source_types=project.registry.sources_of,
                    data_upcaster=project.registry.data_upcaster,
                    helpers=helpers,
                    progress=on_progress,
                )
        if aggregates:
            results += rebuild_snapshots(
                aggregates,
                source=reader,
                upcast=upcast_batch,
                engine=engine,
                release=mark,
                source_types=project.registry.sources_of,
                progress=on_progress,
            )
    return RebuildReport(
        source=public(source_url), database=public(database), release=mark, results=tuple(results)
    )


def _helpers(
    project: Project, models: Sequence[ReadModel], workers: int | None, source_url: str
) -> AbstractContextManager[FoldProcesses | None]:
    count = project.config.workers if workers is None else workers
    if count < 2:
        return nullcontext()
    return fold_processes(project, models, count=count - 1, source=source_url, max_rows=MAX_ROWS)


def _check_steps_done(project: Project, reader: EventReader) -> None:
    """A rebuild upcasts event by event: stream and store steps must be behind the source."""
    latest = project.lock.latest
    missing = set(latest.steps if latest else ()) - set(project.steps_done(reader))
    if missing:
        raise RebuildError(
            f"this store has not been through {', '.join(sorted(missing))}",
            where=Where(store=public(reader.url)),
            remedy="stream and store steps need a job: run `eventmig upcast`, and rebuild from "
            "its target",
        )


def rollback(
    project: Project,
    names: Sequence[str],
    *,
    all_: bool = False,
    read_models: str | None = None,
) -> dict[str, int]:
    """Bring back the generation before of these read models and snapshots.

    Returns each name's live generation.
    """
    chosen = _chosen(project, names, all_)
    database = _read_models_url(project, read_models, source_of_rebuild(project, None))
    models = [p.name for p in chosen if isinstance(p, ReadModel)]
    aggregates = [p.name for p in chosen if isinstance(p, Aggregate)]
    with sql_engine(database) as engine:
        live = rollback_read_models(models, engine=engine) if models else {}
        return live | (rollback_snapshots(aggregates, engine=engine) if aggregates else {})


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


def _chosen(project: Project, names: Sequence[str], all_: bool) -> list[ReadModel | Aggregate[Any]]:
    known = {p.name: p for p in project.projections}
    unknown = [n for n in names if n not in known]
    if unknown or not (names or all_):
        what = f"there is no projection {unknown[0]!r}" if unknown else "nothing is named"
        raise RebuildError(
            f"{what} (there are: {', '.join(known) or 'none'})",
            remedy="name some of those, or all of them: --all",
        )
    return list(known.values()) if all_ else [known[n] for n in dict.fromkeys(names)]


def load(
    project: Project,
    aggregate: str,
    stream: str,
    *,
    source: str | None = None,
    read_models: str | None = None,
) -> Loaded[Any]:
    """One aggregate's state, from its snapshot and the events after it. Reads only.

    `aggregate` is its name among the projections. Raises `RebuildError`.
    """
    found = _chosen(project, [aggregate], all_=False)[0]
    if not isinstance(found, Aggregate):
        raise RebuildError(
            f"{aggregate} is a read model, and has no state per stream",
            remedy="read its tables with SQL",
        )
    source_url = source_of_rebuild(project, source)
    database = _read_models_url(project, read_models, source_url)
    with opened(source_url) as reader, sql_engine(database) as engine:
        return load_state(
            found,
            stream,
            source=reader,
            upcast=project.registry.upcast_batch,
            engine=engine,
            release=release_mark(project),
        )


def _read_models_url(project: Project, given: str | None, source_url: str) -> str:
    name = project.lock.latest.name if project.lock.latest else None
    return project.config.url(given or project.config.read_models or source_url, release=name)
