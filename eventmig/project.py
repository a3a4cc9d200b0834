"""A project: the configuration with everything it names loaded, and the stores it opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DBAPIError

from eventmig.config import Config, find_config, load_object
from eventmig.drift import drift
from eventmig.errors import (
    CheckError,
    ConfigError,
    JobError,
    NotAStoreError,
    ReadOnlyError,
    ReleaseError,
    StoreError,
    StoreFullError,
    Where,
)
from eventmig.migrate.ledger import Job
from eventmig.migrate.made_by import active_job, finished_job, left_by
from eventmig.rebuild import Aggregate, ReadModel
from eventmig.registry import Registry
from eventmig.release import Lock, Release, parse_lock
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.crossing import Exchanging
from eventmig.stores.kurrent import url as kurrent_url
from eventmig.stores.open import open_engine, open_store
from eventmig.transform import Pipeline


@dataclass(frozen=True)
class Project:
    """A configuration and what it names. Loading is lazy; nothing here writes.

    `registry` and `projections` may be given instead of named.
    """

    config: Config
    given_registry: Registry | None = None
    given_lock: Lock | None = None

    @classmethod
    def open(cls, path: Path | str | None = None) -> Project:
        """The project of a configuration file, or of the folder one is in.

        Raises `ConfigError`.
        """
        return cls(find_config(None if path is None else Path(path), Path.cwd()))

    @cached_property
    def registry(self) -> Registry:
        """The user's registry; raises `ConfigError` or `RegistryError`."""
        if self.given_registry is not None:
            return self.given_registry
        return load_object(self.config, self.config.registry, key="registry", kind=Registry)

    @cached_property
    def projections(self) -> tuple[ReadModel | Aggregate[Any], ...]:
        """The user's read models and aggregates, in order."""
        found = load_object(self.config, self.config.projections, key="projections", kind=list)
        for item in found:
            if not isinstance(item, ReadModel | Aggregate):
                raise ConfigError(
                    f"{item!r} is neither a ReadModel nor an Aggregate",
                    remedy="list only those in the object that `projections` names",
                )
        return tuple(found)

    @cached_property
    def lock(self) -> Lock:
        """The releases frozen so far; empty where there is no lock file."""
        if self.given_lock is not None:
            return self.given_lock
        path = self.config.lock_path
        return parse_lock(path.read_bytes()) if path.is_file() else Lock()

    def release(self, name: str | None = None) -> Release:
        """The release of this name, or the latest; raises `ReleaseError`."""
        if name is not None:
            return self.lock.get(name)
        if self.lock.latest is None:
            raise ReleaseError(
                "no release is frozen yet",
                where=Where(file=str(self.config.lock_path)),
                remedy="freeze the registry as it is now: `eventmig release NAME`",
            )
        return self.lock.latest

    def url(self, kind: str, given: str | None, release: str | None = None) -> str:
        """The URL of "source", "target" or "read_models": the one given, else the configured."""
        url = getattr(self.config, kind) if given is None else given
        if url is None:
            raise ConfigError(
                f"there is no {kind.replace('_', ' ')} URL",
                remedy=f'add {kind} = "sqlite:///…" to the configuration, or give one: '
                f"--{kind.replace('_', '-')} URL",
            )
        return self.config.url(url, release=release)

    def pipeline(
        self,
        release: Release,
        source: EventReader,
        naming: str | None = None,
        *,
        beside: EventReader | None = None,
    ) -> Pipeline:
        """What a job to a release does; refuses a registry that drifted from the release.

        `source` is the side that it reads, and `beside` the other one, where there is a job.
        Raises `CheckError` naming every drift.
        """
        found = drift(self.registry, release)
        if found:
            raise CheckError(
                f"the code is not what release {release.name} froze:\n"
                + "\n".join(f"  - {line}" for line in found),
                remedy="put the code back, or freeze a new release (`eventmig release NAME`); "
                f"`eventmig release {release.name} --amend` is for a release that no job has "
                "finished yet",
            )
        done = self.steps_done(source, *([] if beside is None else [beside]))
        return self.registry.at(release, done=done, naming=naming or self.config.naming)

    def steps_done(self, source: EventReader, *beside: EventReader) -> tuple[str, ...]:
        """Names of the stream and store steps the source's own history has behind it.

        Where tables changed names, that is told by the store with the other name: `beside`.
        Raises `JobError` for a source whose own job is not ready, `ReleaseError` for one of
        a release that the lock file does not know.
        """
        job = finished_job(source, *beside)
        if job is None:
            begun = active_job(source)
            if begun is not None and left_by(source, *beside) is None:
                raise JobError(
                    f"the source is the target of a job that is {begun.state.value}, not ready",
                    where=Where(store=source.url),
                    remedy="finish that job first (`eventmig upcast` resumes it)",
                )
            return ()
        return tuple(sorted({*job.steps_done, *self.lock.get(job.release).steps}))

    @contextmanager
    def beside(self, store: EventReader) -> Iterator[tuple[EventReader, ...]]:
        """The configured stores whose ledgers may know what made this one's events.

        Those whose tables can change names with its own, with a ledger of their own; else none.
        """
        with ExitStack() as stack:
            found = []
            if isinstance(store, Exchanging) and store.schema is not None:
                name = self.lock.latest.name if self.lock.latest else None
                for kind in ("source", "target"):
                    if getattr(self.config, kind) is not None:
                        # What is not there, or cannot be reached, tells nothing.
                        with suppress(StoreError, ConfigError):
                            other = stack.enter_context(opened(self.url(kind, None, name)))
                            found += [other] if store.can_exchange(other) else []
            yield tuple(found)

    def made_by(self, store: EventReader) -> Job | None:
        """`finished_job`, also known to the configured source and target."""
        with self.beside(store) as others:
            return finished_job(store, *others)


_NO_JOB = (
    "begin one with `eventmig upcast`, or name the release or the target of the job you mean "
    "(--release, --target)"
)


def job_of(target: JobTarget) -> Job:
    """The target's active job; raises `JobError` where there is none."""
    job = active_job(target)
    if job is None:
        raise JobError(
            "no job has this target",
            where=Where(store=target.url),
            remedy=_NO_JOB,
        )
    return job


@contextmanager
def opened(url: str, mode: str = "read") -> Iterator[JobTarget]:
    """A store for the length of a block."""
    store = open_store(url, mode=mode)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_target(url: str, mode: str = "read") -> Iterator[JobTarget]:
    """The target of a job for the length of a block; raises `JobError` where none began one."""
    try:
        store = open_store(url, mode=mode)  # type: ignore[arg-type]
    except NotAStoreError as error:
        raise JobError(
            f"no job has this target yet ({error.what})",
            where=Where(store=public(url)),
            remedy=_NO_JOB,
        ) from error
    try:
        yield store
    finally:
        store.close()


@contextmanager
def sql_engine(url: str) -> Iterator[Engine]:
    """A SQLAlchemy engine for read models; SQLite without implicit transactions of the driver.

    Raises `ConfigError` for a URL that names none, `StoreError` where the database cannot
    be reached or goes away, `StoreFullError` where it is full, `ReadOnlyError` where it
    cannot be written.
    """
    engine = open_engine(url)
    try:
        yield engine
    except DBAPIError as error:
        found = _of_database(error, public(url))
        if found is None:
            raise
        raise found from error
    finally:
        engine.dispose()


def _of_database(error: DBAPIError, url: str) -> StoreError | None:
    """What the driver's error says of the database as a whole; None: it is about a statement."""
    where, said = Where(store=url), str(error.orig).splitlines()[0]
    code = str(getattr(error.orig, "sqlstate", None) or "")
    name = str(getattr(error.orig, "sqlite_errorname", None) or "")
    if name == "SQLITE_FULL" or code == "53100":
        return StoreFullError(
            f"the read models' database has no room left: {said}",
            where=where,
            remedy="make room, then run the same command again: it goes on from its last commit",
        )
    if name.startswith("SQLITE_READONLY") or code == "25006":
        return ReadOnlyError(
            f"the read models' database cannot be written: {said}",
            where=where,
            remedy="check its permissions, or that it is not a replica",
        )
    if name.startswith("SQLITE_BUSY"):
        return StoreError(
            f"the read models' database is in use: {said}",
            where=where,
            remedy="see which process holds it, then run the same command again",
        )
    if error.statement is None or error.connection_invalidated or code[:3] in ("57P", "080"):
        check = "host, port and that the server runs"
        if name.startswith("SQLITE"):
            check = "that its folder is there, and may be written"
        return StoreError(
            f"the read models' database cannot be reached: {said}",
            where=where,
            remedy=f"check {check}, then run the same command again",
        )
    return None


def public(url: str) -> str:
    """A URL without its password, and with the name alone of a layout it describes."""
    if kurrent_url.is_kurrent(url):
        return kurrent_url.public(url)
    parsed = make_url(url)
    described = parsed.query.get("layout")
    if isinstance(described, str) and described.startswith("{"):
        parsed = parsed.update_query_dict({"layout": str(json.loads(described)["name"])})
    return parsed.render_as_string(hide_password=True)
