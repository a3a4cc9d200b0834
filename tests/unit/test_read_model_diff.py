"""What a rebuild would change, and what was changed behind its back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from eventmig.errors import RebuildError
from eventmig.project import sql_engine
from eventmig.rebuild import rollback_read_models
from eventmig.rebuild.comparing import ModelDifference, RowDifference
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.rebuild_read_models import compare_read_models
from tests.unit.read_model_helpers import daily, orders, rebuild, sales, sums
from tests.unit.rebuild_helpers import MemorySource, engine_at, rows_of, same
from tests.unit.test_read_model_following import Growing, bring_on


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = engine_at(tmp_path / "read.db")
        yield made
        made.dispose()
        return
    with sql_engine(request.getfixturevalue("postgres_url")) as server:
        yield server


def diff(engine: Engine, model: ReadModel, source: MemorySource, **o: Any) -> ModelDifference:
    (found,) = compare_read_models(
        [model], source=source, upcast=same, engine=engine, release="1", **o
    )
    return found


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_rows_that_are_as_they_should_be(engine: Engine) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    found = diff(engine, daily(), source)
    (table,) = found.tables
    assert found.equal
    assert found.position == 40
    assert (table.added, table.removed, table.changed, table.same) == (0, 0, 0, 5)
    assert rows_of(engine, sales) == sums(40)


def test_every_row_that_a_rebuild_would_change_is_shown(engine: Engine) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    run(
        engine,
        "UPDATE sales_per_day SET cents = 7 WHERE day = 'day-1'",
        "DELETE FROM sales_per_day WHERE day = 'day-2'",
        "INSERT INTO sales_per_day VALUES ('day-9', 1, 2)",
    )
    (table,) = diff(engine, daily(), source).tables
    assert (table.added, table.removed, table.changed, table.same) == (1, 1, 1, 3)
    right = {day: (number, cents) for day, number, cents in sums(40)}
    assert table.examples == (
        RowDifference(key="day='day-1'", live={"cents": 7}, rebuilt={"cents": right["day-1"][1]}),
        RowDifference(
            key="day='day-2'",
            live=None,
            rebuilt={"orders": right["day-2"][0], "cents": right["day-2"][1]},
        ),
        RowDifference(key="day='day-9'", live={"orders": 1, "cents": 2}, rebuilt=None),
    )


def test_a_rebuild_goes_on_with_what_was_compared(engine: Engine) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    other = daily(cents=2, version=2)
    assert diff(engine, other, source).tables[0].changed == 5
    assert rows_of(engine, sales) == sums(40)
    result = rebuild(other, engine, source)
    assert result.resumed
    assert rows_of(engine, sales) == sums(40, cents=2)


def test_rows_are_compared_where_the_live_ones_are(engine: Engine) -> None:
    source = Growing(60, 40)
    rebuild(daily(), engine, source)
    source.grow_to(60)  # nobody brought the live rows on
    found = diff(engine, daily(), source)
    assert (found.equal, found.position) == (True, 40)

    def bring_on_meanwhile(_: object) -> None:
        if len(source.events) == 60:
            bring_on(engine, source)

    found = diff(engine, daily(), source, progress=bring_on_meanwhile)
    assert (found.equal, found.position) == (True, 60)


def test_there_must_be_something_to_compare_with(engine: Engine) -> None:
    with pytest.raises(RebuildError, match="no live table sales_per_day"):
        diff(engine, daily(), MemorySource(orders(3)))


def test_columns_of_one_side_are_named(engine: Engine) -> None:
    sales.create(engine)
    run(engine, "ALTER TABLE sales_per_day ADD COLUMN note VARCHAR")
    (table,) = diff(engine, daily(), MemorySource(orders(5))).tables
    assert not table.equal
    assert table.columns == ("note",)
    assert table.added == 5


# --- changed behind its back


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("ALTER TABLE sales_per_day ADD COLUMN note VARCHAR", "the column note"),
        ("CREATE INDEX by_hand ON sales_per_day (orders)", "the index by_hand"),
    ],
)
def test_what_was_added_by_hand_is_named_and_not_lost(
    engine: Engine, statement: str, what: str
) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    run(engine, statement)
    with pytest.raises(RebuildError, match=what) as raised:
        rebuild(daily(version=2, cents=2), engine, source)
    assert "declare it" in raised.value.remedy
    assert rows_of(engine, sales)[0][:3] == sums(40)[0]


def test_what_was_added_while_it_was_built_is_not_lost_either(engine: Engine) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    done: list[object] = []

    def add(_: object) -> None:
        if not done:
            done.append(run(engine, "CREATE INDEX by_hand ON sales_per_day (orders)"))

    with pytest.raises(RebuildError, match="the index by_hand"):
        rebuild(daily(version=2, cents=2), engine, source, progress=add)
    assert rows_of(engine, sales) == sums(40)
    run(engine, "DROP INDEX by_hand")
    assert rebuild(daily(version=2, cents=2), engine, source).resumed


def test_a_rolled_back_generation_is_as_it_was(engine: Engine) -> None:
    source = MemorySource(orders(40))
    for cents in (1, 2):
        rebuild(daily(cents=cents, version=cents), engine, source)
    rollback_read_models(["daily"], engine=engine)
    rebuild(daily(cents=3, version=3), engine, source)
    assert rows_of(engine, sales) == sums(40, cents=3)
