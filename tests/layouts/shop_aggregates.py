"""The aggregates of the shop at version 2, for snapshots that its own library loads."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from eventmig.rebuild import Aggregate, EventsourcingAggregate
from tests.layouts.shop_steps import LINE_ADDED, OPENED, PLACED


class Order(Struct, frozen=True):
    """What an `Order` of the shop holds."""

    number: str
    customer: dict[str, str]
    currency: str
    placed_by: UUID
    lines: list[dict[str, Any]] = []
    cancelled: str = ""


def orders(**owner: Any) -> Aggregate[Order]:
    """As a model whose fields are the attributes."""
    owns = EventsourcingAggregate("shop_domain:Order", **{"class_version": 2} | owner)
    order = Aggregate("order", state=Order, owner=owns)

    @order.on(PLACED)
    def placed(data: dict[str, Any]) -> Order:
        return Order(
            number=data["number"],
            customer=data["customer"],
            currency=data["currency"],
            placed_by=UUID(data["placed_by"]["_data_"]),
        )

    @order.on(LINE_ADDED)
    def added(state: Order, data: dict[str, Any]) -> Order:
        line = {name: data[name] for name in ("sku", "qty", "unit_price_minor")}
        return replace(state, lines=[*state.lines, line])

    @order.on("shop_domain:Order.Cancelled")
    def cancelled(state: Order, data: dict[str, Any]) -> Order:
        return replace(state, cancelled=data["reason"])

    return order


def accounts() -> Aggregate[dict[str, Any]]:
    """As a dict: its values are written as they are."""
    owns = EventsourcingAggregate("shop_domain:Account", class_version=2)
    account = Aggregate("account", state=dict[str, Any], owner=owns)

    @account.on(OPENED)
    def opened(data: dict[str, Any]) -> dict[str, Any]:
        return {"owner": data["owner"], "iban": data["iban"], "balance": amount(Decimal(0))}

    @account.on("shop_domain:Account.Credited")
    def credited(state: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        both = (Decimal(state["balance"]["_data_"]), Decimal(data["amount"]["_data_"]))
        return {**state, "balance": amount(sum(both))}

    return account


def amount(value: Decimal | int) -> dict[str, str]:
    return {"_type_": "decimal_str", "_data_": str(value)}
