"""The shop's registry: every step from what was stored to what the shop says today.

One module per family of events, each chain top-down: the model of a version, then the
step that leads to it. The model without a number in its name is the current one.

The steps on whole streams run in the order given here, after each event's own chain;
then the first store step that takes an event names the stream it goes to.
"""

from __future__ import annotations

from eventmig import Registry
from upcasters import (
    baskets,
    customers,
    items,
    order_changes,
    orders,
    payments,
    preferences,
    shipments,
)

_families = (
    customers,
    preferences,
    baskets,
    items,
    orders,
    order_changes,
    payments,
    shipments,
)

registry = Registry(
    [family.steps for family in _families],
    schemas=[schema for family in _families for schema in family.schemas],
)
