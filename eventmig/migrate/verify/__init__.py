"""Verification: is the target what the source and the registry say it must be?

It does not trust the copier. It reads both sides back; it derives the target anew by
the slow, obvious reading of the steps (`Chains.walk`), not the compiled one; it counts
stream positions itself. Three parts:

1. heads: the target's streams have no holes, its events are as many as the accounting
   says, and the recorded batches tile both sides without gap or overlap;
2. derivation: batch by batch, what the source yields now, compared with what the
   target holds: stream, position, id, type, version, data (canonical), metadata, time,
   origins, in order;
3. hashes: a hash chained per stream over what was found right, recorded in the ledger;
   a later verification recomputes it and finds any change since.

Reads only, but for the hashes, which go into the ledger when everything was right.
"""

from __future__ import annotations

from dataclasses import replace

from eventmig.migrate import ledger
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.states import CROSSED
from eventmig.migrate.verify.derivation import OnVerified, check_beyond, check_derivation
from eventmig.migrate.verify.findings import Mismatch, Verification
from eventmig.migrate.verify.hashes import chained, check_hashes, extend_hashes
from eventmig.migrate.verify.heads import check_heads, check_heads_of
from eventmig.stores.base import EventReader, JobTarget
from eventmig.transform import Pipeline

__all__ = ["Mismatch", "Verification", "chained", "verify_job", "verify_tail"]


def verify_job(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    *,
    derive: bool = True,
    on_progress: OnVerified | None = None,
) -> Verification:
    """Verify a job's target, by all three parts; without `derive`, heads and hashes only.

    Hashes are recorded only when everything else was right.
    """
    report = on_progress or (lambda done, total: None)
    found = Verification()
    with target.reading() as connection:
        marks = list(ledger.batches(connection, job))
        windows = ledger.windows(connection, job)
    check_heads(target, job, marks, windows, found)
    if derive:
        own = [mark for mark in marks if mark.number not in windows]
        check_derivation(source, target, pipeline, job, own, found, report)
        if job.state not in CROSSED:
            check_beyond(target, job, found)
    check_hashes(target, job, found, record=derive)
    if derive:
        _tell(target, job, found, marks)
    return found


def verify_tail(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    *,
    at_most: int | None = None,
    on_progress: OnVerified | None = None,
) -> Verification:
    """Verify the batches since the last verification, and the streams they wrote to.

    Costs as much as the tail is long, whatever the length of the history; `at_most` limits
    it to that many batches. Records the hashes, and how far it came, when all was right.
    """
    report = on_progress or (lambda done, total: None)
    found = Verification()
    with target.reading() as connection:
        told = ledger.followed(connection, job)
        windows = ledger.windows(connection, job)
        marks = list(ledger.batches(connection, job, after=told.verified_batch))[:at_most]
    own = [mark for mark in marks if mark.number not in windows]
    touched = check_derivation(source, target, pipeline, job, own, found, report)
    check_heads_of(target, touched, found)
    if found.right and touched:
        found.streams_hashed = extend_hashes(target, job, touched)
    if marks:
        _tell(target, job, found, marks, before=told.verified)
    return found


def _tell(
    target: JobTarget, job: Job, found: Verification, marks: list[Batch], before: int = 0
) -> None:
    with target.begin() as tx:
        told = replace(
            ledger.followed(tx.connection, job),
            verified=before + found.target_events,
            mismatches=found.mismatches,
        )
        if found.right and marks:
            told = replace(told, verified_batch=marks[-1].number)
        ledger.set_followed(tx.connection, job, told)
