"""Releases: names that URLs can hold, and amending while nobody has finished."""

from __future__ import annotations

import pytest

from eventmig import Registry, merge, ops, upcaster
from eventmig.errors import ReleaseError
from eventmig.release import Lock, Release, format_lock, parse_lock


def frozen(name: str, *extra: object) -> Release:
    return Registry([upcaster("T", 1, ops.rename("a", "b")), *extra]).freeze(name)  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "-x", "a?b=c", "a&b", "x" * 101, "é"])
def test_a_name_must_fit_into_urls_and_files(name: str) -> None:
    with pytest.raises(ReleaseError, match="cannot be a release's name"):
        Lock().with_release(frozen(name))


@pytest.mark.parametrize("name", ["1", "2026.11", "v2_b-1", "X" * 100])
def test_such_names_are_good(name: str) -> None:
    assert Lock().with_release(frozen(name)).get(name).name == name


def test_only_the_latest_can_be_amended() -> None:
    lock = Lock().with_release(frozen("1")).with_release(frozen("2"))
    mended = Registry([upcaster("T", 1, ops.rename("a", "c"))]).freeze("2")
    amended = lock.amended(mended)
    assert amended.releases == (lock.releases[0], mended)
    with pytest.raises(ReleaseError, match="only the latest release can be amended"):
        lock.amended(frozen("1"))
    with pytest.raises(ReleaseError, match="only the latest"):
        Lock().amended(frozen("1"))
    with pytest.raises(ReleaseError, match="frozen already"):
        lock.with_release(mended)


def test_the_fingerprint_is_of_what_decides_alone() -> None:
    pair = merge("pair", "A", "B", into="C", streams="*")
    one, renamed, other = frozen("1"), frozen("2"), frozen("1", pair)
    assert one.fingerprint() == renamed.fingerprint()
    assert one.fingerprint() != other.fingerprint()
    assert parse_lock(format_lock(Lock((other,)))).latest == other
    again = parse_lock(format_lock(Lock((other,))).encode()).latest
    assert again is not None
    assert again.fingerprint() == other.fingerprint()
