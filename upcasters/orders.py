"""Orders: OrderPlaced, v1 → v2 → v3 → v4."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from eventmig import model_downcaster, model_upcaster, ops, schema, upcaster
from upcasters.base import Data, OldAmount, OldCount, basket_not_cart


class LineV1(Data, frozen=True):
    """One line of an order, everything as text."""

    sku: str
    title: str
    qty: OldCount
    price: OldAmount


class Buyer(Data, frozen=True):
    """Who ordered, with a copy of the name."""

    customer_id: str
    name: str


@schema("OrderPlaced", version=1)
class OrderPlacedV1(Data, frozen=True):
    """As the till printed it. Before there was express delivery, nothing said so."""

    order_id: str
    cart_id: str
    customer: Buyer
    lines: list[LineV1]
    total: OldAmount
    express: bool | UnsetType = UNSET


class Line(Data, frozen=True):
    """One product of an order; the price is for one piece."""

    sku: str
    title: str
    quantity: int
    unit_price_cents: int


@schema("OrderPlaced", version=2)
class OrderPlacedV2(Data, frozen=True):
    """With sums that add up."""

    order_id: str
    cart_id: str
    customer: Buyer
    lines: list[Line]
    total_cents: int
    express: bool | UnsetType = UNSET


sums_that_add_up = upcaster(
    "OrderPlaced",
    1,
    ops.each(
        "lines",
        ops.convert("qty", "text_to_integer"),
        ops.rename("qty", "quantity"),
        ops.convert("price", "text_to_hundredths"),
        ops.rename("price", "unit_price_cents"),
    ),
    ops.convert("total", "text_to_hundredths"),
    ops.rename("total", "total_cents"),
    why="Quantities are numbers, and money is counted in whole cents.",
)


@schema("OrderPlaced", version=3)
class OrderPlacedV3(Data, frozen=True):
    """With one sum for everything."""

    order_id: str
    basket_id: str
    customer_id: str
    lines: list[Line]
    total_cents: int
    delivery: Literal["express", "standard"]
    channel: str


one_kind_of_delivery = upcaster(
    "OrderPlaced",
    2,
    basket_not_cart,
    ops.drop("customer.name", restore=""),
    ops.unnest("customer", "customer_id"),
    ops.default("express", False),
    ops.rename("express", "delivery"),
    ops.map_values("delivery", [(True, "express"), (False, "standard")]),
    ops.add("channel", ops.from_metadata("channel", otherwise="web")),
    why="The customer knows the name; there will be more kinds of delivery than two.",
)


@schema("OrderPlaced", version=4)
class OrderPlaced(Data, frozen=True):
    """A customer ordered. `shipping_cents` is below zero where a coupon took off more."""

    order_id: str
    basket_id: str
    customer_id: str
    lines: list[Line]
    goods_cents: int
    shipping_cents: int
    delivery: Literal["express", "standard"]
    channel: str

    @property
    def total_cents(self) -> int:
        """What the customer pays."""
        return self.goods_cents + self.shipping_cents


@model_upcaster
def shipping_apart(order: OrderPlacedV3) -> OrderPlaced:
    """Shipping is not turnover: what the total has above the lines is the shipping."""
    goods = sum(line.quantity * line.unit_price_cents for line in order.lines)
    return OrderPlaced(
        order_id=order.order_id,
        basket_id=order.basket_id,
        customer_id=order.customer_id,
        lines=order.lines,
        goods_cents=goods,
        shipping_cents=order.total_cents - goods,
        delivery=order.delivery,
        channel=order.channel,
    )


@model_downcaster(exact=True)
def shipping_in_the_total(order: OrderPlaced) -> OrderPlacedV3:
    """One sum again."""
    return OrderPlacedV3(
        order_id=order.order_id,
        basket_id=order.basket_id,
        customer_id=order.customer_id,
        lines=order.lines,
        total_cents=order.goods_cents + order.shipping_cents,
        delivery=order.delivery,
        channel=order.channel,
    )


steps = [sums_that_add_up, one_kind_of_delivery, shipping_apart, shipping_in_the_total]

schemas = [OrderPlacedV1, OrderPlacedV2, OrderPlacedV3, OrderPlaced]
