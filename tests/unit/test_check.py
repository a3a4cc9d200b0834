"""`check`: what must be mended before a release, each with what to do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventmig import (
    Registry,
    data_downcaster,
    data_upcaster,
    ops,
    part,
    schema,
    split_event,
    upcaster,
)
from eventmig.check import CheckReport, check_registry_and_lock
from eventmig.ops import Loss
from eventmig.release import Lock


@schema("T", version=1)
class V1(msgspec.Struct, forbid_unknown_fields=True):
    a: str


@schema("T", version=2)
class V2(msgspec.Struct, forbid_unknown_fields=True):
    b: str


SCHEMAS = [V1, V2]
RENAMED = upcaster("T", 1, ops.rename("a", "b"))


def checked(*steps: Any, lock: Lock | None = None, examples: int = 20) -> CheckReport:
    registry = Registry(steps, schemas=SCHEMAS)
    return check_registry_and_lock(registry, lock or Lock(), examples=examples)


def finding(report: CheckReport) -> str:
    (found,) = report.findings
    assert found.remedy
    assert not report.right
    return str(found)


def test_a_sound_registry_and_its_lock() -> None:
    lock = Lock((Registry([RENAMED], schemas=SCHEMAS).freeze("1"),))
    report = checked(RENAMED, lock=lock)
    assert report.right
    assert (report.types, report.steps, report.schemas, report.examples) == (1, 1, 2, 20)
    assert report.ways_back == {"T v1 → v2": Loss.EXACT}
    assert report.unreleased == ()


def test_ops_that_do_not_lead_to_the_next_schema() -> None:
    report = checked(upcaster("T", 1, ops.rename("a", "c")), examples=0)
    assert report.findings
    assert "do not lead from the schema of T v1 to that of T v2" in str(report.findings[0])


def test_a_function_that_yields_invalid_data_for_some_valid_event() -> None:
    @data_upcaster("T", 1)
    def step(data: dict[str, Any]) -> dict[str, Any]:
        return {"b": data["a"]} if data["a"] else {}

    found = finding(checked(step))
    assert "T v2 rejects the data" in found
    assert 'for example for {"a":""}' in found


def test_a_function_that_raises_for_some_valid_event() -> None:
    @data_upcaster("T", 1)
    def step(data: dict[str, Any]) -> dict[str, Any]:
        return {"b": data["a"][0]}

    assert "IndexError" in finding(checked(step))


def test_a_function_that_does_not_repeat_itself() -> None:
    counter = itertools.count()

    @data_upcaster("T", 1)
    def step(data: dict[str, Any]) -> dict[str, Any]:
        return {"b": str(next(counter))}

    assert "two different results" in finding(checked(step))


def test_a_way_back_that_claims_too_much() -> None:
    @data_upcaster("T", 1)
    def step(data: dict[str, Any]) -> dict[str, Any]:
        return {"b": data["a"].upper()}

    @data_downcaster("T", 2, exact=True)
    def back(data: dict[str, Any]) -> dict[str, Any]:
        return {"a": data["b"]}

    assert "claims to be exact" in finding(checked(step, back, examples=200))


def test_a_way_back_that_fails() -> None:
    @data_downcaster("T", 2)
    def back(data: dict[str, Any]) -> dict[str, Any] | None:
        return None

    assert "the way back fails" in finding(checked(RENAMED, back))


def test_drift_from_the_latest_release_alone() -> None:
    first = Registry([RENAMED], schemas=SCHEMAS).freeze("1")
    changed = upcaster("T", 1, ops.rename("a", "b"), ops.add("x", 1), ops.drop("x"))
    second = Registry([changed], schemas=SCHEMAS).freeze("2")
    assert "T v1 changed" in finding(checked(changed, lock=Lock((first,)), examples=0))
    assert checked(changed, lock=Lock((first, second)), examples=0).right


def test_what_is_not_released_yet_is_told() -> None:
    lock = Lock((Registry([], schemas=[V1]).freeze("1"),))
    report = checked(RENAMED, lock=lock)
    assert report.right
    assert report.unreleased == ("T v1",)


def test_a_split_is_tried_part_by_part() -> None:
    split = split_event("Both", 1, part("T", ops.drop("x"), version=1), part("Other"))

    @schema("Both", version=1)
    class Both(msgspec.Struct):
        a: str
        x: int

    registry = Registry([split, RENAMED], schemas=[Both, *SCHEMAS])
    report = check_registry_and_lock(registry, Lock(), examples=10)
    assert report.right, report.findings
    wrong = Registry([split_event("Both", 1, part("T")), RENAMED], schemas=[Both, *SCHEMAS])
    assert not check_registry_and_lock(wrong, Lock(), examples=10).right


def test_metadata_may_be_asked_for() -> None:
    """An example has none, as a stored event may; the step says what holds then."""
    step = upcaster("T", 1, ops.drop("a"), ops.add("b", ops.from_metadata("who", otherwise="?")))
    assert checked(step).right


def test_it_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked(RENAMED).right
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    registry = Registry([RENAMED], schemas=SCHEMAS)
    check_registry_and_lock(registry, Lock(), examples=0, on_step=lambda *step: told.append(step))
    assert told == [(1, 1)]
