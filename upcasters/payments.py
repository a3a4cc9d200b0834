"""Payments: authorised, captured, refunded. These models are pydantic's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from eventmig import (
    Unfinished,
    downcaster,
    merge,
    model_downcaster,
    model_upcaster,
    ops,
    schema,
    upcaster,
)
from upcasters.base import OldAmount, OldTime, seconds_to_time

Digits = Annotated[str, Field(pattern=r"^[0-9]{4}$")]
"""The last four digits of a card."""

Masked = Annotated[str, Field(pattern=r"^\*{4} \*{4} \*{4} [0-9]{4}$")]
"""A card's number as it may be printed: "**** **** **** 4242"."""

Method = Literal["card", "paypal", "invoice"]


class Data(BaseModel):
    """The data of one version. A member that no model names is an error, never lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- PaymentAuthorised: v1 → v2 → v3 --------------------------------------------------------


class CardV1(Data):
    """A card with the name on it."""

    holder: str
    number: Masked


@schema("PaymentAuthorised", version=1)
class PaymentAuthorisedV1(Data):
    """What the bank's first interface sent; `card` is there for cards only."""

    payment_id: str
    order_id: str
    amount: OldAmount
    method: Method
    card: CardV1 | None = None


class CardV2(Data):
    """A card, without a name."""

    number: Masked


@schema("PaymentAuthorised", version=2)
class PaymentAuthorisedV2(Data):
    """With the payer, where the bank knew one."""

    payment_id: str
    order_id: str
    authorised_cents: int
    method: Method
    card: CardV2 | None
    payer: str | None


payer_and_cents = upcaster(
    "PaymentAuthorised",
    1,
    ops.convert("amount", "text_to_hundredths"),
    ops.rename("amount", "authorised_cents"),
    ops.when(
        ops.is_kind("card", "object"),
        ops.move("card.holder", to="payer"),
        otherwise=[ops.default("card", None), ops.add("payer", None)],
    ),
    why="Who pays is not a matter of the card; money is counted in whole cents.",
)

holder_and_text = downcaster(
    "PaymentAuthorised",
    2,
    ops.when(
        ops.is_kind("card", "object"),
        ops.move("payer", to="card.holder"),
        otherwise=[ops.drop("card"), ops.drop("payer")],
    ),
    ops.rename("authorised_cents", "amount"),
    ops.convert("amount", "hundredths_to_text"),
)


@schema("PaymentAuthorised", version=3)
class PaymentAuthorised(Data):
    """The bank would pay. One that stays by itself was never captured."""

    payment_id: str
    order_id: str
    authorised_cents: int
    method: Method
    card_ends_with: Digits | None
    payer: str | None


@model_upcaster
def four_digits(old: PaymentAuthorisedV2) -> PaymentAuthorised:
    """The stars of a card's number say nothing."""
    return PaymentAuthorised(
        payment_id=old.payment_id,
        order_id=old.order_id,
        authorised_cents=old.authorised_cents,
        method=old.method,
        card_ends_with=old.card.number[-4:] if old.card else None,
        payer=old.payer,
    )


@model_downcaster(exact=True)
def stars_again(new: PaymentAuthorised) -> PaymentAuthorisedV2:
    """Twelve stars and four digits."""
    digits = new.card_ends_with
    return PaymentAuthorisedV2(
        payment_id=new.payment_id,
        order_id=new.order_id,
        authorised_cents=new.authorised_cents,
        method=new.method,
        card=CardV2(number=f"**** **** **** {digits}") if digits else None,
        payer=new.payer,
    )


# --- PaymentCaptured: v1 → v2 ---------------------------------------------------------------


@schema("PaymentCaptured", version=1)
class PaymentCapturedV1(Data):
    """The bank counts seconds."""

    payment_id: str
    order_id: str
    amount: OldAmount
    captured: OldTime


@schema("PaymentCaptured", version=2)
class PaymentCaptured(Data):
    """The bank paid."""

    payment_id: str
    order_id: str
    amount_cents: int
    captured_at: str


captured_in_cents = upcaster(
    "PaymentCaptured",
    1,
    ops.convert("amount", "text_to_hundredths"),
    ops.rename("amount", "amount_cents"),
    ops.convert("captured", seconds_to_time),
    ops.rename("captured", "captured_at"),
    why="Money is counted in whole cents; a time can be read without a calculator.",
)


# --- PaymentAuthorised + PaymentCaptured → PaymentTaken -------------------------------------


@schema("PaymentTaken")
class PaymentTaken(Data):
    """The customer paid."""

    payment_id: str
    order_id: str
    amount_cents: int
    method: Method
    card_ends_with: Digits | None
    payer: str | None
    captured_at: str


taken = merge(
    "payments taken",
    "PaymentAuthorised",
    "PaymentCaptured",
    into="PaymentTaken",
    by="payment_id",
    ops=[ops.drop("authorised_cents")],
    streams="payment-*",
    unfinished=Unfinished.KEEP,
    why="The new bank does both at once. What was never captured stays as it is.",
)


# --- PaymentRefunded: v1 → v2 ---------------------------------------------------------------


@schema("PaymentRefunded", version=1)
class PaymentRefundedV1(Data):
    """Money back."""

    payment_id: str
    order_id: str
    amount: OldAmount


@schema("PaymentRefunded", version=2)
class PaymentRefunded(Data):
    """The customer got money back; above zero."""

    payment_id: str
    order_id: str
    refunded_cents: int


refunded_in_cents = upcaster(
    "PaymentRefunded",
    1,
    ops.convert("amount", "text_to_hundredths"),
    ops.rename("amount", "refunded_cents"),
    why="Money is counted in whole cents.",
)


steps = [
    payer_and_cents,
    holder_and_text,
    four_digits,
    stars_again,
    captured_in_cents,
    taken,
    refunded_in_cents,
]

schemas = [
    PaymentAuthorisedV1,
    PaymentAuthorisedV2,
    PaymentAuthorised,
    PaymentCapturedV1,
    PaymentCaptured,
    PaymentTaken,
    PaymentRefundedV1,
    PaymentRefunded,
]
