"""The ledger: jobs, checkpoints, quarantine and verification, beside the target.

Its tables live in the target's database, and every function here works on the SQL
connection of the target's own transaction: a batch and its checkpoint commit
together or not at all. `namespace` says which set of tables or streams of that
database a job writes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import Row

from eventmig.errors import JobLostError, NewerLedgerError, Where
from eventmig.events import Event
from eventmig.migrate.states import ENDED, State, check_transition
from eventmig.migrate.tally import NUMBERS, Tally

FORMAT = 1

metadata = MetaData()

_format = Table("eventmig_ledger", metadata, Column("format", Integer, nullable=False))

_jobs = Table(
    "eventmig_jobs",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("namespace", String(255), nullable=False),
    Column("release", String(255), nullable=False),
    Column("steps_done", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("source_identity", Text, nullable=False),
    Column("naming", Text, nullable=False),
    Column("registry_fingerprint", String(64), nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("epoch", Integer, nullable=False),
    Column("source_until", Integer, nullable=False),
    Column("settled", Integer, nullable=False),
    Column("source_position", Integer, nullable=False),
    Column("target_position", Integer, nullable=False),
    *[Column(name, Integer, nullable=False) for name in NUMBERS],
    Column("dropped_by", Text, nullable=False),
    Column("begun_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
)

_batches = Table(
    "eventmig_batches",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("source_after", Integer, nullable=False),
    Column("source_until", Integer, nullable=False),
    Column("target_after", Integer, nullable=False),
    Column("target_until", Integer, nullable=False),
    *[Column(name, Integer, nullable=False) for name in NUMBERS],
    Column("dropped_by", Text, nullable=False),
)

_transitions = Table(
    "eventmig_transitions",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

_quarantine = Table(
    "eventmig_quarantine",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("global_position", Integer, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("stream_position", Integer, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("metadata", LargeBinary),
    Column("recorded_at", Integer, nullable=False),
    Column("step", Text),
    Column("path", Text),
    Column("what", Text, nullable=False),
    Column("remedy", Text, nullable=False),
)

_hashes = Table(
    "eventmig_stream_hashes",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("stream", String(1024), primary_key=True),
    Column("stream_position", Integer, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the ledger holds it.

    `source_until` is the end of reading (inclusive), `settled` the one before it (0:
    none), `source_position` the checkpoint (the last source global position that is
    behind it), `target_position` the last target global position it wrote. Times are
    ISO 8601, UTC.
    """

    job_id: str
    namespace: str
    release: str
    steps_done: tuple[str, ...]
    source: str
    source_identity: str
    naming: str
    registry_fingerprint: str
    state: State
    reason: str
    epoch: int
    source_until: int
    settled: int
    source_position: int
    target_position: int
    tally: Tally
    begun_at: str
    updated_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One committed batch: which source range became which target range.

    All four are global positions; `after` is exclusive, `until` inclusive.
    """

    number: int
    source_after: int
    source_until: int
    target_after: int
    target_until: int
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A state a job entered, when (ISO 8601, UTC), and why."""

    number: int
    state: State
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A source event a job set aside, with what was wrong with it."""

    event: Event
    what: str
    remedy: str
    where: Where


def now() -> str:
    """This moment, ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _exactly_now() -> str:
    """This moment to the microsecond: two jobs may begin within one second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def exists(connection: Connection) -> bool:
    """Whether a ledger is there; raises `NewerLedgerError` for one of a newer eventmig."""
    if not inspect(connection).has_table(_format.name):
        return False
    found = connection.execute(select(func.max(_format.c.format))).scalar() or 0
    if found > FORMAT:
        raise NewerLedgerError(
            f"the ledger has format {found}, and this eventmig knows {FORMAT}",
            remedy="upgrade eventmig to the version that wrote it; nothing was changed",
        )
    return True


def create(connection: Connection) -> None:
    """Make the ledger's tables where they are not there yet."""
    if exists(connection):
        return
    metadata.create_all(connection)
    connection.execute(insert(_format).values(format=FORMAT))


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
) -> Job:
    """Record a new job in state PLANNED, epoch 1."""
    job_id = str(uuid.uuid4())
    connection.execute(
        insert(_jobs).values(
            job_id=job_id,
            namespace=namespace,
            release=release,
            steps_done=json.dumps(list(steps_done)),
            source=source,
            source_identity=source_identity,
            naming=naming,
            registry_fingerprint=registry_fingerprint,
            state=State.PLANNED.value,
            reason="",
            epoch=1,
            source_until=source_until,
            settled=0,
            source_position=0,
            target_position=target_position,
            **Tally().numbers(),
            dropped_by="{}",
            begun_at=_exactly_now(),
            updated_at=now(),
        )
    )
    _note(connection, job_id, State.PLANNED, "")
    found = active_job(connection, namespace)
    assert found is not None
    return found


def active_job(connection: Connection, namespace: str) -> Job | None:
    """The job that has this target and is not ended, or None."""
    ended = [state.value for state in ENDED]
    row = connection.execute(
        select(_jobs)
        .where(_jobs.c.namespace == namespace, _jobs.c.state.not_in(ended))
        .order_by(_jobs.c.begun_at.desc())
    ).first()
    return None if row is None else _job(row)


def jobs(connection: Connection) -> list[Job]:
    """Every job of this database, oldest first."""
    rows = connection.execute(select(_jobs).order_by(_jobs.c.begun_at, _jobs.c.job_id))
    return [_job(row) for row in rows]


def take_over(connection: Connection, job: Job, *, registry_fingerprint: str) -> Job:
    """Raise the job's epoch: whoever held it before can write no more.

    `registry_fingerprint` is that of the upcasters it goes on with.
    """
    epoch = job.epoch + 1
    _update(connection, job, epoch=epoch, registry_fingerprint=registry_fingerprint)
    return _reread(connection, job)


def enter(connection: Connection, job: Job, state: State, reason: str = "") -> Job:
    """Put the job into a state; raises `JobError` where it may not follow."""
    check_transition(job.state, state)
    _update(connection, job, state=state.value, reason=reason)
    if state is not job.state or reason != job.reason:
        _note(connection, job.job_id, state, reason)
    return _reread(connection, job)


def extend(connection: Connection, job: Job, *, source_until: int) -> Job:
    """Move the end of reading forward: the source has grown."""
    _update(connection, job, source_until=source_until, settled=job.source_until)
    return _reread(connection, job)


def checkpoint(
    connection: Connection, job: Job, *, source_until: int, target_until: int, tally: Tally
) -> Job:
    """Record one batch: the job's new position and sums, and the batch itself."""
    tally.check()
    total = job.tally + tally
    _update(
        connection,
        job,
        source_position=source_until,
        target_position=target_until,
        **total.numbers(),
        dropped_by=_rules(total),
    )
    number = _next(connection, _batches, job.job_id)
    connection.execute(
        insert(_batches).values(
            job_id=job.job_id,
            number=number,
            source_after=job.source_position,
            source_until=source_until,
            target_after=job.target_position,
            target_until=target_until,
            **tally.numbers(),
            dropped_by=_rules(tally),
        )
    )
    return _advanced(job, source_until, target_until, total)


def rewind(connection: Connection, job: Job, *, before: int) -> Job:
    """Forget every batch that read the source at or after a global position.

    The caller deletes what they wrote, up to the returned `target_position`, in the
    same transaction.
    """
    first = connection.execute(
        select(func.min(_batches.c.target_after)).where(_batches.c.job_id == job.job_id)
    ).scalar()
    gone = (_batches.c.job_id == job.job_id) & (_batches.c.source_until >= before)
    connection.execute(delete(_batches).where(gone))
    kept = list(batches(connection, job))
    total = sum((b.tally for b in kept), Tally())
    source_position = kept[-1].source_until if kept else 0
    target_position = kept[-1].target_until if kept else (first or 0)
    _update(
        connection,
        job,
        settled=job.settled if kept else 0,
        source_position=source_position,
        target_position=target_position,
        **total.numbers(),
        dropped_by=_rules(total),
    )
    connection.execute(
        delete(_quarantine).where(
            _quarantine.c.job_id == job.job_id, _quarantine.c.global_position > source_position
        )
    )
    connection.execute(delete(_hashes).where(_hashes.c.job_id == job.job_id))
    return _reread(connection, job)


def batches(connection: Connection, job: Job) -> Iterator[Batch]:
    """The job's committed batches, in order."""
    rows = connection.execute(
        select(_batches).where(_batches.c.job_id == job.job_id).order_by(_batches.c.number)
    )
    for row in rows:
        yield Batch(
            number=row.number,
            source_after=row.source_after,
            source_until=row.source_until,
            target_after=row.target_after,
            target_until=row.target_until,
            tally=_tally(row),
        )


def transitions(connection: Connection, job: Job) -> list[Transition]:
    """Every state the job entered, in order."""
    rows = connection.execute(
        select(_transitions)
        .where(_transitions.c.job_id == job.job_id)
        .order_by(_transitions.c.number)
    )
    return [
        Transition(number=r.number, state=State(r.state), reason=r.reason, at=r.at) for r in rows
    ]


def set_aside(connection: Connection, job: Job, found: Iterable[Quarantined]) -> None:
    """Record events that could not be upcast, with their bytes."""
    rows = [
        {
            "job_id": job.job_id,
            "global_position": q.event.global_position,
            "stream": q.event.stream,
            "stream_position": q.event.stream_position,
            "event_id": q.event.id,
            "type": q.event.type,
            "schema_version": q.event.schema_version,
            "data": q.event.data,
            "metadata": q.event.metadata,
            "recorded_at": q.event.recorded_at,
            "step": q.where.step,
            "path": q.where.path,
            "what": q.what,
            "remedy": q.remedy,
        }
        for q in found
    ]
    if rows:
        connection.execute(insert(_quarantine), rows)


def quarantined(connection: Connection, job: Job) -> Iterator[Quarantined]:
    """The events the job set aside, in source order."""
    rows = connection.execute(
        select(_quarantine)
        .where(_quarantine.c.job_id == job.job_id)
        .order_by(_quarantine.c.global_position)
    )
    for r in rows:
        yield Quarantined(
            event=Event(
                r.global_position,
                r.stream,
                r.stream_position,
                r.event_id,
                r.type,
                r.schema_version,
                r.data,
                r.metadata,
                r.recorded_at,
            ),
            what=r.what,
            remedy=r.remedy,
            where=Where(step=r.step, path=r.path),
        )


def store_hashes(connection: Connection, job: Job, hashes: Mapping[str, tuple[int, bytes]]) -> None:
    """Record the chained hash of streams up to a stream position (inclusive)."""
    _update(connection, job)
    names = list(hashes)
    for start in range(0, len(names), 500):
        connection.execute(
            delete(_hashes).where(
                _hashes.c.job_id == job.job_id, _hashes.c.stream.in_(names[start : start + 500])
            )
        )
    rows = [
        {"job_id": job.job_id, "stream": s, "stream_position": p, "hash": h}
        for s, (p, h) in hashes.items()
    ]
    if rows:
        connection.execute(insert(_hashes), rows)


def hashes(
    connection: Connection, job: Job, streams: Iterable[str]
) -> dict[str, tuple[int, bytes]]:
    """The recorded hash of each named stream that has one: (stream position, hash)."""
    names = list(streams)
    found: dict[str, tuple[int, bytes]] = {}
    for start in range(0, len(names), 500):
        rows = connection.execute(
            select(_hashes).where(
                _hashes.c.job_id == job.job_id, _hashes.c.stream.in_(names[start : start + 500])
            )
        )
        found |= {r.stream: (r.stream_position, r.hash) for r in rows}
    return found


def hashed_streams(connection: Connection, job: Job) -> int:
    """How many streams have a recorded hash."""
    count = select(func.count()).select_from(_hashes).where(_hashes.c.job_id == job.job_id)
    return int(connection.execute(count).scalar_one())


def hashed_names(connection: Connection, job: Job) -> Iterator[dict[str, int]]:
    """Every stream that has a recorded hash, with the position it goes up to, some at a time."""
    found = connection.execute(
        select(_hashes.c.stream, _hashes.c.stream_position)
        .where(_hashes.c.job_id == job.job_id)
        .order_by(_hashes.c.stream)
    )
    for rows in found.partitions(500):
        yield {row.stream: row.stream_position for row in rows}


def _update(connection: Connection, job: Job, **values: object) -> None:
    """Write to the job's row, if this process still holds it."""
    result = connection.execute(
        update(_jobs)
        .where(_jobs.c.job_id == job.job_id, _jobs.c.epoch == job.epoch)
        .values(updated_at=now(), **values)
    )
    if result.rowcount != 1:
        raise JobLostError(
            f"another process took job {job.job_id} over (this one held epoch {job.epoch})",
            remedy="let that one finish; nothing of this batch was written",
        )


def _reread(connection: Connection, job: Job) -> Job:
    row = connection.execute(select(_jobs).where(_jobs.c.job_id == job.job_id)).one()
    return _job(row)


def _advanced(job: Job, source_until: int, target_until: int, total: Tally) -> Job:
    return replace(job, source_position=source_until, target_position=target_until, tally=total)


def _note(connection: Connection, job_id: str, state: State, reason: str) -> None:
    connection.execute(
        insert(_transitions).values(
            job_id=job_id,
            number=_next(connection, _transitions, job_id),
            state=state.value,
            reason=reason,
            at=now(),
        )
    )


def _next(connection: Connection, table: Table, job_id: str) -> int:
    last = connection.execute(
        select(func.max(table.c.number)).where(table.c.job_id == job_id)
    ).scalar()
    return (last or 0) + 1


def _rules(tally: Tally) -> str:
    return json.dumps(tally.dropped_by, sort_keys=True, ensure_ascii=False)


def _tally(row: Row[tuple[object, ...]]) -> Tally:
    numbers = {name: getattr(row, name) for name in NUMBERS}
    return Tally.of(numbers, json.loads(row.dropped_by))


def _job(row: Row[tuple[object, ...]]) -> Job:
    return Job(
        job_id=row.job_id,
        namespace=row.namespace,
        release=row.release,
        steps_done=tuple(json.loads(row.steps_done)),
        source=row.source,
        source_identity=row.source_identity,
        naming=row.naming,
        registry_fingerprint=row.registry_fingerprint,
        state=State(row.state),
        reason=row.reason,
        epoch=row.epoch,
        source_until=row.source_until,
        settled=row.settled,
        source_position=row.source_position,
        target_position=row.target_position,
        tally=_tally(row),
        begun_at=row.begun_at,
        updated_at=row.updated_at,
    )
