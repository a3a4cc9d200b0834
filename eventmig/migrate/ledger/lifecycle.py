"""Jobs in the ledger: begun, held by an epoch, and every state they entered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from eventmig.errors import JobLostError
from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.records import Job, Transition, job_of
from eventmig.migrate.states import State, check_transition
from eventmig.migrate.tally import Tally

_TURNS = (
    State.BACKFILLING,
    State.CATCHING_UP,
    State.VERIFYING,
    State.READY,
    State.PAUSED,
    State.THROTTLED,
)
"""States that a job enters any number of times without anybody's doing."""

_RECENT = 500
"""So many of the last transitions are all there."""


def now() -> str:
    """This moment, ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_EXACTLY = "%Y-%m-%dT%H:%M:%S.%fZ"


def _after_all(connection: Connection) -> str:
    """This moment to the microsecond, or the one after the last that a job of this ledger began at.

    Jobs are told apart by when they began. Two may begin within one second, and the second
    on a machine whose clock is behind.
    """
    moment = datetime.now(UTC)
    if last := connection.execute(select(func.max(tables.jobs.c.begun_at))).scalar():
        after = datetime.strptime(last, _EXACTLY).replace(tzinfo=UTC) + timedelta(microseconds=1)
        moment = max(moment, after)
    return moment.strftime(_EXACTLY)


def begin_job(
    connection: Connection,
    *,
    namespace: str,
    release: str,
    steps_done: Iterable[str],
    source: str,
    source_identity: str,
    naming: str,
    registry_fingerprint: str,
    source_until: int,
    target_position: int,
    state: State = State.PLANNED,
) -> Job:
    """Record a new job in the state it begins in, epoch 1."""
    job_id = str(uuid.uuid4())
    connection.execute(
        insert(tables.jobs).values(
            job_id=job_id,
            namespace=namespace,
            release=release,
            steps_done=json.dumps(list(steps_done)),
            source=source,
            source_identity=source_identity,
            naming=naming,
            registry_fingerprint=registry_fingerprint,
            state=state.value,
            reason="",
            epoch=1,
            source_until=source_until,
            settled=0,
            source_position=0,
            target_position=target_position,
            **Tally().numbers(),
            dropped_by="{}",
            begun_at=_after_all(connection),
            updated_at=now(),
        )
    )
    _note(connection, job_id, state, "")
    found = active_job(connection, namespace)
    assert found is not None
    return found


def active_job(connection: Connection, namespace: str) -> Job | None:
    """The job that has this target and was not cancelled, or None."""
    row = connection.execute(
        select(tables.jobs)
        .where(tables.jobs.c.namespace == namespace, tables.jobs.c.state != State.CANCELLED.value)
        .order_by(tables.jobs.c.begun_at.desc())
    ).first()
    return None if row is None else job_of(row)


def jobs(connection: Connection) -> list[Job]:
    """Every job of this database, oldest first."""
    rows = connection.execute(
        select(tables.jobs).order_by(tables.jobs.c.begun_at, tables.jobs.c.job_id)
    )
    return [job_of(row) for row in rows]


def take_over(connection: Connection, job: Job, *, registry_fingerprint: str) -> Job:
    """Raise the job's epoch: whoever held it before can write no more.

    `registry_fingerprint` is that of the upcasters it goes on with.
    """
    epoch = job.epoch + 1
    write_job(connection, job, epoch=epoch, registry_fingerprint=registry_fingerprint)
    return reread(connection, job)


def enter(connection: Connection, job: Job, state: State, reason: str = "") -> Job:
    """Put the job into a state; raises `JobError` where it may not follow."""
    check_transition(job.state, state)
    write_job(connection, job, state=state.value, reason=reason)
    if state is not job.state or reason != job.reason:
        _note(connection, job.job_id, state, reason)
    return reread(connection, job)


def extend(connection: Connection, job: Job, *, source_until: int) -> Job:
    """Move the end of reading forward: the source has grown."""
    write_job(connection, job, source_until=source_until, settled=job.source_until)
    return reread(connection, job)


def transitions(connection: Connection, job: Job) -> list[Transition]:
    """The states the job entered, in order.

    All of the last 500; of those before, all but the turns of copying, proving, being ready and
    waiting, of which the first are kept.
    """
    rows = connection.execute(
        select(tables.transitions)
        .where(tables.transitions.c.job_id == job.job_id)
        .order_by(tables.transitions.c.number)
    )
    return [
        Transition(number=r.number, state=State(r.state), reason=r.reason, at=r.at) for r in rows
    ]


def write_job(connection: Connection, job: Job, **values: object) -> None:
    """Write to the job's row; raises `JobLostError` unless this process still holds it."""
    result = connection.execute(
        update(tables.jobs)
        .where(tables.jobs.c.job_id == job.job_id, tables.jobs.c.epoch == job.epoch)
        .values(updated_at=now(), **values)
    )
    if result.rowcount != 1:
        raise JobLostError(
            f"another process took job {job.job_id} over (this one held epoch {job.epoch})",
            remedy="let that one finish; nothing of this batch was written",
        )


def reread(connection: Connection, job: Job) -> Job:
    """The job as its row is now."""
    row = connection.execute(select(tables.jobs).where(tables.jobs.c.job_id == job.job_id)).one()
    return job_of(row)


def _note(connection: Connection, job_id: str, state: State, reason: str) -> None:
    number = next_number(connection, tables.transitions, job_id)
    connection.execute(
        insert(tables.transitions).values(
            job_id=job_id, number=number, state=state.value, reason=reason, at=now()
        )
    )
    if number % _RECENT == 0:
        _forget_turns(connection, job_id, number - _RECENT)


def _forget_turns(connection: Connection, job_id: str, until: int) -> None:
    """Forget how often a job took turns up to this number, but for the first time of each state.

    A follower that is throttled again and again would note that for ever.
    """
    row = tables.transitions.c
    firsts = select(func.min(row.number)).where(row.job_id == job_id).group_by(row.state)
    kept = list(connection.execute(firsts).scalars())
    connection.execute(
        delete(tables.transitions).where(
            row.job_id == job_id,
            row.number <= until,
            row.state.in_([state.value for state in _TURNS]),
            row.number.not_in(kept),
        )
    )


def next_number(connection: Connection, table: Table, job_id: str) -> int:
    """The number after the last that the job has in a table of numbered rows."""
    last = connection.execute(
        select(func.max(table.c.number)).where(table.c.job_id == job_id)
    ).scalar()
    return (last or 0) + 1
