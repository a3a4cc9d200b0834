"""Operations folded in batches give what each operation gives when applied at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.pool import StaticPool

from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild import ReadModel, Rows, bulk, rebuild_read_models
from tests.unit.rebuild_helpers import MemorySource, history, rows_of, same

metadata = MetaData()
plain = Table(
    "plain",
    metadata,
    Column("k", String, primary_key=True),
    Column("a", Integer),
    Column("b", Integer, default=5),
    Column("c", String, default="new"),
)
strict = Table(
    "strict",
    metadata,
    Column("k", String, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("a", Integer, nullable=False),
    Column("b", Integer, nullable=False, default=0),
)

OPERATIONS = ("insert", "upsert", "patch", "increment", "delete", "copy")


class OneAtATime:
    """The slow, obvious reference: each operation is SQL at once."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get(self, table: Table, key: dict[str, Any]) -> dict[str, Any] | None:
        row = self.connection.execute(select(table).where(self._at(table, key))).first()
        return None if row is None else dict(row._mapping)

    def insert(self, table: Table, key: dict[str, Any], **values: object) -> None:
        if self.get(table, key) is not None or not self._complete(table, values):
            raise RebuildError("insert")
        self.connection.execute(insert(table).values(**key, **values))

    def patch(self, table: Table, key: dict[str, Any], **values: object) -> None:
        if self.get(table, key) is None:
            raise RebuildError("patch")
        if values:
            self.connection.execute(update(table).where(self._at(table, key)).values(**values))

    def upsert(self, table: Table, key: dict[str, Any], **values: object) -> None:
        if self.get(table, key) is None:
            self.insert(table, key, **values)
        else:
            self.patch(table, key, **values)

    def increment(self, table: Table, key: dict[str, Any], **amounts: int) -> None:
        row = self.get(table, key)
        if row is None:
            starts = {name: getattr(table.c[name].default, "arg", 0) for name in amounts}
            self.insert(table, key, **{n: starts[n] + amount for n, amount in amounts.items()})
        else:
            sums = {name: (row[name] or 0) + amount for name, amount in amounts.items()}
            self.patch(table, key, **sums)

    def delete(self, table: Table, key: dict[str, Any]) -> None:
        self.connection.execute(delete(table).where(self._at(table, key)))

    def _at(self, table: Table, key: dict[str, Any]) -> Any:
        return and_(*(table.c[name] == value for name, value in key.items()))

    def _complete(self, table: Table, values: dict[str, object]) -> bool:
        return table is plain or "a" in values


def run(rows: Any, data: dict[str, Any]) -> None:
    """One operation, on the fold or on the reference."""
    table = plain if data["table"] == "plain" else strict
    key = {"k": data["key"]} if table is plain else {"k": data["key"], "n": 1}
    if data["do"] == "copy":  # what a row becomes depends on what another one is
        other = {**key, "k": data["from"]}
        row = rows.get(table, key=other)
        rows.upsert(table, key=key, a=-1 if row is None else (row["a"] or 0) + row["b"])
    elif data["do"] == "delete":
        rows.delete(table, key=key)
    else:
        getattr(rows, data["do"])(table, key=key, **data["values"])


def reference(events: list[Event]) -> tuple[dict[str, list[Any]], int | None]:
    """The rows after each operation alone, and the position of the first that failed."""
    import json

    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    failed = None
    with engine.begin() as connection:
        for event in events:
            try:
                run(OneAtATime(connection), json.loads(event.data))
            except RebuildError:
                failed = event.global_position
                break
    found = {table.name: rows_of(engine, table) for table in (plain, strict)}
    engine.dispose()
    return found, failed


def model() -> ReadModel:
    made = ReadModel("ops", tables=[plain, strict])

    @made.on("Op")
    def handle(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        run(rows, data)

    return made


keys = st.sampled_from("xyz")
operations = st.fixed_dictionaries(
    {
        "table": st.sampled_from(["plain", "strict"]),
        "key": keys,
        "from": keys,
        "do": st.sampled_from(OPERATIONS),
        "values": st.dictionaries(st.sampled_from("ab"), st.integers(-9, 9), max_size=2),
    }
)


def rebuild(engine: Engine, events: list[Event], **options: Any) -> None:
    rebuild_read_models(
        [model()], source=MemorySource(events), upcast=same, engine=engine, release="1", **options
    )


@pytest.fixture(params=[0, 100], ids=["rows of an empty table", "rows of any table"])
def _few(request: pytest.FixtureRequest) -> Iterator[None]:
    """How many rows are too few to be written another way where a table is empty."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bulk, "FEW", request.param)
        yield


@pytest.mark.usefixtures("_few")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, max_size=40), st.integers(1, 15), st.integers(0, 4))
def test_any_cut_into_batches_gives_the_rows_of_one_operation_at_a_time(
    data: list[dict[str, Any]], batch_size: int, max_rows: int
) -> None:
    events = history(("s-1", "Op", one) for one in data)
    wanted, failed = reference(events)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        if failed is None:
            rebuild(engine, events, batch_size=batch_size, max_rows=max_rows)
            assert {t.name: rows_of(engine, t) for t in (plain, strict)} == wanted
            return
        # Where the reference stops, the fold stops, within the same batch; and up to
        # there the rows are the same.
        with pytest.raises(RebuildError) as raised:
            rebuild(engine, events, batch_size=batch_size, max_rows=max_rows)
        assert raised.value.where.key is not None
        assert raised.value.where.event_id is not None
        assert str(raised.value.where.handler).endswith("handle")
        rebuild(engine, events, batch_size=batch_size, upto=failed - 1)
        assert {t.name: rows_of(engine, t) for t in (plain, strict)} == wanted
    finally:
        engine.dispose()


def fold_of(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The rows of `plain` after these operations."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        rebuild(engine, history(("s-1", "Op", one) for one in entries))
        return list(rows_of(engine, plain))
    finally:
        engine.dispose()


def op(do: str, key: str = "x", **values: object) -> dict[str, Any]:
    return {"table": "plain", "key": key, "from": key, "do": do, "values": values}


def test_insert_then_patch_is_one_insert() -> None:
    assert fold_of([op("insert", a=1), op("patch", a=2)]) == [("x", 2, 5, "new")]


def test_delete_then_insert_replaces() -> None:
    assert fold_of([op("insert", a=1, c="old"), op("delete"), op("insert", a=2)]) == [
        ("x", 2, 5, "new")
    ]


def test_a_missing_row_counts_from_the_defaults() -> None:
    assert fold_of([op("increment", a=1, b=1), op("increment", b=1)]) == [("x", 1, 7, "new")]


@pytest.mark.parametrize("batch_size", [1, 10])
@pytest.mark.parametrize(
    ("entries", "words", "event"),
    [
        ([op("insert", a=1), op("insert", a=1)], "insert of a row of plain", 2),
        ([op("delete"), op("patch", a=1)], "patch of a row of plain that is not there", 2),
        ([op("patch", a=1), op("increment", a=1)], "patch of a row of plain", 1),
        ([op("insert"), op("delete"), op("patch", a=1)], "patch of a row", 3),
        ([op("patch", a=1), op("insert", a=1)], "patch of a row", 1),
    ],
)
def test_an_operation_on_the_wrong_row_names_event_handler_and_row(
    entries: list[dict[str, Any]], words: str, event: int, batch_size: int
) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    events = history(("s-1", "Op", one) for one in entries)
    with pytest.raises(RebuildError, match=words) as raised:
        rebuild(engine, events, batch_size=batch_size)
    where = raised.value.where
    assert (where.event_id, where.key) == (f"event-{event}", "plain k='x'")
    assert (where.stream, where.stream_position, where.type) == ("s-1", event, "Op")
    assert str(where.handler).endswith("handle")
    assert raised.value.remedy
    engine.dispose()
