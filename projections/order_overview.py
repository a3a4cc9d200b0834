"""Every order on one line: who, where to, what of it is paid, sent and delivered.

Joins four kinds of streams: customers, orders, payments and shipments. What an order
needs of its customer is looked up when it is placed: a parcel goes where the customer
lived then.
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

from eventmig import Event
from eventmig.rebuild import ReadModel, Rows
from projections.customer_list import full_name
from upcasters.customers import AddressChanged, CustomerRegistered
from upcasters.order_changes import OrderCancelled, OrderReturned
from upcasters.orders import OrderPlaced
from upcasters.payments import PaymentRefunded, PaymentTaken
from upcasters.shipments import ShipmentDelivered, ShipmentDispatched

metadata = MetaData()

buyers = Table(
    "order_buyers",
    metadata,
    Column("customer_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("city", String, nullable=False),
)

orders = Table(
    "order_overview",
    metadata,
    Column("order_id", String, primary_key=True),
    Column("placed_on", String, nullable=False),
    Column("customer_id", String, nullable=False),
    Column("customer", String, nullable=False),
    Column("city", String, nullable=False),
    Column("state", String, nullable=False, default="placed"),
    Column("total_cents", Integer, nullable=False),
    Column("paid_cents", Integer, nullable=False, default=0),
    Column("shipments", Integer, nullable=False, default=0),
    Column("delivered", Integer, nullable=False, default=0),
)

# "global": a row needs events of several streams in the order in which they happened.
order_overview = ReadModel("order_overview", version=1, tables=[buyers, orders], order="global")


@order_overview.on("CustomerRegistered")
def registered(customer: CustomerRegistered, rows: Rows) -> None:
    """Somebody who may order."""
    rows.insert(
        buyers, key=customer.customer_id, name=full_name(customer), city=customer.address.city
    )


@order_overview.on("AddressChanged")
def address_changed(change: AddressChanged, rows: Rows) -> None:
    """The next order goes there."""
    rows.patch(buyers, key=change.customer_id, city=change.address.city)


@order_overview.on("OrderPlaced")
def placed(order: OrderPlaced, event: Event, rows: Rows) -> None:
    """A new row, with the customer as they are now."""
    buyer = rows.get(buyers, key=order.customer_id)
    rows.insert(
        orders,
        key=order.order_id,
        placed_on=event.recorded_time.date().isoformat(),
        customer_id=order.customer_id,
        customer=buyer["name"] if buyer else "",
        city=buyer["city"] if buyer else "",
        total_cents=order.total_cents,
    )


@order_overview.on("PaymentTaken")
def paid(payment: PaymentTaken, rows: Rows) -> None:
    """Paid, in one part or several."""
    rows.increment(orders, key=payment.order_id, paid_cents=payment.amount_cents)


@order_overview.on("PaymentRefunded")
def refunded(refund: PaymentRefunded, rows: Rows) -> None:
    """Less is paid."""
    rows.increment(orders, key=refund.order_id, paid_cents=-refund.refunded_cents)


@order_overview.on("ShipmentDispatched")
def dispatched(shipment: ShipmentDispatched, rows: Rows) -> None:
    """On its way, in one shipment or several."""
    rows.increment(orders, key=shipment.order_id, shipments=1)
    rows.patch(orders, key=shipment.order_id, state="sent")


@order_overview.on("ShipmentDelivered")
def arrived(shipment: ShipmentDelivered, rows: Rows) -> None:
    """One shipment is there; the order is delivered when all of them are."""
    rows.increment(orders, key=shipment.order_id, delivered=1)
    order = rows.get(orders, key=shipment.order_id)
    if order is not None and order["delivered"] == order["shipments"]:
        rows.patch(orders, key=shipment.order_id, state="delivered")


@order_overview.on("OrderCancelled")
def cancelled(order: OrderCancelled, rows: Rows) -> None:
    """Nothing was sent, and nothing will be."""
    rows.patch(orders, key=order.order_id, state="cancelled")


@order_overview.on("OrderReturned")
def returned(order: OrderReturned, rows: Rows) -> None:
    """It came back."""
    rows.patch(orders, key=order.order_id, state="returned")
