"""What a running job is told from elsewhere, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.records import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What an operator asked of a job; it looks before every batch.

    `share` is the share of time it may work (0 < share <= 1), `batch_size` in events
    (0: as it began). `hand_over` is 1 while another command asks for the job: whoever takes it
    sets that back to 0, and no clock has a say.
    """

    paused: bool = False
    postponed: bool = False
    share: float = 1.0
    batch_size: int = 0
    hand_over: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What a job tells about itself beside its checkpoint.

    `verified_batch` is the number of the last batch that was proven right (0: none),
    `verified` how many target events that are, `copied_bytes` the data written so far,
    `throttled` why it waits now (empty: it does not).
    """

    verified_batch: int = 0
    verified: int = 0
    mismatches: int = 0
    copied_bytes: int = 0
    throttled: str = ""


def controls(connection: Connection, job: Job) -> Controls:
    """What was asked last."""
    row = connection.execute(
        select(tables.controls).where(tables.controls.c.job_id == job.job_id)
    ).first()
    return Controls() if row is None else Controls(**_fields(row._asdict()))


def set_controls(connection: Connection, job: Job, asked: Controls) -> None:
    """Ask; whoever holds the job sees it before its next batch."""
    connection.execute(delete(tables.controls).where(tables.controls.c.job_id == job.job_id))
    values = {f.name: getattr(asked, f.name) for f in fields(asked)}
    connection.execute(insert(tables.controls).values(job_id=job.job_id, **values))


def followed(connection: Connection, job: Job) -> Followed:
    """What the job told last."""
    row = connection.execute(
        select(tables.followed).where(tables.followed.c.job_id == job.job_id)
    ).first()
    return Followed() if row is None else Followed(**_fields(row._asdict()))


def set_followed(connection: Connection, job: Job, told: Followed) -> None:
    """Tell it."""
    connection.execute(delete(tables.followed).where(tables.followed.c.job_id == job.job_id))
    values = {f.name: getattr(told, f.name) for f in fields(told)}
    connection.execute(insert(tables.followed).values(job_id=job.job_id, **values))


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "job_id"}
