"""Rebuilding read models, swapping them in, and taking a rebuild back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Engine, MetaData, String, Table, inspect

from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import ReadModel, Rows, rebuild_read_models, rollback_read_models
from eventmig.rebuild.shadow import parked_name
from tests.unit.read_model_helpers import OrderPlaced, daily, metadata, orders, rebuild, sales, sums
from tests.unit.rebuild_helpers import MemorySource, names_in, rows_of, same


def test_a_rebuild_fills_the_live_table_and_restores_its_index_names(engine: Engine) -> None:
    source = MemorySource(orders(40))
    result = rebuild(daily(), engine, source, batch_size=7)
    assert rows_of(engine, sales) == sums(40)
    assert result.rows == {"sales_per_day": 5}
    assert (result.generation, result.kept, result.position) == (1, None, 40)
    rebuild(daily(), engine, source)
    assert "sales_by_cents" in names_in(engine, "index")
    with engine.connect() as connection:
        (index,) = inspect(connection).get_indexes("sales_per_day")
    assert (index["name"], index["column_names"]) == ("sales_by_cents", ["cents"])


def test_rollback_brings_the_old_rows_back_and_a_second_one_the_new(engine: Engine) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    assert rebuild(daily(cents=2, version=2), engine, source).kept == 1
    assert rows_of(engine, sales) == sums(40, cents=2)
    assert rollback_read_models(["daily"], engine=engine) == {"daily": 1}
    assert rows_of(engine, sales) == sums(40)
    assert "sales_by_cents" in names_in(engine, "index")
    assert rollback_read_models(["daily"], engine=engine) == {"daily": 2}
    assert rows_of(engine, sales) == sums(40, cents=2)


def test_the_next_swap_drops_the_oldest_generation(engine: Engine) -> None:
    source = MemorySource(orders(10))
    for generation, tables in ((1, set()), (2, {1}), (3, {2}), (4, {3})):
        assert rebuild(daily(), engine, source).generation == generation
        parked = {parked_name("sales_per_day", number) for number in tables}
        mine = {name for name in names_in(engine) if not name.startswith("eventmig_")}
        assert mine == {"sales_per_day"} | parked


def test_nothing_to_roll_back_to_is_an_error(engine: Engine) -> None:
    for _ in range(1):
        rebuild(daily(), engine, MemorySource(orders(3)))
    with pytest.raises(RebuildError, match="no earlier generation"):
        rollback_read_models(["daily"], engine=engine)
    assert rows_of(engine, sales) == sums(3)


def test_a_table_from_before_eventmig_is_kept_for_a_rollback(engine: Engine) -> None:
    metadata.create_all(engine, tables=[sales])
    with engine.begin() as connection:
        connection.execute(sales.insert().values(day="old", orders=1, cents=1))
    assert rebuild(daily(), engine, MemorySource(orders(40))).kept == 0
    assert rows_of(engine, sales) == sums(40)
    rollback_read_models(["daily"], engine=engine)
    assert rows_of(engine, sales) == [("old", 1, 1)]
    assert "sales_by_cents" in names_in(engine, "index")


def test_a_table_that_holds_something_else_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE sales_per_day (id INTEGER PRIMARY KEY)")
    with pytest.raises(RebuildError, match="eventmig did not make"):
        rebuild(daily(), engine, MemorySource(orders(3)))
    other = ReadModel("other", tables=[sales])
    other.on("OrderPlaced")(daily().handlers["OrderPlaced"].function)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE sales_per_day")
    rebuild(daily(), engine, MemorySource(orders(3)))
    with pytest.raises(RebuildError, match="belongs to the read model daily"):
        rebuild(other, engine, MemorySource(orders(3)))


def test_a_view_follows_the_live_name(engine: Engine) -> None:
    source = MemorySource(orders(10))
    rebuild(daily(), engine, source)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW totals AS SELECT sum(cents) c FROM sales_per_day")
    rebuild(daily(cents=3, version=2), engine, source)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT c FROM totals").scalar() == 3 * sum(range(10))


def test_all_models_of_a_call_are_swapped_together_or_none(engine: Engine) -> None:
    other = Table("other", MetaData(), Column("k", String, primary_key=True))
    failing = ReadModel("failing", tables=[other])

    @failing.on("OrderPlaced")
    def placed(order: OrderPlaced, rows: Rows) -> None:
        if order.cents == 30:
            raise ValueError("thirty")

    options: dict[str, Any] = {"upcast": same, "engine": engine, "release": "1", "batch_size": 5}
    with pytest.raises(RebuildError, match="thirty"):
        rebuild_read_models([daily(), failing], source=MemorySource(orders(40)), **options)
    assert "sales_per_day" not in names_in(engine)
    shorter = MemorySource(orders(20))
    first, second = rebuild_read_models([daily(), failing], source=shorter, upto=20, **options)
    assert rows_of(engine, sales) == sums(20)
    assert (first.restarted or "").startswith("it was built up to position 40")
    assert second.restarted is not None


def test_only_stored_types_that_can_become_handled_ones_are_read(engine: Engine) -> None:
    events = [
        *orders(10),
        Event(11, "x-1", 1, "id", "Other", 1, b"not json", None, 0),
        Event(12, "x-1", 2, "id2", "OldPlaced", 1, b'{"day": "day-0", "cents": 5}', None, 0),
    ]

    def upcast(stored: Any) -> list[Event]:
        return [e._replace(type=e.type.replace("OldPlaced", "OrderPlaced")) for e in stored]

    def source_types(types: Any) -> set[str]:
        return set(types) | {"OldPlaced"}

    source = MemorySource(events)
    result = rebuild(daily(), engine, source, upcast=upcast, source_types=source_types)
    assert (result.events_read, result.events_folded) == (11, 11)
    assert rows_of(engine, sales)[0] == ("day-0", 3, 10)


def test_a_source_that_loses_events_while_it_is_read_is_found_out(engine: Engine) -> None:
    class Losing(MemorySource):
        def read_all(self, **options: Any) -> Iterator[list[Event]]:
            for batch in super().read_all(**options):
                yield batch[1:]

    with pytest.raises(RebuildError, match="built from 39 events, and the source holds 40"):
        rebuild(daily(), engine, Losing(orders(40)))
    assert "sales_per_day" not in names_in(engine)
