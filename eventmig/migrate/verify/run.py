"""A whole verification, by this process alone or with a helper, and one of the tail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from eventmig.migrate import ledger
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.states import CROSSED
from eventmig.migrate.verify.chaining import Hashed
from eventmig.migrate.verify.derivation import Compared, Derivation, check_beyond
from eventmig.migrate.verify.findings import InOrder, Verification
from eventmig.migrate.verify.hashes import (
    along,
    blocks,
    check_vanished,
    extend_hashes,
    hash_block,
    record,
)
from eventmig.migrate.verify.heads import check_heads, check_heads_of
from eventmig.migrate.verify.sharing import Share, Sharing
from eventmig.stores.base import EventReader, JobTarget
from eventmig.transform import Pipeline

OnVerified = Callable[[int, int], None]
"""Called with (target events compared, target events in all)."""

WORTH_A_HELPER = 50_000
"""Fewer events are verified alone in less time than a process takes to start."""

_BLOCK = 25_000  # events whose streams are hashed at once
_MARKS = 2  # batches that are compared at once, where two processes share them
_HEAD_START = 8  # units that the helper is given while this process looks at heads
_HEAD_MARKS = 20  # batches in each of those, at most: what comes of them is sent in one message


class VerifyHelper(Protocol):
    """A second process that works on units of the same verification, at the same time.

    Its answers come in the order of the questions.
    """

    def derive(self, numbers: list[int], *, linking: bool) -> Share[Compared]:
        """Have the batches of these numbers compared, and links made of their events."""
        ...

    def hash(self, streams: list[str]) -> Share[Hashed]:
        """Have these streams hashed."""
        ...


def verify_job(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    *,
    beside: JobTarget | None = None,
    derive: bool = True,
    helper: VerifyHelper | None = None,
    on_progress: OnVerified | None = None,
) -> Verification:
    """Verify a job's target, by all three parts; without `derive`, heads and hashes only.

    Hashes are recorded only when everything else was right. A helper shares the work.
    `beside` is the store whose ledger has the job (None: the target).
    """
    beside = beside or target
    found = Verification()
    with beside.reading() as connection:
        marks = list(ledger.batches(connection, job))
        windows = ledger.windows(connection, job)
    own = [mark for mark in marks if mark.number not in windows] if derive else []
    whole = derive and not windows and job.state not in CROSSED
    beside_it = along(target, beside, job, marks) if whole else None
    linking = beside_it is not None
    deriving = _deriving(Derivation(source, target, pipeline, job), own, helper, linking)
    deriving.begin(min(_HEAD_START, len(own) // 10 // _MARKS))
    check_heads(target, job, marks, windows, found)
    derived = InOrder()
    for number, part in deriving.results():
        derived.include(number, part.found)
        if beside_it is not None:
            beside_it.add(number, part.links)
        if on_progress is not None:
            on_progress(derived.found.target_events, job.tally.written)
    found.include(derived.found)
    if derive and job.state not in CROSSED:
        check_beyond(target, job, found)
    if beside_it is not None and not beside_it.given_up:
        hashed = beside_it.end()
        found.include(hashed.found)
        if found.right:
            record(beside, job, hashed.hashes)
    else:
        _check_hashes(target, beside, job, found, helper, recording=derive)
    if derive:
        _tell(beside, job, found, marks)
    return found


def _deriving(
    derivation: Derivation, marks: list[Batch], helper: VerifyHelper | None, linking: bool
) -> Sharing[list[Batch], Compared]:
    """The comparison of these batches, in their order."""

    def mine(some: list[Batch]) -> Compared:
        return derivation.compare(some, linking=linking)

    if helper is None:
        return Sharing([[mark] for mark in marks], mine)
    derive = helper.derive
    several = min(_HEAD_MARKS, max(_MARKS, len(marks) // 10 // _HEAD_START))
    first = several * _HEAD_START
    units = [marks[n : n + several] for n in range(0, min(first, len(marks)), several)]
    units += [marks[n : n + _MARKS] for n in range(first, len(marks), _MARKS)]
    return Sharing(
        units, mine, lambda some: derive([mark.number for mark in some], linking=linking)
    )


def _check_hashes(
    target: JobTarget,
    beside: JobTarget,
    job: Job,
    found: Verification,
    helper: VerifyHelper | None,
    *,
    recording: bool,
) -> None:
    """Compare every recorded stream hash; record the present ones if all was right."""
    known = 0
    hashed = InOrder()
    hashing = Sharing(
        blocks(target, _BLOCK),
        lambda streams: hash_block(target, beside, job, streams),
        None if helper is None else helper.hash,
    )
    for number, part in hashing.results():
        known += part.known
        hashed.include(number, part.found)
        if recording and found.right and hashed.found.right:
            record(beside, job, part.hashes)
    found.include(hashed.found)
    found.include(check_vanished(target, beside, job, known))


def verify_tail(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    *,
    beside: JobTarget | None = None,
    at_most: int | None = None,
    on_progress: OnVerified | None = None,
) -> Verification:
    """Verify the batches since the last verification, and the streams they wrote to.

    Costs as much as the tail is long, whatever the length of the history; `at_most` limits
    it to that many batches. Records the hashes, and how far it came, when all was right.
    `beside` is the store whose ledger has the job (None: the target).
    """
    beside = beside or target
    report = on_progress or (lambda done, total: None)
    found = Verification()
    with beside.reading() as connection:
        told = ledger.followed(connection, job)
        windows = ledger.windows(connection, job)
        marks = list(ledger.batches(connection, job, after=told.verified_batch))[:at_most]
    own = [mark for mark in marks if mark.number not in windows]
    touched: set[str] = set()
    derivation = Derivation(source, target, pipeline, job, touched=touched)
    for mark in own:
        found.include(derivation.check(mark))
        report(found.target_events, job.tally.written)
    check_heads_of(target, touched, found)
    if found.right and touched:
        found.streams_hashed = extend_hashes(target, beside, job, touched)
    if marks:
        _tell(beside, job, found, marks, before=told.verified)
    return found


def _tell(
    beside: JobTarget, job: Job, found: Verification, marks: list[Batch], before: int = 0
) -> None:
    with beside.begin() as tx:
        told = replace(
            ledger.followed(tx.connection, job),
            verified=before + found.target_events,
            mismatches=found.mismatches,
        )
        if found.right and marks:
            told = replace(told, verified_batch=marks[-1].number)
        ledger.set_followed(tx.connection, job, told)
