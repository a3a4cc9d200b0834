"""Which batches of a job become one row of its ledger, so that following for weeks is no burden.

A follower commits a batch per round, and most rounds have few events. What is a while back is
recorded together: ranges that follow each other, up to as many events and bytes as one batch
may have. So a row stays what it is to all who read it: a range of the source that became a
range of the target, with its accounting, small enough to be derived anew in memory. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

RECENT: Final = 64
"""So many of the last batches stay as they are: who proves them comes after who writes them."""

_EVENTS: Final = 5_000
_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The source range of one row: global positions, `after` exclusive, `until` inclusive.

    `events` were read there; `data_bytes` is how much data they have.
    """

    after: int
    until: int
    events: int
    data_bytes: int

    def and_then(self, other: Span) -> Span | None:
        """Both as one; None where they do not follow each other, or are too much together."""
        events, data_bytes = self.events + other.events, self.data_bytes + other.data_bytes
        if self.until != other.after or events > _EVENTS or data_bytes > _BYTES:
            return None
        return Span(after=self.after, until=other.until, events=events, data_bytes=data_bytes)


class Folding:
    """What one process wrote lately of one job, and what of it is to be one row now."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def wrote(self, span: Span) -> list[Span]:
        """Take note of a batch; returns ranges that are to be one row each from now on.

        Each was several; the last of them may come again, grown.
        """
        self._spans.append(span)
        if len(self._spans) < 2 * RECENT:
            return []
        old = self._spans[:-RECENT]
        folded = list(_folded(old))
        self._spans = folded[-1:] + self._spans[-RECENT:]
        written = set(old)
        return [one for one in folded if one not in written]


def _folded(spans: Iterable[Span]) -> Iterable[Span]:
    open_: Span | None = None
    for span in spans:
        both = open_.and_then(span) if open_ is not None else span
        if both is None and open_ is not None:
            yield open_
        open_ = both or span
    if open_ is not None:
        yield open_
