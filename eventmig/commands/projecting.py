"""Where read models and snapshots stand: which rows are live, how old, and made by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from eventmig.commands.naming import (
    absent,
    named,
    read_models_url,
    release_mark,
    source_of_rebuild,
)
from eventmig.project import Project, opened, public, sql_engine
from eventmig.rebuild import Aggregate, ReadModel, bookkeeping
from eventmig.rebuild.bookkeeping import Generation, Kind, State
from eventmig.stores.base import EventReader


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionStatus:
    """One declared read model or aggregate.

    `live`, `kept` and `building` are numbers of generations, from 1 (None: there is none);
    what follows is of the live one. `position` is the last global position in it, `lag_events`
    counts the events that it handles and that are stored behind that (None: an aggregate's
    snapshots are not kept up to date, or there is nothing to compare with). `stale` says why
    its rows are not what a rebuild would make; empty where there is no sign of that.
    """

    name: str
    kind: Kind
    version: int
    live: int | None = None
    kept: int | None = None
    building: int | None = None
    release: str = ""
    position: int = 0
    events_folded: int = 0
    quarantined: int = 0
    lag_events: int | None = None
    stale: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionsReport:
    """All of them, the store that a rebuild would read now, and their database."""

    source: str
    database: str
    results: tuple[ProjectionStatus, ...]


def projections(
    project: Project,
    names: Sequence[str] = (),
    *,
    source: str | None = None,
    read_models: str | None = None,
) -> ProjectionsReport:
    """Where these read models and aggregates stand, or all that are declared. Reads only.

    Counts events of the store per read model. Raises `RebuildError` for a name that is not
    declared.
    """
    declared = named(project, names, all_=not names)
    source_url = source_of_rebuild(project, source)
    database = read_models_url(project, read_models, source_url)
    found: list[ProjectionStatus] = []
    with opened(source_url) as store:
        if absent(database):
            found = [_status(project, one, {}, store) for one in declared]
        else:
            with sql_engine(database) as engine, engine.connect() as connection:
                there = bookkeeping.is_there(connection)
                for one in declared:
                    made = _generations(connection, one) if there else {}
                    set_aside = _set_aside(connection, one, made.get(State.LIVE))
                    found.append(_status(project, one, made, store, quarantined=set_aside))
    return ProjectionsReport(
        source=public(source_url), database=public(database), results=tuple(found)
    )


def _kind(of: ReadModel | Aggregate[Any]) -> Kind:
    return Kind.READ_MODEL if isinstance(of, ReadModel) else Kind.AGGREGATE


def _fingerprint(project: Project, of: ReadModel | Aggregate[Any]) -> str:
    """That of its code; a generation of snapshots has how often they are taken behind it."""
    return of.fingerprint if isinstance(of, ReadModel) else of.fingerprint(release_mark(project))


def _generations(connection: Connection, of: ReadModel | Aggregate[Any]) -> dict[State, Generation]:
    found = (
        (state, bookkeeping.generation(connection, _kind(of), of.name, state)) for state in State
    )
    return {state: made for state, made in found if made is not None}


def _set_aside(
    connection: Connection, of: ReadModel | Aggregate[Any], live: Generation | None
) -> int:
    if live is None:
        return 0
    return bookkeeping.count_quarantined(connection, _kind(of), of.name, live.number)


def _status(
    project: Project,
    of: ReadModel | Aggregate[Any],
    made: Mapping[State, Generation],
    store: EventReader,
    *,
    quarantined: int = 0,
) -> ProjectionStatus:
    live, kept, building = map(made.get, (State.LIVE, State.KEPT, State.BUILDING))
    begun = ProjectionStatus(
        name=of.name,
        kind=_kind(of),
        version=of.version,
        kept=None if kept is None else kept.number,
        building=None if building is None else building.number,
    )
    if live is None:
        return replace(begun, stale="it was never rebuilt")
    stale, lag = "", None
    same_store = live.source == store.identity()
    if not same_store:
        stale = "its rows are of another store"
    elif live.fingerprint.partition("/")[0] != _fingerprint(project, of):
        stale = "other code, another version or release made its rows"
    if same_store and isinstance(of, ReadModel):
        types = project.registry.sources_of(of.types)
        lag = store.count(types=types) - store.count(types=types, until=live.position)
    return replace(
        begun,
        live=live.number,
        release=live.release.partition("@")[0],
        position=live.position,
        events_folded=live.events_folded,
        quarantined=quarantined,
        lag_events=lag,
        stale=stale,
    )
