"""The schema reading is sound: what was valid before is, after the ops, valid after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from eventmig import codec
from eventmig.codec import Value
from eventmig.errors import CodecError, OpError
from eventmig.ops.control import run
from eventmig.ops.schema import differences, schema_after
from tests.unit.json_and_ops import (
    EVENT,
    KEYS,
    TEXTS,
    Program,
    keys,
    numbers,
    some_op,
    values,
    with_data,
)

scalar_schemas: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    (
        {}, {"type": "string"}, {"type": "string", "minLength": 1}, {"type": "integer"},
        {"type": "number"}, {"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]},
        {"enum": ["a", "b-c", 7]}, {"const": "x-y-z"}, {"enum": ["a", None, True]},
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        {"type": "string", "pattern": "^[a-z]-[a-z]$"}, {"enum": [[1, "a"], {"a": 1}]},
        {"$ref": "#/$defs/part"}, {"allOf": [{"type": "string"}]},
    )
)  # fmt: skip


def _around(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={"minItems": st.integers(0, 1), "maxItems": st.integers(1, 2)},
    )
    nullable = inner.map(lambda schema: {"anyOf": [schema, {"type": "null"}]})
    return st.one_of(_objects(inner), _objects(inner), arrays, nullable)


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    members = draw(st.dictionaries(keys, inner, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": members}
    if members:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(members)), unique=True))
    additional = draw(st.sampled_from((None, False, False, {"type": "string"})))
    if additional is not None:
        schema["additionalProperties"] = additional
    return schema


_inner = st.recursive(scalar_schemas, _around, max_leaves=4)
_DEFS = {
    "part": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/part"}},
        "required": ["a"],
    }
}


@st.composite
def examples(draw: st.DrawFn) -> tuple[Mapping[str, Any], Program, Value]:
    """A schema, ops, and data valid under it."""
    schema = draw(_objects(_inner)) | {"$defs": _DEFS}
    program = tuple(draw(st.lists(some_op(own_code=False), min_size=1, max_size=3)))
    return schema, program, draw(_valid(schema))


@st.composite
def _valid(draw: st.DrawFn, schema: Mapping[str, Any]) -> Value:
    """Data valid under one of the schemas above (hypothesis-jsonschema knows no recursion)."""
    if "$ref" in schema:
        return draw(_valid(_DEFS["part"]))
    if "const" in schema or "enum" in schema:
        return draw(st.sampled_from(schema.get("enum") or [schema["const"]]))
    for word in ("anyOf", "allOf"):
        if word in schema:
            return draw(_valid(draw(st.sampled_from(schema[word]))))
    types = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    match types if isinstance(types, str) else draw(st.sampled_from(types)):
        case "null":
            return None
        case "boolean":
            return draw(st.booleans())
        case "integer":
            return draw(st.sampled_from((0, 1, 7, 1.0, 2**70)))
        case "number":
            return draw(numbers)
        case "string":
            return draw(st.sampled_from(("b-c", "x-y") if "pattern" in schema else TEXTS[1:]))
        case "array":
            few, many = schema.get("minItems", 0), schema.get("maxItems", 2)
            items = _valid(schema.get("items", {}))
            return draw(st.lists(items, min_size=min(few, many), max_size=many))
    members, unnamed = schema.get("properties", {}), schema.get("additionalProperties", {})
    made: dict[str, Value] = {}
    for key in KEYS:
        inner = members.get(key, unnamed)
        if inner is not False and (key in schema.get("required", ()) or draw(st.booleans())):
            made[key] = draw(_valid(inner)) if inner else draw(values)
    return made


@st.composite
def _describing(draw: st.DrawFn, value: Value) -> dict[str, Any]:
    """One of the schemas that the data is valid under."""
    whole: dict[str, Any] = {"type": codec.kind(value)}
    if isinstance(value, dict):
        members = {key: draw(_describing(item)) for key, item in value.items()}
        absent = draw(st.dictionaries(keys, st.just({"type": "string"}), max_size=1))
        whole["properties"] = absent | members
        whole["required"] = [key for key in members if draw(st.integers(0, 3))]
        if draw(st.booleans()):
            whole["additionalProperties"] = False
    elif isinstance(value, list):
        whole["items"] = {"anyOf": [draw(_describing(item)) for item in value]} if value else {}
        if draw(st.booleans()):
            whole["minItems"] = len(value)
    elif draw(st.booleans()):
        whole = {"enum": [_plain(value), "a"]} if draw(st.booleans()) else {"const": _plain(value)}
    other = draw(st.sampled_from((None, None, None, {"type": "null"}, {"type": "string"})))
    return {"anyOf": [whole, other]} if other else whole


@st.composite
def described(draw: st.DrawFn) -> tuple[Mapping[str, Any], Program, Value]:
    """Ops that have something to do in their data, and a schema for the data."""
    program, before = draw(with_data(most=3, own_code=False))
    return draw(_describing(before)), program, before


def _plain(value: Value) -> Any:
    """The data as the validator takes it; it knows no number greater than a float."""
    written = codec.encode(value)
    assume(b"1E+400" not in written)
    return json.loads(written)


@given(described() | examples())
@settings(max_examples=600, suppress_health_check=list(HealthCheck))
def test_what_the_ops_make_is_valid_under_the_schema_after(
    example: tuple[Mapping[str, Any], Program, Value],
) -> None:
    schema, program, before = example
    after = schema_after(program, schema)
    assert after is not None
    try:
        value = run(program, before, EVENT)
    except (OpError, CodecError):
        assume(False)
        raise
    event("changed" if not codec.same(value, before) else "same")
    jsonschema_rs.validator_for(after).validate(_plain(value))


@given(examples())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_a_schema_fits_itself(example: tuple[Mapping[str, Any], Program, Value]) -> None:
    schema, program, _ = example
    after = schema_after(program, schema)
    assert after is not None
    refused = after == {"not": {}}
    assert bool(differences(after, after)) == refused
