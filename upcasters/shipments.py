"""Shipments: once parcels in the order's stream, now streams of their own."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from eventmig import ops, rename_type, route, schema, upcaster
from upcasters.base import Data, OldTime, seconds_to_time

# --- ParcelSent: v1 → v2 → ShipmentDispatched -----------------------------------------------


@schema("ParcelSent", version=1)
class ParcelSentV1(Data, frozen=True):
    """A list of carriers, of which there was never more than one; none is "will be fetched"."""

    order_id: str
    shipment_id: str
    carriers: Annotated[list[str], Meta(max_length=1)]
    tracking: str


@schema("ParcelSent", version=2)
class ParcelSentV2(Data, frozen=True):
    """With its one carrier."""

    order_id: str
    shipment_id: str
    carrier: str | None
    tracking: str | UnsetType = UNSET


one_carrier = upcaster(
    "ParcelSent",
    1,
    ops.rename("carriers", "carrier"),
    ops.unwrap("carrier"),
    ops.when(ops.equals("carrier", None), ops.drop("tracking", restore="")),
    why="A parcel has one carrier, or is fetched from the shop and never tracked.",
)


@schema("ShipmentDispatched")
class ShipmentDispatched(Data, frozen=True):
    """Something left for the customer; a `carrier` of null: the customer fetches it."""

    order_id: str
    shipment_id: str
    carrier: str | None
    tracking: str | UnsetType = UNSET


not_every_shipment_is_a_parcel = rename_type(
    "ParcelSent",
    2,
    to="ShipmentDispatched",
    why="Letters and pallets are sent as well.",
)


# --- ShipmentDelivered: v1 → v2 -------------------------------------------------------------


@schema("ShipmentDelivered", version=1)
class ShipmentDeliveredV1(Data, frozen=True):
    """By the clock in the van, which counts seconds."""

    order_id: str
    shipment_id: str
    delivered: OldTime
    signed_by: str | UnsetType = UNSET


@schema("ShipmentDelivered", version=2)
class ShipmentDelivered(Data, frozen=True):
    """It has arrived."""

    order_id: str
    shipment_id: str
    delivered_at: str
    signed_by: str | UnsetType = UNSET


delivered_in_utc = upcaster(
    "ShipmentDelivered",
    1,
    ops.convert("delivered", seconds_to_time),
    ops.rename("delivered", "delivered_at"),
    why="A time can be read without a calculator.",
)


# --- their streams --------------------------------------------------------------------------

streams_of_their_own = route(
    "shipments have streams of their own",
    "order-{id}",
    to="shipment-{data.shipment_id}",
    types=["ShipmentDispatched", "ShipmentDelivered"],
    why="One order can be sent in several shipments, each with a life of its own.",
)


steps = [one_carrier, not_every_shipment_is_a_parcel, delivered_in_utc, streams_of_their_own]

schemas = [
    ParcelSentV1,
    ParcelSentV2,
    ShipmentDispatched,
    ShipmentDeliveredV1,
    ShipmentDelivered,
]
