"""One member of a JSON object, without touching any other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig.stores.layouts import members

names = st.sampled_from(["class_version", "a", 'quo"te', "back\\slash", "ü", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, values, max_size=4)


def spelled(value: dict[str, Any], spaced: bool, ascii: bool) -> bytes:
    separators = (" , ", " : ") if spaced else (",", ":")
    text = json.dumps(value, separators=separators, ensure_ascii=ascii)
    return (f" {text}\n" if spaced else text).encode()


@settings(max_examples=150)
@given(objects, names, st.booleans(), st.booleans())
def test_without_and_with_mean_what_they_say(
    value: dict[str, Any], name: str, spaced: bool, ascii: bool
) -> None:
    data = spelled(value, spaced, ascii)
    without = members.without(data, name)
    assert json.loads(without) == {k: v for k, v in value.items() if k != name}
    assert list(json.loads(without)) == [k for k in value if k != name]
    put = members.with_member(data, name, b"7")
    assert json.loads(put) == value | {name: 7}
    assert list(json.loads(put)) == list(value | {name: 7})
    found = members.find(data, name)
    assert (None if found is None else json.loads(found.text)) == value.get(name)
    assert members.without(members.with_member(without, name, b"7"), name) == without


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b'{"a":1,"class_version":2}', 2),
        (b'{"a":{"b":1,"class_version":2}}', None),
        (b'{"a":"x,\\"class_version\\":2}"}', None),
        (b'{"a":[1,"class_version"],"b":2}', None),
        (b'{"a":1,"class_version":"2"}', None),
    ],
)
def test_the_last_member_is_told_from_one_deeper_or_in_a_text(
    data: bytes, number: int | None
) -> None:
    assert members.last_number(data, "class_version") == number


def test_other_bytes_stay_as_they_are() -> None:
    data = b'{ "price" : 1.10,"n":12345678901234567890 ,\n"class_version":2, "e":1e5}'
    assert members.without(data, "class_version") == (
        b'{ "price" : 1.10,"n":12345678901234567890 , "e":1e5}'
    )
    assert members.with_member(data, "class_version", b"3") == data.replace(b":2,", b":3,")


def test_a_name_in_escapes_is_found() -> None:
    data = rb'{"text":"Zo\u00eb","\u0063lass_version":2}'
    assert members.places([data, b'{"text":"Zo\\u00eb"}'], "class_version") == [0]
    assert members.without(data, "class_version") == rb'{"text":"Zo\u00eb"}'
