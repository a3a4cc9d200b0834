"""A source in memory that sums, event by event, and says no wherever it is not sure."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from eventmig.events import Event
from eventmig.stores.faster import Addend, Member, NotSummedError, Part, Summed
from tests.unit.rebuild_helpers import MemorySource

Row = dict[tuple[Any, ...], list[int | None]]


class SummingSource(MemorySource):
    """`Summing`, in ranges that chance cuts; `summed` counts the events that were."""

    def __init__(self, events: Iterable[Event], name: str = "memory", seed: int = 0) -> None:
        super().__init__(events, name)
        self.summed = 0
        self._chance = random.Random(seed)

    def kinds_to_sum(
        self, *, after: int, until: int, types: Collection[str] | None
    ) -> Mapping[tuple[str, int], int] | None:
        found: dict[tuple[str, int], int] = {}
        for batch in self.read_all(after=after, until=until, types=types):
            for event in batch:
                found[event.type, event.schema_version] = event.global_position
        return found

    def read_sums(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        sums: Sequence[Mapping[tuple[str, int], Addend]],
        at_once: int,
    ) -> Iterator[Summed]:
        while after < until:
            end = min(until, after + self._chance.randint(1, 9))
            events = [e for b in self.read_all(after=after, until=end, types=types) for e in b]
            found = [summed(events, one, {kind for sum_ in sums for kind in sum_}) for one in sums]
            self.summed += len(events)
            yield Summed(end, len(events), [columns_of(rows) for rows in found])
            after = end


def summed(
    events: Iterable[Event],
    addends: Mapping[tuple[str, int], Addend],
    known: Collection[tuple[str, int]],
) -> Row:
    """The amounts by key; raises `NotSummedError`."""
    rows: Row = {}
    for event in events:
        kind = event.type, event.schema_version
        if kind not in known:
            raise NotSummedError
        addend = addends.get(kind)
        if addend is None:
            continue
        data = json.loads(event.data, parse_float=Decimal)
        key = tuple(_value(data, part) for part in addend.key)
        for member in addend.also:
            _value(data, member)
        row = rows.setdefault(key, [None] * len(addend.amounts))
        for number, part in enumerate(addend.amounts):
            if part is not None:
                row[number] = (row[number] or 0) + _value(data, part)
    if any(abs(amount or 0) >= 2**63 for row in rows.values() for amount in row):
        raise NotSummedError
    return rows


def columns_of(rows: Row) -> list[Sequence[Any]]:
    """Rows as `Summed` has them."""
    return [*zip(*((*key, *amounts) for key, amounts in rows.items()), strict=True)]


def _value(data: Any, part: Part) -> Any:
    if not isinstance(part, Member):
        return part
    for name in part.path:
        if not isinstance(data, dict) or name not in data:
            raise NotSummedError
        data = data[name]
    if type(data) is not part.type:
        raise NotSummedError
    return data
