"""Rebuild and rollback of read models and snapshots, and loading a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from eventmig.commands.handing import OwnersSnapshots, hand_over_snapshots
from eventmig.commands.naming import (
    affected_since,
    named,
    read_models_url,
    release_mark,
    source_of_rebuild,
)
from eventmig.errors import RebuildError, Where
from eventmig.fold_workers import FoldProcesses, behind_server, fold_processes
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
    """What a rebuild made, per read model and aggregate, and from which events.

    `owners`: what became of the snapshots of the library that owns the store's tables (None:
    there is nothing to say of them).
    """

    source: str
    database: str
    release: str
    results: tuple[RebuildResult, ...] = field(default_factory=tuple)
    owners: OwnersSnapshots | None = None

    @property
    def live(self) -> bool:
        """Whether all of it was swapped in."""
        return all(result.swapped for result in self.results)


def rebuild(
    project: Project,
    names: Sequence[str] = (),
    *,
    all_: bool = False,
    source: str | None = None,
    read_models: str | None = None,
    workers: int | None = None,
    quarantine: bool = False,
    accept_quarantined: bool = False,
    snapshots: bool = False,
    categories: Sequence[str] = (),
    streams: Sequence[str] = (),
    every: int | None = None,
    since_release: str | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> RebuildReport:
    """Rebuild read models and snapshots by name, or all of them, and swap them in.

    `snapshots`: of aggregates alone (those named, else all). `categories`: of aggregates of
    these. `streams`: only their snapshots, renewed in place. `every`: a snapshot after each
    so many events, too.
    `since_release`: of those chosen, only what depends on event types that changed since.

    Reads `source`: the one given, else the latest release's target if a job made it
    ready, else the configured source. Writes the read models' database. `workers`
    processes work side by side (None: as many as the configuration says).
    With `quarantine`, events that read models cannot take are set aside; such read models
    are swapped in only with `accept_quarantined`.
    """
    if snapshots or categories or streams:
        chosen: list[ReadModel | Aggregate[Any]] = [
            *_aggregates(project, names, all_, categories, streams)
        ]
    else:
        chosen = named(project, names, all_)
    if since_release is not None:
        chosen = [one for one in chosen if affected_since(project, since_release, one.types)]
    mark = release_mark(project)
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
    models = [p for p in chosen if isinstance(p, ReadModel)]
    aggregates = [p for p in chosen if isinstance(p, Aggregate)]
    with opened(source_url) as reader, sql_engine(database) as engine:
        check_steps_done(project, reader)
        results: list[RebuildResult] = []
        # Streams that are named are few; they are read one by one.
        side_by_side = [*models, *(() if streams else aggregates)]
        with helpers_of(project, side_by_side, workers, source_url) as helpers:
            common: dict[str, Any] = {
                "source": reader,
                "upcast": project.registry.upcast_batch,
                "engine": engine,
                "release": mark,
                "source_types": project.registry.sources_of,
                "data_upcaster": project.registry.data_upcaster,
                "helpers": helpers,
                "read_ahead": behind_server(source_url),
                "progress": on_progress,
            }
            if models:
                results += rebuild_read_models(
                    models,
                    quarantine=quarantine or accept_quarantined,
                    accept_quarantined=accept_quarantined,
                    **common,
                )
            # All aggregates together, or each with those of the streams that are its own.
            parts = [([one], [s for s in streams if one.covers(s)]) for one in aggregates]
            for together, own in parts if streams else [(aggregates, None)]:
                results += rebuild_snapshots(together, streams=own, every=every, **common)
        owners = None
        if aggregates:
            each = [(one, own if streams else None) for (one,), own in parts]
            owners = hand_over_snapshots(project, each, store=reader, url=source_url, engine=engine)
    return RebuildReport(
        source=public(source_url),
        database=public(database),
        release=mark,
        results=tuple(results),
        owners=owners,
    )


def _aggregates(
    project: Project,
    names: Sequence[str],
    all_: bool,
    categories: Sequence[str],
    streams: Sequence[str],
) -> list[Aggregate[Any]]:
    """The aggregates named (else all), of these categories, that these streams may belong to."""
    known = named(project, names, all_ or not names)
    found = [one for one in known if isinstance(one, Aggregate)]
    if names and len(found) < len(known):
        raise RebuildError(
            f"{next(one.name for one in known if isinstance(one, ReadModel))} is a read model, and "
            "has no snapshots",
            remedy="name aggregates, or rebuild it without --snapshots, --category and --stream",
        )
    there = sorted({one.category for one in found if one.category is not None})
    for category in categories:
        if category not in there:
            raise RebuildError(
                f"no aggregate has the category {category}",
                remedy=f"there are: {', '.join(there) or 'none'}",
            )
    if categories:
        found = [one for one in found if one.category in categories]
    for stream in streams:
        if not any(one.covers(stream) for one in found):
            raise RebuildError(
                f"no aggregate has the stream {stream}",
                where=Where(stream=stream),
                remedy="an aggregate's streams are called after its category: "
                + (", ".join(f"{category}-…" for category in there) or "there are none"),
            )
    return [one for one in found if not streams or any(map(one.covers, streams))]


def helpers_of(
    project: Project,
    projections: Sequence[ReadModel | Aggregate[Any]],
    workers: int | None,
    source_url: str,
) -> AbstractContextManager[FoldProcesses | None]:
    """The processes that work beside this one: none for one worker, or nothing to do."""
    count = project.config.workers if workers is None else workers
    if count < 2 or not projections:
        return nullcontext()
    return fold_processes(
        project, projections, count=count - 1, source=source_url, max_rows=MAX_ROWS
    )


def check_steps_done(project: Project, reader: EventReader) -> None:
    """A rebuild upcasts event by event: stream and store steps must be behind the source."""
    latest = project.lock.latest
    with project.beside(reader) as others:
        missing = set(latest.steps if latest else ()) - set(project.steps_done(reader, *others))
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
