"""One order as it is now, by the events of its own stream."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from eventmig.rebuild import Aggregate
from upcasters.order_changes import OrderCancelled, OrderNoted, OrderReturned
from upcasters.orders import OrderPlaced


class Order(Struct, frozen=True):
    """The state of an order."""

    order_id: str
    customer_id: str
    total_cents: int
    quantities: dict[str, int]
    notes: list[str]
    state: Literal["open", "cancelled", "returned"] = "open"


order = Aggregate("order", category="order", state=Order, version=1)


@order.on("OrderPlaced")
def placed(order: OrderPlaced) -> Order:
    """An open order."""
    quantities: dict[str, int] = {}
    for line in order.lines:
        quantities[line.sku] = quantities.get(line.sku, 0) + line.quantity
    return Order(
        order_id=order.order_id,
        customer_id=order.customer_id,
        total_cents=order.total_cents,
        quantities=quantities,
        notes=[],
    )


@order.on("OrderNoted")
def noted(state: Order, order: OrderNoted) -> Order:
    """A wish more."""
    return replace(state, notes=[*state.notes, order.note])


@order.on("OrderCancelled")
def cancelled(state: Order, order: OrderCancelled) -> Order:
    """It ended before anything was sent."""
    return replace(state, state="cancelled")


@order.on("OrderReturned")
def returned(state: Order, order: OrderReturned) -> Order:
    """It was sent back."""
    return replace(state, state="returned")
