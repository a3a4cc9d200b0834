"""Declaring read models: what handlers take, which tables fold, what the fingerprint says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Column, DateTime, Engine, Integer, MetaData, String, Table, func

from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import ReadModel, ReplayOrder, Rows
from tests.unit.read_model_helpers import OrderPlaced, daily, rebuild, sales
from tests.unit.rebuild_helpers import MemorySource, history


class OrderPaid(BaseModel):
    day: str
    cents: int


def test_data_comes_as_annotated_and_the_rest_by_name(engine: Engine) -> None:
    seen: list[object] = []
    model = ReadModel("kinds", tables=[sales])

    @model.on("Struct")
    def struct(order: OrderPlaced, rows: Rows) -> None:
        seen.append(order)

    @model.on("Model")
    def pydantic(rows: Rows, paid: OrderPaid) -> None:
        seen.append(paid)

    @model.on("Dict")
    def mapping(rows: Rows, event: Event, data: dict[str, object]) -> None:
        seen.append((event.id, data))

    @model.on("Nothing", "More")
    def nothing(event: Event, rows: Rows) -> None:
        seen.append(event.type)

    data = {"day": "d", "cents": 3}
    kinds = ("Struct", "Model", "Dict", "Nothing", "More", "Unhandled")
    result = rebuild(model, engine, MemorySource(history(("s-1", k, data) for k in kinds)))
    assert seen == [
        OrderPlaced(day="d", cents=3),
        OrderPaid(day="d", cents=3),
        ("event-3", data),
        "Nothing",
        "More",
    ]
    assert (result.events_read, result.events_folded) == (6, 5)


def test_a_signature_that_fits_no_rule_is_refused() -> None:
    model = ReadModel("bad", tables=[sales])

    def two(one: OrderPlaced, two: OrderPlaced, rows: Rows) -> None: ...
    def no_rows(order: OrderPlaced) -> None: ...
    def bare(order, rows): ...  # type: ignore[no-untyped-def]
    def many(*rows: object) -> None: ...
    def unknown(order: NotThere, rows: Rows) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for handler, words in (
        (two, "two parameters for the data, one and two"),
        (no_rows, "no parameter called rows"),
        (bare, "does not say what order is"),
        (many, r"takes \*rows"),
        (unknown, "NotThere"),
    ):
        with pytest.raises(RebuildError, match=words) as raised:
            model.on("OrderPlaced")(handler)
        assert handler.__name__ in str(raised.value)
    assert model.types == frozenset()


def test_one_handler_per_type() -> None:
    model = daily()
    with pytest.raises(RebuildError, match="two handlers for OrderPlaced"):

        @model.on("OrderPlaced")
        def again(rows: Rows) -> None: ...


def test_tables_a_fold_cannot_repeat_are_refused() -> None:
    def table(*columns: Column[Any]) -> Table:
        return Table("t", MetaData(), *columns)

    for made, words in (
        (table(Column("a", Integer)), "no primary key"),
        (
            table(Column("k", String(collation="NOCASE"), primary_key=True)),
            "collation",
        ),
        (
            table(Column("k", String, primary_key=True), Column("a", Integer, default=lambda: 1)),
            "default that is computed",
        ),
        (
            table(
                Column("k", String, primary_key=True), Column("a", DateTime, onupdate=func.now())
            ),
            "onupdate",
        ),
    ):
        with pytest.raises(RebuildError, match=words):
            ReadModel("bad", tables=[made])


def test_the_fingerprint_follows_version_tables_and_handlers() -> None:
    assert daily().fingerprint == daily().fingerprint
    other = ReadModel("daily", tables=[sales])

    @other.on("OrderPlaced")
    def placed(order: OrderPlaced, event: Event, rows: Rows) -> None:
        rows.increment(sales, key={"day": order.day}, orders=2, cents=order.cents)

    wider = Table("sales_per_day", MetaData(), *(c._copy() for c in sales.columns))
    wider.append_column(Column("more", Integer))
    found = {
        daily().fingerprint,
        daily(version=2).fingerprint,
        other.fingerprint,
        ReadModel("daily", tables=[wider]).fingerprint,
        ReadModel("daily", tables=[sales]).fingerprint,
    }
    assert len(found) == 5
    assert daily().order is ReplayOrder.GLOBAL
