"""Every customer as they are today: one row, gone when the account is closed."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, MetaData, String, Table

from eventmig.rebuild import ReadModel, Rows
from upcasters.customers import (
    AccountClosed,
    AddressChanged,
    CustomerRegistered,
    EmailChanged,
    PhoneChanged,
)
from upcasters.preferences import LanguageChosen, NewsletterCancelled, NewsletterOrdered

customers = Table(
    "customers",
    MetaData(),
    Column("customer_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("email", String, nullable=False),
    Column("phone", String),
    Column("street", String, nullable=False),
    Column("postcode", String, nullable=False),
    Column("city", String, nullable=False),
    Column("country", String, nullable=False),
    Column("newsletter", Boolean, nullable=False, default=False),
    Column("language", String, nullable=False, default="en"),
)

# "stream": all that concerns one customer is in that customer's stream.
customer_list = ReadModel("customer_list", version=1, tables=[customers], order="stream")


@customer_list.on("CustomerRegistered")
def registered(customer: CustomerRegistered, rows: Rows) -> None:
    """A new row."""
    rows.insert(
        customers,
        key=customer.customer_id,
        name=full_name(customer),
        email=customer.email,
        phone=customer.phones[0] if customer.phones else None,
        street=customer.address.street,
        postcode=customer.address.postcode,
        city=customer.address.city,
        country=customer.address.country,
    )


@customer_list.on("AddressChanged")
def address_changed(change: AddressChanged, rows: Rows) -> None:
    """The new address."""
    rows.patch(
        customers,
        key=change.customer_id,
        street=change.address.street,
        postcode=change.address.postcode,
        city=change.address.city,
        country=change.address.country,
    )


@customer_list.on("PhoneChanged")
def phone_changed(change: PhoneChanged, rows: Rows) -> None:
    """The new phone."""
    rows.patch(customers, key=change.customer_id, phone=change.phone)


@customer_list.on("EmailChanged")
def email_changed(change: EmailChanged, rows: Rows) -> None:
    """The new email address."""
    rows.patch(customers, key=change.customer_id, email=change.email)


@customer_list.on("NewsletterOrdered")
def newsletter_ordered(order: NewsletterOrdered, rows: Rows) -> None:
    """Wants it."""
    rows.patch(customers, key=order.customer_id, newsletter=True)


@customer_list.on("NewsletterCancelled")
def newsletter_cancelled(order: NewsletterCancelled, rows: Rows) -> None:
    """Does not want it."""
    rows.patch(customers, key=order.customer_id, newsletter=False)


@customer_list.on("LanguageChosen")
def language_chosen(choice: LanguageChosen, rows: Rows) -> None:
    """The language to write in."""
    rows.patch(customers, key=choice.customer_id, language=choice.language)


@customer_list.on("AccountClosed")
def account_closed(closing: AccountClosed, rows: Rows) -> None:
    """No longer a customer."""
    rows.delete(customers, key=closing.customer_id)


def full_name(customer: CustomerRegistered) -> str:
    """The name as on a letter; some people have one name only."""
    return f"{customer.given_name} {customer.family_name or ''}".strip()
