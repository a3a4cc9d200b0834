"""Following: keep the side that is not live in step with the one that is, in any state.

One loop for the whole life of a job: before the cut-over it copies and proves what the
old side got, in the reverse window what the new one did. Before every round it looks at
what operators asked for (`ledger.Controls`) and at the throttles. It holds the job; when
another command asks for it, it lets go between two batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from eventmig.errors import EventmigError, JobLostError, VerifyError, Where
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Controls
from eventmig.migrate.sides import Sides
from eventmig.migrate.states import CROSSED, ENDED, FOLLOWS, Side, State
from eventmig.migrate.throttle import Check, first_reason, rest_after
from eventmig.migrate.verify import verify_job
from eventmig.stores.base import JobTarget
from eventmig.stores.held_up import OpenTransaction, held_up

HAND_OVER_S = 10.0
"""How long another command asks a follower for the job, in seconds."""

_VERIFY_SHARE = 0.25  # of the time, at the most, while there is something to copy
_VERIFY_BATCHES = 50

_LOOK_EVERY_S = 2.0  # at what keeps events from being read, while there is nothing to copy

Tell = Callable[[str, str], None]
"""Told (what happened, why): "ready", "failed", "window_unsafe", "needs_operator"."""


class Stop(StrEnum):
    """Why a follower stopped."""

    ENDED = "ended"
    HANDED_OVER = "handed over"
    CAUGHT_UP = "caught up"


class Follower:
    """Follows on the sides that this process holds.

    `until_lag_below_s`: stop once a round took no longer than that, instead of staying: so
    much is left then, at the most. Until then it keeps the job. `on_wait` is told what keeps
    stored events from being read, once for each transaction that does.
    """

    def __init__(
        self,
        sides: Sides,
        target: JobTarget,
        *,
        checks: Sequence[Check] = (),
        share: float = 1.0,
        tell: Tell = lambda what, why: None,
        on_wait: Callable[[str], None] = lambda why: None,
        poll_s: float = 0.2,
        until_lag_below_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sides = sides
        self._target = target
        self._checks = checks
        self._share = share
        self._tell = tell
        self._on_wait = on_wait
        self._look_at = 0.0
        self._held_up_by: OpenTransaction | None = None
        self._poll_s = poll_s
        self._until_lag_below_s = until_lag_below_s
        self._sleep = sleep
        self._clock = clock
        self._verify_at = 0.0
        self._unsafe = False

    def run(self) -> Stop:
        """Round after round. Raises what stops the job, which is FAILED then."""
        while True:
            stop = self.round()
            if stop is not None:
                return stop

    def round(self) -> Stop | None:
        """One look at everything: a stop, or None to go on."""
        state, asked = self._sides.state(), self._asked()
        if state in ENDED:
            return Stop.ENDED
        if asked.hand_over and self._until_lag_below_s is None:
            return Stop.HANDED_OVER
        if self._waits(state, asked):
            self._sleep(self._poll_s)
            return None
        began = self._clock()
        try:
            if asked.batch_size:
                self._sides.copier(self._leaves()).set_batch_size(asked.batch_size)
            moved = self._copy()
            proven = self._prove(moved)
        except JobLostError:
            raise
        except EventmigError as error:
            self._failed(error)
            raise
        took_s = self._clock() - began
        if self._until_lag_below_s is not None and took_s <= self._until_lag_below_s:
            return Stop.CAUGHT_UP
        if not moved and proven:
            self._look_what_waits()
            self._sleep(self._poll_s)
        elif (share := min(self._share, asked.share)) < 1:
            self._sleep(rest_after(took_s, share))
        return None

    def _look_what_waits(self) -> None:
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK_EVERY_S
        found = held_up(self._sides.side(self._leaves()))
        if found is not None and found.by != self._held_up_by:
            self._on_wait(f"{found}; {found.remedy}")
        self._held_up_by = None if found is None else found.by

    # what it was asked ----------------------------------------------------------------------

    def _asked(self) -> Controls:
        with self._target.reading() as connection:
            return ledger.controls(connection, self._sides.job)

    def _waits(self, state: State, asked: Controls) -> bool:
        """Whether to wait, with the state and the reason told."""
        reason = "paused by command" if asked.paused else first_reason(self._checks)
        self._told_throttled("" if asked.paused else reason)
        if not reason:
            return False
        waiting = State.PAUSED if asked.paused else State.THROTTLED
        if waiting in FOLLOWS[state]:
            self._sides.enter(waiting, reason)
        return True

    def _told_throttled(self, reason: str) -> None:
        with self._target.reading() as connection:
            told = ledger.followed(connection, self._sides.job)
        if told.throttled != reason:
            self._write_followed(throttled=reason)

    def _write_followed(self, **changes: object) -> None:
        with self._target.begin() as tx:
            told = ledger.followed(tx.connection, self._sides.job)
            ledger.set_followed(tx.connection, self._sides.job, replace(told, **changes))  # type: ignore[arg-type]

    # one round ------------------------------------------------------------------------------

    def _leaves(self) -> Side:
        return Side.NEW if self._sides.job.state is State.REVERSE_WINDOW else Side.OLD

    def _copy(self) -> bool:
        """Copy what is there; whether that was anything."""
        sides, state = self._sides, self._sides.job.state
        if state is State.NEEDS_OPERATOR:
            return False
        copier = sides.copier(self._leaves())
        before, bytes_before = copier.job.source_position, copier.copied_bytes
        if state is State.REVERSE_WINDOW:
            self._see_who_wrote()
            copier.follow(sides.side(Side.NEW).head_position())
            self._see_unsafe()
        elif state is State.READY:
            copier.follow(sides.side(Side.OLD).head_position())
        else:
            if state is State.REVERSED:
                sides.enter(State.CATCHING_UP, "")
            copier.run()
        if copier.copied_bytes > bytes_before:
            with self._target.reading() as connection:
                told = ledger.followed(connection, sides.job)
            more = copier.copied_bytes - bytes_before
            self._write_followed(copied_bytes=told.copied_bytes + more)
        return copier.job.source_position > before

    def _see_who_wrote(self) -> None:
        """Whether anybody but the copy wrote to the side that is closed."""
        back = self._sides.copier(Side.NEW).job
        if self._sides.last_position(Side.OLD) > back.target_position:
            reason = (
                f"the old side holds events after {back.target_position} that the way back did "
                "not write"
            )
            self._sides.enter(State.NEEDS_OPERATOR, reason)
            self._tell("needs_operator", reason)

    def _see_unsafe(self) -> None:
        back = self._sides.copier(Side.NEW).job
        if back.tally.quarantined and not self._unsafe:
            self._unsafe = True
            self._tell("window_unsafe", f"{back.tally.quarantined} events have no way back")

    def _prove(self, moved: bool) -> bool:
        """Verify what is due, at a bounded cost; whether all is proven."""
        sides, state = self._sides, self._sides.job.state
        if state in (State.PAUSED, State.NEEDS_OPERATOR):  # events in quarantine, or an operator's
            return True
        if state in (State.READY, State.REVERSE_WINDOW):
            if moved and self._clock() < self._verify_at:
                return False
            began = self._clock()
            found = sides.verify_tail(self._leaves(), at_most=_VERIFY_BATCHES)
            self._verify_at = self._clock() + rest_after(self._clock() - began, _VERIFY_SHARE)
            if not found.right:
                raise self._wrong(found.mismatches, str(found.shown[0]))
            return found.source_events == 0
        sides.enter(State.VERIFYING, "")
        with self._target.reading() as connection:
            told = ledger.followed(connection, sides.job)
        if told.verified_batch:
            found = sides.verify_tail(Side.OLD)
        else:
            old, new = sides.side(Side.OLD), sides.side(Side.NEW)
            found = verify_job(old, new, sides.plan.forth, sides.job)
        if not found.right:
            raise self._wrong(found.mismatches, str(found.shown[0]))
        sides.enter(State.READY, "")
        self._tell("ready", "")
        return True

    def _wrong(self, mismatches: int, first: str) -> VerifyError:
        return VerifyError(
            f"the copy is not right: {mismatches} mismatches, the first: {first}",
            where=Where(store=self._sides.side(self._leaves().other).url),
            remedy="`eventmig verify` shows all of them; nothing was switched",
        )

    def _failed(self, error: EventmigError) -> None:
        """The job is FAILED; after the cut-over it stays, but for an operator if it is wrong."""
        job = self._sides.job
        wrong = isinstance(error, VerifyError)
        state = State.NEEDS_OPERATOR if wrong and job.state in CROSSED else State.FAILED
        if state in FOLLOWS[job.state]:
            self._sides.enter(state, error.what)
        self._tell("failed", error.what)
