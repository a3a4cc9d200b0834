"""The domain of the benchmark: four event types, their chains, one read model.

`OrderPlaced` has a chain of three steps, `PaymentReceived` of two, `ParcelShipped` of
one; `PageViewed` stays as it is. Every current version has a model, so that each event
that changes is validated. The benchmark's configuration names the objects of this file,
as a user's does.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

from eventmig import Registry, ops, schema, upcaster
from eventmig.rebuild import Aggregate, ReadModel, Rows


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """The data of one event version; a member that no model names is an error."""


class Address(Data, frozen=True):
    """Where to."""

    street: str
    postcode: str
    city: str
    country: Annotated[str, Meta(min_length=2, max_length=2)]


class Line(Data, frozen=True):
    """One product of an order."""

    sku: str
    quantity: Annotated[int, Meta(ge=1)]
    price: str


class Buyer(Data, frozen=True):
    """Who ordered."""

    name: str
    email: str


@schema("OrderPlaced", version=4)
class OrderPlaced(Data, frozen=True):
    """A customer ordered."""

    order_id: str
    customer_id: str
    status: str
    total_cents: Annotated[int, Meta(ge=0)]
    address: Address
    lines: list[Line]
    currency: str
    buyer: Buyer
    channel: str


class Account(Data, frozen=True):
    """From which account."""

    iban: str
    bic: str


@schema("PaymentReceived", version=3)
class PaymentReceived(Data, frozen=True):
    """Money came in."""

    payment_id: str
    order_id: str
    customer_id: str
    amount_cents: Annotated[int, Meta(ge=0)]
    currency: str
    method: str
    account: Account
    reference: str
    remark: str


@schema("ParcelShipped", version=2)
class ParcelShipped(Data, frozen=True):
    """A parcel left the house."""

    parcel_id: str
    order_id: str
    customer_id: str
    carrier: str
    weight_grams: int
    address: Address
    contents: list[str]
    insured: bool


@schema("PageViewed", version=1)
class PageViewed(Data, frozen=True):
    """A customer looked at a page; as the first release stored it."""

    customer_id: str
    url: str
    referrer: str
    agent: str
    seconds: float
    words: list[str]


STATUSES = {"N": "new", "P": "paid", "C": "cancelled"}
METHODS = {"T": "transfer", "D": "debit"}

steps = [
    upcaster(
        "OrderPlaced",
        1,
        ops.convert("total", "text_to_hundredths"),
        ops.rename("total", "total_cents"),
        ops.add("currency", "EUR"),
        why="Money is counted in whole cents.",
    ),
    upcaster(
        "OrderPlaced",
        2,
        ops.rename("customer", "customer_id"),
        ops.rename("mail", "email"),
        ops.nest("name", "email", under="buyer"),
        why="Who orders is one thing.",
    ),
    upcaster(
        "OrderPlaced",
        3,
        ops.map_values("status", STATUSES),
        ops.add("channel", "web"),
        why="Words for letters.",
    ),
    upcaster(
        "PaymentReceived",
        1,
        ops.rename("customer", "customer_id"),
        ops.convert("sum", "text_to_hundredths"),
        ops.rename("sum", "amount_cents"),
        why="Money is counted in whole cents.",
    ),
    upcaster(
        "PaymentReceived",
        2,
        ops.nest("iban", "bic", under="account"),
        ops.map_values("method", METHODS),
        why="An account is one thing.",
    ),
    upcaster(
        "ParcelShipped",
        1,
        ops.rename("parcel", "parcel_id"),
        ops.rename("customer", "customer_id"),
        ops.convert("weight", "text_to_integer"),
        ops.rename("weight", "weight_grams"),
        ops.add("insured", False),
        why="A weight is a number.",
    ),
]

registry = Registry(steps, schemas=[OrderPlaced, PaymentReceived, ParcelShipped, PageViewed])


def _activity(name: str) -> Table:
    return Table(
        name,
        MetaData(),
        Column("customer_id", String(36), primary_key=True),
        Column("events", Integer, nullable=False, default=0),
        Column("cents", BigInteger, nullable=False, default=0),
    )


activity = _activity("activity_per_customer")
activity_per_customer = ReadModel("activity_per_customer", tables=[activity])


class Ordered(Struct):
    """What the read model needs of an order."""

    customer_id: str
    total_cents: int


class Paid(Struct):
    """What the read model needs of a payment."""

    customer_id: str
    amount_cents: int


class Seen(Struct):
    """What the read model needs of the other events."""

    customer_id: str


@activity_per_customer.on("OrderPlaced")
def on_order(data: Ordered, rows: Rows) -> None:
    """An order counts with its total."""
    rows.increment(activity, data.customer_id, events=1, cents=data.total_cents)


@activity_per_customer.on("PaymentReceived")
def on_payment(data: Paid, rows: Rows) -> None:
    """A payment counts with its amount."""
    rows.increment(activity, data.customer_id, events=1, cents=data.amount_cents)


@activity_per_customer.on("ParcelShipped", "PageViewed")
def on_other(data: Seen, rows: Rows) -> None:
    """The others only count."""
    rows.increment(activity, data.customer_id, events=1, cents=0)


called = _activity("activity_by_calls")
activity_by_calls = ReadModel("activity_by_calls", tables=[called])
"""The same rows, by handlers that have to be called: no store can tell what they add."""


@activity_by_calls.on("OrderPlaced")
def on_called_order(data: Ordered, rows: Rows) -> None:
    """An order counts with its total."""
    rows.increment(called, data.customer_id, events=1, cents=data.total_cents or 0)


@activity_by_calls.on("PaymentReceived")
def on_called_payment(data: Paid, rows: Rows) -> None:
    """A payment counts with its amount."""
    rows.increment(called, data.customer_id, events=1, cents=data.amount_cents or 0)


@activity_by_calls.on("ParcelShipped", "PageViewed")
def on_called_other(data: Seen, rows: Rows) -> None:
    """The others only count."""
    rows.increment(called, data.customer_id, events=1, cents=0)


customers = Table(
    "customers",
    MetaData(),
    Column("customer_id", String(36), primary_key=True),
    Column("last_url", String),
    Column("orders", Integer, nullable=False, default=0),
)
orders = Table(
    "orders",
    MetaData(),
    Column("order_id", String(36), primary_key=True),
    Column("customer_id", String(36), nullable=False),
    Column("number", Integer, nullable=False),
    Column("came_from", String),
    Column("cents", BigInteger, nullable=False),
)
purchases = ReadModel("purchases", tables=[customers, orders])


class Bought(Struct):
    """What the joined read model needs of an order."""

    order_id: str
    customer_id: str
    total_cents: int


class Viewed(Struct):
    """What the joined read model needs of a page view."""

    customer_id: str
    url: str


@purchases.on("PageViewed")
def on_view(data: Viewed, rows: Rows) -> None:
    """Where a customer was last."""
    rows.upsert(customers, data.customer_id, last_url=data.url)


@purchases.on("OrderPlaced")
def on_purchase(data: Bought, rows: Rows) -> None:
    """An order, joined with its customer as of then."""
    rows.increment(customers, data.customer_id, orders=1)
    customer = rows.get(customers, data.customer_id) or {}
    rows.insert(
        orders,
        data.order_id,
        customer_id=data.customer_id,
        number=customer["orders"],
        came_from=customer["last_url"],
        cents=data.total_cents,
    )


class Order(Struct):
    """The state of a stream: what came of it so far."""

    events: int = 0
    cents: int = 0
    parcels: int = 0


order = Aggregate("order", category="order", state=Order)


@order.on("OrderPlaced")
def ordered(state: Order | None, data: Ordered) -> Order:
    """One order more."""
    state = state or Order()
    return Order(state.events + 1, state.cents + data.total_cents, state.parcels)


@order.on("ParcelShipped")
def shipped(state: Order | None) -> Order:
    """One parcel more."""
    state = state or Order()
    return Order(state.events + 1, state.cents, state.parcels + 1)


projections = [activity_per_customer, activity_by_calls, purchases, order]
