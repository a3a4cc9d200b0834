"""A job's two sides, and the ground its crossings stand on (`crossing.Ground`).

Each method that writes is one transaction: of the target's database, where the ledger is,
or of the old side's, where the fence's epoch and the copy of the way back are.

With `Switch.TABLES` the sides change the tables they lie in: after the cut-over the new
side has the old tables' names, and the store that the job was begun with as its target is
the old one. `side` says which store is which now. The ledgers stay where they are, until the
job is completed: its own beside the target, and that of the way back beside the store that is
the old side while there is one (`back_ledger`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from eventmig.errors import CapabilityError, CrossingError, JobError, JobLostError, Where
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.crossing import CROSSINGS, CUT_OVER, Crossing, Step
from eventmig.migrate.job import UpcastJob
from eventmig.migrate.ledger import Job
from eventmig.migrate.setting import Setting
from eventmig.migrate.states import CROSSED, Side, State, Switch
from eventmig.migrate.verify import Verification, verify_tail
from eventmig.stores.base import JobTarget, TargetTransaction
from eventmig.stores.crossing import Exchanging, Fencing, PublishedRoute, Publishing, Settling
from eventmig.stores.held_up import Waiting
from eventmig.transform import Pipeline
from eventmig.ways_back import BackPipeline

_PAUSE_S: Final = 0.02  # between looks at open transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job's copies go by: the way forth, the way back, and who reads and writes.

    `budget_s` is how long a crossing may keep writers out, in seconds.
    """

    forth: Pipeline
    back: BackPipeline
    setting: Setting
    switch: Switch = Switch.ROUTE
    budget_s: float = 10.0
    batch_size: int = 5_000


class Sides:
    """Both stores of a job that this process holds (`Ground`).

    The caller has the target's lock, and has taken the job over (`UpcastJob`).
    """

    def __init__(
        self,
        forward: UpcastJob,
        source: JobTarget,
        target: JobTarget,
        plan: Plan,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forward = forward
        self.plan = plan
        self._source = source
        self._target = target
        self._clock = clock
        self._closed_at: float | None = None
        self._back: UpcastJob | None = None
        self.stood_still_s = 0.0
        self.may_leave_behind = False
        self.before_switch: Callable[[], None] = lambda: None

    # which store is which ------------------------------------------------------------------

    @property
    def job(self) -> Job:
        """The job as this process knows it."""
        return self.forward.job

    def side(self, side: Side, *, crossed: bool | None = None) -> JobTarget:
        """The store of a side, as the job's state has it (or as if it was `crossed`)."""
        if crossed is None:
            crossed = self.job.state in CROSSED
        exchanged = crossed and self.plan.switch is Switch.TABLES
        return self._target if (side is Side.NEW) is not exchanged else self._source

    @property
    def back_ledger(self) -> JobTarget:
        """The store whose ledger has the copy of the way back, also while it is not crossed."""
        return self.side(Side.OLD, crossed=True)

    def copier(self, leaves: Side) -> UpcastJob:
        """The copy that reads the side which is left: the job's own, or that of the way back."""
        if leaves is Side.OLD:
            return self.forward
        if self._back is None:
            self._back = self._hold_back()
        return self._back

    def _hold_back(self) -> UpcastJob:
        old = self.side(Side.OLD)
        with old.begin() as tx:
            known = ledger.exists(tx.connection)
            found = ledger.back_job(tx.connection, self.job) if known else None
            if found is None:
                raise JobError(
                    "the copy of the way back is not recorded",
                    where=Where(store=old.url),
                    remedy="was the old side restored from a backup? there is no way back then",
                )
            held = ledger.hold(tx.connection, found, self.job.epoch)
        copier = UpcastJob(
            self.side(Side.NEW),
            old,
            self.plan.back,
            self.plan.setting,
            quarantine=True,
            batch_size=self.plan.batch_size,
        )
        copier.adopt(held)
        return copier

    def _fencing(self, side: Side) -> Fencing:
        store = self.side(side)
        if not isinstance(store, Fencing):
            raise CapabilityError(
                "this kind of store cannot shut its writers out",
                where=Where(store=store.url),
                remedy="stop the writers yourself, run `eventmig upcast` once more, and point "
                "the application at the target",
            )
        return store

    def last_position(self, side: Side) -> int:
        """The last global position of a side: that of any event, whoever wrote it."""
        return self._fencing(side).last_position()

    # the ground -----------------------------------------------------------------------------

    def state(self) -> State:
        """The job's state as the ledger has it now."""
        with self._target.reading() as connection:
            found = ledger.active_job(connection, self._target.namespace)
        if found is None or (found.job_id, found.epoch) != (self.job.job_id, self.job.epoch):
            raise JobLostError(
                f"another process took job {self.job.job_id} over",
                where=Where(store=self._target.url),
                remedy="let that one finish (`eventmig status` shows it)",
            )
        self.forward.adopt(found)
        return found.state

    def enter(self, state: State, reason: str) -> None:
        """Put the job into a state."""
        self.forward.enter(state, reason)

    def close(self, side: Side) -> None:
        """Shut the applications out of a side; the writers' stall begins here."""
        self._closed_at = self._clock()
        self._set_fence(side, closed=True)

    def open(self, side: Side) -> None:
        """Let the applications append to a side."""
        self._set_fence(side, closed=False)
        if self._closed_at is not None:
            self.stood_still_s = self._clock() - self._closed_at
            self._closed_at = None

    def _set_fence(self, side: Side, *, closed: bool) -> None:
        self._fencing(side).set_fence(
            closed=closed,
            job_id=self.job.job_id,
            epoch=self.job.epoch,
            wait_s=self.plan.budget_s,
        )

    def drain(self, crossing: Crossing) -> None:
        """Copy what was appended before the fence closed."""
        copier = self.copier(crossing.leaves)
        self._in_time()
        self._settle(crossing.leaves)  # before it is read: the crossing may fall back
        copier.follow(self.last_position(crossing.leaves))
        self._in_time()

    def prove(self, crossing: Crossing) -> None:
        """Compare the tail, and see that neither side holds what the copy did not see."""
        copier = self.copier(crossing.leaves)
        leaves, enters = self.side(crossing.leaves), self.side(crossing.enters)
        self._settle(crossing.enters)  # what is appended once it is open comes behind the copy
        if crossing is CUT_OVER and copier.job.tally.quarantined:
            raise CrossingError(
                f"{copier.job.tally.quarantined} events are in quarantine",
                where=Where(store=enters.url),
                remedy="mend the upcasters and run `eventmig quarantine retry`",
            )
        if copier.job.tally.quarantined and not self.may_leave_behind:
            raise CrossingError(
                f"{copier.job.tally.quarantined} events have no way back",
                where=Where(store=enters.url),
                remedy="--export FILE writes them to a file and goes on without them",
            )
        for store, side, seen in (
            (leaves, crossing.leaves, copier.job.source_position),
            (enters, crossing.enters, copier.job.target_position),
        ):
            if (head := self.last_position(side)) > seen:
                raise CrossingError(
                    f"this side holds events after {seen} that the copy did not see (to {head})",
                    where=Where(store=store.url, global_position=head),
                    remedy="who wrote them? nobody may append to a side that is closed or not "
                    "live yet; `eventmig show` prints them",
                )
        found = self.verify_tail(crossing.leaves)
        if not found.right:
            raise CrossingError(
                f"the tail is not right: {found.mismatches} mismatches; {found.shown[0]}",
                where=Where(store=enters.url),
                remedy="`eventmig verify` shows all of them",
            )
        self._in_time()

    def verify_tail(self, leaves: Side, *, at_most: int | None = None) -> Verification:
        """Verify what the copy wrote since it was last verified."""
        copier = self.copier(leaves)
        pipeline = self.plan.forth if leaves is Side.OLD else self.plan.back
        return verify_tail(
            self.side(leaves),
            self.side(leaves.other),
            pipeline,
            copier.job,
            beside=self._target if leaves is Side.OLD else self.back_ledger,
            at_most=at_most,
        )

    def prepare(self, crossing: Crossing) -> None:
        """Record the copy of the way back; the way forth needs none, its row is there."""
        if crossing is not CUT_OVER:
            return
        new = self.side(Side.NEW)
        with self.back_ledger.begin() as tx:
            self._fencing(Side.OLD).check_fence(tx, job_id=self.job.job_id, epoch=self.job.epoch)
            ledger.create(tx.connection)
            ledger.begin_back(
                tx.connection,
                self.job,
                source_identity=new.identity(),
                source_position=self.last_position(Side.NEW),
                target_position=self.last_position(Side.OLD),
            )
        self._back = None

    def check_switch(self) -> None:
        """Raise `CapabilityError` where a side has no fence, and `CrossingError` for what would be
        in the way of the switch. Reads only.
        """
        for side in Side:
            self._fencing(side)
        if self.plan.switch is Switch.TABLES:
            assert isinstance(self._target, Exchanging)
            self._target.check_exchange(self._source)

    def switch(self, crossing: Crossing) -> None:
        """The point of no return: state, journal, and the tables' names, in one transaction.

        `before_switch` is called first; what it raises keeps the application where it is.
        """
        self.before_switch()
        new = self.side(Side.NEW)
        heads = tuple(self.last_position(side) for side in (Side.OLD, Side.NEW))
        self._in_time()
        with self._target.begin() as tx:
            job = ledger.enter(tx.connection, self.job, crossing.after)
            if crossing.enters is Side.OLD:
                passed = new.count() - new.count(until=job.target_position)
                job = ledger.jump(
                    tx.connection,
                    job,
                    source_until=heads[0],
                    target_until=heads[1],
                    passed=passed,
                )
            if self.plan.switch is Switch.TABLES:
                assert isinstance(self._target, Exchanging)
                left_s = max(0.0, self.plan.budget_s - self._still())
                self._target.exchange(tx, self._source, wait_s=left_s)
            ledger.write_journal(
                tx.connection,
                job,
                crossing=crossing.name,
                switch=self.plan.switch.value,
                old_position=heads[0],
                new_position=heads[1],
                stood_still_us=round(self._still() * 1e6),
            )
        self.forward.adopt(job)
        self._back = None

    def move_ledger(self, tx: TargetTransaction) -> None:
        """The tables changed names for good: the job is one of those that the new side has now.

        Within a transaction of the old side, whose ledger has had it so far.
        """
        old, new = self.side(Side.OLD), self.side(Side.NEW)
        assert isinstance(old, Exchanging)
        assert isinstance(new, Exchanging)
        ledger.move(
            tx.connection,
            self.job,
            namespace=new.namespace,
            schema=None if new.schema == old.schema else new.schema,
        )

    def publish(self) -> None:
        """Publish the route of the last crossing in each side that has a place for it.

        Which side that is comes from the journal alone, in one read: also what a holder that
        was stopped publishes late is a route that was, and goes behind no later one.
        """
        with self._target.reading() as connection:
            crossed = ledger.journal(connection, self.job)
        if not crossed:
            return
        enters = next(c.enters for c in CROSSINGS if c.name == crossed[-1].crossing)
        live = self.side(enters, crossed=enters is Side.NEW)
        naming = "{stream}"
        if enters is Side.NEW:
            naming = self.job.naming.replace("{release}", self.job.release)
        route = PublishedRoute(
            job_id=self.job.job_id,
            epoch=len(crossed),
            final=self.job.state is State.COMPLETED,
            side=enters.value,
            release=self.job.release,
            naming=live.stored_name(naming) if isinstance(live, Publishing) else naming,
            store=live.identity(),
        )
        for store in (self._source, self._target):
            if isinstance(store, Publishing):
                store.publish(route)

    # time -----------------------------------------------------------------------------------

    def _still(self) -> float:
        return 0.0 if self._closed_at is None else self._clock() - self._closed_at

    def _settle(self, side: Side) -> None:
        """Wait until nobody can append before the last event of a side any more."""
        store = self.side(side)
        while isinstance(store, Settling) and not store.settled():
            if self._still() > self.plan.budget_s:
                found = store.held_up() if isinstance(store, Waiting) else None
                raise CrossingError(
                    "transactions that are older than the last event were still open after "
                    f"{self._still():.1f} s: they could append before it"
                    + (f"; {found}" if found is not None else ""),
                    where=Where(store=store.url),
                    remedy=(f"{found.remedy}; " if found is not None else "")
                    + "end what keeps them open, anywhere on that server (backend_xid in "
                    "pg_stat_activity, pg_prepared_xacts), then run it again",
                )
            time.sleep(_PAUSE_S)

    def _in_time(self) -> None:
        if self._still() > self.plan.budget_s:
            raise CrossingError(
                f"writers stood still for {self._still():.1f} s, and the budget is "
                f"{self.plan.budget_s:g} s",
                where=Where(store=self._target.url),
                remedy="wait for less lag (--when-lag-below), or give more time (--budget)",
            )


def take_steps(steps: Iterator[Step]) -> None:
    """Take every step, with a failpoint before and after each."""
    before: Step | None = None
    for step in steps:
        if before is not None:
            failpoints.reached(f"{before.value}: after")
        failpoints.reached(f"{step.value}: before")
        before = step
    if before is not None:
        failpoints.reached(f"{before.value}: after")
