"""Ranges of events shared out: each event once, in order, and never too many at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig.errors import JobError
from eventmig.rebuild.sharing import Answer, Ranges, Work, in_order
from tests.unit.rebuild_helpers import Helpers


def packed(span: tuple[int, int]) -> bytes:
    return json.dumps(span).encode()


def unpacked(message: bytes) -> tuple[int, int]:
    after, reached = json.loads(message)
    return after, reached


@settings(deadline=None)
@given(
    st.integers(0, 3),
    st.integers(0, 60),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 10_000),
    st.tuples(st.integers(0, 3), st.integers(1, 2), st.booleans()),
)
def test_each_position_is_given_once_and_in_order(
    after: int,
    count: int,
    sizes: tuple[int, int],
    seed: int,
    how: tuple[int, int, bool],
) -> None:
    rng = random.Random(seed)
    beside, queued, ends_early = how
    fewest, most = sizes
    until = after + count

    def work(after: int, until: int) -> tuple[int, bytes] | None:
        reached = rng.randint(after + 1, until) if ends_early else until
        return None if rng.random() < 0.1 else (reached, packed((after, reached)))

    def here(
        after: int, until: int, meanwhile: Callable[[], None]
    ) -> tuple[int, tuple[int, int]] | None:
        for _ in range(rng.randrange(3)):
            meanwhile()
        made = work(after, until)
        return None if made is None else (made[0], unpacked(made[1]))

    helpers = Helpers({Work.FOLD: work}, beside, seed)
    ranges = Ranges(after, until, beside + 1, fewest=fewest, most=most)
    at, waiting = after, 0
    for made in in_order(Work.FOLD, "daily", ranges, helpers, here, unpacked, queued=queued):
        assert made.after == at < made.until
        assert made.found in (None, (made.after, made.until))
        at = made.until
        waiting = max(waiting, len(helpers.answers))
    assert at == until
    assert waiting <= 3 * (beside + 1)


def test_ranges_get_shorter_towards_the_end() -> None:
    ranges = Ranges(0, 1_000, 2, fewest=50, most=500)
    sizes = []
    while ranges.left:
        after, until = ranges.give()
        sizes.append(until - after)
    assert sizes == sorted(sizes, reverse=True)
    assert (sum(sizes), len(sizes)) == (1_000, 6)
    assert max(sizes) < 500
    assert sizes[-2] == 50


def test_what_a_range_left_comes_first_and_the_others_are_no_longer() -> None:
    ranges = Ranges(0, 1_000, 1, fewest=1, most=200)
    first, second = ranges.give(), ranges.give()
    assert (first, second) == ((0, 200), (200, 400))
    ranges.put_back(200, 230, 400)
    ranges.put_back(0, 30, 200)
    assert ranges.first == 30
    assert ranges.give() == (30, 60)
    ranges.most = 1_000
    assert ranges.give() == (60, 200)
    assert ranges.give() == (230, 400)


class _Gone(Helpers):
    def answer(self, *, wait: bool) -> Answer | None:
        raise JobError("a worker ended early")


def test_a_helper_that_is_gone_is_told_of() -> None:
    helpers = _Gone({Work.FOLD: lambda after, until: (until, b"")}, 1, 1)
    helpers.ready_by_chance = 1
    ranges = Ranges(0, 100, 2, fewest=5, most=10)
    found = in_order(Work.FOLD, "daily", ranges, helpers, lambda a, u, _: (u, b""), bytes)
    with pytest.raises(JobError, match="ended early"):
        list(found)
