"""What each op does to a JSON Schema, and where two schemas differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jsonschema_rs
import msgspec
import pydantic
import pytest

from eventmig import ops
from eventmig.ops import Op
from eventmig.ops.schema import differences, schema_after

TEXT, WHOLE, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}


def closed(required: str = "", **members: Any) -> dict[str, Any]:
    """An object with these members and no others."""
    whole = {"type": "object", "properties": members, "additionalProperties": False}
    return whole | ({"required": required.split()} if required else {})


@pytest.mark.parametrize(
    ("op", "before", "after"),
    [
        (ops.add("a", "EUR"), closed(), closed("a", a={"const": "EUR"})),
        (ops.add("b", ops.ref("a")), closed("a", a=TEXT), closed("a b", a=TEXT, b=TEXT)),
        (ops.add("b", ops.ref("a")), closed(a=TEXT), closed(a=TEXT, b=TEXT)),
        (ops.add("a", ops.from_metadata("user")), closed(), closed(a=True)),
        (ops.add("a", ops.from_metadata("u", otherwise=1)), closed(), closed("a", a=True)),
        (ops.add("a", 1), closed("a", a=TEXT), {"not": {}}),
        (ops.default("a", 1), closed(a=TEXT), closed("a", a={"anyOf": [TEXT, {"const": 1}]})),
        (ops.put_value("a", 1), closed(a=TEXT), closed("a", a={"const": 1})),
        (ops.drop("a"), closed("a b", a=TEXT, b=TEXT), closed("b", b=TEXT)),
        (ops.rename("a", "b"), closed("a", a=TEXT), closed("b", b=TEXT)),
        (ops.rename("a", "b"), closed(a=TEXT), closed(b=TEXT)),
        (
            ops.move("a.b", "b"),
            closed("a", a=closed("b", b=WHOLE)),
            closed("a b", a=closed(), b=WHOLE),
        ),
        (
            ops.nest("a", "b", under="c"),
            closed("a", a=TEXT, b=WHOLE),
            closed("c", c=closed("a", a=TEXT, b=WHOLE)),
        ),
        (
            ops.unnest("c", "a", "b"),
            closed("c", c=closed("a", a=TEXT, b=WHOLE)),
            closed("a", a=TEXT, b=WHOLE),
        ),
        (
            ops.unnest("c", "a"),
            closed("c", c=closed("a b", a=TEXT, b=WHOLE)),
            closed("c a", c=closed("b", b=WHOLE), a=TEXT),
        ),
        (
            ops.unnest("c", "a"),
            closed("c", c=closed("a", a=TEXT, b=WHOLE)),
            closed("a", c=closed(b=WHOLE), a=TEXT),
        ),
        (
            ops.wrap("a"),
            closed(a=TEXT),
            closed(a={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 1}),
        ),
        (
            ops.wrap("a"),
            closed(a={"type": ["string", "null"]}),
            closed(a={"type": "array", "items": TEXT, "maxItems": 1}),
        ),
        (
            ops.unwrap("a"),
            closed(a={"type": "array", "items": TEXT, "minItems": 1}),
            closed(a=TEXT),
        ),
        (
            ops.unwrap("a"),
            closed(a={"type": "array", "items": TEXT}),
            closed(a={"type": ["string", "null"]}),
        ),
        (
            ops.convert("a", "text_to_integer"),
            closed("a", a={"anyOf": [TEXT, NULL]}),
            closed("a", a={"type": ["integer", "null"]}),
        ),
        (ops.convert("a", "text_to_integer"), closed("a", a={"type": "array"}), {"not": {}}),
        (
            ops.map_values("a", {"x": "X", "y": "Y"}),
            closed("a", a=TEXT),
            closed("a", a={"enum": ["X", "Y"]}),
        ),
        (
            ops.map_values("a", {"x": "X"}, other=ops.KEEP),
            closed("a", a={"enum": ["x", "z"]}),
            closed("a", a={"enum": ["X", "z"]}),
        ),
        (
            ops.split("a", into=("b", "c"), at=" "),
            closed("a", a=TEXT),
            closed("b", b=TEXT, c=TEXT),
        ),
        (
            ops.combine("a", "b", to="c", separator=" "),
            closed("a", a=TEXT, b=TEXT),
            closed("c", c=TEXT),
        ),
        (
            ops.append("a", 1),
            closed("a", a={"type": "array", "items": TEXT}),
            closed("a", a={"type": "array", "items": {"anyOf": [TEXT, {"const": 1}]}}),
        ),
        (
            ops.append("a", "x", create=True),
            closed(a={"type": "array", "items": TEXT}),
            closed("a", a={"type": "array", "items": TEXT}),
        ),
        (
            ops.remove("a", "x", drop_empty=True),
            closed("a", a={"type": "array", "items": TEXT, "minItems": 1}),
            closed(a={"type": "array", "items": TEXT}),
        ),
        (ops.add_line("a", "x"), closed(a=TEXT), closed("a", a=TEXT)),
        (
            ops.each("a", ops.rename("b", "c")),
            closed("a", a={"type": "array", "items": closed("b", b=TEXT)}),
            closed("a", a={"type": "array", "items": closed("c", c=TEXT)}),
        ),
        (
            ops.when(ops.absent("b"), ops.add("b", "x")),
            closed("a", a=TEXT, b=TEXT),
            closed("a b", a=TEXT, b=TEXT),
        ),
        (
            ops.when(ops.equals("a", "x"), ops.add("b", 1)),
            closed("a", a={"enum": ["x", "y"]}),
            closed("a", a={"enum": ["x", "y"]}, b={"const": 1}),
        ),
        (
            ops.when(ops.is_kind("a", "string"), ops.wrap("a")),
            closed("a", a={"type": ["string", "array"]}),
            closed("a", a={"type": "array"}),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_the_schema_after_one_op(op: Op, before: dict[str, Any], after: dict[str, Any]) -> None:
    assert schema_after((op,), before) == after


def test_a_function_hides_what_comes_of_the_data() -> None:
    hidden = ops.apply(lambda data: data)
    assert schema_after([ops.when(ops.present("a"), hidden)], closed(a=TEXT)) is None


def test_a_conversion_of_ones_own_hides_its_member_only() -> None:
    own = ops.conversion("own", lambda value: value)
    assert schema_after([ops.convert("a", own)], closed("a", a=TEXT, b=TEXT)) == closed(
        "a", a=True, b=TEXT
    )


def test_references_are_followed_and_recursive_ones_stay() -> None:
    node = closed("name", name=TEXT, next={"anyOf": [{"$ref": "#/$defs/Node"}, NULL]})
    before = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    after = schema_after([ops.rename("name", "title")], before)
    assert after is not None
    valid = jsonschema_rs.validator_for(after).is_valid
    assert valid({"title": "a", "next": {"name": "b"}})
    assert not valid({"title": "a", "next": {"title": "b"}})
    assert not valid({"name": "a"})


def test_members_nobody_named_may_be_there_unless_the_schema_forbids_them() -> None:
    opened = {"type": "object", "properties": {"a": TEXT}}
    after = schema_after([ops.default("b", 1)], opened)
    assert after == {"type": "object", "properties": {"a": TEXT, "b": True}, "required": ["b"]}


# differences --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "actual", "lines"),
    [
        (closed("currency", currency=TEXT), closed(),
         ["`currency`: the ops leave it out, the model requires it"]),
        (closed("currency", currency=TEXT), closed(currency=TEXT),
         ["`currency`: the ops may leave it out, the model requires it"]),
        (closed(total=WHOLE), closed(total=TEXT),
         ["`total`: the ops yield string, the model wants integer"]),
        (closed(total=WHOLE), closed(total={"type": ["integer", "null"]}),
         ["`total`: the ops yield null, the model wants integer"]),
        (closed(total={"type": "number"}), closed(total=WHOLE), []),
        (closed(), closed(note=TEXT),
         ["`note`: the ops yield it, the model forbids unknown members"]),
        ({"type": "object"}, closed(note=TEXT), []),
        (closed(state={"enum": ["a", "b"]}), closed(state={"enum": ["a", "c"]}),
         ['`state`: the ops yield "c", the model wants "a", "b"']),
        (closed(state={"enum": ["a", "b"]}), closed(state=TEXT),
         ['`state`: the ops yield any string, not only "a", "b"']),
        (closed(lines={"type": "array", "items": closed("sku", sku=TEXT)}),
         closed(lines={"type": "array", "items": closed("sku", sku=WHOLE)}),
         ["`lines[].sku`: the ops yield integer, the model wants string"]),
        (closed(a={"anyOf": [closed("b", b=TEXT), NULL]}), closed(a=closed("b", b=TEXT)), []),
        (closed(a=TEXT | {"pattern": "x"}), closed(a=TEXT | {"minLength": 3}), []),
        (closed("a", a=TEXT), closed("a", a=True), []),
        (closed(), {"not": {}}, ["the ops refuse every event that is valid before them"]),
        (closed(a=TEXT), closed(a=TEXT) | {"title": "Other", "description": "x"}, []),
    ],
)  # fmt: skip
def test_differences_are_told_in_words(
    expected: Mapping[str, Any], actual: Mapping[str, Any], lines: list[str]
) -> None:
    assert differences(expected, actual) == lines


class Part(msgspec.Struct):
    sku: str
    price: float | None = None
    parts: list[Part] = []


class Order(msgspec.Struct, forbid_unknown_fields=True):
    id: int
    state: Literal["new", "paid"]
    first: Part
    parts: dict[str, Part] = {}
    tags: tuple[str, int] | None = None


class Piece(pydantic.BaseModel):
    sku: str
    price: float | None = None
    pieces: list[Piece] = []


class Basket(pydantic.BaseModel, extra="forbid"):
    id: int
    state: Literal["new", "paid"]
    first: Piece
    pieces: dict[str, Piece] = {}
    tags: tuple[str, int] | None = None


SCHEMAS: list[Callable[[], dict[str, Any]]] = [
    lambda: msgspec.json.schema(Order),
    lambda: msgspec.json.schema(Part),
    lambda: pydantic.TypeAdapter(Basket).json_schema(),
    lambda: pydantic.TypeAdapter(Piece).json_schema(),
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_models_schema_fits_itself_also_after_no_ops(
    schema: Callable[[], dict[str, Any]],
) -> None:
    after = schema_after([], schema())
    assert after is not None
    assert differences(schema(), schema()) == []
    assert differences(schema(), after) == []


@pytest.mark.parametrize("schema", [SCHEMAS[0], SCHEMAS[2]])
def test_what_is_wrong_with_a_chain_is_found_below_the_top_level(
    schema: Callable[[], dict[str, Any]],
) -> None:
    chain = [
        ops.convert("id", "integer_to_text"),
        ops.rename("first.sku", "article"),
        ops.drop("state"),
    ]
    after = schema_after(chain, schema())
    assert after is not None
    assert differences(schema(), after) == [
        "`state`: the ops leave it out, the model requires it",
        "`id`: the ops yield string, the model wants integer",
        "`first.sku`: the ops leave it out, the model requires it",
    ]
