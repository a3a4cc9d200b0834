"""Releases: what is frozen, how it is written down, and what counts as drift."""

from __future__ import annotations

import msgspec
import pytest

from eventmig import EventSchema, Registry, ops, rename_streams, upcaster
from eventmig.drift import drift
from eventmig.errors import ReleaseError
from eventmig.release import Lock, format_lock, parse_lock


class V1(msgspec.Struct):
    total: int


class V2(msgspec.Struct):
    amount: int


def registry(*more: object, op: ops.Op | None = None, first: type = V1) -> Registry:
    step = upcaster("Order", 1, op or ops.rename("total", "amount"))
    schemas = [EventSchema("Order", 1, first), EventSchema("Order", 2, V2)]
    return Registry([step, *more], schemas=schemas)  # type: ignore[list-item]


FROZEN = registry().freeze("1")


def test_a_lock_reads_back_as_it_was() -> None:
    lock = Lock((FROZEN, registry(rename_streams("r", "a-{id}", to="b-{id}")).freeze("2")))

    assert parse_lock(format_lock(lock)) == lock
    assert format_lock(lock).endswith("}\n")


def test_a_release_is_found_by_name_and_named_once() -> None:
    lock = Lock((FROZEN,))

    assert lock.get("1") is lock.latest
    with pytest.raises(ReleaseError, match=r"no release 'nope' in eventmig.lock \(there: 1\)"):
        lock.get("nope")
    with pytest.raises(ReleaseError, match="frozen already"):
        lock.with_release(FROZEN)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "releases": [{}]}', "no json"])
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="not a lock file"):
        parse_lock(text)


def test_a_newer_lock_is_refused_by_name() -> None:
    with pytest.raises(ReleaseError, match="has format 99"):
        parse_lock('{"format": 99, "releases": []}')


def test_the_same_code_has_not_drifted_and_new_steps_are_no_drift() -> None:
    assert drift(registry(), FROZEN) == []
    assert drift(registry(upcaster("Order", 2, ops.add("new", 1))), FROZEN) == []


def test_a_changed_upcaster_is_drift() -> None:
    (found,) = drift(registry(op=ops.drop("total")), FROZEN)

    assert "the upcaster from Order v1 changed after it was released" in found


def test_a_changed_schema_is_drift_but_another_class_name_is_none() -> None:
    class Other(msgspec.Struct):
        total: int

    class Changed(msgspec.Struct):
        total: str

    assert drift(registry(first=Other), FROZEN) == []
    (found,) = drift(registry(first=Changed), FROZEN)
    assert "the schema of Order v1 changed" in found


def test_what_is_gone_is_drift() -> None:
    found = drift(Registry(), FROZEN)

    assert any("the schema of Order v2 is gone" in line for line in found)
    assert any("the upcaster from Order v1 is gone" in line for line in found)
    assert any("Order was at v2" in line for line in found)
