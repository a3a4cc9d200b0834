"""What release 2 changes: an order names its customer by `email`, a payment its currency."""

from __future__ import annotations

from eventmig import Registry, ops, rename_type, upcaster

registry = Registry(
    [
        upcaster("OrderPlaced", 1, ops.rename("mail", "email")),
        upcaster("OrderPaid", 1, ops.add("currency", "EUR")),
        rename_type("OrderSent", 1, to="OrderShipped"),
    ]
)
