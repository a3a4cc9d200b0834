"""Data that PostgreSQL puts together is the data that it hands out row by row."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import codec
from eventmig.events import NewEvent
from eventmig.stores.open import open_store
from eventmig.stores.postgres import grouped
from eventmig.stores.postgres.store import PostgresStore

KEYS = ["a", "total %s", "it's", 'a "quoted" é', "back\\slash", "{}", ""]
values = st.sampled_from(["null", "1.10", "-0.5", '"x\\n%"', "[1, {}]", '{"b": null}', "true"])
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=4).map(
    lambda found: "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in found.items()) + "}"
)
data = st.one_of(objects, st.sampled_from(["[1]", '"text"', "7", "null"])).map(str.encode)
events = st.lists(st.tuples(st.sampled_from(["T", "it's %"]), st.integers(1, 2), data), max_size=12)
kinds = st.tuples(st.sampled_from(["T", "it's %", "nul\0"]), st.integers(1, 2))
members = st.dictionaries(kinds, st.lists(st.sampled_from([*KEYS, "nul\0"]), unique=True))


@pytest.mark.parametrize("column", ["jsonb", "json", "text", "bytea"])
def test_lines_are_the_rows(
    postgres_url: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = itertools.count()
    monkeypatch.setattr(grouped, "FIRST_ROWS", 2)
    monkeypatch.setattr(grouped, "_MOST_LINES", 3)

    @settings(max_examples=25, deadline=None)
    @given(events, members, st.integers(0, 4), st.integers(1, 5), st.booleans())
    def check(
        given_: list[tuple[str, int, bytes]],
        members: dict[tuple[str, int], list[str]],
        after: int,
        batch_size: int,
        typed: bool,
    ) -> None:
        types = ["T", "other"] if typed else None
        url = f"{postgres_url}&data={column}&tables=n{next(number)}_"
        with open_store(url, mode="create") as store:
            new = [NewEvent(type_, body, version) for type_, version, body in given_]
            if new:
                store.append("s-1", new, expected=None)
            span: dict[str, Any] = {"after": after, "until": store.head_position(), "types": types}
            rows = [row for batch in store.read_data(**span) for row in batch]
            found = []
            for batch in store.read_lines(**span, members=members, batch_size=batch_size):
                some = []
                for type_, version, positions, lines, sound in batch:
                    assert sound == (column == "jsonb")
                    split = lines.split(b"\n")[:-1]
                    assert len(split) == len(positions)
                    some += [(n, type_, version, d) for n, d in zip(positions, split, strict=True)]
                assert len(some) <= batch_size
                found += sorted(some)
        assert [row[:3] for row in found] == [row[:3] for row in rows]
        for (*_, type_, version, whole), (*_, part) in zip(rows, found, strict=True):
            wanted = members.get((type_, version))
            value = codec.decode(whole)
            if column != "jsonb":
                assert part == whole
            elif wanted is None or "\0" in "".join(wanted):
                assert codec.compact(part) == whole
            elif isinstance(value, dict):
                kept = {key: value[key] for key in wanted if key in value}
                assert codec.encode(codec.decode(part)) == codec.encode(kept)
            else:
                assert codec.decode(part) == value

    check()


def test_lines_that_one_value_cannot_hold_are_read_in_smaller_parts(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server refuses it: a value has at most 1 GB."""
    send, refused = PostgresStore._send, []

    def refusing(self: PostgresStore, sql: str, bound: Any) -> Any:
        if bound["limit"] > 2:
            refused.append(bound["limit"])
            sql = sql.replace("count(*)::bigint", "length(repeat(type, 2000000000))", 1)
        return send(self, sql, bound)

    monkeypatch.setattr(PostgresStore, "_send", refusing)
    with open_store(postgres_url, mode="create") as store:
        store.append("s-1", [NewEvent("T", b'{"n": %d}' % n) for n in range(30)], expected=None)
        span: dict[str, Any] = {"after": 0, "until": 30, "types": None, "members": {}}
        found = list(store.read_lines(**span, batch_size=20))
    assert refused
    assert max(len(some.global_positions) for batch in found for some in batch) <= 2
    assert [n for batch in found for some in batch for n in some.global_positions] == [
        *range(1, 31)
    ]
