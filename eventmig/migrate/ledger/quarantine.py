"""Events that a job set aside, with their bytes and what was wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from eventmig.errors import UpcastError, Where
from eventmig.events import Event
from eventmig.goal import place_of
from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.records import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A source event a job set aside, with what was wrong with it."""

    event: Event
    what: str
    remedy: str
    where: Where

    @classmethod
    def of(cls, event: Event, error: UpcastError) -> Quarantined:
        """An event set aside because of this error."""
        return cls(
            event=event,
            what=error.what,
            remedy=error.remedy,
            where=error.where.within(place_of(event)),
        )


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
        connection.execute(insert(tables.quarantine), rows)


def quarantined(connection: Connection, job: Job) -> Iterator[Quarantined]:
    """The events the job set aside, in source order."""
    rows = connection.execute(
        select(tables.quarantine)
        .where(tables.quarantine.c.job_id == job.job_id)
        .order_by(tables.quarantine.c.global_position)
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
