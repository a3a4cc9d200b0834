"""The states of a job and what may follow what. Pure."""

from __future__ import annotations

from enum import StrEnum

from eventmig.errors import JobError


class State(StrEnum):
    """Where a job stands; the values are stored and never change."""

    PLANNED = "planned"
    BACKFILLING = "backfilling"
    CATCHING_UP = "catching_up"
    VERIFYING = "verifying"
    READY = "ready"
    PAUSED = "paused"
    FAILED = "failed"
    CANCELLED = "cancelled"


_S = State
FOLLOWS: dict[State, frozenset[State]] = {
    _S.PLANNED: frozenset({_S.BACKFILLING, _S.FAILED, _S.CANCELLED}),
    _S.BACKFILLING: frozenset({_S.CATCHING_UP, _S.VERIFYING, _S.PAUSED, _S.FAILED, _S.CANCELLED}),
    _S.CATCHING_UP: frozenset({_S.BACKFILLING, _S.VERIFYING, _S.PAUSED, _S.FAILED, _S.CANCELLED}),
    _S.VERIFYING: frozenset({_S.READY, _S.CATCHING_UP, _S.BACKFILLING, _S.FAILED, _S.CANCELLED}),
    _S.READY: frozenset({_S.BACKFILLING, _S.CATCHING_UP, _S.VERIFYING, _S.FAILED, _S.CANCELLED}),
    _S.PAUSED: frozenset({_S.BACKFILLING, _S.CATCHING_UP, _S.FAILED, _S.CANCELLED}),
    _S.FAILED: frozenset({_S.BACKFILLING, _S.CATCHING_UP, _S.VERIFYING, _S.PAUSED, _S.CANCELLED}),
    _S.CANCELLED: frozenset(),
}
"""The states that may follow each state."""

ENDED = frozenset({State.CANCELLED})
"""States a job never leaves; its target is free for another."""


def check_transition(old: State, new: State) -> None:
    """Raise `JobError` where `new` may not follow `old`."""
    if new is not old and new not in FOLLOWS[old]:
        allowed = ", ".join(sorted(s.value for s in FOLLOWS[old])) or "nothing"
        raise JobError(
            f"a job that is {old.value} cannot become {new.value} (it can: {allowed})",
            remedy="look at it with `eventmig status`",
        )
