"""Steps on single events: upcasters, downcasters, and how users write them.

An upcaster takes one event type's data from schema version n to the next; it
may end under another type, in several events, or in none. What it does is a
value (`Rewrite`, `Parts`, `SplitFunction`, `Dropped`), so the registry can print,
check and fingerprint it before it runs. Pure.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from eventmig import fingerprint
from eventmig.codec import Value
from eventmig.conditions import Condition
from eventmig.conversions import Change
from eventmig.errors import OpError, RegistryError, Where
from eventmig.ops.base import Loss, Op, worst
from eventmig.ops.control import Apply, inverses
from eventmig.schemas import EventSchema

Version = tuple[str, int]
"""An event type and a schema version of it."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One event stays one event; its data goes through ops, in order."""

    ops: tuple[Op, ...]

    def fingerprint(self) -> str:
        return fingerprint.of_value(["rewrite", *[op.fingerprint() for op in self.ops]])

    def __str__(self) -> str:
        return "; ".join(map(str, self.ops)) or "nothing changes but the version"


@dataclass(frozen=True, slots=True)
class Part:
    """One of the events a split makes: its type and version, ops on a copy of the
    original's data, and the condition under which it is made at all.
    """

    to: Version
    ops: tuple[Op, ...]
    when: Condition | None = None

    def __str__(self) -> str:
        condition = f" when {self.when}" if self.when else ""
        return f"{self.to[0]} v{self.to[1]}{condition} ({'; '.join(map(str, self.ops))})"


@dataclass(frozen=True, slots=True)
class Parts:
    """One event becomes the parts whose condition holds, in order."""

    parts: tuple[Part, ...]

    def fingerprint(self) -> str:
        parts = [
            fingerprint.of_value([*p.to, repr(p.when), *[op.fingerprint() for op in p.ops]])
            for p in self.parts
        ]
        return fingerprint.of_value(["parts", *parts])

    def __str__(self) -> str:
        return "split into " + ", ".join(map(str, self.parts))


SplitResult: TypeAlias = "Sequence[tuple[str, Value]]"

DataFunction: TypeAlias = Callable[[Any], Any]
"""What users decorate; it may say `dict[str, Any]`, where the engine only promises a value."""


@dataclass(frozen=True, slots=True)
class SplitFunction:
    """One event becomes what a function returns: (type, data) pairs, each type one of `into`."""

    function: Callable[[Value], SplitResult]
    into: tuple[Version, ...]

    def fingerprint(self) -> str:
        return fingerprint.of_value(
            ["split", *[f"{t} v{v}" for t, v in self.into], fingerprint.of_function(self.function)]
        )

    def __str__(self) -> str:
        return f"split by {self.function.__qualname__}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """The event ends here; the upcaster's `why` is the rule it is counted under."""

    def fingerprint(self) -> str:
        return fingerprint.of_value(["dropped"])

    def __str__(self) -> str:
        return "dropped"


Outcome = Rewrite | Parts | SplitFunction | Dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcaster:
    """One step of a chain: from one (type, version), by an outcome, to others.

    `to` is where a `Rewrite` ends; for splits the parts say it; for `Dropped` it is
    None. `why` is for people: it stands in plans and reports.
    """

    source: Version
    outcome: Outcome
    to: Version | None = None
    why: str = ""

    @property
    def targets(self) -> tuple[Version, ...]:
        """Every (type, version) this step can end in."""
        match self.outcome:
            case Rewrite():
                return (self.to,) if self.to else ()
            case Parts(parts):
                return tuple(dict.fromkeys(part.to for part in parts))
            case SplitFunction(_, into):
                return into
        return ()

    @property
    def name(self) -> str:
        """The step as errors and plans name it: `OrderPlaced v1 → v2`."""
        type_, version = self.source
        if not self.targets:
            return f"{type_} v{version} → (dropped)"
        ends = " + ".join(f"v{v}" if t == type_ else f"{t} v{v}" for t, v in self.targets)
        return f"{type_} v{version} → {ends}"

    def fingerprint(self) -> str:
        """Equal for steps that mean the same; `why` does not count."""
        versions = [f"{t} v{v}" for t, v in (self.source, *self.targets)]
        return fingerprint.of_value([*versions, self.outcome.fingerprint()])

    def way_back(self) -> Downcaster | None:
        """The downcaster that the ops themselves give, or None."""
        if not isinstance(self.outcome, Rewrite) or self.to is None:
            return None
        loss = worst([op.loss for op in self.outcome.ops])
        back = inverses(self.outcome.ops)
        if back is None or loss is Loss.ABSENT:
            return None
        return Downcaster(source=self.to, to=self.source, ops=back, loss=loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class Downcaster:
    """The way back of one step: from its target (type, version) to its source.

    `loss` is EXACT or LOSSY.
    """

    source: Version
    to: Version
    ops: tuple[Op, ...]
    loss: Loss

    @property
    def name(self) -> str:
        return f"{self.source[0]} v{self.source[1]} → {self.to[0]} v{self.to[1]} (back)"

    def fingerprint(self) -> str:
        return fingerprint.of_value(
            [list(self.source), list(self.to), *[op.fingerprint() for op in self.ops]]
        )


def upcaster(type: str, version: int, *ops: Op, why: str = "") -> Upcaster:
    """Version `version` (>= 1) of a type to `version + 1`, by ops. The way back is the ops'."""
    return Upcaster(source=(type, version), outcome=Rewrite(ops), to=(type, version + 1), why=why)


def rename_type(
    type: str, version: int, *ops: Op, to: str, to_version: int = 1, why: str = ""
) -> Upcaster:
    """The type's events go on under another type, at `to_version`; ops may change their data."""
    return Upcaster(source=(type, version), outcome=Rewrite(ops), to=(to, to_version), why=why)


def part(type: str, *ops: Op, version: int = 1, when: Condition | None = None) -> Part:
    """One of the events a split makes. The ops work on a copy of the original's data."""
    return Part((type, version), ops, when)


def split_event(type: str, version: int, *parts: Part, why: str = "") -> Upcaster:
    """One event becomes several, in the order of the parts."""
    return Upcaster(source=(type, version), outcome=Parts(parts), why=why)


def drop_event(type: str, version: int, *, why: str) -> Upcaster:
    """The type's events end here; `why` is the rule they are counted under."""
    return Upcaster(source=(type, version), outcome=Dropped(), why=why)


def data_upcaster(
    type: str, version: int, *, to: str | None = None, to_version: int | None = None, why: str = ""
) -> Callable[[DataFunction], Upcaster]:
    """Decorator: a pure function on the data (a dict, its own copy) is the upcaster.

    It returns the new data. The function's docstring is the `why`, if none is given.
    """

    def make(function: DataFunction) -> Upcaster:
        target = (to or type, to_version or (version + 1 if to in (None, type) else 1))
        return Upcaster(
            source=(type, version),
            outcome=Rewrite((Apply(function),)),
            to=target,
            why=why or _first_line(function),
        )

    return make


def split_upcaster(
    type: str, version: int, *, into: Sequence[Version], why: str = ""
) -> Callable[[Callable[[Any], Sequence[tuple[str, Any]]]], Upcaster]:
    """Decorator: a pure function on the data returns (type, data) pairs, possibly none.

    `into` lists every (type, version) it can yield.
    """

    def make(function: Callable[[Any], Sequence[tuple[str, Any]]]) -> Upcaster:
        return Upcaster(
            source=(type, version),
            outcome=SplitFunction(function, tuple(into)),
            why=why or _first_line(function),
        )

    return make


def model_upcaster(function: Callable[[Any], Any]) -> Upcaster:
    """Decorator: a pure function from one marked model to the next is the upcaster.

    Types and versions are read from the annotations. Data with members that the
    older model does not know is refused, never dropped in silence.
    """
    before, after = _models_of(function)
    return Upcaster(
        source=(before.type, before.version),
        outcome=Rewrite((Apply(_on_values(function, before, after)),)),
        to=(after.type, after.version),
        why=_first_line(function),
    )


def downcaster(
    type: str,
    version: int,
    *ops: Op,
    to: Version | None = None,
    exact: bool = False,
) -> Downcaster:
    """The way back of the step that made `version` of `type`, by ops.

    `to` is the (type, version) it goes back to, by default `version - 1` of the type.
    """
    losses = [op.loss for op in ops]
    loss = worst([*losses, Loss.EXACT if exact else Loss.LOSSY])
    return Downcaster(
        source=(type, version),
        to=to or (type, version - 1),
        ops=ops,
        loss=Loss.LOSSY if loss is Loss.ABSENT else loss,
    )


def data_downcaster(
    type: str, version: int, *, to: Version | None = None, exact: bool = False
) -> Callable[[DataFunction], Downcaster]:
    """Decorator: a pure function on the data is the way back; `exact` claims no loss."""

    def make(function: DataFunction) -> Downcaster:
        made = downcaster(type, version, Apply(function), to=to)
        return replace(made, loss=Loss.EXACT if exact else Loss.LOSSY)

    return make


def model_downcaster(*, exact: bool = False) -> Callable[[Callable[[Any], Any]], Downcaster]:
    """Decorator: a pure function from one marked model to an older one is the way back."""

    def make(function: Callable[[Any], Any]) -> Downcaster:
        newer, older = _models_of(function)
        return Downcaster(
            source=(newer.type, newer.version),
            to=(older.type, older.version),
            ops=(Apply(_on_values(function, newer, older)),),
            loss=Loss.EXACT if exact else Loss.LOSSY,
        )

    return make


def _models_of(function: Callable[[Any], Any]) -> tuple[EventSchema, EventSchema]:
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise RegistryError(
            f"the annotations of {function.__qualname__} name something that is not there: {error}",
            where=Where(step=function.__qualname__),
            remedy="define or import both models above the function, at module level "
            "(not under TYPE_CHECKING)",
        ) from error
    after = hints.pop("return", None)
    if len(hints) != 1 or after is None:
        raise RegistryError(
            f"{function.__qualname__} must take one model and return one",
            where=Where(step=function.__qualname__),
            remedy="write def step(old: OrderPlacedV1) -> OrderPlacedV2",
        )
    return EventSchema.of(next(iter(hints.values()))), EventSchema.of(after)


def _on_values(function: Callable[[Any], Any], before: EventSchema, after: EventSchema) -> Change:
    @functools.wraps(function)
    def on_values(data: Value) -> Value:
        result = function(before.decode_whole(data))
        if result is None:
            raise OpError(
                f"{function.__qualname__} returned nothing",
                remedy=f"return a {after.name} model, also where nothing changes",
            )
        return after.values_of(result)

    return on_values


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0]
