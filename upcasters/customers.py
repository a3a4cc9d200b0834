"""Customers: who they are, where they live, and when they leave."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from eventmig import ops, part, rename_type, schema, split_event, upcaster
from upcasters.base import Data

# --- CustomerRegistered: v1 → v2 → v3 → v4 --------------------------------------------------


@schema("CustomerRegistered", version=1)
class CustomerRegisteredV1(Data, frozen=True):
    """One flat form, as it was typed in."""

    customer_id: str
    name: str
    mail: str
    fax: str
    street: str
    zip: str
    city: str
    phone: str | None = None
    country: str | UnsetType = UNSET


@schema("CustomerRegistered", version=2)
class CustomerRegisteredV2(Data, frozen=True):
    """With two names."""

    customer_id: str
    given_name: str
    email: str
    fax: str
    street: str
    zip: str
    city: str
    family_name: str | UnsetType = UNSET
    phone: str | None = None
    country: str | UnsetType = UNSET


two_names = upcaster(
    "CustomerRegistered",
    1,
    ops.rename("mail", "email"),
    ops.split("name", into=("given_name", "family_name"), at=" "),
    why="Letters begin with the given name; who has one name only has no family name.",
)


class Address(Data, frozen=True):
    """A postal address; `country` is two capital letters."""

    street: str
    postcode: str
    city: str
    country: str


@schema("CustomerRegistered", version=3)
class CustomerRegisteredV3(Data, frozen=True):
    """With an address."""

    customer_id: str
    given_name: str
    email: str
    fax: str
    address: Address
    family_name: str | UnsetType = UNSET
    phone: str | None = None


one_address = upcaster(
    "CustomerRegistered",
    2,
    ops.nest("street", "zip", "city", "country", under="address"),
    ops.rename("address.zip", "postcode"),
    ops.default("address.country", "GB"),
    why="An address is one thing; before the shop went abroad, every address was British.",
)


@schema("CustomerRegistered", version=4)
class CustomerRegistered(Data, frozen=True):
    """Somebody opened an account. `channel` is where: web, app or shop."""

    customer_id: str
    given_name: str
    email: str
    phones: list[str]
    address: Address
    channel: str
    family_name: str | UnsetType = UNSET


phones_and_channel = upcaster(
    "CustomerRegistered",
    3,
    ops.rename("phone", "phones"),
    ops.wrap("phones"),
    ops.default("phones", []),
    ops.drop("fax", restore=""),
    ops.add("channel", ops.from_metadata("channel", otherwise="web")),
    why="People have several phones and no fax; where they came from stood in the metadata.",
)


# --- CustomerMoved and CustomerDetailsChanged: one fact each --------------------------------


@schema("CustomerMoved", version=1)
class CustomerMovedV1(Data, frozen=True):
    """A new address, flat."""

    customer_id: str
    street: str
    zip: str
    city: str
    country: str | UnsetType = UNSET


class AddressV1(Data, frozen=True):
    """An address as the form of old sent it."""

    street: str
    zip: str
    city: str


@schema("CustomerDetailsChanged", version=1)
class CustomerDetailsChangedV1(Data, frozen=True):
    """A whole form, with only those members that the customer changed (maybe none)."""

    customer_id: str
    address: AddressV1 | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    email: str | UnsetType = UNSET


@schema("AddressChanged")
class AddressChanged(Data, frozen=True):
    """A customer has a new address."""

    customer_id: str
    address: Address


moved = rename_type(
    "CustomerMoved",
    1,
    ops.nest("street", "zip", "city", "country", under="address"),
    ops.rename("address.zip", "postcode"),
    ops.default("address.country", "GB"),
    to="AddressChanged",
    why="Not everybody who changes an address has moved.",
)


@schema("PhoneChanged")
class PhoneChanged(Data, frozen=True):
    """A customer has a new first phone."""

    customer_id: str
    phone: str


@schema("EmailChanged")
class EmailChanged(Data, frozen=True):
    """A customer has a new email address."""

    customer_id: str
    email: str


details = split_event(
    "CustomerDetailsChanged",
    1,
    part(
        "AddressChanged",
        ops.drop("phone"),
        ops.drop("email"),
        ops.rename("address.zip", "postcode"),
        ops.add("address.country", "GB"),
        when=ops.present("address"),
    ),
    part("PhoneChanged", ops.drop("address"), ops.drop("email"), when=ops.present("phone")),
    part("EmailChanged", ops.drop("address"), ops.drop("phone"), when=ops.present("email")),
    why="A saved form is not a fact; each thing that changed is one.",
)


# --- CustomerDeleted ------------------------------------------------------------------------


@schema("CustomerDeleted", version=1)
class CustomerDeletedV1(Data, frozen=True):
    """`reason` is the number of the line that was ticked."""

    customer_id: str
    reason: Literal[1, 2, 3]


@schema("AccountClosed")
class AccountClosed(Data, frozen=True):
    """The customer left."""

    customer_id: str
    reason: Literal["not_needed", "too_many_mails", "other"]


deleted = rename_type(
    "CustomerDeleted",
    1,
    ops.map_values("reason", [(1, "not_needed"), (2, "too_many_mails"), (3, "other")]),
    to="AccountClosed",
    why="Nothing of an event store is deleted: the account was closed.",
)


steps = [two_names, one_address, phones_and_channel, moved, details, deleted]

schemas = [
    CustomerRegisteredV1,
    CustomerRegisteredV2,
    CustomerRegisteredV3,
    CustomerRegistered,
    CustomerMovedV1,
    CustomerDetailsChangedV1,
    AddressChanged,
    PhoneChanged,
    EmailChanged,
    CustomerDeletedV1,
    AccountClosed,
]
