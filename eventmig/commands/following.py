"""Keeping read models up to date from the live store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from eventmig.commands.naming import named, read_models_url, source_of_rebuild
from eventmig.errors import RebuildError
from eventmig.project import Project, opened, public, sql_engine
from eventmig.rebuild import ReadModel
from eventmig.rebuild.following import Followed, OnFollowed, bring_up_to_date
from eventmig.rebuild.following import follow as follow_until


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowReport:
    """How far each read model is, and from which store."""

    source: str
    database: str
    results: tuple[Followed, ...]


class _How(TypedDict):
    upcast: Any
    source_types: Any
    data_upcaster: Any
    on_commit: OnFollowed | None


def follow(
    project: Project,
    names: Sequence[str] = (),
    *,
    all_: bool = False,
    source: str | None = None,
    read_models: str | None = None,
    stop: Callable[[], bool] | None = None,
    on_commit: OnFollowed | None = None,
    on_standby: Callable[[], None] | None = None,
) -> FollowReport:
    """Apply what the store holds beyond the live rows of these read models.

    Without `stop`, up to the store's head as it is now; with it, until it returns True: one
    process leads, others stand by (`on_standby` is told) and take over when it ends or dies.
    Reads the store that a rebuild would read, writes the live tables. Raises `RebuildError`
    for rows that these handlers did not make from this store, and for an event that cannot
    be handled; `JobLockedError` without `stop` while another process does this.
    """
    found = named(project, names, all_)
    models = [one for one in found if isinstance(one, ReadModel)]
    if names and len(models) != len(found):
        raise RebuildError(
            f"{next(n.name for n in found if n not in models)} is an aggregate: its snapshots are "
            "not kept up to date",
            remedy="a snapshot is brought on when it is loaded; rebuild to have new ones",
        )
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
    registry = project.registry
    how = _How(
        upcast=registry.upcast_batch,
        source_types=registry.sources_of,
        data_upcaster=registry.data_upcaster,
        on_commit=on_commit,
    )
    with opened(source_url) as reader, sql_engine(database) as engine:
        if stop is None:
            results = bring_up_to_date(models, source=reader, engine=engine, **how)
        else:
            results = follow_until(
                models, source=reader, engine=engine, stop=stop, on_standby=on_standby, **how
            )
    return FollowReport(
        source=public(source_url), database=public(database), results=tuple(results)
    )
