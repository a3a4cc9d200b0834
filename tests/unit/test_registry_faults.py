"""What a registry refuses to be built of: every fault names its offenders and the remedy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from eventmig import (
    EventSchema,
    Registry,
    data_upcaster,
    downcaster,
    drop_event,
    merge,
    ops,
    part,
    rename_streams,
    rename_type,
    schema,
    split_event,
    upcaster,
)
from eventmig.errors import RegistryError


def fault(*steps: Any, schemas: Any = ()) -> str:
    with pytest.raises(RegistryError) as caught:
        Registry(steps, schemas=schemas)
    assert caught.value.remedy
    return caught.value.what


def test_a_gap() -> None:
    found = fault(upcaster("Order", 1), upcaster("Order", 3))

    assert "gap: no upcaster takes Order v2 to v3" in found


def test_two_steps_from_one_version_to_the_same() -> None:
    assert "duplicate: 2 upcasters start at Order v1" in fault(
        upcaster("Order", 1), upcaster("Order", 1, ops.drop("x"))
    )


def test_two_steps_from_one_version_to_others() -> None:
    found = fault(upcaster("Order", 1), rename_type("Order", 1, to="Purchase"))

    assert "ambiguous branch: from Order v1 lead Order v1 → v2 and Order v1 → Purchase v1" in found


def test_a_cycle() -> None:
    found = fault(rename_type("A", 1, to="B"), rename_type("B", 1, to="A"))

    assert "cycle: A v1 → B v1 → A v1" in found


def test_a_cycle_through_a_split() -> None:
    found = fault(split_event("A", 1, part("B"), part("C")), rename_type("C", 1, to="A"))

    assert "cycle: A v1 → C v1 → A v1" in found


def test_a_version_that_only_a_schema_names() -> None:
    @schema("Order", version=3)
    class Order(msgspec.Struct):
        id: str

    found = fault(upcaster("Order", 1), schemas=[Order])

    assert "unreachable version: no upcaster takes Order v2 to v3" in found


def test_a_first_version_nothing_leads_to() -> None:
    assert "unreachable version: nothing leads to Order v2" in fault(upcaster("Order", 2))


def test_a_downcaster_without_its_upcaster() -> None:
    found = fault(upcaster("Order", 1), downcaster("Order", 3, to=("Order", 2)))

    assert "downcaster without its upcaster: Order v3 → Order v2 (back)" in found


def test_two_schemas_of_one_version() -> None:
    one, two = (EventSchema("Order", 1, {"title": name}) for name in ("one", "two"))

    assert "duplicate: 2 schemas are marked as Order v1" in fault(schemas=[one, two])


def test_two_steps_of_one_name() -> None:
    found = fault(
        merge("tidy", "A", "B", into="C", streams="s-*"),
        rename_streams("tidy", "a-{id}", to="b-{id}"),
    )

    assert "2 steps are named 'tidy'" in found


def test_a_version_below_one() -> None:
    assert "Order v0: versions start at 1" in fault(upcaster("Order", 0))


def test_several_faults_are_told_together() -> None:
    found = fault(upcaster("A", 1), upcaster("A", 1), rename_type("X", 1, to="X"))

    assert found.startswith("the registry has 3 faults:")


def test_a_bare_function_is_no_step() -> None:
    def forgot_the_decorator(data: dict[str, Any]) -> dict[str, Any]:
        return data

    assert "is not a step" in fault(forgot_the_decorator)


def test_an_unmarked_model_is_no_schema() -> None:
    class Order(msgspec.Struct):
        id: str

    assert "does not say which event type and version it is" in fault(schemas=[Order])


def test_lists_of_steps_may_be_nested() -> None:
    @data_upcaster("Order", 2)
    def third(data: dict[str, Any]) -> dict[str, Any]:
        """Why."""
        return data

    registry = Registry([[upcaster("Order", 1), [third]], drop_event("Old", 1, why="old")])

    assert registry.current == {"Order": 3}
    assert registry.retired == {"Old": 1}
    assert registry.upcasters[("Order", 2)].why == "Why."
    assert registry.sources_of(["Order"]) == {"Order"}
