"""The named conversions and their exactness, and the fingerprints of functions."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import codec, fingerprint, ops
from eventmig.codec import Value
from eventmig.conversions import NAMED, Conversion
from eventmig.errors import OpError
from tests.unit.json_and_ops import TEXTS, values

EXACT = [one for one in NAMED.values() if one.exact]
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.one_of(
    numbers.map(str),
    st.sampled_from(TEXTS),
    st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,3})?([eE][+-]?[0-9])?", fullmatch=True),
    st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.text(max_size=5),
)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("text_to_integer", "-7", -7), ("text_to_integer", "9" * 30, int("9" * 30)),
        ("integer_to_text", 7, "7"),
        ("text_to_number", "1.10", Decimal("1.10")), ("number_to_text", 1.5, "1.5"),
        ("text_to_boolean", "true", True), ("boolean_to_text", False, "false"),
        ("text_to_hundredths", "-12.50", -1250), ("hundredths_to_text", -5, "-0.05"),
        ("number_to_hundredths", 12.5, 1250), ("number_to_hundredths", 3, 300),
        ("json_text_to_value", '{"a":[1.10]}', {"a": [Decimal("1.10")]}),
        ("value_to_json_text", {"a": [1]}, '{"a":[1]}'),
        ("number_to_hundredths", Decimal("12345678901234567890123456789.91"),
         1234567890123456789012345678991),
        ("time_to_epoch_seconds", "1970-01-02T00:00:00Z", 86400),
        ("time_to_epoch_seconds", "0999-12-31T23:59:59Z", -30610224001),
        ("time_to_utc_text", "0999-12-31T23:59:59.5Z", "0999-12-31 23:59:59"),
        ("time_to_utc_text", "2012/03/10 22:00:00 -0800", "2012-03-11 06:00:00"),
        ("time_to_iso", "2012-03-10T22:00:00.5-08:00", "2012-03-11T06:00:00.500000Z"),
        ("lower", "AbC", "abc"), ("capitalise", "aBC", "Abc"), ("strip", " a ", "a"),
    ],
)  # fmt: skip
def test_a_named_conversion(name: str, before: Value, after: Value) -> None:
    made = NAMED[name].apply(before)
    assert codec.encode(made) == codec.encode(after)
    if NAMED[name].exact:
        back = NAMED[name].inverse()
        assert back is not None
        assert codec.encode(back.apply(made)) == codec.encode(before)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("text_to_integer", ["007", "+7", "-0", "1.0", "", " 7", "٧", 7, None]),
        ("integer_to_text", ["7", 1.5, True]),
        ("text_to_number", ["1.", "NaN", "1e5 ", "1e+5", "true", 1]),
        ("text_to_boolean", ["True", "1", True]),
        ("text_to_hundredths", ["12.5", "12", "-0.00", "01.00", "1e2"]),
        ("number_to_hundredths", [1.005, "1", Decimal("1E+999999999"), Decimal("1E-999999999")]),
        ("json_text_to_value", ['{"a": 1}', "{", '{"a":1,"a":1}', 1]),
        ("time_to_epoch_seconds", ["2026-01-31T12:00:00+00:00", "2026-01-31", "x"]),
        ("time_to_epoch_seconds", ["2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z"]),
        ("time_to_iso", ["yesterday", 5]),
        ("lower", [1]),
    ],
)  # fmt: skip
def test_what_a_conversion_refuses(name: str, refused: list[Value]) -> None:
    for value in refused:
        with pytest.raises(OpError, match=f"{name} cannot convert"):
            NAMED[name].apply(value)


@pytest.mark.parametrize("conversion", EXACT, ids=lambda one: one.name)
@given(st.lists(st.one_of(texts, numbers, values), min_size=10, max_size=30))
@settings(max_examples=60)
def test_an_exact_conversion_is_exact(conversion: Conversion, some: list[Value]) -> None:
    back = conversion.inverse()
    assert back is not None
    for first, second in ((conversion, back), (back, conversion)):
        for before in some:
            try:
                after = first.apply(before)
            except OpError:
                continue
            assert codec.same(second.apply(after), before)


def test_the_way_back_of_the_way_back_is_the_way_there() -> None:
    there = NAMED["text_to_integer"]
    back = there.inverse()
    assert back is not None
    assert back.inverse() == there
    assert back.fingerprint() != there.fingerprint()


# Fingerprints of functions --------------------------------------------------------------------


def function(source: str) -> Callable[[Any], Any]:
    """A function whose source can be looked up, as one from a module can."""
    name = f"<source {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {}
    exec(compile(source, name, "exec"), scope)
    found: Callable[[Any], Any] = scope["step"]
    return found


PLAIN = "def step(data):\n    data['a'] = 1\n    return data\n"


@pytest.mark.parametrize(
    "same",
    [
        "def step(data):\n    # why\n    data['a'] = 1  # one\n\n    return data\n",
        'def step(data):\n    """Says what it does."""\n    data["a"] = (1)\n    return data\n',
        "def step( data ):\n\n\n  data[ 'a' ]=1\n  return (data)\n",
    ],
)
def test_comments_and_formatting_do_not_count(same: str) -> None:
    assert fingerprint.of_function(function(same)) == fingerprint.of_function(function(PLAIN))
    assert ops.apply(function(same)).fingerprint() == ops.apply(function(PLAIN)).fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        "def step(data):\n    data['a'] = 2\n    return data\n",
        "def step(data):\n    data['a'] = True\n    return data\n",
        "def step(data):\n    data['b'] = 1\n    return data\n",
        "def step(data):\n    return data\n",
    ],
)
def test_another_meaning_is_another_fingerprint(other: str) -> None:
    assert fingerprint.of_function(function(other)) != fingerprint.of_function(function(PLAIN))
    one, two = ops.conversion("own", function(other)), ops.conversion("own", function(PLAIN))
    assert ops.convert("a", one).fingerprint() != ops.convert("a", two).fingerprint()


def test_what_an_op_holds_counts() -> None:
    own = function(PLAIN)
    ops_ = [
        ops.apply(own),
        ops.apply(own, back=own),
        ops.apply(own, back=own, exact=True),
        ops.each("a", ops.apply(own)),
        ops.when(ops.present("a"), ops.apply(own)),
        ops.when(ops.absent("a"), ops.apply(own)),
    ]
    assert len({op.fingerprint() for op in ops_}) == len(ops_)
