"""A rebuild that reads data alone gives what one that reads whole events gives."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine
from sqlalchemy.pool import StaticPool

from eventmig import codec, ops
from eventmig.chains import DataChain
from eventmig.errors import EventmigError, RebuildError, UpcastError
from eventmig.events import Event
from eventmig.ops import from_metadata
from eventmig.ops.base import BaseOp
from eventmig.rebuild import ReadModel, Rows, rebuild_read_models
from eventmig.rebuild.handlers import call_with_data, handler_of
from eventmig.registry import Registry
from eventmig.schemas import schema
from eventmig.steps import data_upcaster, drop_event, part, rename_type, split_event, upcaster
from eventmig.stores.faster import DataLines, Members
from tests.unit.rebuild_helpers import MemorySource, history, rows_of

totals = Table(
    "totals",
    MetaData(),
    Column("key", String, primary_key=True),
    Column("events", Integer, nullable=False, default=0),
    Column("amount", Integer, nullable=False, default=0),
    Column("last", String),
)


@schema("Paid", version=3)
class Paid(Struct):
    key: str
    amount: int


class Renamed(Struct, rename="pascal"):
    key: str


class Strict(Struct, forbid_unknown_fields=True):
    key: str


class Tagged(Struct, tag=True):
    key: str


class Listed(Struct, array_like=True):
    key: str


@data_upcaster("Sent", 1)
def sent(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"amount": data["amount"] + 1}


class OfOthers(BaseOp):
    """An op of the user's own: it may look at anything."""

    def up(self, data: Any, event: Event) -> Any:
        return data | {"key": event.stream}

    def inverse(self) -> None:
        return None


registry = Registry(
    [
        upcaster("Paid", 1, ops.rename("sum", "amount")),
        upcaster("Paid", 2, ops.convert("amount", "text_to_integer")),
        sent,
        rename_type("Old", 1, ops.rename("sum", "amount"), to="Sent", to_version=2),
        upcaster("Moved", 1, ops.add("amount", from_metadata("amount", otherwise=7))),
        split_event("Both", 1, part("Sent", version=2), part("Moved", version=2)),
        drop_event("Gone", 1, why="nobody asked"),
        upcaster("Mine", 1, OfOthers()),
    ],
    schemas=[Paid],
)

NARROW = ["Paid1", "Paid2", "Paid3", "Sent1", "Sent2", "Old1", "Moved2", "Seen1", "Seen9"]
WHOLE = ["Moved1", "Both1", "Gone1", "Mine1"]


def stored(kind: str, key: str, amount: int) -> tuple[str, int, dict[str, Any]]:
    type_, version = kind[:-1], int(kind[-1])
    name = "sum" if kind in ("Paid1", "Old1") else "amount"
    value = str(amount) if kind in ("Paid1", "Paid2") else amount
    return type_, version, {"key": key, **({} if kind == "Moved1" else {name: value})}


def events_of(entries: list[tuple[str, str, int]]) -> list[Event]:
    made = [stored(*entry) for entry in entries]
    return [
        event._replace(schema_version=version, metadata=b'{"amount":3}' if n % 2 else None)
        for n, (event, (_, version, _)) in enumerate(
            zip(history((f"s-{d['key']}", t, d) for t, _, d in made), made, strict=True)
        )
    ]


def model() -> ReadModel:
    made = ReadModel("totals", tables=[totals])

    @made.on("Paid")
    def paid(data: Paid, *, rows: Rows) -> None:
        rows.increment(totals, data.key, events=1, amount=data.amount)

    @made.on("Sent", "Moved", "Mine")
    def other(rows: Rows, data: dict) -> None:  # type: ignore[type-arg]
        if data["amount"] == 13:
            rows.patch(totals, data["key"], last="patched")
        elif data["amount"] == 14:
            raise ValueError("fourteen")
        before = rows.get(totals, data["key"])
        rows.upsert(totals, data["key"], last=f"{before and before['events']}")

    @made.on("Seen")
    def seen(*, rows: Rows) -> None:
        rows.increment(totals, "seen", events=1)

    return made


class Counting(MemorySource):
    """Counts the whole events it was asked for."""

    whole = 0

    def read_all(self, **options: Any) -> Iterator[list[Event]]:
        for batch in super().read_all(**options):
            self.whole += len(batch)
            yield batch

    def read_data(self, **options: Any) -> Iterator[list[Any]]:
        for batch in super().read_all(**options):
            yield [(e.global_position, e.type, e.schema_version, e.data) for e in batch]


class InLines(Counting):
    """Puts the data of a batch together, and leaves out of objects what nobody looks at.

    As from `jsonb`, where no data is stored with newlines: sound, with spaces between tokens.
    """

    def shares_cores(self) -> bool:
        return False

    def read_lines(self, *, members: Members, **options: Any) -> Iterator[list[DataLines]]:
        for batch in super().read_data(**options):
            sound = not any(b"\n" in data for *_, data in batch)
            found: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
            for position, type_, version, data in reversed(batch):
                wanted = members.get((type_, version))
                values = json.loads(data)
                if wanted is not None and isinstance(values, dict):
                    data = json.dumps({k: values[k] for k in wanted if k in values}).encode()
                elif sound:
                    data = json.dumps(values).encode()
                found.setdefault((type_, version), []).append((position, data))
            yield [
                DataLines(
                    *kind, [n for n, _ in some], b"".join(data + b"\n" for _, data in some), sound
                )
                for kind, some in found.items()
            ]


def rebuilt(
    events: list[Event], *, narrow: bool, lines: bool = False, **options: Any
) -> tuple[Any, int]:
    """What a rebuild comes to (its rows, or its error), and how many whole events it read."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    source = InLines(events) if lines else Counting(events)
    try:
        (result,) = rebuild_read_models(
            [model()],
            source=source,
            upcast=registry.upcast_batch,
            engine=engine,
            release="1",
            source_types=registry.sources_of if options.pop("typed", False) else None,
            data_upcaster=registry.data_upcaster if narrow else None,
            **options,
        )
        counts = (result.events_read, result.events_folded, result.position)
        return (rows_of(engine, totals), counts), source.whole
    except EventmigError as error:
        return (type(error), error.what, error.where, error.remedy), source.whole
    finally:
        engine.dispose()


amounts = st.integers(0, 9) | st.sampled_from([13, 14])


def entries(kinds: Collection[str]) -> st.SearchStrategy[list[tuple[str, str, int]]]:
    return st.lists(st.tuples(st.sampled_from([*kinds]), st.sampled_from("ab"), amounts))


@settings(max_examples=150)
@given(
    st.one_of(entries(NARROW), entries(NARROW + WHOLE)),
    st.integers(1, 15),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)
def test_narrow_and_whole_reading_come_to_the_same(
    history_: list[tuple[str, str, int]],
    batch_size: int,
    max_rows: int,
    typed: bool,
    lines: bool,
    spread: int,
) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "max_rows": max_rows, "typed": typed}
    events = events_of(history_)
    for at, event in enumerate(events[:spread]):  # data that is no line
        events[at] = event._replace(data=event.data.replace(b",", b",\n"))
    wanted, _ = rebuilt(events, narrow=False, **options)
    found, whole = rebuilt(events, narrow=True, lines=lines, **options)
    assert found == wanted
    if not any(kind in WHOLE for kind, _, _ in history_) and not isinstance(found[0], type):
        assert whole == 0


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_events_are_read_from_the_first_that_needs_to_be_whole(kind: str) -> None:
    before, after = [("Paid1", "a", 1)] * 10, [("Paid3", "a", 2)] * 5
    events = events_of([*before, (kind, "b", 3), *after])
    found, whole = rebuilt(events, narrow=True)
    assert found == rebuilt(events, narrow=False)[0]
    assert whole == 6


def test_a_handler_that_takes_the_event_is_given_it() -> None:
    made = ReadModel("whole", tables=[totals])
    ids: list[str] = []

    @made.on("Paid")
    def paid(data: Paid, event: Event, rows: Rows) -> None:
        ids.append(event.id)

    engine = create_engine("sqlite://", poolclass=StaticPool)
    rebuild_read_models(
        [made],
        source=MemorySource(events_of([("Paid1", "a", 1)])),
        upcast=registry.upcast_batch,
        engine=engine,
        release="1",
        data_upcaster=registry.data_upcaster,
    )
    engine.dispose()
    assert ids == ["event-1"]


def test_errors_name_the_place_and_the_step_as_from_whole_events() -> None:
    good = ("Paid3", "a", 1)
    bad = events_of([good, ("Paid1", "a", 2), good])
    bad[1] = bad[1]._replace(data=b'{"key":"a","sum":"many"}')
    newer = events_of([good, ("Paid9", "a", 2)])
    raising = events_of([good, ("Sent2", "a", 14)])
    unfit = events_of([good, ("Paid3", "a", 2)])
    unfit[1] = unfit[1]._replace(data=b'{"key":5}')
    for events, kind, word in (
        (bad, UpcastError, "Paid v2 → v3"),
        (newer, UpcastError, "newer"),
        (raising, RebuildError, "fourteen"),
        (unfit, RebuildError, "does not fit its handler"),
    ):
        wanted, _ = rebuilt(events, narrow=False)
        for lines in (False, True):
            found, _ = rebuilt(events, narrow=True, lines=lines)
            assert found == wanted
            assert issubclass(found[0], kind)
            assert word in found[1] + str(found[2])
            assert (found[2].event_id, found[2].stream_position) == ("event-2", 2)


@pytest.mark.parametrize(
    ("annotation", "members"),
    [
        (Paid, ["key", "amount"]),
        (Renamed, ["Key"]),
        (Strict, None),
        (Tagged, None),
        (Listed, None),
        (dict, None),
    ],
)
def test_the_members_that_a_handler_looks_at_are_known(
    annotation: Any, members: list[str] | None
) -> None:
    def handler(data: Any, rows: Rows) -> None:
        pass

    handler.__annotations__["data"] = annotation
    found = call_with_data(handler_of(handler, roles=_ROLES, needs=_ROLES), "rows")
    assert found is not None
    assert found.members == members


_ROLES = frozenset({"rows"})

# --- what the registry says


@pytest.mark.parametrize("kind", NARROW)
def test_the_data_upcaster_does_what_upcast_does(kind: str) -> None:
    (event,) = events_of([(kind, "a", 5)])
    if kind == "Seen9":  # unregistered: it passes through
        assert registry.data_upcaster("Seen", 9) == DataChain("Seen")
    chain = registry.data_upcaster(event.type, event.schema_version)
    assert chain is not None
    type_, new_data, new_lines, model, new_models, new_sound_lines, _ = chain
    if new_models is not None and new_lines is not None:
        assert model is not None
        made = new_models([event.data])
        lines = new_lines([event.data])
        assert made == (None if lines is None else [msgspec.json.decode(lines, type=model)])
    if new_lines is not None:
        assert new_data is not None
        assert new_sound_lines is not None
        assert new_lines([event.data] * 3) in (None, (new_data(event.data) + b"\n") * 3)
        spaced = new_sound_lines([event.data.replace(b":", b": ")] * 3)
        if spaced is not None:
            assert [codec.compact(line) for line in spaced.splitlines()] == [
                new_data(event.data)
            ] * 3
    (current,) = registry.upcast(event)
    assert type_ == current.type
    data = event.data if new_data is None else new_data(event.data)
    assert codec.decode(data) == codec.decode(current.data)


def test_a_step_without_ops_is_validated_and_keeps_the_bytes() -> None:
    @schema("T", version=2)
    class Two(Struct):
        n: int

    chain = Registry([upcaster("T", 1)], schemas=[Two]).data_upcaster("T", 1)
    assert chain is not None
    assert chain[1] is not None
    assert chain[1](b'{ "n": 1 }') == b'{ "n": 1 }'
    with pytest.raises(EventmigError, match="rejects"):
        chain[1](b"{}")


@pytest.mark.parametrize(
    "version", [*((k[:-1], int(k[-1])) for k in WHOLE), ("Paid", 4), ("Gone", 2)]
)
def test_there_is_none_where_the_whole_event_is_needed(version: tuple[str, int]) -> None:
    assert registry.data_upcaster(*version) is None


def test_metadata_is_found_inside_other_ops() -> None:
    inner = ops.add("x", from_metadata("x"))
    for op in (ops.each("list", inner), ops.when(ops.present("a"), inner)):
        assert Registry([upcaster("T", 1, op)]).data_upcaster("T", 1) is None
