"""The states of a job, what may follow what, and which side is live in each. Pure."""

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
    CUTTING_OVER = "cutting_over"
    REVERSE_WINDOW = "reverse_window"
    REVERSING = "reversing"
    REVERSED = "reversed"
    COMPLETED = "completed"
    PAUSED = "paused"
    THROTTLED = "throttled"
    FAILED = "failed"
    NEEDS_OPERATOR = "needs_operator"
    CANCELLED = "cancelled"


class Side(StrEnum):
    """The two histories of a job: the source's and the target's, as the application sees them."""

    OLD = "old"
    NEW = "new"

    @property
    def other(self) -> Side:
        """The one across."""
        return Side.NEW if self is Side.OLD else Side.OLD


class Switch(StrEnum):
    """What takes the application across."""

    ROUTE = "route"
    TABLES = "tables"


_S = State
_STOPS = frozenset({_S.FAILED, _S.CANCELLED})
"""May follow every state before the cut-over."""

FOLLOWS: dict[State, frozenset[State]] = {
    _S.PLANNED: _STOPS | {_S.BACKFILLING, _S.PAUSED, _S.THROTTLED},
    _S.BACKFILLING: _STOPS | {_S.CATCHING_UP, _S.VERIFYING, _S.PAUSED, _S.THROTTLED},
    _S.CATCHING_UP: _STOPS | {_S.BACKFILLING, _S.VERIFYING, _S.PAUSED, _S.THROTTLED},
    _S.VERIFYING: _STOPS | {_S.READY, _S.CATCHING_UP, _S.BACKFILLING, _S.PAUSED},
    _S.READY: _STOPS
    | {_S.BACKFILLING, _S.CATCHING_UP, _S.VERIFYING, _S.PAUSED, _S.THROTTLED, _S.CUTTING_OVER},
    _S.CUTTING_OVER: frozenset({_S.REVERSE_WINDOW, _S.CATCHING_UP}),
    _S.REVERSE_WINDOW: frozenset({_S.REVERSING, _S.COMPLETED, _S.NEEDS_OPERATOR}),
    _S.REVERSING: frozenset({_S.REVERSED, _S.REVERSE_WINDOW}),
    _S.REVERSED: frozenset({_S.CATCHING_UP, _S.CANCELLED, _S.NEEDS_OPERATOR}),
    _S.COMPLETED: frozenset(),
    _S.PAUSED: _STOPS | {_S.BACKFILLING, _S.CATCHING_UP, _S.THROTTLED},
    _S.THROTTLED: _STOPS | {_S.BACKFILLING, _S.CATCHING_UP, _S.PAUSED},
    _S.FAILED: _STOPS | {_S.BACKFILLING, _S.CATCHING_UP, _S.VERIFYING, _S.PAUSED, _S.THROTTLED},
    _S.NEEDS_OPERATOR: frozenset({_S.REVERSE_WINDOW, _S.REVERSED}),
    _S.CANCELLED: frozenset(),
}
"""The states that may follow each state."""

ENDED = frozenset({State.COMPLETED, State.CANCELLED})
"""States a job never leaves."""

CROSSED = frozenset({State.REVERSE_WINDOW, State.REVERSING, State.COMPLETED})
"""States in which the application uses the target."""


def live_side(state: State) -> Side | None:
    """The side the application uses in this state; None where only an operator can tell."""
    if state is State.NEEDS_OPERATOR:
        return None
    return Side.NEW if state in CROSSED else Side.OLD


_INSTEAD = {
    (_S.REVERSE_WINDOW, _S.CANCELLED): "go back first (`eventmig reverse`), then cancel it",
    (_S.COMPLETED, _S.CANCELLED): "there is no way back from there; the next release has a job of "
    "its own, from this one's target",
}
"""What to do where it is known why somebody asks for what cannot be."""


def check_transition(old: State, new: State) -> None:
    """Raise `JobError` where `new` may not follow `old`."""
    if new is not old and new not in FOLLOWS[old]:
        allowed = ", ".join(sorted(s.value for s in FOLLOWS[old])) or "nothing"
        raise JobError(
            f"a job that is {old.value} cannot become {new.value} (it can: {allowed})",
            remedy=_INSTEAD.get((old, new), "look at it with `eventmig status`"),
        )
