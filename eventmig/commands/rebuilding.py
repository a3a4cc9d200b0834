"""Rebuild and rollback of read models and snapshots, and loading a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from eventmig.commands.naming import named, read_models_url, release_mark, source_of_rebuild
from eventmig.errors import RebuildError, Where
from eventmig.fold_workers import FoldProcesses, fold_processes
from eventmig.project import (
    Project,
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
    chosen = named(project, names, all_)
    mark = release_mark(project)
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
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
    chosen = named(project, names, all_)
    database = read_models_url(project, read_models, source_of_rebuild(project, None))
    models = [p.name for p in chosen if isinstance(p, ReadModel)]
    aggregates = [p.name for p in chosen if isinstance(p, Aggregate)]
    with sql_engine(database) as engine:
        live = rollback_read_models(models, engine=engine) if models else {}
        return live | (rollback_snapshots(aggregates, engine=engine) if aggregates else {})


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
    found = named(project, [aggregate], all_=False)[0]
    if not isinstance(found, Aggregate):
        raise RebuildError(
            f"{aggregate} is a read model, and has no state per stream",
            remedy="read its tables with SQL",
        )
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
    with opened(source_url) as reader, sql_engine(database) as engine:
        return load_state(
            found,
            stream,
            source=reader,
            upcast=project.registry.upcast_batch,
            engine=engine,
            release=release_mark(project),
        )
