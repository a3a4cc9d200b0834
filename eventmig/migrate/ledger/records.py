"""What the ledger holds, as values, and how a row becomes one. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy.engine import Row

from eventmig.migrate.states import State
from eventmig.migrate.tally import NUMBERS, Tally


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


def rules_text(tally: Tally) -> str:
    """The counts per dropping rule, as a row holds them."""
    return json.dumps(tally.dropped_by, sort_keys=True, ensure_ascii=False)


def tally_of(row: Row[tuple[object, ...]]) -> Tally:
    """The tally of a row that has its numbers."""
    numbers = {name: getattr(row, name) for name in NUMBERS}
    return Tally.of(numbers, json.loads(row.dropped_by))


def job_of(row: Row[tuple[object, ...]]) -> Job:
    """The job of a row."""
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
        tally=tally_of(row),
        begun_at=row.begun_at,
        updated_at=row.updated_at,
    )
