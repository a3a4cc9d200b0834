"""What a read model claims about the order of events, and how a wrong claim is found."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Float, Integer, MetaData, String, Table

from eventmig import codec
from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import ReadModel, Rows
from eventmig.testing import assert_order
from tests.unit.rebuild_helpers import history

totals = Table(
    "totals",
    MetaData(schema="shop"),
    Column("customer", String, primary_key=True),
    Column("last", String),
    Column("cents", Integer, nullable=False, default=0),
    Column("share", Float, nullable=False, default=0),
)
EVENTS = history(
    (f"order-{n % 4}", "Paid", {"customer": f"c{n % 3}", "cents": n, "n": str(n)})
    for n in range(24)
)


def customer(event: Event) -> str:
    return str(codec.decode(event.data)["customer"])  # type: ignore[index, call-overload]


def declared(name: str, order: str) -> ReadModel:
    key = customer if order == "key" else None
    return ReadModel(name, tables=[totals], order=order, key=key)  # type: ignore[arg-type]


def counting(order: str) -> ReadModel:
    """Sums alone: any order will do."""
    model = ReadModel(
        "totals", tables=[totals], order=order, key=customer if order == "key" else None
    )  # type: ignore[arg-type]

    @model.on("Paid")
    def paid(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.increment(totals, data["customer"], cents=data["cents"], share=data["cents"] / 10)

    return model


def remembering(order: str) -> ReadModel:
    """The last payment of a customer: the order of a customer's events matters."""
    model = ReadModel(
        "last", tables=[totals], order=order, key=customer if order == "key" else None
    )  # type: ignore[arg-type]

    @model.on("Paid")
    def paid(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.upsert(totals, data["customer"], last=data["n"])

    return model


@pytest.mark.parametrize("order", ["global", "stream", "key"])
def test_sums_need_no_order_at_all(order: str) -> None:
    assert_order(counting(order), EVENTS)


def test_a_true_claim_stands() -> None:
    assert_order(remembering("global"), EVENTS)
    assert_order(remembering("key"), EVENTS)


def test_a_wrong_claim_is_found_and_the_row_named() -> None:
    with pytest.raises(AssertionError, match=r"order=\"stream\".*shop.totals 'c\d' comes to"):
        assert_order(remembering("stream"), EVENTS)


def test_an_operation_that_fails_in_another_order_is_a_wrong_claim() -> None:
    model = ReadModel("first", tables=[totals], order="stream")

    @model.on("Registered")
    def registered(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.insert(totals, data["customer"])

    @model.on("Paid")
    def paid(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.patch(totals, data["customer"], last=data["n"])

    events = history(
        [
            ("customer-1", "Registered", {"customer": "c"}),
            ("order-1", "Paid", {"customer": "c", "n": "1"}),
        ]
    )
    with pytest.raises(AssertionError, match=r"the last partition first.*patch of a row of totals"):
        assert_order(model, events)


def test_events_that_cannot_be_handled_in_order_are_no_test() -> None:
    model = ReadModel("broken", tables=[totals], order="stream")

    @model.on("Paid")
    def paid(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.patch(totals, data["customer"], last="x")

    with pytest.raises(RebuildError, match="patch of a row"):
        assert_order(model, EVENTS)


@pytest.mark.parametrize(("order", "key"), [("key", None), ("stream", customer)])
def test_a_key_goes_with_the_order_by_key(order: str, key: object) -> None:
    with pytest.raises(RebuildError, match="key"):
        ReadModel("odd", tables=[totals], order=order, key=key)  # type: ignore[arg-type]
