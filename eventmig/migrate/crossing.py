"""The crossing: how an application goes from one side of a job to the other, and back.

One protocol for both ways. In `cut over` the application leaves the old side, in
`reverse` the new one:

    announce  ledger   the job says what it is about to do
    close     leaving  nobody but a copy may append there any more
    drain     entering what was appended before the fence closed is copied
    prove     both     tail and heads are compared
    prepare   leaving  the copy of the way back is recorded, from the exact heads
    switch    ledger   the point of no return: the state, the route or the tables' names
    open      entering whoever was refused there may append
    publish   both     where a store has a place for it, it says which side is live

Each line is one transaction in one database, guarded by the epoch of the job's holder:
the ledger checks it in the job's row, a side in its fence. That one order holds these:
at most one side is open at a time; the side that is left stays closed until a later
crossing opens it; before `switch` everything falls back, after it everything goes on.
`publish` comes last: who hears of the route can append there at once, and what keeps it
from being said keeps nobody from appending.

`cross` and `mend` are generators: each yields a step before it takes it, so that a test
can stop, interleave and kill between any two. They do no I/O of their own; a `Ground`
does, and knows the stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from eventmig.errors import EventmigError, JobLostError
from eventmig.migrate.states import Side, State, live_side


class Step(StrEnum):
    """One durable step of a crossing."""

    ANNOUNCE = "announce"
    CLOSE = "close"
    DRAIN = "drain"
    PROVE = "prove"
    PREPARE = "prepare"
    SWITCH = "switch"
    OPEN = "open"
    PUBLISH = "publish"
    FALL_BACK = "fall back"
    REOPEN = "reopen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """One direction: the side that is left, and the states before, during and after.

    `back` is the state it falls back to.
    """

    name: str
    leaves: Side
    begins: State
    during: State
    after: State
    back: State

    @property
    def enters(self) -> Side:
        """The side the application uses afterwards."""
        return self.leaves.other


CUT_OVER = Crossing(
    name="cut-over",
    leaves=Side.OLD,
    begins=State.READY,
    during=State.CUTTING_OVER,
    after=State.REVERSE_WINDOW,
    back=State.CATCHING_UP,
)
REVERSE = Crossing(
    name="reverse",
    leaves=Side.NEW,
    begins=State.REVERSE_WINDOW,
    during=State.REVERSING,
    after=State.REVERSED,
    back=State.REVERSE_WINDOW,
)
CROSSINGS = (CUT_OVER, REVERSE)


class Ground(Protocol):
    """What a crossing stands on. Each method that writes is one transaction.

    Those that write raise `JobLostError`, and write nothing, once another process took
    the job over.
    """

    def state(self) -> State:
        """The job's state as the ledger has it now."""
        ...

    def enter(self, state: State, reason: str) -> None:
        """Put the job into a state."""
        ...

    def close(self, side: Side) -> None:
        """From the return on nobody but a copy appends to this side, and nobody is about to."""
        ...

    def open(self, side: Side) -> None:
        """Let applications append to this side; harmless where they may."""
        ...

    def drain(self, crossing: Crossing) -> None:
        """Copy what is left, up to the head that is read now."""
        ...

    def prove(self, crossing: Crossing) -> None:
        """Raise what is not as it must be between the two sides."""
        ...

    def prepare(self, crossing: Crossing) -> None:
        """Record the copy of the way back, from the exact heads of both sides."""
        ...

    def switch(self, crossing: Crossing) -> None:
        """Enter the state after, and what makes the other side the live one, at once."""
        ...

    def publish(self) -> None:
        """Say which side is live, to who does not ask the ledger; harmless where it was said."""
        ...


def cross(ground: Ground, crossing: Crossing) -> Iterator[Step]:
    """Take the application across, one step at a time.

    Where a step before the switch fails, the fence is opened again and the job falls back,
    with the reason; then the error is raised. Raises `JobLostError` where another process
    took over: that one mends.
    """
    try:
        yield Step.ANNOUNCE
        ground.enter(crossing.during, "")
        yield Step.CLOSE
        ground.close(crossing.leaves)
        yield Step.DRAIN
        ground.drain(crossing)
        yield Step.PROVE
        ground.prove(crossing)
        yield Step.PREPARE
        ground.prepare(crossing)
        yield Step.SWITCH
        ground.switch(crossing)
    except JobLostError:
        raise
    except EventmigError as error:
        yield from mend(ground, error.what)
        if ground.state() is not crossing.after:  # else it was done, and only the answer was lost
            raise
    yield Step.OPEN
    ground.open(crossing.enters)
    yield Step.PUBLISH
    ground.publish()


def mend(ground: Ground, reason: str = "interrupted") -> Iterator[Step]:
    """What whoever takes a job over does first: make the fences fit the state.

    A crossing that did not reach its switch falls back. The fence of the live side is
    opened in any case, for that also tells it the new holder's epoch: a holder that was
    only stopped cannot close it any more. What it did not come to publish is published.
    """
    for crossing in CROSSINGS:
        if ground.state() is crossing.during:
            yield Step.FALL_BACK
            ground.enter(crossing.back, f"{crossing.name} fell back: {reason}")
    live = live_side(ground.state())
    if live is not None:
        yield Step.REOPEN
        ground.open(live)
        yield Step.PUBLISH
        ground.publish()
