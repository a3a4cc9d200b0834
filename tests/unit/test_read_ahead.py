"""Batches fetched in a thread are the same, and so are the errors; the thread ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from eventmig.rebuild.ahead import ahead


def numbers(count: int, fail: bool = False) -> Iterator[int]:
    yield from range(count)
    if fail:
        raise LookupError("no more")


def test_batches_come_in_order_and_the_thread_ends() -> None:
    before = threading.active_count()
    with ahead(numbers(50)) as batches:
        assert threading.active_count() == before + 1
        assert list(batches) == list(range(50))
    assert threading.active_count() == before


def test_an_error_comes_after_what_was_fetched_before_it() -> None:
    with ahead(numbers(5, fail=True)) as batches:
        assert [next(batches) for _ in range(5)] == list(range(5))
        with pytest.raises(LookupError, match="no more"):
            next(batches)


def test_one_that_is_left_early_fetches_no_more() -> None:
    fetched: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            fetched.append(len(fetched))
            yield fetched[-1]

    before = threading.active_count()
    with ahead(endless()) as batches:
        assert next(batches) == 0
    assert len(fetched) < 6
    assert threading.active_count() == before


def test_without_a_thread_they_are_what_they_are() -> None:
    before = threading.active_count()
    with ahead(numbers(3), wanted=False) as batches:
        assert threading.active_count() == before
        assert list(batches) == [0, 1, 2]
