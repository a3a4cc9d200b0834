"""The accounting of a job: what became of every event that was read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from eventmig.errors import AccountingError


class Fate(StrEnum):
    """What became of one source event; each has exactly one."""

    COPIED = "copied"
    UPCAST = "upcast"
    SPLIT = "split"
    MERGED = "merged"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"


@dataclass(slots=True)
class Tally:
    """Events read, by fate, and events written.

    `dropped_by` counts the dropped ones by the rule that dropped them. It closes when
    read = copied + upcast + split + merged + dropped + quarantined, and when the rules'
    counts add up to `dropped`.
    """

    read: int = 0
    copied: int = 0
    upcast: int = 0
    split: int = 0
    merged: int = 0
    dropped: int = 0
    quarantined: int = 0
    written: int = 0
    dropped_by: dict[str, int] = field(default_factory=dict)

    def drop(self, rule: str) -> None:
        """Count one event dropped by a rule."""
        self.dropped += 1
        self.dropped_by[rule] = self.dropped_by.get(rule, 0) + 1

    def count(self, fate: Fate) -> None:
        """Count one event of any fate but DROPPED, which needs its rule."""
        setattr(self, fate.value, getattr(self, fate.value) + 1)

    def __add__(self, other: Tally) -> Tally:
        rules = dict(self.dropped_by)
        for rule, count in other.dropped_by.items():
            rules[rule] = rules.get(rule, 0) + count
        sums = {n: getattr(self, n) + getattr(other, n) for n in NUMBERS}
        return Tally(**sums, dropped_by=rules)

    def check(self) -> None:
        """Raise `AccountingError` unless the sums close."""
        fates = sum(getattr(self, fate.value) for fate in Fate)
        if self.read != fates:
            raise AccountingError(
                f"{self.read} events were read, but {fates} are accounted for "
                f"({', '.join(f'{f.value} {getattr(self, f.value)}' for f in Fate)})",
                remedy="this is a fault in eventmig: nothing of the batch was kept; report it",
            )
        if sum(self.dropped_by.values()) != self.dropped:
            raise AccountingError(
                f"{self.dropped} events were dropped, but the rules name {self.dropped_by}",
                remedy="this is a fault in eventmig: nothing of the batch was kept; report it",
            )

    @property
    def even(self) -> bool:
        """Whether every event that was read stayed one event: nothing split, merged or left out."""
        return self.read == self.copied + self.upcast == self.written

    def numbers(self) -> dict[str, int]:
        """Every number by name, without the rules."""
        return {name: getattr(self, name) for name in NUMBERS}

    @classmethod
    def of(cls, numbers: Mapping[str, int], dropped_by: Mapping[str, int]) -> Tally:
        """A tally from stored numbers."""
        return cls(**{n: int(numbers[n]) for n in NUMBERS}, dropped_by=dict(dropped_by))


NUMBERS = tuple(f.name for f in fields(Tally) if f.name != "dropped_by")
"""The names of a tally's numbers, in order."""
