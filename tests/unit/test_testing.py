"""The helpers users test their upcasters with."""

from __future__ import annotations

import msgspec
import pytest

from eventmig import Registry, data_upcaster, ops, part, schema, split_event, upcaster
from eventmig.errors import CheckError, UpcastError
from eventmig.testing import assert_sound, downcast, upcast


@schema("OrderPlaced", version=1)
class OrderPlacedV1(msgspec.Struct):
    total: int


@schema("OrderPlaced", version=2)
class OrderPlaced(msgspec.Struct):
    amount: int


renamed = upcaster("OrderPlaced", 1, ops.rename("total", "amount"))
moved = split_event("Moved", 1, part("CityChanged", ops.drop("phone")), part("PhoneChanged"))
registry = Registry([renamed, moved], schemas=[OrderPlacedV1, OrderPlaced])


def test_an_event_becomes_what_its_step_says() -> None:
    assert upcast(registry, "OrderPlaced", 1, {"total": 5}) == [("OrderPlaced", 2, {"amount": 5})]


def test_a_split_yields_each_part() -> None:
    made = upcast(registry, "Moved", 1, {"city": "Bonn", "phone": "1"})

    assert [name for name, _, _ in made] == ["CityChanged", "PhoneChanged"]


def test_the_way_back_is_the_ops_own() -> None:
    assert downcast(registry, "OrderPlaced", 2, {"amount": 5}) == {"total": 5}
    with pytest.raises(CheckError, match="no way back from CityChanged v1"):
        downcast(registry, "CityChanged", 1, {})


def test_what_the_next_schema_rejects_is_an_error_that_names_the_step() -> None:
    with pytest.raises(UpcastError) as caught:
        upcast(registry, "OrderPlaced", 1, {"total": "five"})

    assert caught.value.where.step == "OrderPlaced v1 → v2"


def test_a_sound_registry_passes_and_an_unsound_one_is_described() -> None:
    assert_sound(registry, examples=10)

    @data_upcaster("OrderPlaced", 1)
    def wrong(data: dict[str, object]) -> dict[str, object]:
        return {"amount": str(data["total"])}

    unsound = Registry([wrong], schemas=[OrderPlacedV1, OrderPlaced])
    with pytest.raises(AssertionError, match="rejects the data"):
        assert_sound(unsound, examples=10)
