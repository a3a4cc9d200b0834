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


def deep(value: dict[str, Any], path: list[str]) -> Any:
    """The value at a path; None where there is none."""
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def with_deep(value: dict[str, Any], path: list[str], put: object) -> dict[str, Any]:
    """A copy with this value at a path. Raises `AttributeError` where no object is."""
    name, *below = path
    return {**value, name: with_deep(value.get(name, {}), below, put) if below else put}


def without_deep(value: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """A copy without what is at a path."""
    name, *below = path
    if not below:
        return {k: v for k, v in value.items() if k != name}
    inner = value.get(name)
    return {**value, name: without_deep(inner, below)} if isinstance(inner, dict) else value


@settings(max_examples=200)
@given(objects, st.lists(names, min_size=2, max_size=3), st.booleans(), st.booleans())
def test_a_member_at_a_path_is_the_only_thing_that_changes(
    value: dict[str, Any], path: list[str], spaced: bool, ascii: bool
) -> None:
    data, dotted = spelled(value, spaced, ascii), ".".join(path)
    found = members.find(data, dotted)
    assert (None if found is None else json.loads(found.text)) == deep(value, path)
    without = members.without(data, dotted)
    # Keys keep their order, so equal texts of the values mean equal order too.
    assert json.dumps(json.loads(without)) == json.dumps(without_deep(value, path))
    if found is None:
        assert without == data
    else:
        text = data.decode()
        replaced = members.with_member(data, dotted, b"7").decode()
        assert replaced == text[: found.value] + "7" + text[found.end :]
    try:
        expected = with_deep(value, path, 7)
    except (AttributeError, TypeError):
        with pytest.raises(ValueError, match="no JSON object"):
            members.with_member(data, dotted, b"7")
        return
    put = members.with_member(data, dotted, b"7")
    assert json.dumps(json.loads(put)) == json.dumps(expected)
    again = members.with_member(members.without(put, dotted), dotted, b"7")
    assert json.loads(again) == expected
    if found is None:
        assert again == put


def test_a_list_is_not_given_a_member() -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        members.added(b'[{"a":1}]', "class_version", b"2")
