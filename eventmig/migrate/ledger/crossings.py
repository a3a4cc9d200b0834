"""What crossings leave in the ledger: the journal, windows, and the copy of the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from eventmig.errors import JobLostError
from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.lifecycle import (
    active_job,
    begin_job,
    enter,
    next_number,
    now,
    reread,
    write_job,
)
from eventmig.migrate.ledger.records import Job, rules_text
from eventmig.migrate.states import CROSSED, State, Switch
from eventmig.migrate.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """One crossing that reached its switch.

    `old_position` and `new_position` are the heads of both sides at that moment,
    `stood_still_us` how long writers had been shut out (microseconds).
    """

    number: int
    crossing: str
    switch: str
    old_position: int
    new_position: int
    stood_still_us: int
    at: str


def write_journal(
    connection: Connection,
    job: Job,
    *,
    crossing: str,
    switch: str,
    old_position: int,
    new_position: int,
    stood_still_us: int,
) -> None:
    """Record that a crossing reached its switch; in the very transaction that switches."""
    connection.execute(
        insert(tables.journal).values(
            job_id=job.job_id,
            number=next_number(connection, tables.journal, job.job_id),
            crossing=crossing,
            switch=switch,
            old_position=old_position,
            new_position=new_position,
            stood_still_us=stood_still_us,
            at=now(),
        )
    )


def journal(connection: Connection, job: Job) -> list[Crossed]:
    """Every crossing that reached its switch, in order."""
    rows = connection.execute(
        select(tables.journal)
        .where(tables.journal.c.job_id == job.job_id)
        .order_by(tables.journal.c.number)
    )
    return [
        Crossed(
            number=r.number,
            crossing=r.crossing,
            switch=r.switch,
            old_position=r.old_position,
            new_position=r.new_position,
            stood_still_us=r.stood_still_us,
            at=r.at,
        )
        for r in rows
    ]


def exchanged(job: Job, crossed: Sequence[Crossed]) -> bool:
    """Whether the job's sides have each other's tables now, after these crossings."""
    return bool(crossed) and crossed[-1].switch == Switch.TABLES and job.state in CROSSED


def announced(connection: Connection, job: Job) -> bool:
    """Whether this job ever began a crossing: then the sides' fences may be its own."""
    found = connection.execute(
        select(func.count())
        .select_from(tables.transitions)
        .where(
            tables.transitions.c.job_id == job.job_id,
            tables.transitions.c.state == State.CUTTING_OVER.value,
        )
    )
    return bool(found.scalar_one())


# windows -------------------------------------------------------------------------------------


def jump(
    connection: Connection, job: Job, *, source_until: int, target_until: int, passed: int
) -> Job:
    """Move past a window, in which the other direction wrote both ranges.

    It becomes a batch of nothing; `passed` is how many target events lie in it.
    """
    number = next_number(connection, tables.batches, job.job_id)
    connection.execute(
        insert(tables.batches).values(
            job_id=job.job_id,
            number=number,
            source_after=job.source_position,
            source_until=source_until,
            target_after=job.target_position,
            target_until=target_until,
            **Tally().numbers(),
            dropped_by=rules_text(Tally()),
        )
    )
    connection.execute(
        insert(tables.windows).values(job_id=job.job_id, batch=number, passed=passed)
    )
    write_job(
        connection,
        job,
        source_until=source_until,
        settled=source_until,
        source_position=source_until,
        target_position=target_until,
    )
    return reread(connection, job)


# the copy of the way back, in the ledger of the old side's database -----------------------------


def begin_back(
    connection: Connection,
    job: Job,
    *,
    source_identity: str,
    source_position: int,
    target_position: int,
) -> Job:
    """Record the copy from the new side to the old one, from these heads; ends an earlier one."""
    if (before := back_job(connection, job)) is not None:
        enter(connection, before, State.COMPLETED, "another crossing began")
    back = begin_job(
        connection,
        namespace=back_namespace(job),
        release=job.release,
        steps_done=(),
        source=job.source,
        source_identity=source_identity,
        naming=job.naming,
        registry_fingerprint=job.registry_fingerprint,
        source_until=source_position,
        target_position=target_position,
        state=State.REVERSE_WINDOW,
    )
    write_job(connection, back, source_position=source_position, settled=source_position)
    return hold(connection, reread(connection, back), job.epoch)


def back_job(connection: Connection, job: Job) -> Job | None:
    """The copy of the way back that was recorded last and did not end, or None."""
    found = active_job(connection, back_namespace(job))
    return None if found is None or found.state is State.COMPLETED else found


def hold(connection: Connection, back: Job, epoch: int) -> Job:
    """Hold the copy under the epoch of its job's holder.

    Raises `JobLostError` where a later holder has it.
    """
    held = connection.execute(
        update(tables.jobs)
        .where(tables.jobs.c.job_id == back.job_id, tables.jobs.c.epoch <= epoch)
        .values(epoch=epoch)
    )
    if held.rowcount != 1:
        raise JobLostError(
            "another process took the job over, and its way back with it",
            remedy="let that one finish (`eventmig status` shows it)",
        )
    return reread(connection, back)


def back_namespace(job: Job) -> str:
    """What its copies of the way back are recorded under."""
    return f"back of {job.job_id}"
