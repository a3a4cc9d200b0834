"""What becomes of an order: notes, cancellations, returns."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from eventmig import Draft, downcaster, ops, schema, stream_step, upcaster
from upcasters.base import Data

# --- OrderNoted: v1 → v2 --------------------------------------------------------------------


@schema("OrderNoted", version=1)
class OrderNotedV1(Data, frozen=True):
    """Two lines, as the printer of labels had them."""

    order_id: str
    line1: str
    line2: str | UnsetType = UNSET


@schema("OrderNoted", version=2)
class OrderNoted(Data, frozen=True):
    """A wish about an order, in the customer's words."""

    order_id: str
    note: str


one_note = upcaster(
    "OrderNoted",
    1,
    ops.combine("line1", "line2", to="note", separator="\n"),
    why="Labels are wide enough today; a note is one text.",
)


# --- OrderCancelled: v1 → v2 ----------------------------------------------------------------


@schema("OrderCancelled", version=1)
class OrderCancelledV1(Data, frozen=True):
    """`reason` is the number of a key on the till."""

    order_id: str
    reason: Literal[1, 2, 3]
    by: Literal["customer", "shop"]


@schema("OrderCancelled", version=2)
class OrderCancelled(Data, frozen=True):
    """The order ended before anything was sent."""

    order_id: str
    reason: Literal["changed_mind", "too_slow", "sold_out"]


reason_in_words = upcaster(
    "OrderCancelled",
    1,
    ops.map_values("reason", [(1, "changed_mind"), (2, "too_slow"), (3, "sold_out")]),
    ops.drop("by"),
    why="The reason says who cancelled: only the shop can be sold out.",
)

reason_as_key = downcaster(
    "OrderCancelled",
    2,
    ops.add("by", "customer"),
    ops.when(ops.equals("reason", "sold_out"), ops.put_value("by", "shop")),
    ops.map_values("reason", [("changed_mind", 1), ("too_slow", 2), ("sold_out", 3)]),
)


# --- OrderCancelled after a shipment → OrderReturned ----------------------------------------


@schema("OrderReturned")
class OrderReturned(Data, frozen=True):
    """The customer sent the order back."""

    order_id: str
    reason: Literal["changed_mind", "too_slow", "sold_out"]


@stream_step("returns", streams="order-*")
def what_was_sent_is_returned(order: list[Draft]) -> list[Draft]:
    """What is sent cannot be cancelled: such a cancellation was a return."""
    after: list[Draft] = []
    sent = False
    for event in order:
        sent = sent or event.type == "ShipmentDispatched"
        if sent and event.type == "OrderCancelled":
            event = event._replace(type="OrderReturned", schema_version=1)
        after.append(event)
    return after


steps = [one_note, reason_in_words, reason_as_key, what_was_sent_is_returned]

schemas = [OrderNotedV1, OrderNoted, OrderCancelledV1, OrderCancelled, OrderReturned]
