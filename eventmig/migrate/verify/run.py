"""A whole verification, by this process alone or with a helper, and one of the tail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

from eventmig.migrate import ledger
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.states import CROSSED
from eventmig.migrate.verify.derivation import Derivation, check_beyond
from eventmig.migrate.verify.findings import Verification
from eventmig.migrate.verify.hashes import (
    Hashed,
    blocks,
    check_vanished,
    extend_hashes,
    hash_block,
)
from eventmig.migrate.verify.heads import check_heads, check_heads_of
from eventmig.stores.base import EventReader, JobTarget
from eventmig.transform import Pipeline

T = TypeVar("T")

OnVerified = Callable[[int, int], None]
"""Called with (target events compared, target events in all)."""

WORTH_A_HELPER = 50_000
"""Fewer events are verified alone in less time than a process takes to start."""

_BLOCK = 2_000  # streams


class Share(Protocol[T]):
    """What a helper was asked for, as it comes in."""

    def arrived(self) -> list[T]:
        """What is there now, and was not given before."""
        ...

    def rest(self) -> Iterator[T]:
        """What is left; waits for it."""
        ...


class VerifyHelper(Protocol):
    """A second process that works on its share of the same verification, at the same time."""

    def derive(self, numbers: list[int]) -> Share[Verification]:
        """Have the batches of these numbers compared."""
        ...

    def hash_second_blocks(self, size: int) -> Share[Hashed]:
        """Have every second block of so many streams hashed: the second, the fourth, …"""
        ...


def verify_job(
    source: EventReader,
    target: JobTarget,
    pipeline: Pipeline,
    job: Job,
    *,
    derive: bool = True,
    helper: VerifyHelper | None = None,
    on_progress: OnVerified | None = None,
) -> Verification:
    """Verify a job's target, by all three parts; without `derive`, heads and hashes only.

    Hashes are recorded only when everything else was right. A helper takes half of it.
    """
    found = Verification()
    with target.reading() as connection:
        marks = list(ledger.batches(connection, job))
        windows = ledger.windows(connection, job)
    check_heads(target, job, marks, windows, found)
    if derive:
        own = [mark for mark in marks if mark.number not in windows]
        report = on_progress or (lambda done, total: None)
        _derive(Derivation(source, target, pipeline, job), own, job, found, helper, report)
        if job.state not in CROSSED:
            check_beyond(target, job, found)
    _check_hashes(target, job, found, helper, record=derive)
    if derive:
        _tell(target, job, found, marks)
    return found


def _derive(
    derivation: Derivation,
    marks: list[Batch],
    job: Job,
    found: Verification,
    helper: VerifyHelper | None,
    report: OnVerified,
) -> None:
    """Compare batches; a helper takes the second half of them."""
    theirs = Verification()
    share: Share[Verification] | None = None
    if helper is not None and len(marks) > 1:
        half = len(marks) // 2
        share = helper.derive([mark.number for mark in marks[half:]])
        marks = marks[:half]
    for mark in marks:
        found.include(derivation.check(mark))
        for part in share.arrived() if share else ():
            theirs.include(part)
        report(found.target_events + theirs.target_events, job.tally.written)
    for part in share.rest() if share else ():
        theirs.include(part)
        report(found.target_events + theirs.target_events, job.tally.written)
    found.include(theirs)


def _check_hashes(
    target: JobTarget, job: Job, found: Verification, helper: VerifyHelper | None, *, record: bool
) -> None:
    """Compare every recorded stream hash; record the present ones if all was right."""
    known = 0

    def take(hashed: Hashed) -> None:
        nonlocal known
        known += hashed.known
        found.include(hashed.found)
        if record and found.right and hashed.hashes:
            with target.begin() as tx:
                ledger.store_hashes(tx.connection, job, hashed.hashes)

    share = helper.hash_second_blocks(_BLOCK) if helper else None
    for number, names in enumerate(blocks(target, _BLOCK)):
        if share is None or number % 2 == 0:
            take(hash_block(target, job, names))
        for hashed in share.arrived() if share else ():
            take(hashed)
    for hashed in share.rest() if share else ():
        take(hashed)
    found.include(check_vanished(target, job, known))


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
    touched: set[str] = set()
    derivation = Derivation(source, target, pipeline, job, touched=touched)
    for mark in own:
        found.include(derivation.check(mark))
        report(found.target_events, job.tally.written)
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
