"""What the commands about read models and snapshots are asked for: names, store, database."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from eventmig.check import Finding
from eventmig.errors import ConfigError, NotAStoreError, RebuildError, StoreError
from eventmig.migrate.made_by import finished_job, left_by
from eventmig.project import Project, opened, sql_engine
from eventmig.rebuild import Aggregate, ReadModel, bookkeeping
from eventmig.release import Release


def release_mark(project: Project) -> str:
    """What snapshots and read models are marked with: release and registry together."""
    name = project.lock.latest.name if project.lock.latest else "unreleased"
    return f"{name}@{project.registry.fingerprint()}"


def source_of_rebuild(project: Project, given: str | None) -> str:
    """The store a rebuild reads: the one given, else a ready target, else the source.

    The target's events bear the source's name where the tables changed names.
    """
    latest = project.lock.latest
    if given is None and latest is not None and project.config.target is not None:
        url = project.url("target", None, latest.name)
        try:
            with opened(url) as store:
                if finished_job(store) is not None and left_by(store) is None:
                    return url
        except NotAStoreError:
            pass
    return project.url("source", given, latest.name if latest else None)


def named(project: Project, names: Sequence[str], all_: bool) -> list[ReadModel | Aggregate[Any]]:
    """The read models and aggregates of these names, or all; raises `RebuildError`."""
    known = {p.name: p for p in project.projections}
    unknown = [n for n in names if n not in known]
    if unknown or not (names or all_):
        what = "nothing is named"
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            what = f"there is no projection {unknown[0]!r}{hint}"
        raise RebuildError(
            f"{what} (there are: {', '.join(known) or 'none'})",
            remedy="name some of those, or all of them: --all",
        )
    return list(known.values()) if all_ else [known[n] for n in dict.fromkeys(names)]


def read_models_url(project: Project, given: str | None, source_url: str) -> str:
    """The read models' database: the one given, the configured one, else the store's own."""
    name = project.lock.latest.name if project.lock.latest else None
    return project.config.url(given or project.config.read_models or source_url, release=name)


def absent(database: str) -> bool:
    """Whether this is a SQLite file that is not there: to look into it would make it."""
    url = make_url(database)
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file()


def affected_since(project: Project, release: str, types: Iterable[str]) -> bool:
    """Whether what events become these types changed since a release.

    Their versions, schemas or upcasters; or any stream or store step. Raises `ReleaseError`
    for a release that is not in the lock file.
    """
    before, now = project.lock.get(release), project.registry.freeze(release)
    if before.steps != now.steps:
        return True
    wanted = project.registry.sources_of(types)

    def facts(of: Release) -> dict[str, object]:
        versions: dict[str, object] = {t: v for t, v in of.types.items() if t in wanted}
        for name, mark in (*of.schemas.items(), *of.upcasters.items()):
            if name.rpartition(" v")[0] in wanted:
                versions[f"{name} {mark}"] = mark
        return versions

    return facts(before) != facts(now)


def outdated_read_models(project: Project) -> list[Finding]:
    """What to know of read models whose code is not what made their live rows (reads).

    Where their database cannot be reached, as in a pipeline, that is what there is to know.
    """
    try:
        return list(_outdated(project))
    except (StoreError, ConfigError) as error:
        return [
            Finding(
                about="read models",
                what=f"their live rows could not be looked at: {error.what}",
                remedy="nothing, where they are out of reach on purpose",
            )
        ]


def _outdated(project: Project) -> Iterator[Finding]:
    if project.config.projections is None:
        return
    models = [one for one in project.projections if isinstance(one, ReadModel)]
    url = project.config.read_models or project.config.source
    if not models or url is None or ("{release}" in url and project.lock.latest is None):
        return
    database = read_models_url(project, url, url)
    if absent(database):
        return
    with sql_engine(database) as engine, engine.connect() as connection:
        if not bookkeeping.is_there(connection):
            return
        for model in models:
            kind, live = bookkeeping.Kind.READ_MODEL, bookkeeping.State.LIVE
            made = bookkeeping.generation(connection, kind, model.name, live)
            if made is not None and bookkeeping.is_outdated(made.source):
                yield Finding(
                    about=f"read model {model.name}",
                    what="its live rows were made of tables that changed names since: their "
                    "position counts on the other side",
                    remedy=f"run `eventmig rebuild {model.name}`",
                )
            if made is None or made.fingerprint == model.fingerprint:
                continue
            same = made.version == model.version
            yield Finding(
                about=f"read model {model.name}",
                what="its handlers or tables changed since its live rows were made"
                + (f", and its version is {model.version} still" if same else ""),
                remedy=("raise its version if rows mean something else now; " if same else "")
                + f"see `eventmig diff-readmodel {model.name}`, then rebuild it",
            )
