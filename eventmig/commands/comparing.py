"""What a rebuild would change, and whether snapshots lead to the right state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventmig.commands.naming import named, read_models_url, release_mark, source_of_rebuild
from eventmig.commands.rebuilding import check_steps_done, helpers_of
from eventmig.errors import RebuildError
from eventmig.project import Project, opened, public, sql_engine
from eventmig.rebuild import (
    Aggregate,
    ReadModel,
    RebuildProgress,
    SnapshotComparison,
    compare_snapshots,
)
from eventmig.rebuild.comparing import ModelDifference
from eventmig.rebuild.handing_over import compare_handed_over
from eventmig.rebuild.rebuild_read_models import compare_read_models
from eventmig.stores.owned import OwnerSnapshots


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceReport:
    """What rebuilds of read models would change, and from which events."""

    source: str
    database: str
    results: tuple[ModelDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether a rebuild would change nothing."""
        return all(result.equal for result in self.results)


def diff_read_models(
    project: Project,
    names: Sequence[str] = (),
    *,
    all_: bool = False,
    source: str | None = None,
    read_models: str | None = None,
    workers: int | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> DifferenceReport:
    """What a rebuild of these read models would change, row by row.

    Builds them beside the live ones, as `rebuild` does, and swaps nothing: a `rebuild` that
    follows goes on from there. Raises `RebuildError`.
    """
    found = named(project, names, all_)
    models = [one for one in found if isinstance(one, ReadModel)]
    if names and len(models) < len(found):
        raise RebuildError(
            "snapshots are not compared row by row",
            remedy="use `eventmig check-snapshots` for aggregates",
        )
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
    registry = project.registry
    with (
        opened(source_url) as reader,
        sql_engine(database) as engine,
        helpers_of(project, models, workers, source_url) as helpers,
    ):
        check_steps_done(project, reader)
        results = compare_read_models(
            models,
            source=reader,
            upcast=registry.upcast_batch,
            engine=engine,
            release=release_mark(project),
            source_types=registry.sources_of,
            data_upcaster=registry.data_upcaster,
            helpers=helpers,
            progress=on_progress,
        )
    return DifferenceReport(
        source=public(source_url), database=public(database), results=tuple(results)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReport:
    """What comparing snapshots with full replays came to, per aggregate.

    `owners`: for those in the tables of the library that owns the store.
    """

    source: str
    database: str
    results: tuple[SnapshotComparison, ...]
    owners: tuple[SnapshotComparison, ...] = ()

    @property
    def right(self) -> bool:
        """Whether every snapshot that is used leads to the state of a full replay."""
        return not any(result.mismatches for result in (*self.results, *self.owners))

    @property
    def stale(self) -> int:
        """How many snapshots are there that are not used."""
        return sum(result.stale for result in self.results)


def check_snapshots(
    project: Project,
    names: Sequence[str] = (),
    *,
    sample: int | None = 100,
    source: str | None = None,
    read_models: str | None = None,
) -> SnapshotReport:
    """Compare loading by snapshots with full replays (reads only).

    `names` are aggregates (none: all); `sample` streams of each, evenly spread (None: all).
    """
    found = named(project, names, all_=not names)
    aggregates = [one for one in found if isinstance(one, Aggregate)]
    if names and len(aggregates) < len(found):
        raise RebuildError(
            "a read model has no snapshots", remedy="use `eventmig diff-readmodel` for it"
        )
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
    with opened(source_url) as reader, sql_engine(database) as engine:
        results = compare_snapshots(
            aggregates,
            source=reader,
            upcast=project.registry.upcast_batch,
            engine=engine,
            release=release_mark(project),
            sample=sample,
        )
        made = project.made_by(reader) is not None  # a source's are its owner's alone
        owners = [
            compare_handed_over(
                one,
                one.owner,
                reader,
                source=reader,
                upcast=project.registry.upcast_batch,
                engine=engine,
                sample=sample,
            )
            for one in aggregates
            if made
            and one.owner is not None
            and isinstance(reader, OwnerSnapshots)
            and one.owner.form == reader.snapshot_form
        ]
    return SnapshotReport(
        source=public(source_url),
        database=public(database),
        results=tuple(results),
        owners=tuple(owners),
    )
