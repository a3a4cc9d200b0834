"""Complete: the command that ends the window in which there is a way back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from eventmig.commands.crossing import context_of
from eventmig.commands.holding import check_before, held
from eventmig.commands.keeping import KeptDropped, drop_all_kept
from eventmig.errors import CrossingError, NotAStoreError, Where
from eventmig.hooks import run_hook
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.ledger import Job
from eventmig.migrate.made_by import active_job
from eventmig.migrate.states import Side, State, Switch
from eventmig.project import Project, opened, public
from eventmig.stores.base import JobTarget
from eventmig.stores.crossing import Carrying, Dropping, Fencing


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A job that is completed; `dropped` events went with the old side (None: it was kept).

    0 were left to go where an earlier call had dropped it.
    `kept`: what became of the generations that rebuilds kept (None: there can be none).
    `hook_failed`: what went wrong with the hook `completed`; completing again runs it again.
    """

    job: Job
    target: str
    dropped: int | None = None
    kept: KeptDropped | None = None
    hook_failed: str = ""


def complete(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    drop: bool = False,
) -> Completed:
    """End the reverse window: from now on there is no way back.

    With `drop` the old side's events are dropped; without, it stays as it is, closed. At the
    end, the generations that rebuilds kept of the project's read models and snapshots are
    dropped: `rollback` has no way back then, either. Killed in between, the same call goes on.
    """
    name = project.release(release).name
    urls = project.url("source", source, name), project.url("target", target, name)
    completed = _completed_before(project, *urls, name, drop=drop)
    if completed is None:
        completed = _complete(project, release, source, target, drop=drop)
    failed = run_hook(project.config, "completed", context_of(completed.job))
    failpoints.reached("drop kept: before")
    kept = drop_all_kept(project, release=name, target=urls[1])
    failpoints.reached("drop kept: after")
    return replace(completed, kept=kept, hook_failed=failed)


def _complete(
    project: Project, release: str | None, source: str | None, target: str | None, *, drop: bool
) -> Completed:
    with held(project, release=release, source=source, target=target, may_be_ended=True) as (
        sides,
        writer,
    ):
        check_before(sides.job, writer, State.REVERSE_WINDOW, State.COMPLETED)
        if drop:
            _check_droppable(sides.side(Side.OLD))
        run_hook(project.config, "before_complete", context_of(sides.job))
        failpoints.reached("complete: before")
        job, old = sides.job, sides.side(Side.OLD)
        if job.state is not State.COMPLETED:  # what is kept is to be whole
            sides.copier(Side.NEW).follow(sides.side(Side.NEW).head_position())
            sides.enter(State.COMPLETED, "")
        sides.publish()
        dropped = None
        with old.begin() as tx:
            if (back := ledger.back_job(tx.connection, job)) is not None:
                ledger.enter(tx.connection, back, State.COMPLETED, "the window ended")
            if drop and isinstance(old, Dropping):
                dropped = old.drop_all(tx)
            if sides.plan.switch is Switch.TABLES:  # the job's target bears the plain names now
                sides.move_ledger(tx)
        new = sides.side(Side.NEW)
        if isinstance(new, Carrying) and not sides.plan.forth.routes:
            new.carry_metadata(old, sides.plan.forth.renamed)
        failpoints.reached("complete: after")
        return Completed(job=sides.job, target=public(writer.url), dropped=dropped)


def _completed_before(
    project: Project, source: str, target: str, release: str, *, drop: bool
) -> Completed | None:
    """The job that an earlier call completed, where that call took away what it began from.

    It dropped the old side, or moved the job's records to the tables that bear the source's
    name since they changed names. None where a call can go the whole way (again).
    """
    with suppress(NotAStoreError), opened(target) as store:
        job = active_job(store)
        if job is not None:
            dropped = _is_completed(job, release) and not _there(source)
            return Completed(job=job, target=public(target), dropped=0) if dropped else None
    with suppress(NotAStoreError), opened(source) as store:
        job = active_job(store)
        # Its source bears the name of its target's tables: by that it is known.
        if job is None or job.source_identity != store.identity():
            return None
        if not _is_completed(job, release):
            return None
        found = Completed(job=job, target=public(source))
        if not _there(target):
            return replace(found, dropped=0)
        if not drop:
            return found
        run_hook(project.config, "before_complete", context_of(job))
        with opened(target, "write") as old:
            return replace(found, dropped=_drop_closed(old, job))
    return None


def _is_completed(job: Job, release: str) -> bool:
    return job.state is State.COMPLETED and job.release == release


def _there(url: str) -> bool:
    try:
        with opened(url):
            return True
    except NotAStoreError:
        return False


def _drop_closed(old: JobTarget, job: Job) -> int:
    """Drop the side that this job closed; returns how many events it held."""
    fence = old.fence() if isinstance(old, Fencing) else None
    if fence is None or not fence.closed or fence.job_id != job.job_id:
        raise CrossingError(
            "this is not the old side: the job did not close it",
            where=Where(store=old.url),
            remedy="name the store that holds the old side's events (--target)",
        )
    with old.begin() as tx:
        return _check_droppable(old).drop_all(tx)


def _check_droppable(old: JobTarget) -> Dropping:
    if not isinstance(old, Dropping):
        raise CrossingError(
            "this kind of store cannot be dropped by eventmig",
            where=Where(store=old.url),
            remedy="complete without --drop, and remove it by its own means",
        )
    return old
