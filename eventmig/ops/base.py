"""What every op is and promises, and the errors ops share."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Protocol

from eventmig import codec, fingerprint
from eventmig.codec import Value
from eventmig.errors import OpError, Where
from eventmig.events import Event
from eventmig.paths import Path, text


class Loss(StrEnum):
    """How much of the data before a step its way back restores.

    EXACT: all of it, whatever `up` took. LOSSY: data of the form before, not all that
    was there; it may refuse (`OpError`) data that `up` took without changing it.
    ABSENT: there is no way back.
    """

    EXACT = "exact"
    LOSSY = "lossy"
    ABSENT = "absent"


def worst(losses: list[Loss]) -> Loss:
    """The loss of several steps together."""
    order = [Loss.EXACT, Loss.LOSSY, Loss.ABSENT]
    return max(losses, key=order.index, default=Loss.EXACT)


class Op(Protocol):
    """What every op can do. `up` is pure and returns a new value."""

    def up(self, data: Value, event: Event) -> Value:
        """The data after the op; raises `OpError` where it would lose something."""
        ...

    def inverse(self) -> Op | None:
        """The op that takes the result back, or None."""
        ...

    @property
    def loss(self) -> Loss:
        """How well `inverse` takes it back."""
        ...

    def fingerprint(self) -> str:
        """Equal for ops that mean the same."""
        ...


class BaseOp:
    """Shared by the op classes: exact unless they say otherwise, hashed by what they print."""

    __slots__ = ()
    loss_class: ClassVar[Loss] = Loss.EXACT

    @property
    def loss(self) -> Loss:
        return self.loss_class

    def fingerprint(self) -> str:
        return fingerprint.of_value(ascii(self))  # what `repr` escapes differs between Pythons


def fail(what: str, path: Path, remedy: str) -> OpError:
    """An `OpError` that names a path."""
    return OpError(what, where=Where(path=text(path)), remedy=remedy)


def taken(path: Path) -> OpError:
    """The error for a place that an op would overwrite."""
    return fail(
        f"there is a member at {text(path)} already",
        path,
        "drop or rename it in an op before this one, or use `put` to overwrite it",
    )


def no_object(path: Path) -> OpError:
    """The error for a parent that is no object."""
    return fail(
        f"there is no object at {text(path)} to hold the new member",
        path,
        "add the object first, use `nest`, or guard the op with `when(present(…))`",
    )


def not_a(expected: str, path: Path, found: object) -> OpError:
    """The error for a value of another type than the op works on."""
    return fail(
        f"{text(path)} is of type {codec.kind(found)}, not {expected}",
        path,
        "guard the op with `when(is_kind(…))`, or convert the value first",
    )
