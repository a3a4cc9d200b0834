"""What `jsonb` changes or refuses is known before it is sent, for any JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import codec
from eventmig.stores.postgres.json_fit import changed_by_jsonb, fits_jsonb, misfit
from tests.postgres import Server

strings = st.sampled_from(
    ['"a"', '"b"', '"\\u0061"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"é\\n\\""', '"x-0,"']
)
numbers = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "-0e5",
        "1.10",
        "1e2",
        "1E-3",
        "12345678901234567890",
        "1e400",
        "-0.01",
        "1E+200000",
        "1E-20000",
        "1E+9000",
        f"0.{'1' * 9000}E-9000",
        f"0.{'1' * 17000}",
    ]
)
spaces = st.sampled_from(["", " ", "\n"])


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    pairs = draw(st.lists(st.tuples(strings, spaces, inner), max_size=4))
    space = draw(spaces)
    return "{" + f",{space}".join(f"{k}{s}:{s}{v}" for k, s, v in pairs) + "}"


texts = st.recursive(
    strings | numbers | st.sampled_from(["true", "null", "[]", "{}"]),
    lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]"),
    max_leaves=8,
).map(str.encode)


@pytest.fixture(scope="module")
def connection(postgres_server: Server) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield connection


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_what_passes_comes_back_as_the_same_value(
    connection: psycopg.Connection, text: bytes
) -> None:
    changed = changed_by_jsonb([text], text + b"\n") is not None
    try:
        row = connection.execute("SELECT %s::text::jsonb::text", [text.decode()]).fetchone()
        assert row is not None
    except psycopg.DataError:
        assert misfit(text, binary=True) is not None  # the server refuses it, and we know why
        assert not fits_jsonb(text)
        return
    kept = _without_loss(text, row[0].encode())
    assert kept is not changed
    assert (misfit(text, binary=True) is None) is kept
    assert fits_jsonb(text) is kept


def _without_loss(text: bytes, held: bytes) -> bool:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def signed(number: str) -> object:
        assert not (number.startswith("-") and float(number) == 0 and "1" not in number)
        return 0

    try:
        json.loads(text, object_pairs_hook=once, parse_float=signed, parse_int=signed)
    except AssertionError:
        return False
    assert codec.same(codec.decode_strict(text), codec.decode_strict(held))
    return True


@pytest.mark.parametrize(
    ("text", "binary", "path", "what"),
    [
        (b'{"a": NaN}', False, "a", "no JSON number"),
        (b"{", False, "", "is no JSON"),
        (b'{"a": "\\u0000"}', False, None, ""),
        (b'{"\\u0000": 1}', True, "\\x00", "in its name"),
        (b"[" * 100_000, True, "", "nested too deeply"),
    ],
)
def test_where_and_what(text: bytes, binary: bool, path: str | None, what: str) -> None:
    found = misfit(text, binary=binary)
    if path is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == path
        assert what in found[1]
