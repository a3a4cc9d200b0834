"""Handlers that only add are recognised, and no others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct
from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, Integer, MetaData, Numeric, String, Table

from eventmig.events import Event
from eventmig.rebuild import ReadModel, Rows, Sql
from eventmig.rebuild.additions import Addition, Field
from eventmig.stores.faster import Addend, Member
from eventmig.testing import assert_only_adds

totals = Table(
    "totals",
    MetaData(),
    Column("who", String, primary_key=True),
    Column("events", Integer, nullable=False, default=0),
    Column("cents", Numeric),
)
cells = Table(
    "cells",
    MetaData(),
    Column("row", String, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False, default=0),
)
needy = Table(
    "needy",
    MetaData(),
    Column("who", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("count", Integer, nullable=False),
)
ONE, ONCE, BY_NAME = 1, {"events": 1}, {"who": "all"}


class Place(Struct):
    row: str
    number: int


class Paid(Struct, rename={"cents": "amount_cents"}):
    who: str
    cents: int
    place: Place


PAID = (
    Field("who", Member(("who",), str)),
    Field("cents", Member(("amount_cents",), int)),
    Field("place.row", Member(("place", "row"), str)),
    Field("place.number", Member(("place", "number"), int)),
)
WHO, CENTS, ROW, NUMBER = PAID


def read(handler: Callable[..., None]) -> Any:
    model = ReadModel("model", tables=[totals, cells, needy])
    model.on("Paid")(handler)
    return model.additions.get("Paid")


def counted(data: Paid, rows: Rows) -> None:
    """With a docstring."""
    rows.increment(totals, data.who, events=1, cents=data.cents)


def other_way_round(rows: Rows, data: Paid) -> None:
    who = data.who
    rows.increment(totals, key={"who": who}, events=ONE, cents=data.cents)


def in_two_tables(data: Paid, rows: Rows) -> None:
    place = data.place
    rows.increment(cells, (place.row, place.number), count=data.cents)
    rows.increment(cells, {"number": 7, "row": data.who}, count=1)
    rows.increment(totals, "all", events=1)


def without_data(rows: Rows) -> None:
    rows.increment(totals, BY_NAME, events=1)


def by_keyword(*, rows: Rows, data: Paid) -> None:
    rows.increment(totals, data.who, events=1, cents=data.cents)


def test_what_a_handler_adds_is_read_from_it() -> None:
    rest = (ROW.member, NUMBER.member)
    by_who = Addition(totals, ("events", "cents"), (WHO,), (1, CENTS), rest)
    assert read(counted) == (by_who,)
    assert read(other_way_round) == (by_who,)
    assert read(in_two_tables) == (
        Addition(cells, ("count",), (ROW, NUMBER), (CENTS,)),
        Addition(cells, ("count",), (WHO, 7), (1,)),
        Addition(totals, ("events",), ("all",), (1,)),
    )
    assert read(without_data) == (Addition(totals, ("events",), ("all",), (1,)),)


def test_an_addition_as_a_store_sums_it() -> None:
    (one,) = read(counted)
    wanted = Addend((WHO.member,), (CENTS.member, None, 1), one.also)
    assert one.addend(("cents", "others", "events")) == wanted


def in_a_closure(table: Table) -> Callable[..., None]:
    def handler(data: Paid, rows: Rows) -> None:
        rows.increment(table, data.who, events=1, cents=data.cents)

    return handler


def test_a_handler_may_name_what_is_around_it() -> None:
    assert read(in_a_closure(totals)) == read(counted)


# --- what could do something else for another event


def branching(data: Paid, rows: Rows) -> None:
    if data.cents:
        rows.increment(totals, data.who, events=1)


def asking_what_it_is(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, events=int(data.cents is None))


def choosing(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who or "nobody", events=1)


def computing(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, cents=data.cents * 2)


def negating(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, cents=-data.cents)


def formatting(data: Paid, rows: Rows) -> None:
    rows.increment(totals, f"{data.who}", events=1)


def slicing(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who[:1], events=1)


def calling(data: Paid, rows: Rows) -> None:
    rows.increment(totals, str(data.who), events=1)


def calling_a_method(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who.lower(), events=1)


def _helper(data: Paid, rows: Rows) -> None:
    if data.cents is not None:
        rows.increment(totals, data.who, events=1)


def by_a_helper(data: Paid, rows: Rows) -> None:
    _helper(data, rows)


def handing_on(data: Paid, rows: Rows) -> None:
    add = rows.increment
    add(totals, data.who, events=1)
    _helper(data, rows)


def looping(data: Paid, rows: Rows) -> None:
    for _ in range(data.cents):
        rows.increment(totals, data.who, events=1)


def catching(data: Paid, rows: Rows) -> None:
    try:
        rows.increment(totals, data.who, events=1)
    except ValueError:
        rows.increment(totals, "wrong", events=1)


def unpacking(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, **ONCE)


def raising(data: Paid, rows: Rows) -> None:
    raise ValueError(data.who)


def asserting(data: Paid, rows: Rows) -> None:
    assert data.cents
    rows.increment(totals, data.who, events=1)


def generating(data: Paid, rows: Rows) -> Any:
    rows.increment(totals, data.who, events=1)
    yield


def doing_nothing(data: Paid, rows: Rows) -> None:
    pass


def upserting(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, events=1)
    rows.upsert(totals, data.who, cents=data.cents)


def looking(data: Paid, rows: Rows) -> None:
    rows.get(totals, data.who)
    rows.increment(totals, data.who, events=1)


def with_the_event(event: Event, rows: Rows) -> None:
    rows.increment(totals, event.stream, events=1)


def with_sql(data: Paid, sql: Sql) -> None:
    pass


def by_its_class(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.__class__.__name__, events=1)


def by_the_name_of_a_method(data: Paid, rows: Rows) -> None:
    rows.increment(totals, rows.increment.__qualname__, events=1)


def by_what_a_text_has_not(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who.attribute, events=1)  # type: ignore[attr-defined]


def by_what_a_number_has(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, events=data.cents.real)


def with_other_rows(data: Paid, rows: Rows) -> None:
    rows = OTHER_ROWS
    rows.increment(totals, data.who, events=1)


class OtherRows(Rows):
    """Its increment is not that of the rows that are given."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def increment(self, *seen: object, **_: object) -> None:
        self.seen.extend(seen)


OTHER_ROWS = OtherRows()


# --- what is an error, for every event or for some


def needing_a_row(data: Paid, rows: Rows) -> None:
    rows.increment(needy, data.who, count=1)


def of_another_model(data: Paid, rows: Rows) -> None:
    rows.increment(Table("t", MetaData(), Column("k", String, primary_key=True)), "k", n=1)


def without_a_column(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, nothing=1)


def changing_the_key(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, who=1)


def by_a_number(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.cents, events=1)


def by_half_a_key(data: Paid, rows: Rows) -> None:
    rows.increment(cells, data.who, count=1)


def by_a_tuple_of_one(data: Paid, rows: Rows) -> None:
    rows.increment(totals, (data.who,), events=1)


def by_a_key_too_many(data: Paid, rows: Rows) -> None:
    rows.increment(totals, {"who": data.who, "cents": data.cents}, events=1)


def adding_text(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, cents=data.who)


def adding_a_fraction(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, cents=1.5)


def adding_truth(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, events=True)


def adding_an_object(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who, cents=data.place)


def adding_nothing(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.who)


def of_no_member(data: Paid, rows: Rows) -> None:
    rows.increment(totals, data.whom, events=1)


OTHERS = [
    branching, asking_what_it_is, choosing, computing, negating, formatting, slicing, calling,
    calling_a_method, by_a_helper, handing_on, looping, catching, unpacking, raising, asserting,
    generating, doing_nothing, upserting, looking, with_the_event, with_sql, needing_a_row,
    of_another_model, without_a_column, changing_the_key, by_a_number, by_half_a_key,
    by_a_tuple_of_one, by_a_key_too_many, adding_text, adding_a_fraction, adding_truth,
    adding_an_object, adding_nothing, of_no_member, by_keyword, by_its_class,
    by_the_name_of_a_method, by_what_a_text_has_not, by_what_a_number_has, with_other_rows,
]  # fmt: skip


@pytest.mark.parametrize("handler", OTHERS, ids=lambda handler: handler.__name__)
def test_a_handler_that_may_do_more_is_left_to_python(handler: Callable[..., None]) -> None:
    assert read(handler) is None


def test_a_handler_that_may_do_more_is_not_tried() -> None:
    """Nothing outside of it sees a stand-in."""
    seen = OTHER_ROWS.seen

    def telling(data: Paid, rows: Rows) -> None:
        seen.append(data.who)
        rows.increment(totals, data.who, events=1)

    def telling_by_a_function(data: Paid, rows: Rows) -> None:
        note(data.who)
        rows.increment(totals, data.who, events=1)

    def telling_by_what_is_around(data: Paid, rows: Rows) -> None:
        noted(data.who)
        rows.increment(totals, data.who, events=1)

    noted = seen.append
    handlers = telling, telling_by_a_function, telling_by_what_is_around, with_other_rows
    assert [read(handler) for handler in handlers] == [None] * 4
    assert seen == []


def note(value: object) -> None:
    OTHER_ROWS.seen.append(value)


def test_one_handler_that_may_do_more_keeps_the_model() -> None:
    model = ReadModel("model", tables=[totals])
    model.on("Paid")(counted)
    assert model.only_adds
    model.on("Other")(branching)
    assert not model.only_adds
    assert model.additions.keys() == {"Paid"}


def test_a_test_names_the_handlers_that_do_more() -> None:
    model = ReadModel("model", tables=[totals])
    model.on("Paid")(counted)
    assert_only_adds(model)
    model.on("Other")(branching)
    model.on("Third")(upserting)
    with pytest.raises(AssertionError) as raised:
        assert_only_adds(model)
    assert "model may do more than add" in str(raised.value)
    assert f"{__name__}:branching, {__name__}:upserting" in str(raised.value)


# --- data whose fit a database could not tell


class Seen(Struct):
    who: str


class Optional(Struct):
    who: str | None


class WithDefault(Struct):
    who: str = "nobody"


class WithFactory(Struct):
    who: str = msgspec.field(default_factory=str)


class Bounded(Struct):
    who: Annotated[str, Meta(min_length=1)]


class Fraction(Struct):
    who: str
    share: float


class Strict(Struct, forbid_unknown_fields=True):
    who: str


class Tagged(Struct, tag="paid"):
    who: str


class Listed(Struct, array_like=True):
    who: str


class Checked(Struct):
    who: str

    def __post_init__(self) -> None:
        if not self.who:
            raise ValueError


class Computed(Struct):
    name: str

    @property
    def who(self) -> str:
        return self.name.lower()


class Shadowed(Seen):
    who = property(lambda self: "somebody")  # type: ignore[assignment]


class Elsewhere(Seen):
    def __getattribute__(self, name: str) -> Any:
        return "somebody"


class Around(Struct):
    who: str
    inner: Strict


class Empty(Struct):
    pass


class AroundNothing(Struct):
    who: str
    empty: Empty


class Validated(BaseModel):
    who: str


@dataclass
class Plain:
    who: str


DATA = [
    Optional, WithDefault, WithFactory, Bounded, Fraction, Strict, Tagged, Listed, Checked,
    Computed, Shadowed, Elsewhere, Around, AroundNothing, Validated, Plain,
]  # fmt: skip


def read_with(type_: Any) -> Any:
    def handler(data: Any, rows: Rows) -> None:
        rows.increment(totals, data.who, events=1)

    handler.__annotations__["data"] = type_
    return read(handler)


def test_data_that_a_database_can_judge() -> None:
    assert read_with(Seen) == (Addition(totals, ("events",), (WHO,), (1,)),)


@pytest.mark.parametrize("type_", DATA, ids=lambda type_: type_.__name__)
def test_data_that_only_python_can_judge_is_left_to_python(type_: Any) -> None:
    assert read_with(type_) is None


def test_data_without_members_is_left_to_python() -> None:
    def handler(data: Empty, rows: Rows) -> None:
        rows.increment(totals, "all", events=1)

    assert read(handler) is None
    handler.__annotations__["data"] = dict
    assert read(handler) is None


class Bound:
    def handler(self, data: Paid, rows: Rows) -> None:
        rows.increment(totals, data.who, events=1)


def decorated(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def wrapper(data: Paid, rows: Rows) -> None:
        function(data, rows)

    return wrapper


def test_what_is_more_than_a_function_is_left_to_python() -> None:
    assert read(Bound().handler) is None
    assert read(decorated(counted)) is None
