"""The upcast job: from one state to the next, up to a copy that can be verified.

Killed anywhere, the same call goes on from the last commit and ends as if nothing had happened.
How a job is held is in `held`, the path of its batches in `copying`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from eventmig.errors import EventmigError, JobLostError, UpcastError
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.copying import Copying, Transforming
from eventmig.migrate.held import HeldJob
from eventmig.migrate.ledger import Job, Quarantined
from eventmig.migrate.pushdown import Pusher
from eventmig.migrate.setting import Setting
from eventmig.migrate.states import State
from eventmig.stores.base import EventReader, JobTarget, TargetTransaction
from eventmig.transform import Pipeline

BATCH_SIZE = 5_000


class Phase(StrEnum):
    """What a progress report is about."""

    CHECKING = "checking"
    COPYING = "copying"
    INDEXING = "indexing"
    VERIFYING = "verifying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` source events (or verified ones) in this phase."""

    phase: Phase
    done: int
    total: int


OnProgress = Callable[[Progress], None]


class UpcastJob(HeldJob):
    """What copies the source of a held job. The caller has the target's lock all the while.

    With `quarantine`, events that cannot be upcast are set aside; `transforming` and `pusher`
    as `Copying` has them.
    """

    def __init__(
        self,
        source: EventReader,
        target: JobTarget,
        pipeline: Pipeline,
        setting: Setting,
        *,
        quarantine: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: OnProgress | None = None,
        transforming: Transforming | None = None,
        pusher: Pusher | None = None,
    ) -> None:
        super().__init__(source, target, pipeline, setting)
        self.copied_bytes = 0
        self._quarantine = quarantine
        self._watched = on_progress is not None
        self._report = on_progress or (lambda progress: None)
        self._copying = Copying(
            self,
            quarantine=quarantine,
            batch_size=batch_size,
            transforming=transforming,
            pusher=pusher,
        )

    def follow(self, until: int) -> None:
        """Copy what the source holds up to `until` (inclusive), in whatever state the job is.

        Raises `UpcastError` at an event that fails, unless those are set aside.
        """
        if until > self.job.source_until:
            self.commit(lambda tx: ledger.extend(tx.connection, self.job, source_until=until))
        if self.job.source_position < self.job.source_until:
            self._copy()

    def set_batch_size(self, events: int) -> None:
        """Read so many events at a time from now on."""
        self._copying.batch_size = events

    def run(self) -> Job:
        """Copy everything up to the source's present head; returns the job as it stands then.

        Reads the source, writes the target. On an event that cannot be upcast the job
        is FAILED and the error is raised; the same call resumes.
        """
        head = self.source.head_position()
        if self.job.source_position >= self.job.source_until and head > self.job.source_until:
            self.commit(lambda tx: ledger.extend(tx.connection, self.job, source_until=head))
        try:
            if self.job.source_position < self.job.source_until:
                self.enter(State.CATCHING_UP if self.job.settled else State.BACKFILLING)
                self._copy()
            elif self.job.state is State.PLANNED:
                self.enter(State.BACKFILLING)  # of an empty source
            self._build_indexes()
        except JobLostError:
            raise
        except EventmigError as error:
            self._failed(error)
            raise
        if self.job.tally.quarantined:
            count = self.job.tally.quarantined
            if self.job.state is not State.PAUSED:
                self.enter(State.PAUSED, f"{count} event{'s' if count > 1 else ''} in quarantine")
        return self.job

    def _copy(self) -> None:
        until = self.job.source_until
        total = self.source.count(until=until) if self._watched else 0

        def tell() -> None:
            self._report(Progress(phase=Phase.COPYING, done=self.job.tally.read, total=total))

        tell()
        with closing(self._copying.batches()) as batches:
            for data_bytes in batches:
                self.copied_bytes += data_bytes
                tell()

    def _build_indexes(self) -> None:
        self._report(Progress(phase=Phase.INDEXING, done=0, total=1))
        failpoints.reached("indexes: before")
        with self.target.begin() as tx:
            tx.build_indexes()
        failpoints.reached("indexes: after")
        self._report(Progress(phase=Phase.INDEXING, done=1, total=1))

    def _failed(self, error: EventmigError) -> None:
        if isinstance(error, UpcastError) and not self._quarantine:
            error.add_note("--quarantine sets such events aside; the same command resumes the job")
        try:
            self.enter(State.FAILED, error.what)
        except EventmigError as second:
            error.add_note(f"the ledger could not be told: {second.what}")

    def retry_quarantined(self) -> list[Quarantined]:
        """Try the events set aside with the present upcasters.

        Returns those that still fail. When none does, the job goes back to just before
        the first of them, so that what follows it in its stream is written after it;
        `run` then copies from there.
        """
        with self.target.begin() as tx:
            waiting = list(ledger.quarantined(tx.connection, self.job))
        transformer = self._copying.transformer()
        failing: list[Quarantined] = []
        for found in waiting:
            try:
                result = transformer.batch([found.event])
            except UpcastError as error:
                failing.append(Quarantined.of(found.event, error))
                continue
            failing += (Quarantined.of(*one) for one in result.failed)
        if failing or not waiting:
            return failing
        first = waiting[0].event.global_position

        def go_back(tx: TargetTransaction) -> Job:
            job = ledger.rewind(tx.connection, self.job, before=first)
            tx.truncate_after(job.target_position)
            return ledger.enter(tx.connection, job, State.BACKFILLING, "quarantine retried")

        self.commit(go_back)
        return []


def check_source(source: EventReader, on_progress: OnProgress | None = None) -> None:
    """Raise the first damage of a source, before anything is made for a job. Reads only."""
    report = on_progress or (lambda progress: None)
    report(Progress(phase=Phase.CHECKING, done=0, total=1))
    for damage in source.preflight():
        raise damage
    report(Progress(phase=Phase.CHECKING, done=1, total=1))


def cancel_job(target: JobTarget, job: Job) -> int:
    """End a job and delete what it wrote; returns how many events that were.

    Call under the target's lock. Writes the target alone, and needs no upcasters.
    """
    failpoints.reached("cancel: before")
    with target.begin() as tx:
        job = ledger.take_over(tx.connection, job, registry_fingerprint=job.registry_fingerprint)
        job = ledger.rewind(tx.connection, job, before=0)
        deleted = tx.truncate_after(job.target_position)
        ledger.enter(tx.connection, job, State.CANCELLED, "cancelled by command")
        tx.build_indexes()
    failpoints.reached("cancel: after")
    return deleted
