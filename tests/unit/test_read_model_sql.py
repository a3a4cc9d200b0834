"""Handlers that run SQL: slower, and as right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, func, select, text, update

from eventmig.errors import RebuildError
from eventmig.project import sql_engine
from eventmig.rebuild import ReadModel, Rows, Sql, careful
from eventmig.testing import assert_order
from tests.unit.read_model_helpers import OrderPlaced, StopError, orders, rebuild, stop_after
from tests.unit.rebuild_helpers import MemorySource, engine_at, rows_of
from tests.unit.test_read_model_following import Growing, bring_on

ranked = Table(
    "ranked",
    MetaData(),
    Column("day", String, primary_key=True),
    Column("cents", Integer, nullable=False, default=0),
    Column("rank", Integer),
)


def ranking() -> ReadModel:
    """Days by what came in: a row depends on all the others."""
    model = ReadModel("ranking", tables=[ranked])

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, rows: Rows, sql: Sql) -> None:
        rows.increment(ranked, order.day, cents=order.cents)
        days = sql[ranked]
        other = days.alias()
        better = select(func.count()).where(other.c.cents > days.c.cents).scalar_subquery()
        sql.execute(update(days).values(rank=better + 1))

    return model


def wanted(count: int) -> list[tuple[object, ...]]:
    cents: dict[str, int] = {}
    for n in range(count):
        cents[f"day-{n % 5}"] = cents.get(f"day-{n % 5}", 0) + n
    return [
        (day, sum_, 1 + sum(other > sum_ for other in cents.values()))
        for day, sum_ in sorted(cents.items())
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = engine_at(tmp_path / "read.db")
        yield made
        made.dispose()
        return
    with sql_engine(request.getfixturevalue("postgres_url")) as server:
        yield server


def test_statements_see_what_was_done_before_them(engine: Engine) -> None:
    source = Growing(60, 40)
    rebuild(ranking(), engine, source)
    assert rows_of(engine, ranked) == wanted(40)
    result = rebuild(ranking(), engine, source, progress=lambda _: source.grow_to(50))
    assert (result.position, rows_of(engine, ranked)) == (50, wanted(50))
    source.grow_to(60)
    assert bring_on(engine, source, ranking()).events == 10
    assert rows_of(engine, ranked) == wanted(60)


@pytest.mark.parametrize("commits", range(4))
def test_stopped_anywhere_it_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    monkeypatch.setattr(careful, "BATCH", 15)
    source = MemorySource(orders(40))
    with pytest.raises(StopError):
        rebuild(ranking(), engine, source, progress=stop_after(commits))
    assert rebuild(ranking(), engine, source).resumed
    assert rows_of(engine, ranked) == wanted(40)


def test_what_fails_is_set_aside_with_all_it_did(engine: Engine) -> None:
    source = MemorySource(
        e._replace(data=b'{"day": 5}') if e.global_position == 40 else e for e in orders(40)
    )
    with pytest.raises(RebuildError, match="does not fit its handler"):
        rebuild(ranking(), engine, source)
    result = rebuild(ranking(), engine, source, quarantine=True, accept_quarantined=True)
    assert [aside.global_position for aside in result.quarantined] == [40]
    assert rows_of(engine, ranked) == wanted(39)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda sql: sql.execute(text("DELETE FROM ranked")), "not text"),
        (lambda sql: sql.execute(update(ranked).values(rank=0)), "that is the live table"),
        (lambda sql: sql[Table("other", MetaData())], "not one of this read model"),
    ],
)
def test_the_live_tables_are_out_of_reach(engine: Engine, run: Any, words: str) -> None:
    source = MemorySource(orders(10))
    rebuild(ranking(), engine, source)
    model = ReadModel("ranking", tables=[ranked], version=2)

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, sql: Sql) -> None:
        run(sql)

    with pytest.raises(RebuildError, match=words):
        rebuild(model, engine, source)
    assert rows_of(engine, ranked) == wanted(10)


def test_the_claim_of_an_order_is_tested_with_sql_too() -> None:
    assert_order(ranking(), orders(20))
