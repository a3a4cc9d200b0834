"""Bytes to values and back: nothing is lost, and what cannot be carried is refused by name."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import codec, ops
from eventmig.codec import Value
from eventmig.errors import CodecError
from eventmig.ops.compiled import compile_ops
from tests.unit.json_and_ops import EVENT

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
digits = st.integers(1, 6000).map(lambda n: "9" * n)
numbers = st.one_of(
    st.integers().map(str),
    digits,
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(("0", "-0", "-0.0", "1.10", "1e400", "1E-400", "12345678901234567890", "1e22")),
)
scalars = st.one_of(
    st.sampled_from(("null", "true", "false")),
    numbers,
    text.map(json.dumps),
    text.map(lambda value: json.dumps(value, ensure_ascii=False)),
)
spaces = st.sampled_from(("", " ", "\n  "))


@st.composite
def spelled(draw: st.DrawFn, depth: int = 2) -> str:
    """JSON text in some writer's spelling."""
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        return draw(scalars)
    gap, after = draw(spaces), draw(spaces)
    several = st.lists(spelled(depth - 1), max_size=3)
    if draw(st.booleans()):
        return f"[{gap}{f',{after}'.join(draw(several))}]"
    return draw(spelled_object(depth))


@st.composite
def spelled_object(draw: st.DrawFn, depth: int = 2) -> str:
    gap, after = draw(spaces), draw(spaces)
    members = draw(st.dictionaries(text, spelled(depth - 1), max_size=4))
    pairs = [f"{json.dumps(key)}{gap}:{after}{value}" for key, value in members.items()]
    return f"{{{gap}{f',{after}'.join(pairs)}{gap}}}"


def by_digits(written: str | bytes) -> Any:
    """The value with every number as a Decimal, which knows its digits."""
    return json.loads(written, parse_int=Decimal, parse_float=Decimal)


@given(spelled())
@settings(max_examples=300)
def test_decoding_and_encoding_keeps_every_value(written: str) -> None:
    value = codec.decode(written.encode())
    again = codec.encode(value)
    # repr tells 1.10 from 1.1 and -0 from 0, and the order of the keys
    assert repr(canonical_numbers(by_digits(again))) == repr(canonical_numbers(by_digits(written)))
    assert codec.same(codec.decode(again), value)
    by_the_verifier = codec.encode(codec.decode_strict(written.encode()))
    assert by_the_verifier == again


FRAGMENTS = ("", "1", "1,2", "[1", "2]", "1],[2", "1\n", "\n", '{"a":1,"a":2}', '"\\ud800"', "{")


@given(st.lists(spelled() | st.sampled_from(FRAGMENTS), max_size=4))
@settings(max_examples=150)
def test_many_are_read_as_each_is_by_itself(written: list[str]) -> None:
    """Also where together they look like a list of other values, or of as many."""
    data = [text.encode() for text in written]

    def outcome(read: Callable[[], list[Any]]) -> str:
        try:
            return repr(read())
        except CodecError as error:
            return str(error)

    alone = outcome(lambda: list(map(codec.decode_strict, data)))
    assert outcome(lambda: codec.decode_strict_many(data)) == alone


def canonical_numbers(value: Any) -> Any:
    """1e22 and 1E+22 are two spellings of one number; 1.10 and 1.1 are not."""
    if isinstance(value, Decimal):
        return value if abs(value.adjusted()) < 16 else value.normalize()
    if isinstance(value, list):
        return [canonical_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical_numbers(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "written",
    ["1.10", "-0", "-0.0", "12345678901234567890", "9" * 4300, "9" * 4301, "-" + "9" * 9000,
     "1E+400", "1e22", "1e-7", "0.1", "100", "5e-324", '"\\u0000"', '"é😀"', "[]", "{}",
     '{"b":1,"a":{"z":[1.50,null]}}'],
)  # fmt: skip
def test_the_spelling_survives(written: str) -> None:
    for read in (codec.decode, codec.decode_strict):
        assert codec.encode(read(written.encode())) == written.encode()


@pytest.mark.parametrize("written", ["9" * 5000, "-0", "7", "-7", "9" * 30])
def test_an_integer_of_any_length_is_an_integer(written: str) -> None:
    for read in (codec.decode, codec.decode_strict):
        assert codec.kind(read(written.encode())) == "integer"


@given(st.lists(spelled_object(), min_size=1, max_size=4), st.sampled_from(("", " ")))
@settings(max_examples=100)
def test_what_a_program_does_not_touch_stays_byte_for_byte(parts: list[str], gap: str) -> None:
    members = {f"m{n}": part for n, part in enumerate(parts)}
    pairs = [f'"{key}":{gap}{part}' for key, part in members.items()]
    stored = f'{{"a":{gap}"7",{gap}{f",{gap}".join(pairs)}}}'.encode()
    rewrite = compile_ops((ops.convert("a", "text_to_integer"), ops.rename("a", "z")))
    kept = ",".join(f'"{key}":{part}' for key, part in members.items())
    assert rewrite(stored, EVENT) == f'{{"z":7,{kept}}}'.encode()


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (b'{"a":1,"a":2}', "'a' stands twice"),
        (b'{"a":1, "a":2}', "'a' stands twice"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"\\u0061":1,"a":2}', "'a' stands twice"),
        (b'{"x":[{"a":1,"a":2}]}', "'a' stands twice"),
        (b'{"x":"\\ud800"}', "lone surrogate"),
        (b'{"x":["\\udc00 and more text"]}', "lone surrogate"),
        (b'{"x":NaN}', "NaN is not a JSON number"),
        (b'{"x":-Infinity}', "-Infinity is not a JSON number"),
        (b'{"x":"\xff"}', "not UTF-8"),
        (b'{"x":"\xed\xa0\x80"}', "not UTF-8"),
        (b'\xff\xfe{\x00}\x00', "not UTF-8"),
        (b'{"x":1', "not JSON"),
        (b'{"x":01}', "not JSON"),
        (b'{"x":"\x00"}', "not JSON"),
        (b'{"x":1}{', "not JSON"),
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_json_cannot_carry_is_refused_by_name(stored: bytes, why: str) -> None:
    touching = compile_ops((ops.wrap("x"),))
    for read in (codec.decode, codec.decode_strict, lambda data: touching(data, EVENT)):
        with pytest.raises(CodecError, match=why):
            read(stored)


@given(spelled_object(), spelled_object(), spaces)
@settings(max_examples=80)
def test_a_key_that_stands_twice_is_found_in_every_spelling(one: str, other: str, gap: str) -> None:
    for stored in (
        f'{{{gap}"a":{one},{gap}"a":{other}}}',
        f'{{"b":{gap}2,"a":{one}, "a":{other}}}',
    ):
        for read in (codec.decode, codec.decode_members, codec.decode_strict):
            with pytest.raises(CodecError, match="stands twice"):
                read(stored.encode())


def test_ops_work_on_objects() -> None:
    with pytest.raises(CodecError, match="the data is a JSON array"):
        codec.decode_members(b"[1]")


@pytest.mark.parametrize(
    ("value", "why", "path"),
    [
        ({"a": {"b": float("nan")}}, "nan is not a JSON number", "a.b"),
        ({"a": [1, float("inf")]}, "inf is not a JSON number", "a[1]"),
        ({"a": Decimal("NaN")}, "NaN is not a JSON number", "a"),
        ({"a": b"x"}, "JSON has no bytes", "a"),
        ({"a": [{"b": {1}}]}, "JSON has no set", "a[0].b"),
        ({"a": datetime.date(2026, 1, 2)}, "JSON has no date", "a"),
        ({"a": {1: 2}}, "the key 1 is not a string", "a"),
        (object(), "JSON has no object", None),
    ],
)
def test_values_that_user_code_made_are_refused_with_their_path(
    value: object, why: str, path: str | None
) -> None:
    with pytest.raises(CodecError, match=why) as caught:
        codec.encode_checked(value)
    assert caught.value.where.path == path


def test_text_that_utf8_cannot_carry_is_refused_on_the_way_out() -> None:
    with pytest.raises(CodecError, match="cannot carry"):
        codec.encode_checked({"a": "\ud800"})


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(CodecError, match="holds itself"):
        codec.encode_checked(endless)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True), (1.1, Decimal("1.10"), True), (10**22, 1e22, True), (0, -0.0, True),
        (1e23, Decimal("1E+23"), True), (True, 1, False), (False, 0, False), (None, False, False),
        (1, "1", False), (1.5, "1.5", False), ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": None}, {}, False), ([{"a": 1.0}], [{"a": Decimal(1)}], True),
    ],
)  # fmt: skip
def test_json_equality(left: Value, right: Value, equal: bool) -> None:
    assert codec.same(left, right) is equal
    assert codec.same(right, left) is equal


def test_canonical_is_one_spelling() -> None:
    assert (
        codec.canonical({"b": 1, "a": [Decimal("1.10"), "é"]}) == '{"a":[1.10,"é"],"b":1}'.encode()
    )
