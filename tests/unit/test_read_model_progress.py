"""What a rebuild tells of how far it is, while its events are still being counted, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
from sqlalchemy import Engine

from eventmig.errors import RebuildError
from eventmig.rebuild import Phase, RebuildProgress
from tests.unit.read_model_helpers import daily, orders, rebuild
from tests.unit.rebuild_helpers import MemorySource


def test_the_phases_are_told(engine: Engine) -> None:
    told: list[RebuildProgress] = []
    rebuild(daily(), engine, MemorySource(orders(40)), batch_size=20, progress=told.append)
    assert [(p.phase, p.events_read) for p in told] == [
        (Phase.REPLAYING, 0),
        (Phase.REPLAYING, 20),
        (Phase.REPLAYING, 40),
        (Phase.CHECKING, 40),
        (Phase.SWAPPED, 40),
    ]
    assert {(p.upto, p.events_expected, p.generation) for p in told} == {(40, 40, 1)}


class CountingSlowly(MemorySource):
    """Knows how many events there are when it is asked for the third time."""

    asked = 0

    @contextmanager
    def counting(self, **span: Any) -> Iterator[Self]:
        yield self

    def there(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def wait(self) -> int:
        return self.count()


def test_as_many_as_there_can_be_are_expected_until_they_are_counted(engine: Engine) -> None:
    told: list[RebuildProgress] = []
    events = [e._replace(global_position=2 * e.global_position) for e in orders(40)]
    rebuild(daily(), engine, CountingSlowly(events), batch_size=10, progress=told.append)
    assert [(p.events_read, p.events_expected) for p in told] == [
        (0, 80),
        (10, 70),
        (20, 40),
        (30, 40),
        (40, 40),
        (40, 40),
        (40, 40),
    ]


def test_a_count_that_says_otherwise_stops_the_rebuild(engine: Engine) -> None:
    source = CountingSlowly(orders(40))
    source.wait = lambda: 41  # type: ignore[method-assign]
    with pytest.raises(RebuildError, match="built from 40 events, and the source holds 41"):
        rebuild(daily(), engine, source)
