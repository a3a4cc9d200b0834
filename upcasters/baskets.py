"""Baskets, which the first releases called carts: opened, looked at, checked out."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from eventmig import drop_event, move_attribute, rename_streams, rename_type, reorder, schema
from upcasters.base import Data, basket_not_cart

# --- CartOpened → BasketOpened --------------------------------------------------------------


@schema("CartOpened", version=1)
class CartOpenedV1(Data, frozen=True):
    """A guest's cart has no customer; `coupon` is the one in the link that was followed."""

    cart_id: str
    customer_id: str | UnsetType = UNSET
    coupon: str | UnsetType = UNSET


@schema("BasketOpened")
class BasketOpened(Data, frozen=True):
    """Somebody began to shop. A coupon still here was never used: nothing was checked out."""

    basket_id: str
    customer_id: str | UnsetType = UNSET
    coupon: str | UnsetType = UNSET


opened = rename_type("CartOpened", 1, basket_not_cart, to="BasketOpened", why="A cart is a basket.")


# --- CartTouched → nothing ------------------------------------------------------------------


@schema("CartTouched", version=1)
class CartTouchedV1(Data, frozen=True):
    """A page was looked at with this cart."""

    cart_id: str
    page: str


touched = drop_event("CartTouched", 1, why="It only counted page views, and nobody reads it.")


# --- CartCheckedOut → BasketCheckedOut ------------------------------------------------------


@schema("CartCheckedOut", version=1)
class CartCheckedOutV1(Data, frozen=True):
    """The way to the till; `coupon` is there only where it was typed in at the till."""

    cart_id: str
    order_id: str
    coupon: str | UnsetType = UNSET


@schema("BasketCheckedOut")
class BasketCheckedOut(Data, frozen=True):
    """The basket became an order; `coupon` was used for it."""

    basket_id: str
    order_id: str
    coupon: str | UnsetType = UNSET


checked_out = rename_type(
    "CartCheckedOut", 1, basket_not_cart, to="BasketCheckedOut", why="A cart is a basket."
)


# --- whole baskets --------------------------------------------------------------------------

gifts_before_check_out = reorder(
    "gifts before check-out",
    move="GiftAdded",
    before="BasketCheckedOut",
    streams="cart-*",
    why="A nightly job recorded the gifts late; a basket that is checked out does not change.",
)

coupon_at_check_out = move_attribute(
    "coupon at check-out",
    "coupon",
    source="BasketOpened",
    target="BasketCheckedOut",
    streams="cart-*",
    why="A coupon is used when it is paid with, not when its link is followed.",
)

baskets_not_carts = rename_streams(
    "baskets, not carts", "cart-{id}", to="basket-{id}", why="A cart is a basket."
)


steps = [
    opened,
    touched,
    checked_out,
    gifts_before_check_out,
    coupon_at_check_out,
    baskets_not_carts,
]

schemas = [
    CartOpenedV1,
    BasketOpened,
    CartTouchedV1,
    CartCheckedOutV1,
    BasketCheckedOut,
]
