"""What a verification finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import itemgetter

from eventmig.events import Event

SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that is not as it must be, and where in the target.

    `kind` is one of: missing, unexpected, moved, differs, hole, count, tiling, hash.
    `field` names the part of the event that differs.
    """

    kind: str
    stream: str = ""
    stream_position: int | None = None
    global_position: int | None = None
    field: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        place = f"{self.stream} at {self.stream_position}" if self.stream else "the target"
        if self.kind == "differs":
            return f"{place}: {self.field} is {self.found}, must be {self.expected}"
        if self.kind in ("missing", "unexpected", "moved"):
            what = {
                "missing": f"is missing ({self.expected})",
                "unexpected": f"must not be there ({self.found})",
                "moved": f"stands in another order ({self.found}, must be {self.expected})",
            }[self.kind]
            return f"{place}: the event {what}"
        return f"{place}: {self.kind}: {self.found}, must be {self.expected}"


@dataclass(slots=True, kw_only=True)
class Verification:
    """What a verification found. `mismatches` are counted; the first are kept in `shown`."""

    source_events: int = 0
    target_events: int = 0
    streams_hashed: int = 0
    mismatches: int = 0
    shown: list[Mismatch] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing was found wrong."""
        return self.mismatches == 0

    def include(self, other: Verification) -> None:
        """Add what another part of the same verification found."""
        self.source_events += other.source_events
        self.target_events += other.target_events
        self.streams_hashed += other.streams_hashed
        self.mismatches += other.mismatches
        self.shown += other.shown[: SHOWN - len(self.shown)]

    def add(self, mismatch: Mismatch) -> None:
        """Count a mismatch, and keep it if it is among the first."""
        self.mismatches += 1
        if len(self.shown) < SHOWN:
            self.shown.append(mismatch)


class InOrder:
    """What the parts of a verification found, put together in the order of the parts.

    They may come in any order; of the mismatches only the first are kept, as ever.
    """

    def __init__(self) -> None:
        self.found = Verification()
        self._shown: list[tuple[int, Mismatch]] = []

    def include(self, number: int, part: Verification) -> None:
        """Add what the part of this number found."""
        self._shown += [(number, mismatch) for mismatch in part.shown]
        self._shown.sort(key=itemgetter(0))
        del self._shown[SHOWN:]
        self.found.include(replace(part, shown=[]))
        self.found.shown = [mismatch for _, mismatch in self._shown]


def mismatch_at(
    event: Event, *, kind: str, field: str = "", expected: str = "", found: str = ""
) -> Mismatch:
    """A mismatch at the place of an event."""
    return Mismatch(
        kind=kind,
        stream=event.stream,
        stream_position=event.stream_position,
        global_position=event.global_position,
        field=field,
        expected=expected,
        found=found,
    )


def short(value: object) -> str:
    """A value as text of at most 120 characters."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 120 else text[:117] + "…"
