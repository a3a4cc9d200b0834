"""What rebuilds keep for a way back, and when it is let go: by command, or when a job completes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from eventmig.commands.naming import absent, named, read_models_url, source_of_rebuild
from eventmig.errors import EventmigError
from eventmig.project import Project, public, sql_engine
from eventmig.rebuild import Aggregate, ReadModel, bookkeeping
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.rebuild_read_models import drop_kept_read_models
from eventmig.rebuild.snapshots import drop_kept_snapshots
from eventmig.stores.kurrent import url as kurrent_url


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDropped:
    """The generations from before the last rebuilds that went when a job was completed.

    `names` are those of read models and aggregates that had one in `database`. `left` says
    why some may still be there; empty where none is.
    """

    database: str
    names: tuple[str, ...] = ()
    left: str = ""


def drop_kept(
    project: Project,
    names: Sequence[str],
    *,
    all_: bool = False,
    read_models: str | None = None,
) -> list[str]:
    """Drop the generation before of these read models and snapshots: no way back then.

    Returns the names of those that had one.
    """
    found = named(project, names, all_)
    database = read_models_url(project, read_models, source_of_rebuild(project, None))
    with sql_engine(database) as engine:
        return _drop(engine, found)


def drop_all_kept(project: Project, *, release: str, target: str) -> KeptDropped | None:
    """Drop the generation before of all that the project declares, where there is one.

    `target` is the completed job's: without `read_models` in the configuration, they stand
    beside its events. None where nothing is declared, or there is no database to look into.
    What keeps them from being dropped is said in the result: nothing is raised for it.
    """
    if project.config.projections is None:
        return None
    database = project.config.url(project.config.read_models or target, release=release)
    if kurrent_url.is_kurrent(database) or absent(database):
        return None
    try:
        with sql_engine(database) as engine:
            dropped = _drop(engine, _with_kept(engine, project.projections))
    except EventmigError as error:
        return KeptDropped(database=public(database), left=error.what)
    return KeptDropped(database=public(database), names=tuple(dropped))


def _with_kept(
    engine: Engine, declared: Sequence[ReadModel | Aggregate[object]]
) -> list[ReadModel | Aggregate[object]]:
    with engine.connect() as connection:
        if not bookkeeping.is_there(connection):
            return []
        kept = {
            (kind, name)
            for kind in Kind
            for name, made in bookkeeping.all_generations(connection, kind)
            if made.state is State.KEPT
        }
    kinds = {ReadModel: Kind.READ_MODEL, Aggregate: Kind.AGGREGATE}
    return [one for one in declared if (kinds[type(one)], one.name) in kept]


def _drop(engine: Engine, found: Sequence[ReadModel | Aggregate[object]]) -> list[str]:
    models = [p.name for p in found if isinstance(p, ReadModel)]
    aggregates = [p.name for p in found if isinstance(p, Aggregate)]
    dropped = drop_kept_read_models(models, engine=engine) if models else []
    return dropped + (drop_kept_snapshots(aggregates, engine=engine) if aggregates else [])
