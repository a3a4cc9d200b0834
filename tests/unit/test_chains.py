"""Chains and typed steps: the compiled reading is the plain one, and nothing is lost in silence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import (
    Registry,
    codec,
    data_downcaster,
    data_upcaster,
    downcaster,
    drop_event,
    merge,
    model_downcaster,
    model_upcaster,
    ops,
    part,
    rename_type,
    schema,
    split_event,
    split_upcaster,
    upcaster,
)
from eventmig.chains import Chains
from eventmig.drafts import Draft
from eventmig.errors import NewerEventError, OpError, RegistryError, UpcastError
from eventmig.events import Event, part_id
from eventmig.ops import Loss
from eventmig.release import Release
from tests.unit.json_and_ops import Program, Value, with_data

# compiled and plain ------------------------------------------------------------------------------


def stored(type: str, data: object, *, version: int = 1, metadata: bytes | None = b"{}") -> Event:
    text = data if isinstance(data, bytes) else codec.encode_checked(data)
    return Event(7, "s-1", 3, "the-id", type, version, text, metadata, 99)


def outcome(read: Any, event: Event) -> object:
    """What a reading yields, in values; or that it refuses."""
    try:
        drafts: list[Draft] = read(event)
    except UpcastError as error:
        return type(error), error.where.stream, error.where.stream_position
    return [(d[:1], d.version, codec.canonical(d.values()), *d[4:]) for d in drafts]


@st.composite
def chains(draw: st.DrawFn) -> tuple[Chains, Value]:
    """A chain of random programs, which may end in a rename, a drop, or a split."""
    first, data = draw(with_data(2))
    programs: list[Program] = [first, *draw(st.lists(st.just(draw(with_data(2))[0]), max_size=2))]
    steps: list[Any] = [upcaster("T", n, *program) for n, program in enumerate(programs, 1)]
    last, tail = len(programs) + 1, draw(with_data(1))[0]
    match draw(st.sampled_from(["go on", "rename", "drop", "parts", "function"])):
        case "rename":
            steps.append(rename_type("T", last, *tail, to="U", to_version=2))
        case "drop":
            steps.append(drop_event("T", last, why="x"))
        case "parts":
            steps += [
                split_event("T", last, part("U", *tail), part("V", when=ops.present("a"))),
                upcaster("V", 1, *first),
            ]
        case "function":
            made = split_upcaster("T", last, into=[("U", 1), ("V", 1)])
            steps += [made(_each_member), upcaster("V", 1, *first)]
    return Registry(steps).chains, data


def _each_member(data: Any) -> list[tuple[str, Any]]:
    return [("U" if n % 2 else "V", {key: item}) for n, (key, item) in enumerate(data.items())]


@given(made=chains(), metadata=st.sampled_from([None, b"{}", b'{"a":{"b":[1,2.50]}}']))
@settings(max_examples=200)
def test_the_compiled_reading_is_the_plain_one(
    made: tuple[Chains, Value], metadata: bytes | None
) -> None:
    chains, data = made
    event = stored("T", data, metadata=metadata)
    assert outcome(chains.upcast, event) == outcome(chains.walk, event)
    assert outcome(chains.plain, event) == outcome(chains.walk, event)


def test_nothing_to_do_leaves_the_very_bytes() -> None:
    registry = Registry([upcaster("T", 1), rename_type("Old", 1, to="New"), upcaster("U", 1)])
    for type_, version in [("T", 1), ("T", 2), ("Old", 1), ("Never", 5), ("U", 1)]:
        data = b'{ "a" : 1.10 , "a": "\\ud800" }'
        for read in (registry.chains.upcast, registry.chains.walk):
            (draft,) = read(stored(type_, data, version=version))
            assert draft.data is data or draft.data == data


def test_a_newer_version_is_told_from_an_older_one_nobody_knows() -> None:
    registry = Registry([upcaster("T", 1), rename_type("A", 1, to="B", to_version=3)])
    with pytest.raises(NewerEventError, match=r"T v3 is newer than what is known \(v2\)"):
        registry.upcast(stored("T", {}, version=3))
    with pytest.raises(NewerEventError, match="A v2 is newer"):
        registry.upcast(stored("A", {}, version=2))
    with pytest.raises(UpcastError, match="no upcaster starts at B v1") as caught:
        registry.upcast(stored("B", {}))
    assert not isinstance(caught.value, NewerEventError)
    for read in (registry.chains.upcast, registry.chains.walk):
        with pytest.raises(NewerEventError) as newer:
            read(stored("T", {}, version=3))
        assert newer.value.where.stream == "s-1"
        assert newer.value.where.stream_position == 3


class Narrow(msgspec.Struct, forbid_unknown_fields=True):
    n: int


def narrow(type_: str, version: int) -> Any:
    return schema(type_, version)(type("Narrow", (Narrow,), {}, forbid_unknown_fields=True))


def test_both_validate_where_the_chain_ends_also_after_a_split() -> None:
    split = split_event("T", 1, part("U"), part("V"))
    registry = Registry([split, upcaster("V", 1, ops.drop("x"))], schemas=[narrow("U", 1)])
    bad = stored("T", {"n": 1, "x": 2})
    for read in (registry.chains.upcast, registry.chains.walk):
        with pytest.raises(UpcastError, match="U v1 rejects the data") as caught:
            read(bad)
        assert caught.value.where.step == "T v1 → U v1 + V v1"
    assert len(registry.upcast(stored("T", {"n": 1}))) == 2


def test_the_step_that_first_left_the_schemas_is_named() -> None:
    """A chain is validated at its end; a failure is explained version by version."""
    steps = [upcaster("T", 1, ops.add("x", 1)), upcaster("T", 2, ops.add("y", 1))]
    registry = Registry(steps, schemas=[narrow("T", 2), narrow("T", 3)])
    with pytest.raises(UpcastError, match="T v2 rejects") as caught:
        registry.upcast(stored("T", {"n": 1}))
    assert caught.value.where.step == "T v1 → v2"
    steps = [steps[0], upcaster("T", 2, ops.drop("x"))]
    mended = Registry(steps, schemas=[narrow("T", 2), narrow("T", 3)])
    for read in (mended.chains.upcast, mended.chains.walk):
        assert [d.version for d in read(stored("T", {"n": 1}))] == [("T", 3)]


def test_what_a_split_function_yields_is_checked() -> None:
    @split_upcaster("T", 1, into=[("U", 1)])
    def split(data: dict[str, Any]) -> Any:
        return data["yields"] and [(data["yields"], {"n": 1})]

    chains = Registry([split]).chains
    for read in (chains.upcast, chains.walk):
        assert [d.type for d in read(stored("T", {"yields": "U"}))] == ["U"]
        assert read(stored("T", {"yields": []})) == []
        with pytest.raises(UpcastError, match="'V', which is not in `into`"):
            read(stored("T", {"yields": "V"}))
        with pytest.raises(UpcastError, match="returned nothing"):
            read(stored("T", {"yields": None}))


def test_before_and_after_shows_each_step() -> None:
    registry = Registry(
        [
            upcaster("T", 1, ops.rename("a", "b")),
            split_event("T", 2, part("U"), part("V")),
            upcaster("V", 1, ops.add("c", 1)),
        ]
    )
    shown = registry.chains.walker.before_and_after(stored("T", {"a": 1}))
    assert [(name, [(d.version, d.data) for d in drafts]) for name, drafts in shown] == [
        ("T v1 → v2", [(("T", 2), b'{"b":1}')]),
        ("T v2 → U v1 + V v1", [(("U", 1), b'{"b":1}'), (("V", 1), b'{"b":1}')]),
        ("V v1 → v2", [(("U", 1), b'{"b":1}'), (("V", 2), b'{"b":1,"c":1}')]),
    ]


# for applications --------------------------------------------------------------------------------


def test_upcast_keeps_the_place_and_gives_parts_their_own_ids() -> None:
    registry = Registry([split_event("T", 1, part("U"), part("V"))])
    first, second = registry.upcast(stored("T", {}))
    assert (first.id, second.id) == ("the-id", part_id("the-id", 1))
    for event in (first, second):
        assert (event.stream, event.stream_position, event.global_position) == ("s-1", 3, 7)
        assert (event.metadata, event.recorded_at) == (b"{}", 99)
    batch = [stored("T", {}), stored("X", {})]
    assert registry.upcast_batch(batch) == [first, second, batch[1]]
    assert registry.upcast_batch(batch)[2] is batch[1]


def test_upcast_stream_takes_the_stream_steps_and_counts_anew() -> None:
    registry = Registry(
        [
            merge("pair", "A", "B", into="C", streams="s-*"),
            drop_event("X", 1, why="x"),
            upcaster("C", 1, ops.add("new", 1)),
        ]
    )
    events = [
        stored(t, {t: 1})._replace(stream_position=n, global_position=n, id=t)
        for n, t in enumerate("XABZ", 5)
    ]
    merged, last = registry.upcast_stream(events)
    assert (merged.type, merged.schema_version, merged.stream_position) == ("C", 2, 5)
    assert merged.data == b'{"A":1,"B":1,"new":1}'
    assert [o.stream_position for o in merged.origins] == [6, 7]
    assert (last.type, last.stream_position, last.id) == ("Z", 6, "Z")
    assert registry.upcast_stream([]) == []


@schema("Order", version=1)
class OrderV1(msgspec.Struct):
    total: str


@schema("Order", version=2)
class OrderV2(pydantic.BaseModel):
    cents: int


@schema("Order", version=3)
class Order(msgspec.Struct):
    cents: int
    currency: str = "EUR"


@model_upcaster
def to_cents(old: OrderV1) -> OrderV2:
    """Money is counted in cents."""
    return OrderV2(cents=int(Decimal(old.total) * 100))


@model_upcaster
def with_currency(old: OrderV2) -> Order:
    return Order(cents=old.cents)


@model_downcaster(exact=True)
def from_cents(new: OrderV2) -> OrderV1:
    return OrderV1(total=str(Decimal(new.cents) / 100))


TYPED = Registry([to_cents, with_currency, from_cents], schemas=[OrderV1, OrderV2, Order])


def test_typed_upcasters_read_type_and_version_from_their_models() -> None:
    assert to_cents.name == "Order v1 → v2"
    assert to_cents.why == "Money is counted in cents."
    assert TYPED.load(stored("Order", {"total": "12.50"})) == Order(1250)
    assert TYPED.load(stored("Order", {"cents": 7}, version=2)) == Order(7)
    assert TYPED.load(stored("Order", {"cents": 7, "currency": "X"}, version=3)) == Order(7, "X")


@pytest.mark.parametrize(
    ("data", "version", "said", "path"),
    [
        (
            {"total": "1", "note": "x"},
            1,
            "the model of Order v1 would lose the member note",
            "note",
        ),
        ({"cents": 1, "note": "x"}, 2, "Order v2 would lose the member note", "note"),
        ({"cents": "1"}, 2, "Order v2 rejects the data", "cents"),
        ({}, 1, "Order v1 rejects the data", None),
        ({"total": 1}, 1, "Order v1 rejects the data: Expected `str`, got `int`", "total"),
    ],
)
def test_typed_upcasters_refuse_what_they_would_lose(
    data: dict[str, Any], version: int, said: str, path: str | None
) -> None:
    with pytest.raises(UpcastError) as caught:
        TYPED.upcast(stored("Order", data, version=version))
    assert said in caught.value.what
    assert caught.value.where.path == path
    assert caught.value.where.step == f"Order v{version} → v{version + 1}"


class Line(msgspec.Struct):
    sku: str


@schema("Deep", version=1)
class DeepV1(msgspec.Struct):
    lines: list[Line]


@schema("Deep", version=2)
class Deep(pydantic.BaseModel):
    skus: list[str]


@model_upcaster
def only_skus(old: DeepV1) -> Deep:
    return Deep(skus=[line.sku for line in old.lines])


def test_unknown_members_deep_inside_are_refused_too() -> None:
    event = stored("Deep", {"lines": [{"sku": "a"}, {"sku": "b", "n": 2}]})
    with pytest.raises(UpcastError, match=r"would lose the member lines\[1\]\.n"):
        Registry([only_skus]).upcast(event)


def test_load_asks_for_one_event_and_a_model() -> None:
    registry = Registry([split_event("T", 1, part("Order", version=3), part("U"))], schemas=[Order])
    data = {"cents": 1, "currency": "X"}
    with pytest.raises(UpcastError, match="stands for 2 events"):
        registry.load(stored("T", data))
    with pytest.raises(UpcastError, match="U v1 has no model"):
        registry.load_all(stored("T", data))
    gone = Registry([drop_event("T", 1, why="x")])
    assert gone.load_all(stored("T", {})) == []
    only = Registry([split_event("T", 1, part("Order", version=3))], schemas=[Order])
    assert only.load_all(stored("T", data)) == [Order(1, "X")]


def test_a_typed_step_needs_two_marked_models() -> None:
    def unmarked(old: msgspec.Struct) -> msgspec.Struct:
        return old

    def nothing(old: int) -> None: ...

    unmarked.__annotations__ = {"old": msgspec.Struct, "return": msgspec.Struct}
    with pytest.raises(RegistryError, match="does not say which event type"):
        model_upcaster(unmarked)
    with pytest.raises(RegistryError, match=r"one model and return one|does not say which"):
        model_upcaster(nothing)


def test_a_typed_step_that_returns_nothing() -> None:
    def forgets(old: OrderV1) -> OrderV2: ...  # type: ignore[empty-body]

    forgets.__annotations__ = {"old": OrderV1, "return": OrderV2}
    with pytest.raises(UpcastError, match="returned nothing"):
        Registry([model_upcaster(forgets)]).upcast(stored("Order", {"total": "1"}))


def test_metadata_can_be_taken_into_the_data() -> None:
    registry = Registry([upcaster("T", 1, ops.add("by", ops.from_metadata("who", otherwise="?")))])
    for metadata, by in [(b'{"who": "ada"}', "ada"), (b"{}", "?"), (None, "?")]:
        (event,) = registry.upcast(stored("T", {}, metadata=metadata))
        assert codec.decode(event.data) == {"by": by}
        assert event.metadata == metadata
    with pytest.raises(UpcastError) as caught:
        registry.upcast(stored("T", {}, metadata=b"no JSON"))
    assert caught.value.where.step == "T v1 → v2"


# ways back ---------------------------------------------------------------------------------------


def test_the_way_back_is_the_ops_own_or_the_declared_one() -> None:
    exact = Registry([upcaster("T", 1, ops.rename("a", "b"), ops.add("c", 1))])
    back = exact.downcaster(("T", 2))
    assert back is not None
    assert (back.to, back.loss) == (("T", 1), Loss.EXACT)
    value: Value = {"b": 1, "c": 1}
    for op in back.ops:
        value = op.up(value, stored("T", {}))
    assert value == {"a": 1}

    @data_upcaster("T", 1)
    def up(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @data_downcaster("T", 2, exact=True)
    def down(data: dict[str, Any]) -> dict[str, Any]:
        return data

    assert Registry([up]).downcaster(("T", 2)) is None
    declared = Registry([up, down]).downcaster(("T", 2))
    assert declared is not None
    assert declared.loss is Loss.EXACT
    lossy = Registry([up, downcaster("T", 2, ops.drop("x"))]).downcaster(("T", 2))
    assert lossy is not None
    assert lossy.loss is Loss.LOSSY
    assert Registry([up]).downcaster(("T", 1)) is None


def test_a_typed_way_back() -> None:
    back = TYPED.downcaster(("Order", 2))
    assert back is not None
    assert (back.to, back.loss) == (("Order", 1), Loss.EXACT)
    assert back.ops[0].up({"cents": 1250}, stored("Order", {})) == {"total": "12.5"}
    with pytest.raises(OpError, match="would lose the member x"):
        back.ops[0].up({"cents": 1, "x": 2}, stored("Order", {}))


# at a release ------------------------------------------------------------------------------------


def test_an_older_release_takes_only_its_own_steps() -> None:
    old = Registry([upcaster("T", 1), merge("pair", "A", "B", into="C", streams="*")])
    release = old.freeze("1")
    new = Registry(
        [
            upcaster("T", 1),
            merge("pair", "A", "B", into="C", streams="*"),
            upcaster("T", 2, ops.add("later", 1)),
            drop_event("Later", 1, why="x"),
            upcaster("C", 1, ops.add("later", 1)),
            merge("more", "D", "E", into="F", streams="*"),
        ]
    )
    pipeline = new.at(release)
    assert [s.name for s in pipeline.stream_steps] == ["pair"]
    for event in (
        stored("T", {}),
        stored("T", {}, version=2),
        stored("Later", {}),
        stored("C", {}),
    ):
        (draft,) = pipeline.chains.upcast(event)
        assert draft.version == (event.type, 2 if event.type == "T" else 1)
        assert draft.data == b"{}"
    assert new.at(release, done=["pair"]).stream_steps == ()
    with pytest.raises(NewerEventError, match="T v3"):
        pipeline.chains.upcast(stored("T", {}, version=3))


def test_a_release_that_the_code_cannot_reach_is_refused() -> None:
    with pytest.raises(RegistryError, match="has T at v2, and the registry ends at v1"):
        Registry([]).at(Release(name="1", types={"T": 2}))
    with pytest.raises(RegistryError, match="steps the registry lacks: pair"):
        Registry([]).at(Release(name="1", types={}, steps={"pair": "x"}))
