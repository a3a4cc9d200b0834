"""What tables that change names do to read models and snapshots: their positions mean nothing now.

A generation names the source it was made of, by its identity, which is the tables' name. Where
other tables get that name, generations made before are marked as made of what had it then: so
nobody goes on with them. When the names change back, so do the marks.
"""

from __future__ import annotations

from eventmig.commands.naming import absent, read_models_url
from eventmig.errors import ConfigError, StoreError
from eventmig.migrate.ledger import Job
from eventmig.project import Project, public, sql_engine
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import outdated_source
from eventmig.stores.base import EventReader
from eventmig.stores.kurrent import url as kurrent_url


def mark_outdated(
    project: Project, job: Job, stores: tuple[EventReader, ...], urls: tuple[str, ...], *, new: bool
) -> list[str]:
    """Mark what was made of these stores before a job's tables changed names; returns who is live.

    `new`: the new side has the source's name now. What an earlier change marked is as it was again,
    where that side has its name back. `urls` are where read models may be that the configuration
    does not name. Made again by the same call where it was not done. What cannot be reached
    is said in place of a name.
    """
    here, away = ("new", "old") if new else ("old", "new")
    renamed: dict[str, str] = {}
    for store in stores:
        identity = store.identity()
        renamed[identity] = outdated_source(identity, f"{away} side of {job.job_id}")
        renamed[outdated_source(identity, f"{here} side of {job.job_id}")] = identity
    found: list[str] = []
    configured = project.config.read_models
    databases = [
        read_models_url(project, url, url) for url in ([configured] if configured else urls)
    ]
    for database in dict.fromkeys(databases):
        if kurrent_url.is_kurrent(database) or absent(database):
            continue
        try:
            with sql_engine(database) as engine, engine.begin() as connection:
                if not bookkeeping.is_there(connection):
                    continue
                known = bookkeeping.sources(connection)
                done = any(made.endswith(f"{away} side of {job.job_id}") for made in known)
                found += [] if done else bookkeeping.rename_sources(connection, renamed)
        except (StoreError, ConfigError) as error:
            found.append(f"those in {public(database)}, which could not be reached ({error.what})")
    return found
