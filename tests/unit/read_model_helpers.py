"""What the tests of read models share: a read model of sales per day, and its rebuild."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Engine, Index, Integer, MetaData, String, Table

from eventmig.events import Event
from eventmig.rebuild import ReadModel, RebuildProgress, Rows, rebuild_read_models
from tests.unit.rebuild_helpers import MemorySource, history, same

metadata = MetaData()
sales = Table(
    "sales_per_day",
    metadata,
    Column("day", String, primary_key=True),
    Column("orders", Integer, nullable=False),
    Column("cents", Integer, nullable=False),
    Index("sales_by_cents", "cents"),
)


class OrderPlaced(msgspec.Struct):
    day: str
    cents: int


def daily(version: int = 1, cents: int = 1) -> ReadModel:
    model = ReadModel("daily", version=version, tables=[sales])

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, event: Event, rows: Rows) -> None:
        rows.increment(sales, key={"day": order.day}, orders=1, cents=order.cents * cents)

    return model


def orders(count: int) -> list[Event]:
    return history(
        (f"order-{n % 7}", "OrderPlaced", {"day": f"day-{n % 5}", "cents": n, "more": [n]})
        for n in range(count)
    )


def sums(count: int, cents: int = 1) -> list[tuple[object, ...]]:
    days: dict[str, list[int]] = {}
    for n in range(count):
        day = days.setdefault(f"day-{n % 5}", [0, 0])
        day[0] += 1
        day[1] += n * cents
    return [(day, *found) for day, found in sorted(days.items())]


def rebuild(model: ReadModel, engine: Engine, source: MemorySource, **options: Any) -> Any:
    values = {"source": source, "upcast": same, "engine": engine, "release": "1"} | options
    (result,) = rebuild_read_models([model], **values)
    return result


class StopError(Exception):
    """Raised by a progress callback in place of a kill."""


def stop_after(commits: int) -> Any:
    seen: list[RebuildProgress] = []

    def tell(progress: RebuildProgress) -> None:
        seen.append(progress)
        if len(seen) > commits:
            raise StopError

    return tell


texts = Table("texts", MetaData(), Column("n", Integer, primary_key=True), Column("t", String))


def wide(version: int = 1) -> ReadModel:
    model = ReadModel("wide", version=version, tables=[texts])

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, rows: Rows) -> None:
        rows.insert(texts, order.cents, t="x" * 1_000)

    return model
