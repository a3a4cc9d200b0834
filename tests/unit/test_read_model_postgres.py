"""Read models in PostgreSQL: written in bulk, swapped with all that hangs on them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Engine,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    inspect,
)

from eventmig.errors import RebuildError
from eventmig.project import sql_engine
from eventmig.rebuild import ReadModel, Rows, bulk, locking, rollback_read_models, staging
from tests.unit.read_model_helpers import daily, orders, rebuild, sales, sums
from tests.unit.rebuild_helpers import MemorySource, history, rows_of
from tests.unit.test_read_model_fold import model, operations, plain, reference, strict


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    with sql_engine(postgres_url) as made:
        yield made


def test_any_history_gives_the_rows_of_one_operation_at_a_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (staging, bulk):  # a staging table, and a copy, for two rows already
        monkeypatch.setattr(module, "FEW", 1)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(operations, max_size=30), st.integers(1, 15))
    def check(data: list[dict[str, Any]], batch_size: int) -> None:
        events = history(("s-1", "Op", one) for one in data)
        wanted, failed = reference(events)
        upto = len(events) if failed is None else failed - 1
        if failed is not None:
            with pytest.raises(RebuildError) as raised:
                rebuild(model(), engine, MemorySource(events), batch_size=batch_size)
            assert raised.value.where.key is not None
        rebuild(model(), engine, MemorySource(events), batch_size=batch_size, upto=upto)
        assert {t.name: rows_of(engine, t) for t in (plain, strict)} == wanted

    check()


many = Table(
    "many",
    MetaData(),
    Column("k", Integer, primary_key=True),
    Column("text", String),
    Column("at", DateTime(timezone=True)),
    Column("sum", Numeric(30, 4), default=Decimal("1.5")),
    Column("more", JSON),
    Column("raw", LargeBinary),
    Column("flag", Boolean, nullable=False, default=False),
    Column("mood", Enum("good", "bad", name="mood")),
)
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def all_kinds() -> ReadModel:
    made = ReadModel("many", tables=[many])

    @made.on("OrderPlaced")
    def placed(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        n = data["cents"]
        if n % 3 == 0:
            values: dict[str, Any] = {
                "text": f"a\t\\N\n{n}",
                "at": MOMENT,
                "more": {"n": [n, None]},
            }
            rows.insert(many, n, raw=b"\x00\xff", mood="good", **values)
        elif n % 3 == 1:
            rows.increment(many, n, sum=Decimal("0.25"))
        else:
            rows.patch(many, n - 2, flag=True)
            rows.delete(many, n - 1)

    return made


@pytest.mark.parametrize("batch_size", [1_000, 300], ids=["copied", "then by a staging table"])
def test_values_of_all_kinds_are_written_in_bulk(engine: Engine, batch_size: int) -> None:
    count = 3 * 200
    rebuild(all_kinds(), engine, MemorySource(orders(count)), batch_size=batch_size)
    assert rows_of(engine, many) == [
        (
            n, f"a\t\\N\n{n}", MOMENT, Decimal("1.5000"), {"n": [n, None]}, b"\x00\xff", True,
            "good",
        )
        for n in range(0, count, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1_000, 130], ids=["copied", "by a staging table"])
def test_a_row_that_the_database_refuses_in_bulk_is_named(engine: Engine, batch_size: int) -> None:
    made = ReadModel("many", tables=[many])

    @made.on("OrderPlaced")
    def placed(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.insert(many, data["cents"], text="\x00" if data["cents"] == 150 else "")

    with pytest.raises(RebuildError, match="refused a row of many") as raised:
        rebuild(made, engine, MemorySource(orders(300)), batch_size=batch_size)
    assert raised.value.where.event_id == "event-151"


def test_rebuild_and_rollback_as_on_sqlite(engine: Engine) -> None:
    source = MemorySource(orders(40))
    for cents in (1, 2, 3):
        rebuild(daily(cents=cents, version=cents), engine, source, batch_size=7)
        assert rows_of(engine, sales) == sums(40, cents=cents)
        with engine.connect() as connection:
            found = inspect(connection)
            assert [i["name"] for i in found.get_indexes("sales_per_day")] == ["sales_by_cents"]
            assert found.get_pk_constraint("sales_per_day")["name"] == "sales_per_day_pkey"
    assert rollback_read_models(["daily"], engine=engine) == {"daily": 2}
    assert rows_of(engine, sales) == sums(40, cents=2)
    assert rollback_read_models(["daily"], engine=engine) == {"daily": 3}
    assert rows_of(engine, sales) == sums(40, cents=3)


# --- what hangs on a table

HANGING = """
    CREATE ROLE {reader};
    GRANT SELECT ON sales_per_day TO {reader};
    GRANT UPDATE (cents) ON sales_per_day TO PUBLIC;
    CREATE VIEW totals AS SELECT sum(cents) AS c FROM sales_per_day WHERE day LIKE 'day%';
    CREATE VIEW twice AS SELECT c * 2 AS c FROM totals;
    GRANT SELECT ON totals TO {reader};
    COMMENT ON TABLE sales_per_day IS 'it''s 100% right';
    COMMENT ON COLUMN sales_per_day.cents IS 'whole cents';
    CREATE TABLE notes (day varchar REFERENCES sales_per_day (day) ON DELETE CASCADE, n text);
    INSERT INTO notes VALUES ('day-0', 'a note');
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER watched BEFORE UPDATE ON sales_per_day
        FOR EACH ROW EXECUTE FUNCTION nothing();
"""
FOUND = """
    SELECT (SELECT c FROM totals), (SELECT c FROM twice),
        has_table_privilege('{reader}', 'sales_per_day', 'SELECT'),
        has_table_privilege('{reader}', 'totals', 'SELECT'),
        has_column_privilege('{reader}', 'sales_per_day', 'cents', 'UPDATE'),
        obj_description('sales_per_day'::regclass), col_description('sales_per_day'::regclass, 3),
        (SELECT confrelid = 'sales_per_day'::regclass AND confdeltype = 'c' AND convalidated
         FROM pg_constraint WHERE conrelid = 'notes'::regclass AND contype = 'f'),
        (SELECT count(*) FROM pg_trigger
         WHERE tgname = 'watched' AND tgrelid = 'sales_per_day'::regclass)
"""


def test_views_grants_comments_keys_and_triggers_survive_swap_and_rollback(
    engine: Engine,
) -> None:
    reader = f"reader_{engine.url.database}"
    source = MemorySource(orders(40))
    rebuild(daily(), engine, source)
    with engine.begin() as connection:
        for statement in HANGING.format(reader=reader).replace("%", "%%").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)

    def found() -> tuple[Any, ...]:
        with engine.connect() as connection:
            query = FOUND.format(reader=reader)
            return tuple(connection.exec_driver_sql(query).one())

    total = sum(range(40))
    hanging = (True, True, True, "it's 100% right", "whole cents", True, 1)
    try:
        assert found() == (total, 2 * total, *hanging)
        for cents in (2, 3, 4):
            rebuild(daily(cents=cents, version=cents), engine, source)
            assert found() == (cents * total, 2 * cents * total, *hanging)
        rollback_read_models(["daily"], engine=engine)
        assert found() == (3 * total, 6 * total, *hanging)
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM sales_per_day")
            assert connection.exec_driver_sql("SELECT count(*) FROM notes").scalar() == 0
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {reader}; DROP ROLE {reader}")


def test_rows_that_others_point_at_must_still_be_there(engine: Engine) -> None:
    rebuild(daily(), engine, MemorySource(orders(40)))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (day varchar REFERENCES sales_per_day)")
        connection.exec_driver_sql("INSERT INTO notes VALUES ('day-4')")
    with pytest.raises(RebuildError, match="the foreign key notes_day_fkey of notes cannot be"):
        rebuild(daily(), engine, MemorySource(orders(2)))
    assert rows_of(engine, sales) == sums(40)


def test_a_view_that_the_new_tables_cannot_serve_stops_the_swap(engine: Engine) -> None:
    source = MemorySource(orders(10))
    rebuild(daily(), engine, source)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW totals AS SELECT sum(orders) FROM sales_per_day")
    narrow = Table("sales_per_day", MetaData(), Column("day", String, primary_key=True))
    model = ReadModel("daily", tables=[narrow])

    @model.on("OrderPlaced")
    def placed(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.upsert(narrow, data["day"])

    with pytest.raises(RebuildError, match="the view totals cannot be kept on the new tables"):
        rebuild(model, engine, source)
    assert rows_of(engine, sales) == sums(10)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM sales_per_day", "materialized view m"),
        ("ALTER TABLE sales_per_day ENABLE ROW LEVEL SECURITY", "row security of sales_per_day"),
        ("CREATE PUBLICATION p FOR TABLE sales_per_day", "publication p"),
    ],
)
def test_what_cannot_be_carried_over_is_named(engine: Engine, statement: str, what: str) -> None:
    source = MemorySource(orders(10))
    rebuild(daily(), engine, source)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    with pytest.raises(RebuildError, match=what):
        rebuild(daily(version=2, cents=2), engine, source)
    assert rows_of(engine, sales) == sums(10)


def test_sequences_have_the_live_name_and_go_on_after_the_rows(engine: Engine) -> None:
    for count in (5, 7, 9):
        rebuild(all_numbers(), engine, MemorySource(orders(count)))
        with engine.begin() as connection:
            name = connection.exec_driver_sql(
                "SELECT pg_get_serial_sequence('numbers', 'n')"
            ).scalar()
            assert name == "public.numbers_n_seq"
            following = connection.exec_driver_sql(f"SELECT nextval('{name}')").scalar()
            assert following == count
    rollback_read_models(["numbers"], engine=engine)
    with engine.connect() as connection:
        query = "SELECT pg_get_serial_sequence('numbers', 'n')"
        assert connection.exec_driver_sql(query).scalar() == "public.numbers_n_seq"


numbers = Table("numbers", MetaData(), Column("n", Integer, primary_key=True))


def all_numbers() -> ReadModel:
    model = ReadModel("numbers", tables=[numbers])

    @model.on("OrderPlaced")
    def placed(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.insert(numbers, data["cents"])

    return model


# --- others at the same time


def test_a_reader_in_a_long_query_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT", "20ms")
    source = MemorySource(orders(10))
    rebuild(daily(), engine, source)
    with engine.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM sales_per_day")
        tried: list[float] = []

        def sleep(seconds: float) -> None:
            tried.append(seconds)
            if len(tried) == 3:
                reader.rollback()

        monkeypatch.setattr(locking.time, "sleep", sleep)
        rebuild(daily(version=2, cents=2), engine, source)
    assert len(tried) == 3
    assert rows_of(engine, sales) == sums(10, cents=2)


def test_a_reader_that_does_not_end_is_named(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(locking.time, "sleep", lambda _: None)
    source = MemorySource(orders(10))
    rebuild(daily(), engine, source)
    with engine.connect() as reader:
        reader.exec_driver_sql("SELECT day FROM sales_per_day")
        with pytest.raises(RebuildError, match=r"in use: session .* runs: SELECT day FROM") as r:
            rebuild(daily(version=2, cents=2), engine, source)
        assert "only the swap is left" in r.value.remedy
        assert rows_of(engine, sales) == sums(10)
    result = rebuild(daily(version=2, cents=2), engine, source)
    assert result.resumed
    assert rows_of(engine, sales) == sums(10, cents=2)
