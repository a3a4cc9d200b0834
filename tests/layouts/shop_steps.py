"""From v1 to v2 of the shop in ../shared/layouts/eventsourcing, as its application expects it."""

from __future__ import annotations

from decimal import Decimal

from eventmig import Registry, data_upcaster

PLACED = "shop_domain:Order.Placed"
LINE_ADDED = "shop_domain:Order.LineAdded"
OPENED = "shop_domain:Account.Opened"


@data_upcaster(PLACED, 1)
def name_in_two(data: dict[str, object]) -> dict[str, object]:
    first, _, last = str(data["customer_name"]).partition(" ")
    rest = {k: v for k, v in data.items() if k != "customer_name"}
    return rest | {"customer": {"first": first, "last": last}}


@data_upcaster(LINE_ADDED, 1)
def minor_units(data: dict[str, object]) -> dict[str, object]:
    rest = {k: v for k, v in data.items() if k != "unit_price"}
    return rest | {"unit_price_minor": int(Decimal(str(data["unit_price"])) * 100)}


@data_upcaster(OPENED, 1)
def iban_without_spaces(data: dict[str, object]) -> dict[str, object]:
    return data | {"iban": str(data["iban"]).replace(" ", "")}


registry = Registry([name_in_two, minor_units, iban_without_spaces])
