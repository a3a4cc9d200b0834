"""A job that this process holds on its target: how it comes by it, and how its record changes.

One job per target: the caller has the target's lock, and the ledger checks the job's epoch in
every transaction, so that a holder which lost its job writes nothing more.
"""

from __future__ import annotations

from collections.abc import Callable

from eventmig.errors import JobError, Where
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.ledger import Job
from eventmig.migrate.setting import Setting, check_not_ended, check_pair, check_same
from eventmig.migrate.states import State
from eventmig.stores.base import EventReader, JobTarget, TargetTransaction
from eventmig.transform import Pipeline


class HeldJob:
    """One job from a source to a target; `job` is its record as this process last committed it.

    `begin_or_resume`, `take_over` or `adopt` comes first: before them there is no `job`. The
    first two raise `JobError` where the target belongs to another job.
    """

    def __init__(
        self, source: EventReader, target: JobTarget, pipeline: Pipeline, setting: Setting
    ) -> None:
        self.source = source
        self.target = target
        self.pipeline = pipeline
        self.job: Job
        self._setting = setting

    def begin_or_resume(self) -> Job:
        """The target's active job if it is this one, else a new one. Call under the lock.

        A new one trusts its source: call `check_source` before. Raises `JobError` where the
        target holds events no job wrote.
        """
        check_pair(self.source, self.target, self.pipeline)
        failpoints.reached("begin: before")
        with self.target.begin() as tx:
            ledger.create(tx.connection)
            job = ledger.active_job(tx.connection, self.target.namespace)
            if job is not None:
                check_same(job, self._setting, self.source, self.target)
                check_not_ended(job, self.target)
                self.job = ledger.take_over(
                    tx.connection, job, registry_fingerprint=self._setting.registry_fingerprint
                )
                return self.job
            if self.target.count():
                raise JobError(
                    "the target holds events that no job wrote",
                    where=Where(store=self.target.url),
                    remedy="choose a target that is empty or not there yet (--target)",
                )
            self.job = ledger.begin_job(
                tx.connection,
                namespace=self.target.namespace,
                release=self._setting.release,
                steps_done=self._setting.steps_done,
                source=self._setting.source_name,
                source_identity=self.source.identity(),
                naming=self._setting.naming,
                registry_fingerprint=self._setting.registry_fingerprint,
                source_until=self.source.head_position(),
                target_position=tx.append_copied([]),
            )
            tx.defer_indexes()
        failpoints.reached("begin: after")
        return self.job

    def take_over(self) -> Job:
        """The target's job as it is, ended or not, held by this process."""
        with self.target.begin() as tx:
            job = ledger.active_job(tx.connection, self.target.namespace)
            if job is None:
                raise JobError(
                    "no job has this target",
                    where=Where(store=self.target.url),
                    remedy="begin one with `eventmig upcast`",
                )
            check_same(job, self._setting, self.source, self.target)
            self.job = ledger.take_over(
                tx.connection, job, registry_fingerprint=job.registry_fingerprint
            )
        return self.job

    def adopt(self, job: Job) -> None:
        """Go on with a job that the caller holds: recorded elsewhere, or read anew."""
        self.job = job

    def enter(self, state: State, reason: str = "") -> None:
        """Put the job into a state, persisted; raises `JobError` where it may not follow."""
        if self.job.state is not state or self.job.reason != reason:
            self.commit(lambda tx: ledger.enter(tx.connection, self.job, state, reason))

    def commit(self, work: Callable[[TargetTransaction], Job]) -> None:
        """One transaction of the target, and the record that it made of the job."""
        with self.target.begin() as tx:
            job = work(tx)
        self.job = job
