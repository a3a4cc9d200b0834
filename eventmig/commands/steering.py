"""Following a job, and steering it from elsewhere: pause, resume, throttle, measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from eventmig.commands.holding import checks, held, set_controls
from eventmig.errors import JobError, JobLockedError, NotAStoreError, Where
from eventmig.events import microseconds
from eventmig.hooks import run_hook
from eventmig.migrate import ledger
from eventmig.migrate.follow import Follower, Stop
from eventmig.migrate.ledger import Controls, Job
from eventmig.migrate.made_by import active_job
from eventmig.migrate.states import CROSSED, ENDED, Side, State, live_side
from eventmig.project import Project, job_of, opened, opened_target, public
from eventmig.stores.held_up import HeldUp, held_up

_ETA_FROM = 0.01
_LAG_S = 2.0


def keep_up(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    quarantine: bool = False,
    batch_size: int | None = None,
    on_event: Callable[[str, str], None] = lambda what, why: None,
) -> Job:
    """Keep both sides in step until the job has ended, through every cut-over and reverse.

    The job must be there (`upcast` begins it). Lets go of it when another command asks, and
    takes it up again. Returns the job once it is completed or cancelled.
    """
    last: Job | None = None
    while True:
        try:
            with held(
                project,
                release=release,
                source=source,
                target=target,
                batch_size=batch_size,
                quarantine=quarantine,
                ask=False,
            ) as (sides, writer):

                def tell(what: str, why: str) -> None:
                    said = run_hook(
                        project.config, what, {"job_id": sides.job.job_id, "reason": why}
                    )
                    on_event(what, f"{why} ({said})" if said else why)

                follower = Follower(
                    sides,
                    writer,
                    checks=checks(project, sides.side(Side.OLD)),
                    share=project.config.throttle.share,
                    tell=tell,
                    on_wait=lambda why: on_event("waiting", why),
                )
                last = sides.job
                if follower.run() is Stop.ENDED:
                    return sides.job
        except JobLockedError:
            time.sleep(0.2)
            continue
        except JobError:
            ended = _ended(project, release, source, target, last)
            if ended is None:
                raise
            return ended
        time.sleep(0.5)  # whoever asked takes it now


def keep_up_once(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> Job:
    """Bring the side that is not live up to the other once, proven, in whatever state."""
    return kept_up(project, release=release, source=source, target=target)[0]


def kept_up(
    project: Project, *, release: str | None, source: str | None, target: str | None
) -> tuple[Job, HeldUp | None]:
    """`keep_up_once`, and what kept it from reading all that is stored (None: nothing did)."""
    with held(project, release=release, source=source, target=target) as (sides, writer):
        Follower(sides, writer, until_lag_below_s=_LAG_S).run()
        live = live_side(sides.job.state)
        return sides.job, None if live is None else held_up(sides.side(live))


def was_ready(project: Project, *, release: str | None = None, target: str | None = None) -> bool:
    """Whether the target has a job that was proven once: then it only needs to be kept up."""
    try:
        with opened_target(project.url("target", target, _name(project, release))) as store:
            job = active_job(store)
            with store.reading() as connection:
                entered = [] if job is None else ledger.transitions(connection, job)
            return any(transition.state is State.READY for transition in entered)
    except (JobError, NotAStoreError):
        return False


def was_announced(
    project: Project, *, release: str | None = None, target: str | None = None
) -> bool:
    """Whether the target has a job that ever began a crossing. Reads only."""
    try:
        with opened_target(project.url("target", target, _name(project, release))) as store:
            job = active_job(store)
            with store.reading() as connection:
                return job is not None and ledger.announced(connection, job)
    except (JobError, NotAStoreError):
        return False


def _ended(
    project: Project, release: str | None, source: str | None, target: str | None, last: Job | None
) -> Job | None:
    """The job if it has ended; by tables it is found beside those it made, under the old name."""
    name = _name(project, release)
    with suppress(JobError), opened_target(project.url("target", target, name)) as store:
        job = active_job(store)
        if job is not None:
            return job if job.state in ENDED else None
    if last is None:
        return None
    with suppress(NotAStoreError), opened(project.url("source", source, name)) as store:
        job = active_job(store)
        if job is not None and job.job_id == last.job_id and job.state in ENDED:
            return job
    return None


def steer(
    project: Project,
    *,
    release: str | None = None,
    target: str | None = None,
    paused: bool | None = None,
    postponed: bool | None = None,
    share: float | None = None,
    batch_size: int | None = None,
) -> Controls:
    """Change what is asked of a job, whoever runs it; it sees that before its next batch.

    None leaves a setting as it is. Writes the ledger alone. Returns all settings. Raises
    `JobError` for a job that has ended, unless a pause is to end.
    """
    given = {
        "paused": paused,
        "postponed": postponed,
        "share": share,
        "batch_size": batch_size,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with opened_target(project.url("target", target, _name(project, release)), "write") as store:
        job = job_of(store)
        if job.state in ENDED and paused is not False:
            raise JobError(
                f"the job is {job.state.value}: there is nothing to steer any more",
                where=Where(store=store.url),
                remedy="name the job you mean (--release, --target)",
            )
        return set_controls(store, job, **changes)


def resume(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> Job:
    """End a pause; for a job that needs an operator: look again, and let it go on if all is right.

    Raises `JobError` where what stopped it is still so.
    """
    steer(project, release=release, target=target, paused=False)
    with opened_target(project.url("target", target, _name(project, release))) as store:
        job = job_of(store)
    if job.state is not State.NEEDS_OPERATOR:
        return job
    with held(project, release=release, source=source, target=target) as (sides, writer):
        back = sides.copier(Side.NEW)
        head = sides.last_position(Side.OLD)
        if head > back.job.target_position:
            raise JobError(
                f"the old side still holds events after {back.job.target_position} that the "
                f"way back did not write (up to {head})",
                where=Where(store=writer.url),
                remedy="append what they say to the new side, delete them from the old one, and "
                "run `eventmig resume` again",
            )
        sides.enter(State.REVERSE_WINDOW, "an operator looked")
        return sides.job


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A job at one moment, as `status --watch` shows it.

    `done` of `total` source events are copied; rates are since the measurement before (None:
    there was none). `lag_s` is the age of the oldest event that is not copied, `checkpoint_s`
    that of the last checkpoint, `eta_s` what is left at this rate (None before 1%), all in
    seconds. `switch` and `unsafe` (events without a way back) matter after a cut-over. `held_up` is
    what keeps events from being read, if anything does.
    """

    job: Job
    target: str
    at: datetime
    live: Side | None
    running: bool
    done: int
    total: int
    lag_events: int
    lag_s: float
    checkpoint_s: float
    copied_bytes: int
    throttled: str
    controls: Controls
    quarantined: int
    verified: int
    mismatches: int
    unsafe: int = 0
    held_up: HeldUp | None = None
    stood_still_s: float | None = None
    events_per_s: float | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None


def measure(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    before: Measured | None = None,
) -> Measured:
    """Look at a job and at both its sides. Reads only.

    `before` is an earlier look, for the rates.
    """
    name = _name(project, release)
    with (
        opened(project.url("source", source, name)) as first,
        opened_target(project.url("target", target, name)) as second,
    ):
        job = job_of(second)
        with second.reading() as connection:
            told = ledger.followed(connection, job)
            asked = ledger.controls(connection, job)
            crossed = ledger.journal(connection, job)
        old, new = (second, first) if ledger.exchanged(job, crossed) else (first, second)
        row, reads = job, old
        if job.state in CROSSED:
            with old.reading() as connection:
                back = ledger.back_job(connection, job) if ledger.exists(connection) else None
                if back is not None:
                    row, reads = back, new
                    told = ledger.followed(connection, back)
        total, seen = reads.count(), reads.count(until=row.source_position)
        moment = datetime.now(UTC)
        waiting = next(iter(reads.read_all(after=row.source_position, batch_size=1)), None)
        late = 0.0 if not waiting else microseconds(moment) / 1e6 - waiting[0].recorded_at / 1e6
        written = datetime.fromisoformat(row.updated_at.replace("Z", "+00:00"))
        now = Measured(
            job=job,
            target=public(second.url),
            at=moment,
            live=live_side(job.state),
            running=second.held(),
            done=seen,
            total=total,
            lag_events=total - seen,
            lag_s=max(0.0, late),
            checkpoint_s=max(0.0, (moment - written).total_seconds()),
            copied_bytes=told.copied_bytes,
            throttled=told.throttled,
            controls=asked,
            quarantined=job.tally.quarantined,
            verified=told.verified,
            mismatches=told.mismatches,
            unsafe=row.tally.quarantined if row is not job else 0,
            held_up=held_up(reads),
            stood_still_s=crossed[-1].stood_still_us / 1e6 if crossed else None,
        )
    return _with_rates(now, before)


def _with_rates(now: Measured, before: Measured | None) -> Measured:
    if before is None:
        return now
    seconds = (now.at - before.at).total_seconds()
    if seconds <= 0 or now.done < before.done:
        return now
    rate = (now.done - before.done) / seconds
    known = rate > 0 and now.done >= now.total * _ETA_FROM
    return replace(
        now,
        events_per_s=rate,
        bytes_per_s=max(0.0, (now.copied_bytes - before.copied_bytes) / seconds),
        eta_s=now.lag_events / rate if known else None,
    )


def _name(project: Project, release: str | None) -> str | None:
    return release or (project.lock.latest.name if project.lock.latest else None)
