"""Declaring read models, rebuilding them, and taking a rebuild back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from pydantic import BaseModel
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
    func,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from eventmig.errors import (
    JobLockedError,
    JobLostError,
    ReadOnlyError,
    RebuildError,
    StoreFullError,
)
from eventmig.events import Event
from eventmig.project import sql_engine
from eventmig.rebuild import (
    Phase,
    ReadModel,
    RebuildProgress,
    ReplayOrder,
    Rows,
    bookkeeping,
    rebuild_read_models,
    rollback_read_models,
)
from eventmig.rebuild.shadow import LONGEST_NAME, parked_name
from tests.unit.rebuild_helpers import (
    MemorySource,
    engine_at,
    history,
    names_in,
    rows_of,
    same,
)

ROOT = Path(__file__).resolve().parents[2]

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


class OrderPaid(BaseModel):
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


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = engine_at(tmp_path / "read.db")
    yield made
    made.dispose()


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


# --- what handlers take


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


# --- rebuild, swap, roll back


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


# --- kill and resume


@pytest.mark.parametrize("commits", range(7))
def test_stopped_anywhere_the_same_call_ends_as_if_it_never_was(
    engine: Engine, commits: int
) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(cents=2, version=0), engine, source)
    with pytest.raises(StopError):
        rebuild(daily(), engine, source, batch_size=10, progress=stop_after(commits))
    swapped = commits == 6  # stopped while the swap was told
    assert rows_of(engine, sales) == sums(40, cents=1 if swapped else 2)
    result = rebuild(daily(), engine, source, batch_size=10)
    assert result.resumed is not swapped
    assert result.events_read == 40
    assert rows_of(engine, sales) == sums(40)


def test_the_phases_are_told(engine: Engine) -> None:
    told: list[RebuildProgress] = []
    rebuild(daily(), engine, MemorySource(orders(40)), batch_size=20, progress=told.append)
    assert [(p.phase, p.events_read) for p in told] == [
        (Phase.REPLAYING, 0),
        (Phase.REPLAYING, 20),
        (Phase.REPLAYING, 40),
        (Phase.CHECKING, 40),
        (Phase.SWAPPED, 40),
    ]
    assert {(p.upto, p.events_expected, p.generation) for p in told} == {(40, 40, 1)}


class CountingSlowly(MemorySource):
    """Knows how many events there are when it is asked for the third time."""

    asked = 0

    @contextmanager
    def counting(self, **span: Any) -> Iterator[Self]:
        yield self

    def there(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def wait(self) -> int:
        return self.count()


def test_as_many_as_there_can_be_are_expected_until_they_are_counted(engine: Engine) -> None:
    told: list[RebuildProgress] = []
    events = [e._replace(global_position=2 * e.global_position) for e in orders(40)]
    rebuild(daily(), engine, CountingSlowly(events), batch_size=10, progress=told.append)
    assert [(p.events_read, p.events_expected) for p in told] == [
        (0, 80),
        (10, 70),
        (20, 40),
        (30, 40),
        (40, 40),
        (40, 40),
        (40, 40),
    ]


def test_a_count_that_says_otherwise_stops_the_rebuild(engine: Engine) -> None:
    source = CountingSlowly(orders(40))
    source.wait = lambda: 41  # type: ignore[method-assign]
    with pytest.raises(RebuildError, match="built from 40 events, and the source holds 41"):
        rebuild(daily(), engine, source)


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (daily(cents=2, version=2), {}, "its tables, handlers or version have changed"),
        (daily(), {"release": "2"}, "it was built for the release 1"),
        (daily(), {"source": MemorySource(orders(40), "copy")}, "another source"),
    ],
)
def test_a_half_built_generation_of_another_making_is_begun_anew(
    engine: Engine, model: ReadModel, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(StopError):
        rebuild(daily(), engine, MemorySource(orders(40)), batch_size=10, progress=stop_after(2))
    result = rebuild(model, engine, options.pop("source", MemorySource(orders(40))), **options)
    assert not result.resumed
    assert reason in str(result.restarted)
    assert rows_of(engine, sales) == sums(40, cents=model.version)
    assert {n for n in names_in(engine) if "__g" in n} == set()


def test_a_handler_that_raises_leaves_all_as_it_was_and_goes_on_when_mended(
    engine: Engine,
) -> None:
    events = orders(40)
    broken = [*events[:24], events[24]._replace(data=b'{"day": 5}'), *events[25:]]
    rebuild(daily(version=0), engine, MemorySource(orders(3)))
    with pytest.raises(RebuildError, match="does not fit its handler") as raised:
        rebuild(daily(), engine, MemorySource(broken), batch_size=10)
    where = raised.value.where
    assert (where.event_id, where.type, where.stream) == ("event-25", "OrderPlaced", "order-3")
    assert (where.global_position, where.stream_position) == (25, 4)
    assert str(where.handler).endswith("placed")
    assert rows_of(engine, sales) == sums(3)
    result = rebuild(daily(), engine, MemorySource(events), batch_size=10)  # the event is mended
    assert result.resumed
    assert rows_of(engine, sales) == sums(40)


def test_a_killed_process_resumes(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from tests.unit.rebuild_helpers import MemorySource, engine_at
        from tests.unit.test_read_model import daily, orders, rebuild

        def tell(progress):
            if progress.events_read >= 30:
                os.kill(os.getpid(), signal.SIGKILL)

        rebuild(daily(), engine_at(sys.argv[1]), MemorySource(orders(40)),
                batch_size=10, progress=tell)
        """
    )
    path = tmp_path / "read.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    engine = engine_at(path)
    told: list[RebuildProgress] = []
    result = rebuild(daily(), engine, MemorySource(orders(40)), progress=told.append)
    assert result.resumed
    assert told[0].events_read == 30
    assert rows_of(engine, sales) == sums(40)
    engine.dispose()


# --- others at the same time


def test_a_second_rebuild_is_refused_while_one_runs(engine: Engine) -> None:
    source = MemorySource(orders(40))
    refused: list[str] = []

    def tell(progress: RebuildProgress) -> None:
        for attempt in (
            lambda: rebuild(daily(), engine, source),
            lambda: rollback_read_models(["daily"], engine=engine),
        ):
            with pytest.raises(JobLockedError, match="daily") as raised:
                attempt()
            refused.append(str(raised.value))

    rebuild(daily(), engine, source, batch_size=20, progress=tell)
    assert len(refused) == 10
    assert rows_of(engine, sales) == sums(40)


def test_one_that_lost_its_hold_writes_nothing_more(engine: Engine) -> None:
    source = MemorySource(orders(40))

    def tell(progress: RebuildProgress) -> None:
        if progress.events_read == 20:  # as if the session lock had been lost
            with engine.begin() as connection:
                bookkeeping.take(connection, bookkeeping.Kind.READ_MODEL, "daily")

    with pytest.raises(JobLostError):
        rebuild(daily(), engine, source, batch_size=10, progress=tell)
    with engine.connect() as connection:
        found = connection.execute(select(bookkeeping.generations.c.position)).scalar_one()
    assert found == 20


def test_a_reader_never_sees_a_missing_empty_or_half_table(engine: Engine) -> None:
    source = MemorySource(orders(200))
    rebuild(daily(), engine, source)
    wanted = [sums(200), sums(200, cents=2)]
    wrong: list[object] = []
    reads = 0
    stop = threading.Event()

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                rows = rows_of(engine, sales)
            except SQLAlchemyError as error:
                wrong.append(error)
            else:
                reads += 1
                if rows not in wanted:
                    wrong.append(rows)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(6):
            cents = 2 - turn % 2
            rebuild(daily(cents=cents, version=cents), engine, source, batch_size=20)
        for _ in range(3):
            rollback_read_models(["daily"], engine=engine)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert reads > 0


# --- tables of all kinds


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


# --- the database as a whole


def test_a_full_database_is_named_and_the_same_rebuild_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'read.db'}"
    pages: list[int] = []

    def limited(connection: Any, record: object) -> None:
        if pages:
            connection.execute(f"PRAGMA max_page_count={pages[0]}")

    event.listen(Engine, "connect", limited)
    try:
        with sql_engine(url) as engine:
            rebuild(wide(), engine, MemorySource(orders(10)))
            (size,) = rows_of_pragma(engine, "page_count")
        pages.append(size + 40)
        full = pytest.raises(StoreFullError, match="no room left")
        with full as raised, sql_engine(url) as engine:
            rebuild(wide(version=2), engine, MemorySource(orders(900)), batch_size=50)
        assert "goes on" in raised.value.remedy
        pages.clear()
        with sql_engine(url) as engine:
            assert len(rows_of(engine, texts)) == 10
            assert rebuild(wide(version=2), engine, MemorySource(orders(900))).resumed
            assert len(rows_of(engine, texts)) == 900
    finally:
        event.remove(Engine, "connect", limited)


def test_a_database_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "read.db"
    engine_at(path).dispose()
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    with pytest.raises(ReadOnlyError, match="cannot be written"), sql_engine(url) as engine:
        rebuild(daily(), engine, MemorySource(orders(3)))


texts = Table("texts", MetaData(), Column("n", Integer, primary_key=True), Column("t", String))


def wide(version: int = 1) -> ReadModel:
    model = ReadModel("wide", version=version, tables=[texts])

    @model.on("OrderPlaced")
    def placed(order: OrderPlaced, rows: Rows) -> None:
        rows.insert(texts, order.cents, t="x" * 1_000)

    return model


def rows_of_pragma(engine: Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").one()
