"""Dual running: prove what is copied, batch after batch, as long as both sides exist."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from eventmig.commands.holding import known_versions
from eventmig.errors import StoreError, VerifyError, Where
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Job
from eventmig.migrate.states import CROSSED, ENDED
from eventmig.migrate.throttle import rest_after
from eventmig.migrate.verify import Verification
from eventmig.migrate.verify.derivation import Derivation
from eventmig.project import Project, job_of, opened, opened_target, public
from eventmig.stores.base import JobTarget
from eventmig.ways_back import BackPipeline

_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A job whose copies were watched; `found` counts what was compared since the beginning."""

    job: Job
    target: str
    found: Verification


def watch_copies(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    share: float = 0.25,
    on_round: Callable[[Watched], object] = lambda watched: None,
) -> Watched:
    """Derive every committed batch anew, first those that are there, then each as it comes.

    In the direction that the job's state has: forth before a cut-over, back in the window. It
    works at most this share of the time. Reads only, beside whoever holds the job. Returns once
    the job has ended; raises `VerifyError` at the first batch that is not right.
    """
    frozen = project.release(release)
    seen: dict[str, int] = {}
    total = Verification()
    while True:
        began = time.monotonic()
        # Opened anew for each round: at a crossing the sides may change their tables.
        with (
            opened(project.url("source", source, frozen.name)) as first,
            opened_target(project.url("target", target, frozen.name)) as second,
        ):
            job = job_of(second)
            with second.reading() as connection:
                crossed = ledger.journal(connection, job)
            old, new = (second, first) if ledger.exchanged(job, crossed) else (first, second)
            pipeline = project.pipeline(frozen, old, job.naming, beside=new)
            reads, writes, row = old, new, job
            if job.state in CROSSED and job.state not in ENDED:
                until = crossed[0].old_position if crossed else None
                known = known_versions(project, frozen, old, until)
                pipeline = BackPipeline(project.registry, pipeline, known)
                reads, writes = new, old
                with old.reading() as connection:
                    row = ledger.back_job(connection, job) or job
            with (second if row is job else old).reading() as connection:
                marks = list(ledger.batches(connection, row, after=seen.get(row.job_id, 0)))
                windows = ledger.windows(connection, row)
            if job.state in ENDED:
                return Watched(job=job, target=public(second.url), found=total)
            derivation = Derivation(reads, writes, pipeline, row)
            found = Verification()
            try:
                for mark in marks:
                    if mark.number not in windows:
                        found.include(derivation.check(mark))
            except StoreError:
                if not _crossed_since(second, job, len(crossed)):
                    raise
                continue
            if not found.right and _crossed_since(second, job, len(crossed)):
                continue  # the sides changed their tables amid the round
            total.include(found)
            seen[row.job_id] = max([seen.get(row.job_id, 0), *(mark.number for mark in marks)])
            if not total.right:
                raise VerifyError(
                    f"the copy is not right: {total.mismatches} mismatches\n"
                    + "\n".join(f"  - {mismatch}" for mismatch in total.shown),
                    where=Where(store=writes.url),
                    remedy="pause the job, look at both sides, and do not cut over",
                )
            on_round(Watched(job=job, target=public(second.url), found=total))
        time.sleep(max(_POLL_S, rest_after(time.monotonic() - began, share)))


def _crossed_since(target: JobTarget, job: Job, crossings: int) -> bool:
    with target.reading() as connection:
        return len(ledger.journal(connection, job)) > crossings
