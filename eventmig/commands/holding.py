"""Holding a job: both sides open, the lock taken, what an earlier holder left half done mended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from eventmig.commands.outdating import marks_of
from eventmig.errors import CrossingError, JobError, JobLockedError, ReadOnlyError, Where
from eventmig.migrate import ledger
from eventmig.migrate.crossing import mend
from eventmig.migrate.follow import HAND_OVER_S
from eventmig.migrate.job import UpcastJob
from eventmig.migrate.ledger import Controls, Job
from eventmig.migrate.setting import Setting
from eventmig.migrate.sides import Plan, Sides, take_steps
from eventmig.migrate.states import ENDED, State, Switch, live_side
from eventmig.migrate.throttle import Check, above, outside_hours, while_file
from eventmig.project import Project, job_of, opened_target, public, sql_engine
from eventmig.release import Release
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.crossing import Exchanging
from eventmig.stores.open import open_store
from eventmig.transform import Pipeline
from eventmig.ways_back import BackPipeline


@contextmanager
def held(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    switch: Switch | None = None,
    budget_s: float = 10.0,
    batch_size: int | None = None,
    quarantine: bool = False,
    ask: bool = True,
    may_be_ended: bool = False,
) -> Iterator[tuple[Sides, JobTarget]]:
    """The target's job with both its sides, held by this process for the length of a block.

    With `ask`, a process that follows is asked to let go first; it takes the job up again
    afterwards. Raises `JobError` where there is no job, `JobLockedError` where another
    process keeps it.
    """
    frozen = project.release(release)
    urls = project.url("source", source, frozen.name), project.url("target", target, frozen.name)
    with _source(urls[0]) as reader, opened_target(urls[1], "write") as writer:
        job = job_of(writer)
        with _locked(writer, job, HAND_OVER_S if ask else 0):
            set_controls(writer, job, hand_over=0)
            plan = _plan(project, frozen, reader, writer, switch, budget_s, batch_size)
            forward = UpcastJob(
                reader,
                writer,
                plan.forth,
                plan.setting,
                quarantine=quarantine,
                batch_size=plan.batch_size,
            )
            if may_be_ended:
                forward.take_over()
            else:
                forward.begin_or_resume()
            sides = Sides(forward, reader, writer, plan)
            with writer.reading() as connection:
                crossed_before = ledger.announced(connection, forward.job)
            if crossed_before:
                take_steps(mend(sides))
                if isinstance(writer, Exchanging) and writer.can_exchange(reader):
                    marks = marks_of(project, sides.job, (reader, writer), urls)
                    marks.settle(live_side(sides.job.state))
            yield sides, writer


def set_controls(store: JobTarget, job: Job, **changes: object) -> Controls:
    """Change some of what is asked of a job; returns all of it."""
    with store.begin() as tx:
        ledger.create(tx.connection)
        asked = replace(ledger.controls(tx.connection, job), **changes)  # type: ignore[arg-type]
        ledger.set_controls(tx.connection, job, asked)
    return asked


def checks(project: Project, source: JobTarget) -> list[Check]:
    """The throttles that the configuration asks for."""
    config = project.config.throttle
    found: list[Check] = []
    if config.flag_file:
        found.append(while_file(project.config.folder / config.flag_file))
    if config.hours:
        found.append(outside_hours(config.hours))
    if config.load_query:
        query = config.load_query

        def load() -> float:
            with source.reading() as connection:
                return float(connection.exec_driver_sql(query).scalar_one())

        found.append(above("the load", load, config.load_above))
    if config.replica and config.replica_query:
        url, replica_query = project.config.url(config.replica), config.replica_query

        def lag() -> float:
            with sql_engine(url) as engine, engine.connect() as connection:
                return float(connection.exec_driver_sql(replica_query).scalar_one() or 0)

        found.append(above("the replica's lag", lag, config.replica_above))
    return found


@contextmanager
def _source(url: str) -> Iterator[JobTarget]:
    """The side that a job copies from. One whose owner's rules forbid to write it is followed,
    and has no fence.
    """
    try:
        store = open_store(url, mode="write")
    except ReadOnlyError:
        store = open_store(url)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _locked(writer: JobTarget, job: Job, wait_s: float) -> Iterator[None]:
    """The target's lock, waited for; whoever holds it is asked for it, again every second.

    Only taking it is tried again, never the block.
    """
    began, asked = time.monotonic(), float("-inf")
    while True:
        lock = writer.lock()
        try:
            lock.__enter__()
            break
        except JobLockedError:
            moment = time.monotonic()
            if moment - began > wait_s:
                raise
            if moment - asked > 1:
                set_controls(writer, job, hand_over=1)
                asked = moment
            time.sleep(0.01)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _plan(
    project: Project,
    frozen: Release,
    source: JobTarget,
    target: JobTarget,
    switch: Switch | None,
    budget_s: float,
    batch_size: int | None,
) -> Plan:
    job = job_of(target)
    with target.reading() as connection:
        crossed = ledger.journal(connection, job)
    before = Switch(crossed[-1].switch) if crossed else None
    if before is not None and switch is not None and switch is not before:
        raise CrossingError(
            f"this job crosses by {before.value}, not by {switch.value}",
            where=Where(store=target.url),
            remedy="leave --switch out",
        )
    until = crossed[0].old_position if crossed else None
    chosen = before or switch or Switch.ROUTE
    if chosen is Switch.TABLES:
        _check_tables(source, target)
    old, new = (target, source) if ledger.exchanged(job, crossed) else (source, target)
    forth = project.pipeline(frozen, old, job.naming, beside=new)
    return Plan(
        forth=forth,
        back=BackPipeline(project.registry, forth, known_versions(project, frozen, old, until)),
        setting=setting_of(frozen, source, forth, project.steps_done(old, new)),
        switch=chosen,
        budget_s=budget_s,
        batch_size=batch_size or project.config.batch_size,
    )


def setting_of(
    frozen: Release, source: EventReader, pipeline: Pipeline, steps_done: tuple[str, ...]
) -> Setting:
    """What makes the job this one."""
    return Setting(
        release=frozen.name,
        steps_done=steps_done,
        source_name=public(source.url),
        naming=pipeline.naming,
        registry_fingerprint=frozen.fingerprint(),
    )


def known_versions(
    project: Project, frozen: Release, old: JobTarget, until: int | None
) -> dict[str, int]:
    """The schema version up to which the old side knows each type.

    That of the release before; where there was none, the newest that was stored there before
    the first cut-over (`until`, a global position).
    """
    names = [release.name for release in project.lock.releases]
    if (place := names.index(frozen.name)) > 0:
        return dict(project.lock.releases[place - 1].types)
    known: dict[str, int] = {}
    for count in old.type_counts(until=until):
        known[count.type] = max(known.get(count.type, 0), count.schema_version)
    return known


def _check_tables(source: JobTarget, target: JobTarget) -> None:
    if not (isinstance(target, Exchanging) and target.can_exchange(source)):
        raise CrossingError(
            "the tables of these two stores cannot change names",
            where=Where(store=target.url),
            remedy="that needs two sets of tables in one file or database (another ?tables= or, "
            "on PostgreSQL, another ?schema=); else cross by a route: --switch route",
        )


def check_before(job: Job, store: JobTarget, *states: str) -> None:
    """Raise `JobError` unless the job is in one of these states."""
    if job.state not in states:
        raise JobError(
            f"the job is {job.state.value}, and this takes one that is {' or '.join(states)}",
            where=Where(store=store.url),
            remedy=_remedy(job.state, states),
        )


def _remedy(state: State, wanted: Sequence[str]) -> str:
    if state in ENDED:
        return "the next release has a job of its own: name it (--release)"
    if State.REVERSE_WINDOW in wanted:
        return "take the application across first: `eventmig cutover`"
    return "look at it with `eventmig status`"
