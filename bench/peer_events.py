"""The benchmark's events as the PyPI library `eventsourcing` has them.

Upcasting as its documentation says: `class_version`, and a static method
`upcast_vX_vY` per step, on the event's state. Importing this needs the library.
"""

from __future__ import annotations

import importlib
from typing import Any

from bench import by_hand

# By name, so that the type checker says the same whether the library is there or not.
_domain: Any = importlib.import_module("eventsourcing.domain")


class OrderPlaced(_domain.Aggregate.Event):  # type: ignore[misc]
    """A customer ordered."""

    class_version = 4
    upcast_v1_v2 = staticmethod(by_hand.order_1_2)
    upcast_v2_v3 = staticmethod(by_hand.order_2_3)
    upcast_v3_v4 = staticmethod(by_hand.order_3_4)


class PaymentReceived(_domain.Aggregate.Event):  # type: ignore[misc]
    """Money came in."""

    class_version = 3
    upcast_v1_v2 = staticmethod(by_hand.payment_1_2)
    upcast_v2_v3 = staticmethod(by_hand.payment_2_3)


class ParcelShipped(_domain.Aggregate.Event):  # type: ignore[misc]
    """A parcel left the house."""

    class_version = 2
    upcast_v1_v2 = staticmethod(by_hand.parcel_1_2)


class PageViewed(_domain.Aggregate.Event):  # type: ignore[misc]
    """A customer looked at a page."""


CLASSES: dict[str, type[Any]] = {
    c.__name__: c for c in (OrderPlaced, PaymentReceived, ParcelShipped, PageViewed)
}
