"""The crossing as a model: the very generators, over two histories in memory.

Writers that remember an old route, two holders of one job (one of which may be stopped
past its lock and go on later), crashes between any two steps, answers that get lost, and a
switch that cannot be made (tables that are in use keep their names).
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eventmig.errors import JobError, JobLostError, StoreError
from eventmig.migrate.crossing import CROSSINGS, CUT_OVER, REVERSE, Crossing, Step, cross, mend
from eventmig.migrate.states import Side, State, check_transition, live_side


@dataclass
class History:
    """One side: its events in order (name, and whether a copy wrote it), and its door."""

    log: list[tuple[str, bool]] = field(default_factory=list)
    closed: bool = False
    epoch: int = 0


@dataclass
class Copy:
    """The row of a copy: which history it reads, from where, and where it may write next."""

    reads: Side
    epoch: int
    read: int
    written: int


class World:
    """What survives any crash: two databases. The ledger is in the new side's."""

    def __init__(self) -> None:
        self.sides = {Side.OLD: History(), Side.NEW: History()}
        self.state = State.READY
        self.epoch = 1
        self.forward = Copy(reads=Side.OLD, epoch=1, read=0, written=0)
        self.back: Copy | None = None
        self.acknowledged: list[str] = []
        self.crossed: list[Side] = []
        self.published: list[tuple[int, Side]] = []


class Holder:
    """A process that holds the job, or believes that it does (`Ground`)."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.epoch += 1  # one transaction: whoever held it before can write no more
        self.epoch = world.epoch
        self.steps: Iterator[Step] = mend(self)
        self.answer_lost = False
        self.in_use = False
        self.idle = False

    def state(self) -> State:
        return self.world.state

    def _check(self) -> None:
        if self.world.epoch != self.epoch:
            raise JobLostError("taken over")

    def _answer(self) -> None:
        """The commit is done, and its acknowledgement may be lost on the way."""
        if self.answer_lost:
            self.answer_lost = False
            raise StoreError("connection lost")

    def enter(self, state: State, reason: str) -> None:
        self._check()
        check_transition(self.world.state, state)
        self.world.state = state
        self._answer()

    def _door(self, side: Side, *, closed: bool) -> None:
        history = self.world.sides[side]
        if history.epoch > self.epoch:
            raise JobLostError("this door knows a later holder")
        history.closed, history.epoch = closed, self.epoch
        self._answer()

    def close(self, side: Side) -> None:
        self._door(side, closed=True)

    def open(self, side: Side) -> None:
        self._door(side, closed=False)

    def copy(self, reads: Side, at_most: int) -> None:
        """Some events across. The forward copy's row is in the ledger, the other's across."""
        world = self.world
        row = world.forward if reads is Side.OLD else world.back
        assert row is not None
        if reads is Side.OLD:
            self._check()
        elif row.epoch > self.epoch:
            raise JobLostError("this copy knows a later holder")
        row.epoch = self.epoch
        source, target = world.sides[reads].log, world.sides[reads.other].log
        assert row.written == len(target), "somebody else wrote where only the copy may"
        taken = source[row.read :][:at_most]
        target += [(name, True) for name, _ in taken]
        row.read += len(taken)
        row.written = len(target)

    def drain(self, crossing: Crossing) -> None:
        for _ in range(3):  # in several transactions
            self.copy(crossing.leaves, 2)
        self.copy(crossing.leaves, 10_000)
        self._answer()

    def prove(self, crossing: Crossing) -> None:
        row = self.world.forward if crossing is CUT_OVER else self.world.back
        assert row is not None
        if row.read != len(self.world.sides[crossing.leaves].log):
            raise JobError("not drained")

    def prepare(self, crossing: Crossing) -> None:
        if crossing is not CUT_OVER:
            return
        old, new = self.world.sides[Side.OLD], self.world.sides[Side.NEW]
        if old.epoch != self.epoch or not old.closed:
            raise JobLostError("this door knows a later holder")
        self.world.back = Copy(
            reads=Side.NEW, epoch=self.epoch, read=len(new.log), written=len(old.log)
        )
        self._answer()

    def switch(self, crossing: Crossing) -> None:
        self._check()
        if self.in_use:
            raise JobError("the tables are in use")
        world = self.world
        check_transition(world.state, crossing.after)
        world.state = crossing.after
        if crossing is REVERSE:  # what the window wrote on the old side came from the new one
            world.forward.read = len(world.sides[Side.OLD].log)
            world.forward.written = len(world.sides[Side.NEW].log)
        world.crossed.append(crossing.enters)
        self._answer()

    def publish(self) -> None:
        crossed, published = self.world.crossed, self.world.published
        route = (len(crossed), crossed[-1]) if crossed else None
        if route is not None and all(epoch < route[0] for epoch, _ in published):
            published.append(route)
        self._answer()


WHICH = st.integers(-2, -1)
"""The present holder, or the one before it."""


class Crossings(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.holders = [Holder(self.world)]
        self.routes = [Side.OLD, Side.OLD, Side.OLD]
        self.seen = [list[str]() for _ in self.routes]
        self.count = 0

    # the application ------------------------------------------------------------------------

    @rule(writer=st.integers(0, 2))
    def append(self, writer: int) -> None:
        """A writer appends where it believes the application to be."""
        history = self.world.sides[self.routes[writer]]
        if history.closed:
            live = live_side(self.world.state)
            assert live is not None
            self.routes[writer] = live
            return
        self.count += 1
        name = f"{writer}-{self.count}"
        history.log.append((name, False))
        self.world.acknowledged.append(name)
        self.seen[writer].append(name)

    # the holders ----------------------------------------------------------------------------

    @rule()
    def take_over(self) -> None:
        """Another process takes the job, whether the one before is dead or only stopped."""
        self.holders = [self.holders[-1], Holder(self.world)]

    def advance(self, which: int, *, lose: bool = False) -> Holder | None:
        """One step of a holder, the present one or an earlier; it, if it has nothing to do."""
        holder = self.holders[max(which, -len(self.holders))]
        holder.answer_lost = lose
        try:
            idle = next(holder.steps, None) is None
        except JobLostError:
            holder.steps = itertools.repeat(Step.ANNOUNCE)  # it ends, and does nothing more
            idle = False
        except (StoreError, JobError):
            holder.steps = mend(holder)
            idle = False
        holder.answer_lost = False
        holder.idle = idle
        return holder if idle else None

    @rule(which=WHICH, times=st.integers(1, 9), lose=st.booleans())
    def step(self, which: int, times: int, lose: bool) -> None:
        """A holder takes some steps; the answer to the last may be lost."""
        for n in range(1, times + 1):
            self.advance(which, lose=lose and n == times)

    @rule(which=WHICH, in_use=st.booleans())
    def use_the_tables(self, which: int, in_use: bool) -> None:
        """Somebody has the tables in use from now on, or no more."""
        self.holders[max(which, -len(self.holders))].in_use = in_use

    @rule(which=WHICH, times=st.integers(1, 9), lose=st.booleans())
    def begin_crossing(self, which: int, times: int, lose: bool) -> None:
        """A holder that has nothing else to do begins to cross whichever way the state allows."""
        holder = self.idle(which)
        for ahead in CROSSINGS:
            if holder is not None and self.world.state is ahead.begins:
                holder.steps, holder.idle = cross(holder, ahead), False
                self.step(which, times, lose)
                return

    @rule(which=WHICH, at_most=st.integers(1, 3))
    def copy(self, which: int, at_most: int) -> None:
        """A holder that mended copies some, in the direction that the state asks for."""
        holder = self.idle(which)
        if holder is None:
            return
        with contextlib.suppress(JobLostError):
            if self.world.state is State.REVERSE_WINDOW:
                holder.copy(Side.NEW, at_most)
            elif self.world.state in (State.READY, State.CATCHING_UP):
                holder.copy(Side.OLD, at_most)

    @rule(first=st.integers(1, 9), second=st.integers(0, 9), later=st.integers(1, 9))
    def stopped_past_its_lock(self, first: int, second: int, later: int) -> None:
        """A holder is stopped amid a crossing, another begins its own, and the first goes on."""
        self.begin_crossing(-1, first, False)
        self.take_over()
        self.prove_ready()
        self.append(0)
        self.append(1)
        self.begin_crossing(-1, second, False)
        self.append(2)
        self.step(-2, later, False)

    def idle(self, which: int) -> Holder | None:
        """The holder, once it has done what it was about to do; None: it ended."""
        for _ in range(12):
            if (holder := self.advance(which)) is not None:
                return holder
        return None

    @precondition(lambda self: self.world.state in (State.CATCHING_UP, State.REVERSED))
    @rule()
    def prove_ready(self) -> None:
        """The present holder verifies, and the job is ready (again)."""
        holder = self.idle(-1)
        if holder is None or self.world.state not in (State.CATCHING_UP, State.REVERSED):
            return
        if self.world.state is State.REVERSED:
            holder.enter(State.CATCHING_UP, "")
        holder.enter(State.VERIFYING, "")
        holder.enter(State.READY, "")

    # what must hold -------------------------------------------------------------------------

    @invariant()
    def one_side_is_open_and_never_the_other(self) -> None:
        """Once the application was across, the side it left is closed."""
        if not hasattr(self, "world"):
            return
        live = live_side(self.world.state)
        assert live is not None
        other = self.world.sides[live.other]
        wrote_there = any(not copied for _, copied in other.log)
        if live is Side.NEW or wrote_there:
            assert other.closed, "the side that was left is open"

    @invariant()
    def nobody_is_shut_out_for_long(self) -> None:
        """Where the present holder has nothing to mend, the live side is open."""
        if hasattr(self, "world") and self.holders[-1].idle:
            live = live_side(self.world.state)
            assert live is not None
            assert not self.world.sides[live].closed, "the writers stand before a closed door"

    @invariant()
    def what_was_published_last_is_the_live_side(self) -> None:
        """Where the present holder has nothing to do, subscribers know where to go."""
        if hasattr(self, "world") and self.holders[-1].idle and self.world.crossed:
            last = (len(self.world.crossed), live_side(self.world.state))
            assert self.world.published[-1:] == [last], "the route that was published is another"

    def teardown(self) -> None:
        """Let one last holder end everything, and look at what became of each append."""
        if not hasattr(self, "world"):
            return
        holder = Holder(self.world)
        for _ in holder.steps:
            pass
        live = live_side(self.world.state)
        assert live is not None
        assert not self.world.sides[live].closed, "nobody can append any more"
        holder.copy(live, 10_000)
        for side in (live, live.other):
            names = [name for name, _ in self.world.sides[side].log]
            assert sorted(names) == sorted(self.world.acknowledged), f"{side}: lost or twice"
            for writer, seen in enumerate(self.seen):
                assert [n for n in names if n.startswith(f"{writer}-")] == seen, "reordered"


Crossings.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestCrossings = Crossings.TestCase


# the model itself is tested: each of these breaks must be found -----------------------------------


def door_without_epoch(holder: Holder, side: Side, *, closed: bool) -> None:
    history = holder.world.sides[side]
    history.closed, history.epoch = closed, max(history.epoch, holder.epoch)


def switch_without_jump(holder: Holder, crossing: Crossing) -> None:
    holder.enter(crossing.after, "")


def drain_some(holder: Holder, crossing: Crossing) -> None:
    holder.copy(crossing.leaves, 1)


def drained_before_closed(ground: Holder, crossing: Crossing) -> Iterator[Step]:
    yield Step.ANNOUNCE
    ground.enter(crossing.during, "")
    yield Step.DRAIN
    ground.drain(crossing)
    yield Step.CLOSE
    ground.close(crossing.leaves)
    yield Step.PREPARE
    ground.prepare(crossing)
    yield Step.SWITCH
    ground.switch(crossing)


def opens_only_what_is_closed(ground: Holder, reason: str = "") -> Iterator[Step]:
    for crossing in CROSSINGS:
        if ground.state() is crossing.during:
            yield Step.FALL_BACK
            ground.enter(crossing.back, reason)
    live = live_side(ground.state())
    if live is not None and ground.world.sides[live].closed:
        yield Step.REOPEN
        ground.open(live)
        yield Step.PUBLISH
        ground.publish()


def leaves_the_route_unsaid(ground: Holder, reason: str = "") -> Iterator[Step]:
    for crossing in CROSSINGS:
        if ground.state() is crossing.during:
            yield Step.FALL_BACK
            ground.enter(crossing.back, reason)
    live = live_side(ground.state())
    if live is not None:
        yield Step.REOPEN
        ground.open(live)


@pytest.mark.parametrize(
    "broken",
    [
        {"_door": door_without_epoch},
        {"_check": lambda holder: None},
        {"switch": switch_without_jump},
        {"drain": drain_some, "prove": lambda holder, crossing: None},
        {"cross": drained_before_closed},
        {"mend": opens_only_what_is_closed},
        {"mend": leaves_the_route_unsaid},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_the_model_finds_a_broken_protocol(
    broken: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, put in broken.items():
        module = sys.modules[__name__] if name in ("cross", "mend") else Holder
        monkeypatch.setattr(module, name, put)
    quick = settings(
        Crossings.TestCase.settings,
        max_examples=2_000,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises((AssertionError, JobError)):
        run_state_machine_as_test(Crossings, settings=quick)
