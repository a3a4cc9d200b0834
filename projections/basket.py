"""One basket as it is now: what is in it, and whether it became an order."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from eventmig.rebuild import Aggregate
from upcasters.baskets import BasketCheckedOut, BasketOpened
from upcasters.items import GiftAdded, ItemAdded, ItemRemoved, QuantityChanged


class Basket(Struct, frozen=True):
    """The state of a basket: pieces and price of one piece, by sku."""

    basket_id: str
    quantities: dict[str, int]
    prices: dict[str, int]
    gifts: list[str]
    customer_id: str | UnsetType = UNSET
    order_id: str | UnsetType = UNSET
    coupon: str | UnsetType = UNSET

    @property
    def total_cents(self) -> int:
        """What its goods come to; gifts cost nothing."""
        return sum(count * self.prices[sku] for sku, count in self.quantities.items())


basket = Aggregate("basket", category="basket", state=Basket, version=1)


@basket.on("BasketOpened")
def opened(opening: BasketOpened) -> Basket:
    """An empty basket."""
    return Basket(
        basket_id=opening.basket_id,
        quantities={},
        prices={},
        gifts=[],
        customer_id=opening.customer_id,
    )


@basket.on("ItemAdded")
def added(state: Basket, item: ItemAdded) -> Basket:
    """More of a product; the last price counts for all of it."""
    sku = item.product.sku
    return replace(
        state,
        quantities={**state.quantities, sku: state.quantities.get(sku, 0) + item.quantity},
        prices={**state.prices, sku: item.unit_price_cents},
    )


@basket.on("QuantityChanged")
def changed(state: Basket, change: QuantityChanged) -> Basket:
    """More or fewer of a product that is there; with none left, it is gone."""
    count = state.quantities.get(change.sku, 0) + change.by
    others = {sku: n for sku, n in state.quantities.items() if sku != change.sku}
    return replace(state, quantities={**others, change.sku: count} if count > 0 else others)


@basket.on("ItemRemoved")
def removed(state: Basket, item: ItemRemoved) -> Basket:
    """None of a product."""
    return replace(
        state, quantities={sku: n for sku, n in state.quantities.items() if sku != item.sku}
    )


@basket.on("GiftAdded")
def given(state: Basket, gift: GiftAdded) -> Basket:
    """A present."""
    return replace(state, gifts=[*state.gifts, gift.sku])


@basket.on("BasketCheckedOut")
def checked_out(state: Basket, check_out: BasketCheckedOut) -> Basket:
    """It became an order, and changes no more."""
    return replace(state, order_id=check_out.order_id, coupon=check_out.coupon)
