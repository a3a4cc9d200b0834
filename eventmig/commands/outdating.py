"""What tables that change names do to read models and snapshots: their positions mean nothing now.

A generation names the source it was made of, by its identity, which is the tables' name. When
an application leaves a side by the tables' names, all generations are marked as made before that:
nobody goes on with those. Once it is on a side, those made while it was there before lose their
mark.

The first must be neither missed nor done late, for a follower would go on from a position at which
other events stand by then. So it comes before the switch, in a transaction of the read models'
own database, while nobody can append. What is marked though the switch did not come, and all
that is left of the second, is mended by whatever takes the job up next: it does no harm twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection

from eventmig.commands.naming import absent, read_models_url
from eventmig.errors import ConfigError, StoreError
from eventmig.migrate import failpoints
from eventmig.migrate.ledger import Job
from eventmig.migrate.states import Side
from eventmig.project import Project, public, sql_engine
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Kind, State, outdated_source
from eventmig.stores.base import EventReader
from eventmig.stores.kurrent import url as kurrent_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The marks that one job makes, in these databases of read models.

    `identities` are those of its two stores, by name; `unreached` says which databases could not
    be looked into.
    """

    job: Job
    identities: tuple[str, ...]
    databases: tuple[str, ...]
    unreached: tuple[str, ...]

    def leave(self, side: Side) -> None:
        """Mark all that was made while the application was on this side; before it leaves.

        Raises `StoreError` where that cannot be done: then it must not leave.
        """
        if self.databases:
            failpoints.reached("mark: before")
            self._rename({one: self._marked(one, side) for one in self.identities})
            failpoints.reached("mark: after")

    def settle(self, live: Side | None) -> None:
        """Take the marks off what was made while it was on the side where it is now.

        None: only an operator can tell where it is, and nothing is done. What cannot be done now
        is left to whatever takes the job up next.
        """
        if live is not None:
            with suppress(StoreError):
                self._rename({self._marked(one, live): one for one in self.identities})

    def outdated(self, live: Side) -> tuple[str, ...]:
        """What must be rebuilt, with the application on this side: names, and what is not known."""
        found: set[str] = set()
        away = list(self.unreached)
        marked = {self._marked(one, live.other) for one in self.identities}
        for database in self.databases:
            try:
                with sql_engine(database) as engine, engine.connect() as connection:
                    if bookkeeping.is_there(connection):
                        found |= _live(connection, marked)
            except StoreError as error:
                away.append(_away(database, error))
        return (*sorted(found), *away)

    def _marked(self, identity: str, side: Side) -> str:
        return outdated_source(identity, f"{side.value} side of {self.job.job_id}")

    def _rename(self, renamed: Mapping[str, str]) -> None:
        for database in self.databases:
            with sql_engine(database) as engine, engine.begin() as connection:
                if bookkeeping.is_there(connection):
                    bookkeeping.rename_sources(connection, renamed)


def marks_of(
    project: Project, job: Job, stores: tuple[EventReader, ...], urls: tuple[str, ...]
) -> Marks:
    """The marks of a job with these stores, in the read models' databases that can be reached.

    `urls` are where read models may be that the configuration does not name; none: there are no
    marks to make. Reads only.
    """
    databases: list[str] = []
    unreached: list[str] = []
    configured = project.config.read_models
    if project.config.projections is None:
        urls = ()
    elif configured and urls:
        urls = (configured,)
    for database in dict.fromkeys(read_models_url(project, url, url) for url in urls):
        if kurrent_url.is_kurrent(database) or absent(database):
            continue
        try:
            with sql_engine(database) as engine, engine.connect() as connection:
                bookkeeping.is_there(connection)
            databases.append(database)
        except (StoreError, ConfigError) as error:
            if configured or isinstance(error, StoreError):  # else no read model can be there
                unreached.append(_away(database, error))
    return Marks(
        job=job,
        identities=tuple(store.identity() for store in stores),
        databases=tuple(databases),
        unreached=tuple(unreached),
    )


def _away(database: str, error: StoreError | ConfigError) -> str:
    return f"those in {public(database)}, which could not be reached ({error.what})"


def _live(connection: Connection, sources: set[str]) -> set[str]:
    """The names of live generations that were made of one of these."""
    return {
        name
        for kind in Kind
        for name, made in bookkeeping.all_generations(connection, kind)
        if made.state is State.LIVE and made.source in sources
    }
