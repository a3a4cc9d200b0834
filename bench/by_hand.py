"""The same upcasts as a person writes them: `json.loads`, and functions on dicts.

The reference for upcasting on read; the peer's events use the same functions. They
check nothing: what a model would refuse goes through.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from bench.domain import METHODS, STATUSES

Members: TypeAlias = dict[str, Any]
Step: TypeAlias = Callable[[Members], None]


def _renamed(data: Members, old: str, new: str) -> None:
    if old in data:
        data[new] = data.pop(old)


def order_1_2(data: Members) -> None:
    """Money in whole cents."""
    data["total_cents"] = int(data.pop("total").replace(".", ""))
    data["currency"] = "EUR"


def order_2_3(data: Members) -> None:
    """Who orders is one thing."""
    _renamed(data, "customer", "customer_id")
    data["buyer"] = {"name": data.pop("name"), "email": data.pop("mail")}


def order_3_4(data: Members) -> None:
    """Words for letters."""
    data["status"] = STATUSES[data["status"]]
    data["channel"] = "web"


def payment_1_2(data: Members) -> None:
    """Money in whole cents."""
    _renamed(data, "customer", "customer_id")
    data["amount_cents"] = int(data.pop("sum").replace(".", ""))


def payment_2_3(data: Members) -> None:
    """An account is one thing."""
    data["account"] = {"iban": data.pop("iban"), "bic": data.pop("bic")}
    data["method"] = METHODS[data["method"]]


def parcel_1_2(data: Members) -> None:
    """A weight is a number."""
    _renamed(data, "parcel", "parcel_id")
    _renamed(data, "customer", "customer_id")
    data["weight_grams"] = int(data.pop("weight"))
    data["insured"] = False


CHAINS: dict[str, tuple[Step, ...]] = {
    "OrderPlaced": (order_1_2, order_2_3, order_3_4),
    "PaymentReceived": (payment_1_2, payment_2_3),
    "ParcelShipped": (parcel_1_2,),
    "PageViewed": (),
}


def load(type_: str, data: bytes) -> Members:
    """The data of a stored event at version 1 as current members."""
    members: Members = json.loads(data)
    for step in CHAINS[type_]:
        step(members)
    return members
