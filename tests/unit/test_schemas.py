"""Schemas of events: one value for msgspec, pydantic and JSON Schema models."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from eventmig import EventSchema, schema
from eventmig.errors import OpError, RegistryError, ValidationError


class Struct(msgspec.Struct):
    """An order."""

    id: str
    total: float
    lines: list[dict[str, int]] = []


class Model(pydantic.BaseModel):
    """An order, in other words."""

    id: str = pydantic.Field(description="which one", examples=["a"])
    total: float
    lines: list[dict[str, int]] = []


JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "total": {"type": "number"},
        "lines": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["id", "total"],
}
EACH = [EventSchema("Order", 2, model) for model in (Struct, Model, JSON_SCHEMA)]


@pytest.fixture(params=EACH, ids=["msgspec", "pydantic", "JSON Schema"])
def order(request: pytest.FixtureRequest) -> EventSchema:
    found: EventSchema = request.param
    return found


@pytest.mark.parametrize("data", [b'{"id":"a","total":1.10}', b'{"total":1, "id":"", "lines":[]}'])
def test_valid_data_passes(order: EventSchema, data: bytes) -> None:
    order.validate(data)
    order.parse(data)
    order.decode(data)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b'{"id":1,"total":1}', "id"),
        (b'{"id":"a","total":"1"}', "total"),
        (b'{"id":"a","total":1,"lines":{}}', "lines"),
        (b'{"id":"a"}', None),
        (b"[]", None),
    ],
)
def test_invalid_data_is_refused_by_the_member(
    order: EventSchema, data: bytes, path: str | None
) -> None:
    with pytest.raises(ValidationError, match="Order v2 rejects the data") as caught:
        order.validate(data)
    where = caught.value.where
    assert (where.type, where.schema_version) == ("Order", 2)
    assert where.path == path or (path is None and where.path in ("total", None))
    assert caught.value.remedy


@pytest.mark.parametrize("data", [b'{"id":', b"", b"\xff", b'{"id":"\xff","total":1}'])
def test_what_is_no_json_is_refused(order: EventSchema, data: bytes) -> None:
    with pytest.raises(ValidationError, match="Order v2 rejects the data"):
        order.validate(data)


def test_words_for_people_do_not_count_in_the_fingerprint() -> None:
    class Other(msgspec.Struct):
        """Another description."""

        id: str
        total: float
        lines: list[dict[str, int]] = []

    class Different(msgspec.Struct):
        id: str
        total: int

    prints = [EventSchema("Order", 1, m).fingerprint for m in (Struct, Other, Different)]
    assert prints[0] == prints[1] != prints[2]
    told = {**JSON_SCHEMA, "title": "x", "description": "y", "$comment": "z"}
    assert EventSchema("X", 1, told).fingerprint == EACH[2].fingerprint
    named = {"type": "object", "properties": {"title": {"type": "string"}}}
    unnamed = {"type": "object", "properties": {}}
    assert EventSchema("X", 1, named).fingerprint != EventSchema("X", 1, unnamed).fingerprint


def test_what_a_model_would_lose_is_refused(order: EventSchema) -> None:
    if order is EACH[2]:
        assert order.decode_whole({"id": "a", "total": 1, "more": 1}) is not None
        return
    with pytest.raises(OpError, match="would lose the member more"):
        order.decode_whole({"id": "a", "total": 1.5, "more": 1})
    with pytest.raises(OpError, match="would lose the member total"):
        order.decode_whole({"id": "a", "total": Decimal("0.12345678901234567890123")})
    made = order.decode_whole({"id": "a", "total": 1.5, "lines": [{"n": 1}]})
    assert order.values_of(made) == {"id": "a", "total": 1.5, "lines": [{"n": 1}]}


def test_a_class_says_its_type_and_version() -> None:
    @schema("Order", version=3)
    class Order(msgspec.Struct):
        id: str

    class Heir(Order):
        pass

    found = EventSchema.of(Order)
    assert (found.type, found.version, found.name) == ("Order", 3, "Order v3")
    with pytest.raises(RegistryError, match="Heir does not say"):
        EventSchema.of(Heir)  # a mark is not inherited: another version is another class
    with pytest.raises(RegistryError, match="versions start at 1"):
        schema("Order", version=0)


def test_other_classes_that_msgspec_knows() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Dated:
        n: int

    found = EventSchema("T", 1, Dated)
    assert found.decode(b'{"n":1}') == Dated(1)
    value: Any = found.values_of(Dated(2))
    assert value == {"n": 2}
