"""Read models of the unified history: what happened to each repository, what each user did."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

from eventmig import Event
from eventmig.rebuild import ReadModel, Rows
from examples.gharchive.models import TYPE, GithubEvent, Repository, User

metadata = MetaData()

repositories = Table(
    "repository_activity",
    metadata,
    Column("repository", String, primary_key=True),  # the stream's name after `repository-`
    Column("name", String),  # as its last event calls it
    Column("events", Integer, nullable=False, default=0),
    Column("pushes", Integer, nullable=False, default=0),
    Column("watches", Integer, nullable=False, default=0),
    Column("forks", Integer, nullable=False, default=0),
    Column("last_event_at", String),
)

actors = Table(
    "actor_activity",
    metadata,
    Column("login", String, primary_key=True),
    Column("events", Integer, nullable=False, default=0),
    Column("pushes", Integer, nullable=False, default=0),
    Column("last_event_at", String),
)

repository_activity = ReadModel("repository_activity", version=1, tables=[repositories])
actor_activity = ReadModel("actor_activity", version=1, tables=[actors])

_STREAM = "repository-"
_COUNTED = {"PushEvent": "pushes", "WatchEvent": "watches", "ForkEvent": "forks"}


@repository_activity.on(TYPE)
def happened_to_repository(record: GithubEvent, event: Event, rows: Rows) -> None:
    """One event more; events of gists and users have no repository and are left out."""
    if not event.stream.startswith(_STREAM):
        return
    key = event.stream.removeprefix(_STREAM)
    rows.increment(repositories, key=key, events=1)
    kind = record.type if isinstance(record.type, str) else ""
    if column := _COUNTED.get(kind):
        rows.increment(repositories, key=key, **{column: 1})
    if isinstance(record.repo, Repository) and isinstance(record.repo.name, str):
        rows.upsert(repositories, key=key, name=record.repo.name)
    if isinstance(record.created_at, str):
        rows.upsert(repositories, key=key, last_event_at=record.created_at)


@actor_activity.on(TYPE)
def done_by_actor(record: GithubEvent, rows: Rows) -> None:
    """One event more; events by nobody (the record has no login) are left out."""
    login = record.actor.login if isinstance(record.actor, User) else None
    if not isinstance(login, str) or not login:
        return
    rows.increment(actors, key=login, events=1)
    if record.type == "PushEvent":
        rows.increment(actors, key=login, pushes=1)
    if isinstance(record.created_at, str):
        rows.upsert(actors, key=login, last_event_at=record.created_at)


projections = [repository_activity, actor_activity]
