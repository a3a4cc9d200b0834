"""The turnover of each day (UTC), by sales channel."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

from eventmig import Event
from eventmig.rebuild import ReadModel, Rows
from upcasters.orders import OrderPlaced

days = Table(
    "sales_per_day",
    MetaData(),
    Column("day", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("orders", Integer, nullable=False, default=0),
    Column("items", Integer, nullable=False, default=0),
    Column("goods_cents", Integer, nullable=False, default=0),
    Column("shipping_cents", Integer, nullable=False, default=0),
)

# "stream": sums come to the same in whatever order the orders are added up.
sales_per_day = ReadModel("sales_per_day", version=1, tables=[days], order="stream")


@sales_per_day.on("OrderPlaced")
def placed(order: OrderPlaced, event: Event, rows: Rows) -> None:
    """One order more."""
    rows.increment(
        days,
        key={"day": event.recorded_time.date().isoformat(), "channel": order.channel},
        orders=1,
        items=sum(line.quantity for line in order.lines),
        goods_cents=order.goods_cents,
        shipping_cents=order.shipping_cents,
    )
