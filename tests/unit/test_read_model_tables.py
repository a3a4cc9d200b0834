"""Tables of all kinds, and the rows and operations that they refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    DateTime,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    event,
    inspect,
)

from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import ReadModel, Rows, rollback_read_models
from eventmig.rebuild.shadow import LONGEST_NAME, parked_name
from tests.unit.read_model_helpers import OrderPlaced, orders, rebuild, sales
from tests.unit.rebuild_helpers import MemorySource, history, names_in, rows_of


def test_names_over_63_bytes_are_shortened_and_told_apart(engine: Engine) -> None:
    long = "a_read_model_table_with_a_name_that_is_as_long_as_it_may_well_be"
    assert len(long) > LONGEST_NAME
    tables = [
        Table(
            long + end,
            MetaData(),
            Column("k", String, primary_key=True),
            Index(f"index_of_{long}{end}", "k"),
        )
        for end in ("_one", "_two")
    ]
    model = ReadModel("long", tables=tables)

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, rows: Rows) -> None:
        rows.upsert(tables[order.cents % 2], key=order.day)

    for _ in range(3):
        rebuild(model, engine, MemorySource(orders(40)))
    parked = {parked_name(table.name, 2) for table in tables}
    assert len(parked) == 2
    assert parked <= names_in(engine)
    assert all(len(name.encode()) <= LONGEST_NAME for name in parked)
    assert all(len(parked_name("ä" * n, 12).encode()) <= 63 for n in range(80))
    assert rows_of(engine, tables[0]) == rows_of(engine, tables[1])
    rollback_read_models(["long"], engine=engine)
    assert {table.name for table in tables} <= names_in(engine)


def shop() -> tuple[ReadModel, Table, Table]:
    made = MetaData()
    parents = Table(
        "customers",
        made,
        Column("id", String, primary_key=True),
        Column("boss", String, ForeignKey("customers.id")),
    )
    children = Table(
        "purchases",
        made,
        Column("customer", String, ForeignKey("customers.id"), primary_key=True),
        Column("n", Integer, primary_key=True),
        Column("at", DateTime, nullable=False),
        Column("tags", JSON),
        Column("cents", Integer, CheckConstraint("cents >= 0", name="not_negative")),
    )
    model = ReadModel("shop", tables=[children, parents])

    @model.on("Bought")
    def bought(data: dict, event: Event, rows: Rows) -> None:  # type: ignore[type-arg]
        key = (data["customer"], data["n"])
        at = datetime.fromtimestamp(data["n"], UTC).replace(tzinfo=None)
        rows.insert(children, key=key, at=at, tags=[data["n"]], cents=data.get("cents", 1))
        row = rows.get(children, key=key)
        assert row is not None
        assert row == {
            "customer": key[0], "n": key[1], "at": at, "tags": [data["n"]],
            "cents": data.get("cents", 1),
        }  # fmt: skip
        if data.get("known", True):
            rows.upsert(parents, key=data["customer"], boss=data["customer"])

    return model, parents, children


def bought(*data: dict[str, object]) -> MemorySource:
    return MemorySource(history(("s-1", "Bought", {"customer": "c", "n": 1} | d) for d in data))


@pytest.mark.parametrize("enforced", [False, True])
def test_foreign_keys_between_the_tables_hold_after_every_swap(
    engine: Engine, enforced: bool
) -> None:
    if enforced:

        @event.listens_for(engine, "connect")
        def enforce(connection: Any, record: object) -> None:
            connection.execute("PRAGMA foreign_keys=ON")

        engine.dispose()
    model, parents, children = shop()
    for _ in range(2):
        rebuild(model, engine, bought({}, {"n": 2}), batch_size=1)
    rollback_read_models(["shop"], engine=engine)
    assert rows_of(engine, parents) == [("c", "c")]
    assert [row[:2] for row in rows_of(engine, children)] == [("c", 1), ("c", 2)]
    with engine.connect() as connection:
        keys = inspect(connection).get_foreign_keys
        assert keys("purchases")[0]["referred_table"] == "customers"
        assert keys("customers")[0]["referred_table"] == "customers"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == int(enforced)


def test_a_row_that_points_nowhere_stops_the_swap(engine: Engine) -> None:
    model, parents, _ = shop()
    rebuild(model, engine, bought({}))
    with pytest.raises(RebuildError, match="1 rows of purchases point at rows of customers"):
        rebuild(model, engine, bought({}, {"customer": "d", "known": False}))
    assert rows_of(engine, parents) == [("c", "c")]


def test_rows_that_break_a_unique_index_stop_the_swap(engine: Engine) -> None:
    table = Table(
        "once",
        MetaData(),
        Column("k", String, primary_key=True),
        Column("v", Integer),
        Index("once_by_v", "v", unique=True),
    )
    model = ReadModel("once", tables=[table])

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, rows: Rows) -> None:
        rows.upsert(table, key=order.day, v=order.cents // 7)

    rebuild(model, engine, MemorySource(orders(1)))
    with pytest.raises(RebuildError, match="break a constraint or a unique index"):
        rebuild(model, engine, MemorySource(orders(3)))
    assert rows_of(engine, table) == [("day-0", 0)]


def test_a_row_the_database_refuses_names_event_handler_and_row(engine: Engine) -> None:
    model, _, _ = shop()
    with pytest.raises(RebuildError, match="not_negative") as raised:
        rebuild(model, engine, bought({}, {"n": 2, "cents": -1}, {"n": 3}))
    where = raised.value.where
    assert (where.event_id, where.key) == ("event-2", "purchases customer='c', n=2")
    assert str(where.handler).endswith("bought")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.increment(sales, key={"day": 5}, orders=1), "is str, not int 5"),
        (lambda rows: rows.increment(sales, key={"date": "d"}, orders=1), r"is \(day\), not"),
        (lambda rows: rows.upsert(sales, key={"day": "d", "n": 1}), r"is \(day\), not"),
        (lambda rows: rows.upsert(sales, key=None), "not NoneType None"),
        (lambda rows: rows.increment(sales, key="d", order=1), "sales_per_day.order is not there"),
        (lambda rows: rows.increment(sales, key="d", orders="1"), "by '1'"),
        (lambda rows: rows.patch(sales, key="d", day="e"), "a key cannot change"),
        (lambda rows: rows.insert(sales, key="d", orders=1), "needs cents"),
        (lambda rows: rows.delete(Table("t", MetaData()), key="d"), "not one of this read model"),
        (lambda rows: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_an_operation_that_cannot_be_names_the_place(
    engine: Engine, change: Any, words: str
) -> None:
    model = ReadModel("wrong", tables=[sales])

    @model.on("OrderPlaced")
    def placed(event: Event, rows: Rows) -> None:
        if event.global_position == 2:
            change(rows)

    with pytest.raises(RebuildError, match=words) as raised:
        rebuild(model, engine, MemorySource(orders(3)))
    assert raised.value.where.event_id == "event-2"
    assert str(raised.value.where.handler).endswith("placed")
    assert raised.value.remedy
