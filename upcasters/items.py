"""What is in a basket: items put in, taken out, counted, and given."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from eventmig import data_downcaster, data_upcaster, ops, schema, upcaster
from upcasters.base import Data, OldAmount, OldCount, basket_not_cart

# --- ItemAdded: v1 → v2 → v3 → v4 -----------------------------------------------------------


@schema("ItemAdded", version=1)
class ItemAddedV1(Data, frozen=True):
    """Straight from the web form: everything is text."""

    cart_id: str
    sku: str
    title: str
    qty: OldCount
    price: OldAmount


@schema("ItemAdded", version=2)
class ItemAddedV2(Data, frozen=True):
    """With a quantity that can be added up."""

    cart_id: str
    sku: str
    title: str
    quantity: int
    price: OldAmount


counted = upcaster(
    "ItemAdded",
    1,
    ops.convert("qty", "text_to_integer"),
    ops.rename("qty", "quantity"),
    why="A quantity is a number.",
)


@schema("ItemAdded", version=3)
class ItemAddedV3(Data, frozen=True):
    """With money that can be added up."""

    cart_id: str
    sku: str
    title: str
    quantity: int
    unit_price_cents: int
    currency: str


in_cents = upcaster(
    "ItemAdded",
    2,
    ops.convert("price", "text_to_hundredths"),
    ops.rename("price", "unit_price_cents"),
    ops.add("currency", "GBP"),
    why="Money is counted in whole cents, and says which money it is.",
)


class Product(Data, frozen=True):
    """What is sold; `sku` is the number on its shelf."""

    sku: str
    title: str


@schema("ItemAdded", version=4)
class ItemAdded(Data, frozen=True):
    """A product was put into a basket, `quantity` times."""

    basket_id: str
    product: Product
    quantity: int
    unit_price_cents: int
    list_price_cents: int
    currency: str


with_product = upcaster(
    "ItemAdded",
    3,
    basket_not_cart,
    ops.nest("sku", "title", under="product"),
    ops.add("list_price_cents", ops.ref("unit_price_cents")),
    why="Discounts begin; until now, every item was sold at its list price.",
)


# --- QuantityChanged: v1 → v2 ---------------------------------------------------------------


@schema("QuantityChanged", version=1)
class QuantityChangedV1(Data, frozen=True):
    """`change` is how the button was labelled: "+2", "-1"."""

    cart_id: str
    sku: str
    change: Annotated[str, Meta(pattern=r"^[+-][1-9][0-9]{0,2}$")]


@schema("QuantityChanged", version=2)
class QuantityChanged(Data, frozen=True):
    """There are `by` more of a product in the basket; below zero: fewer."""

    basket_id: str
    sku: str
    by: int


@data_upcaster("QuantityChanged", 1)
def by_a_number(old: dict[str, Any]) -> dict[str, Any]:
    """A label is not a number: "+2" is 2 more."""
    return {"basket_id": old["cart_id"], "sku": old["sku"], "by": int(old["change"])}


@data_downcaster("QuantityChanged", 2, exact=True)
def by_a_label(new: dict[str, Any]) -> dict[str, Any]:
    """2 more is "+2"."""
    return {"cart_id": new["basket_id"], "sku": new["sku"], "change": f"{new['by']:+d}"}


# --- ItemRemoved, GiftAdded: v1 → v2 --------------------------------------------------------


@schema("ItemRemoved", version=1)
class ItemRemovedV1(Data, frozen=True):
    """Taken out of a cart."""

    cart_id: str
    sku: str


@schema("ItemRemoved", version=2)
class ItemRemoved(Data, frozen=True):
    """A product was taken out of a basket, all of it."""

    basket_id: str
    sku: str


removed_from_basket = upcaster("ItemRemoved", 1, basket_not_cart, why="A cart is a basket.")


@schema("GiftAdded", version=1)
class GiftAddedV1(Data, frozen=True):
    """Put into a cart."""

    cart_id: str
    sku: str


@schema("GiftAdded", version=2)
class GiftAdded(Data, frozen=True):
    """The shop put a present into a basket."""

    basket_id: str
    sku: str


given_to_basket = upcaster("GiftAdded", 1, basket_not_cart, why="A cart is a basket.")


steps = [
    counted,
    in_cents,
    with_product,
    by_a_number,
    by_a_label,
    removed_from_basket,
    given_to_basket,
]

schemas = [
    ItemAddedV1,
    ItemAddedV2,
    ItemAddedV3,
    ItemAdded,
    QuantityChangedV1,
    QuantityChanged,
    ItemRemovedV1,
    ItemRemoved,
    GiftAddedV1,
    GiftAdded,
]
