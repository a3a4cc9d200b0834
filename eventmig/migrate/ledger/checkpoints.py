"""Checkpoints: each committed batch, forward and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete, func, insert, select, update

from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.lifecycle import next_number, reread, write_job
from eventmig.migrate.ledger.records import Batch, Job, rules_text, tally_of
from eventmig.migrate.tally import Tally


def checkpoint(
    connection: Connection, job: Job, *, source_until: int, target_until: int, tally: Tally
) -> Job:
    """Record one batch: the job's new position and sums, and the batch itself."""
    tally.check()
    total = job.tally + tally
    write_job(
        connection,
        job,
        source_position=source_until,
        target_position=target_until,
        **total.numbers(),
        dropped_by=rules_text(total),
    )
    number = next_number(connection, tables.batches, job.job_id)
    connection.execute(
        insert(tables.batches).values(
            job_id=job.job_id,
            number=number,
            source_after=job.source_position,
            source_until=source_until,
            target_after=job.target_position,
            target_until=target_until,
            **tally.numbers(),
            dropped_by=rules_text(tally),
        )
    )
    return _advanced(job, source_until, target_until, total)


def fold(connection: Connection, job: Job, *, after: int, until: int) -> None:
    """Make one batch of those that read the source between two global positions.

    `after` exclusive, `until` inclusive; the batch has the number of the last. What is proven
    and what is not yet stay apart, and windows stay as they are. Call in a transaction that
    wrote to the job.
    """
    told = select(tables.followed.c.verified_batch).where(tables.followed.c.job_id == job.job_id)
    verified = connection.execute(told).scalar() or 0
    apart = windows(connection, job)
    inside = [b for b in batches(connection, job, since=after) if b.source_until <= until]
    proven = [b for b in inside if b.number <= verified]
    for some in (proven, inside[len(proven) :]):
        if len(some) > 1 and apart.keys().isdisjoint(b.number for b in some):
            _make_one(connection, job, some)


def _make_one(connection: Connection, job: Job, some: Sequence[Batch]) -> None:
    first, last = some[0], some[-1]
    total = sum((b.tally for b in some), Tally())
    row = tables.batches.c
    ours = row.job_id == job.job_id
    connection.execute(
        delete(tables.batches).where(ours, row.number >= first.number, row.number < last.number)
    )
    connection.execute(
        update(tables.batches)
        .where(ours, row.number == last.number)
        .values(
            source_after=first.source_after,
            target_after=first.target_after,
            **total.numbers(),
            dropped_by=rules_text(total),
        )
    )


def rewind(connection: Connection, job: Job, *, before: int) -> Job:
    """Forget every batch that read the source at or after a global position.

    The caller deletes what they wrote, up to the returned `target_position`, in the
    same transaction.
    """
    first = connection.execute(
        select(func.min(tables.batches.c.target_after)).where(tables.batches.c.job_id == job.job_id)
    ).scalar()
    gone = (tables.batches.c.job_id == job.job_id) & (tables.batches.c.source_until >= before)
    connection.execute(delete(tables.batches).where(gone))
    kept = list(batches(connection, job))
    total = sum((b.tally for b in kept), Tally())
    source_position = kept[-1].source_until if kept else 0
    target_position = kept[-1].target_until if kept else (first or 0)
    write_job(
        connection,
        job,
        settled=job.settled if kept else 0,
        source_position=source_position,
        target_position=target_position,
        **total.numbers(),
        dropped_by=rules_text(total),
    )
    connection.execute(
        delete(tables.quarantine).where(
            tables.quarantine.c.job_id == job.job_id,
            tables.quarantine.c.global_position > source_position,
        )
    )
    for told in (tables.followed, tables.windows):
        connection.execute(delete(told).where(told.c.job_id == job.job_id))
    connection.execute(
        delete(tables.stream_hashes).where(tables.stream_hashes.c.job_id == job.job_id)
    )
    return reread(connection, job)


def batches(
    connection: Connection, job: Job, *, after: int = 0, since: int | None = None
) -> Iterator[Batch]:
    """The job's committed batches with numbers above `after`, in order.

    `since`: only those that begin at this source global position or later.
    """
    wanted = (tables.batches.c.job_id == job.job_id) & (tables.batches.c.number > after)
    if since is not None:
        wanted &= tables.batches.c.source_after >= since
    rows = connection.execute(
        select(tables.batches).where(wanted).order_by(tables.batches.c.number)
    )
    for row in rows:
        yield Batch(
            number=row.number,
            source_after=row.source_after,
            source_until=row.source_until,
            target_after=row.target_after,
            target_until=row.target_until,
            tally=tally_of(row),
        )


def windows(connection: Connection, job: Job) -> dict[int, int]:
    """The numbers of the batches that are windows, with how many target events lie in each."""
    rows = connection.execute(select(tables.windows).where(tables.windows.c.job_id == job.job_id))
    return {row.batch: row.passed for row in rows}


def began_after(connection: Connection, job: Job) -> int:
    """The source position (exclusive) from which on the job copies: 0 where it copies all."""
    first = connection.execute(
        select(func.min(tables.batches.c.source_after)).where(tables.batches.c.job_id == job.job_id)
    ).scalar()
    return job.source_position if first is None else int(first)


def _advanced(job: Job, source_until: int, target_until: int, total: Tally) -> Job:
    return replace(job, source_position=source_until, target_position=target_until, tally=total)
