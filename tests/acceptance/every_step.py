"""A registry with every kind of step, for histories that hypothesis makes."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from eventmig import (
    Draft,
    EventSchema,
    Registry,
    Unfinished,
    data_upcaster,
    drop_event,
    merge,
    move_attribute,
    ops,
    part,
    rename_streams,
    rename_type,
    reorder,
    route,
    schema,
    split_event,
    split_upcaster,
    stream_step,
    upcaster,
)


@schema("Opened", version=3)
class Opened(Struct, forbid_unknown_fields=True):
    title: str
    n: float
    currency: str
    note: str | UnsetType = UNSET


@data_upcaster("Counted", 1)
def counted(data: dict[str, object]) -> dict[str, object]:
    return {**data, "twice": [data["n"], data["n"]]}


@split_upcaster("Listed", 1, into=[("Item", 1), ("Opened", 2)])
def listed(data: dict[str, list[object]]) -> list[tuple[str, object]]:
    return [
        ("Item", {"i": item}) if index % 2 else ("Opened", {"title": "x", "n": item})
        for index, item in enumerate(data["items"])
    ]


@stream_step("late ones go", streams="odd-*")
def late_ones_go(drafts: list[Draft]) -> list[Draft]:
    """The events after the third opening, but for notes, are dropped; each note is doubled."""
    opened = 0
    out: list[Draft] = []
    for draft in drafts:
        opened += draft.type == "Opened"
        if draft.type == "Noted":
            out += [draft, draft._replace(type="NotedAgain")]
        elif opened <= 3:
            out.append(draft)
    return out


REGISTRY = Registry(
    [
        upcaster("Opened", 1, ops.rename("name", "title")),
        upcaster("Opened", 2, ops.add("currency", "EUR")),
        counted,
        listed,
        rename_type("Old", 1, ops.add("o", 1), to="New", to_version=2),
        upcaster("Who", 1, ops.add("by", ops.from_metadata("who", otherwise="nobody"))),
        drop_event("Noise", 1, why="nobody reads it"),
        split_event(
            "Both",
            1,
            part("Left", ops.drop("right")),
            part("Right", ops.drop("left"), when=ops.present("right")),
        ),
        upcaster("Right", 1, ops.rename("right", "r")),
        merge("pair", "First", "Second", into="Whole", streams="pair-*", by="key"),
        merge(
            "strict pair", "Start", "End", into="Span", streams="pair-*", unfinished=Unfinished.DROP
        ),
        move_attribute("note", "note", source="Noted", target="Opened", streams="pair-*"),
        reorder("closing", move="Opened", before="Noted", streams="odd-*"),
        late_ones_go,
        rename_streams("carts are baskets", "cart-{id}", to="basket-{id}"),
        route(
            "by item",
            "{any}",
            types=["Item"],
            to="items-{data.i}",
            when=ops.is_kind("i", "integer"),
        ),
    ],
    schemas=[EventSchema("Opened", 3, Opened)],
)
