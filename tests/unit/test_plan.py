"""Plans: what would happen to each type, and samples that people can read."""

from __future__ import annotations

from typing import Any

from eventmig import Registry, drop_event, merge, ops, part, rename_streams, split_event, upcaster
from eventmig.events import Event, TypeCount
from eventmig.plan import Plan, make_plan

STEPS: list[Any] = [
    upcaster("Up", 1, ops.rename("a", "b"), why="b is the word"),
    upcaster("Up", 2, ops.add("c", 1)),
    drop_event("Gone", 1, why="nobody reads it"),
    split_event("Both", 1, part("One"), part("Two")),
    merge("pair", "A", "B", into="C", streams="s-*", why="one fact"),
    rename_streams("words", "cart-{id}", to="basket-{id}"),
]


def plan(counts: list[tuple[str, int, int]], *samples: tuple[str, int, bytes]) -> Plan:
    registry = Registry(STEPS)
    events = [
        Event(n, "s-1", n, f"id-{n}", type_, version, data, None, 0)
        for n, (type_, version, data) in enumerate(samples, 1)
    ]
    pipeline = registry.at(registry.freeze("2"))
    return make_plan(
        pipeline, [TypeCount(*c) for c in counts], events, source="here", target="there"
    )


def test_the_outcome_of_every_type() -> None:
    counts = [
        ("Both", 1, 1),
        ("Free", 4, 2),
        ("Gone", 1, 3),
        ("Up", 1, 4),
        ("Up", 2, 5),
        ("Up", 3, 6),
    ]
    found = plan([*counts, ("Up", 9, 7)])
    assert [(t.type, t.schema_version, t.outcome, t.steps) for t in found.types] == [
        ("Both", 1, "split", ("Both v1 → One v1 + Two v1",)),
        ("Free", 4, "copy", ()),
        ("Gone", 1, "drop", ("Gone v1 → (dropped)",)),
        ("Up", 1, "upcast", ("Up v1 → v2", "Up v2 → v3")),
        ("Up", 2, "upcast", ("Up v2 → v3",)),
        ("Up", 3, "copy", ()),
        ("Up", 9, "refuse", ()),
    ]
    assert found.events == 28
    assert [found.count(o) for o in ("copy", "upcast", "split", "drop", "refuse")] == [
        8,
        9,
        1,
        3,
        7,
    ]
    assert found.problems == ("7 events of Up v9, which this release does not know",)


def test_stream_and_store_steps_are_named() -> None:
    found = plan([])
    assert [(s.name, s.streams, s.why) for s in found.steps] == [
        ("pair", "s-*", "one fact"),
        ("words", "cart-{id} → basket-{id}", ""),
    ]
    assert (found.release, found.source, found.target) == ("2", "here", "there")


def test_a_sample_is_a_readable_diff() -> None:
    (sample,) = plan([], ("Up", 1, b'{"a": 1.10, "keep": "\xc3\xa9"}')).samples
    assert sample.diff == (
        "-Up v1",
        "+Up v3",
        " {",
        '-  "a": 1.10,',
        '-  "keep": "é"',
        '+  "b": 1.10,',
        '+  "keep": "é",',
        '+  "c": 1',
        " }",
    )


def test_samples_of_a_split_of_a_drop_and_of_a_failure() -> None:
    split, gone, bad = plan(
        [], ("Both", 1, b"{}"), ("Gone", 1, b"no JSON"), ("Up", 1, b'{"a":1,"b":2}')
    ).samples
    assert len(split.after) == 2
    assert gone.after == ()
    assert "there is a member at b already" in bad.error
    assert "Up v1 → v2" in bad.error
    found = plan([], ("Up", 1, b'{"a":1,"b":2}'))
    assert found.problems == (found.samples[0].error,)
