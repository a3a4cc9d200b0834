"""What each release of the shop wrote: one function per event type that had versions.

Written by hand, not by upcasting backwards: the upcasters are tried against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from examples.shop.words import Good

Data = dict[str, Any]

DEPLOYED: Mapping[str, Sequence[int]] = {
    "CustomerRegistered": (240, 520),
    "ItemAdded": (180, 430),
    "OrderPlaced": (300, 600),
    "PaymentAuthorised": (430,),
    "PreferencesSaved": (520,),
    "ParcelSent": (600,),
}
"""Days of the history at which the next version of a type was deployed."""


def version_on(day: int, type_: str) -> int:
    """The schema version that the shop wrote on a day of the history."""
    return 1 + sum(day >= deployed for deployed in DEPLOYED.get(type_, ()))


class Person(NamedTuple):
    """A customer, as they answered; None and absent are not the same."""

    customer_id: str
    name: str
    email: str
    phone: str | None
    has_phone_field: bool
    street: str
    postcode: str
    city: str
    country: str | None


class Line(NamedTuple):
    """A good, so many times."""

    good: Good
    quantity: int


def text(cents: int) -> str:
    """Money as the first releases wrote it."""
    return f"{cents // 100}.{cents % 100:02d}"


def address(person: Person, *, postcode: str = "zip") -> Data:
    """The members of an address; who registered early has no country."""
    data: Data = {"street": person.street, postcode: person.postcode, "city": person.city}
    if person.country is not None:
        data["country"] = person.country
    return data


def customer_registered(version: int, person: Person) -> Data:
    data: Data = {"customer_id": person.customer_id}
    if version == 1:
        data |= {"name": person.name, "mail": person.email}
    else:
        given, _, family = person.name.partition(" ")
        data["given_name"] = given
        if family:
            data["family_name"] = family
        data["email"] = person.email
    if person.has_phone_field:
        data["phone"] = person.phone
    data["fax"] = ""
    if version < 3:
        return data | address(person)
    return data | {"address": {"country": "GB", **address(person, postcode="postcode")}}


def preferences_saved(
    version: int, customer_id: str, *, newsletter: bool, language: str | None
) -> Data:
    if version == 1:
        data: Data = {"customer_id": customer_id, "newsletter": "Y" if newsletter else "N"}
        names = {"en": "english", "de": "deutsch", "fr": "français"}
        return data if language is None else data | {"lang": names[language]}
    data = {"customer_id": customer_id, "newsletter": newsletter}
    return data if language is None else data | {"language": language}


def item_added(version: int, cart_id: str, line: Line) -> Data:
    good = line.good
    data: Data = {"cart_id": cart_id, "sku": good.sku, "title": good.title}
    if version == 1:
        return data | {"qty": str(line.quantity), "price": text(good.price)}
    data["quantity"] = line.quantity
    if version == 2:
        return data | {"price": text(good.price)}
    return data | {"unit_price_cents": good.price, "currency": "GBP"}


def order_placed(
    version: int,
    order_id: str,
    cart_id: str,
    person: Person,
    lines: Sequence[Line],
    *,
    total: int,
    express: bool | None,
    channel: str,
) -> Data:
    if version == 1:
        rows: list[Data] = [
            {
                "sku": line.good.sku,
                "title": line.good.title,
                "qty": str(line.quantity),
                "price": text(line.good.price),
            }
            for line in lines
        ]
        sums: Data = {"total": text(total)}
    else:
        rows = [
            {
                "sku": line.good.sku,
                "title": line.good.title,
                "quantity": line.quantity,
                "unit_price_cents": line.good.price,
            }
            for line in lines
        ]
        sums = {"total_cents": total}
    if version < 3:
        buyer = {"customer_id": person.customer_id, "name": person.name}
        data: Data = {"order_id": order_id, "cart_id": cart_id, "customer": buyer}
        fast = {} if express is None else {"express": express}
        return data | {"lines": rows} | sums | fast
    data = {"order_id": order_id, "basket_id": cart_id, "customer_id": person.customer_id}
    delivery = "express" if express else "standard"
    return data | {"lines": rows} | sums | {"delivery": delivery, "channel": channel}


def payment_authorised(
    version: int, payment_id: str, order_id: str, *, cents: int, method: str, holder: str | None
) -> Data:
    """`holder` is the name on the card, where one was used."""
    data: Data = {"payment_id": payment_id, "order_id": order_id}
    number = {"number": f"**** **** **** {int(payment_id[1:]) * 7 % 10000:04d}"}
    if version == 1:
        data |= {"amount": text(cents), "method": method}
        return data if holder is None else data | {"card": {"holder": holder, **number}}
    card = None if holder is None else number
    return data | {"authorised_cents": cents, "method": method, "card": card, "payer": holder}


def parcel_sent(
    version: int, order_id: str, shipment_id: str, *, carrier: str | None, tracking: str
) -> Data:
    data: Data = {"order_id": order_id, "shipment_id": shipment_id}
    if version == 1:
        carriers = [] if carrier is None else [carrier]
        return data | {"carriers": carriers, "tracking": "" if carrier is None else tracking}
    fetched: Data = {"carrier": carrier}
    return data | (fetched if carrier is None else fetched | {"tracking": tracking})
