"""Ranges of events folded by several processes give what one fold in order gives."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    Column,
    Date,
    DateTime,
    Engine,
    Integer,
    Interval,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    Uuid,
    create_engine,
)
from sqlalchemy.pool import StaticPool

from bench.domain import activity, activity_per_customer, purchases
from bench.workspace import Workspace, url_of
from eventmig import commands, fold_workers
from eventmig.errors import ConfigError, RebuildError
from eventmig.fold_workers import fold_processes
from eventmig.rebuild import (
    ReadModel,
    Rows,
    batching,
    bulk,
    gathering,
    ranges,
    rebuild_read_models,
    sharing,
    side_by_side,
)
from eventmig.rebuild.fold import Effect, Needs, Outcome
from eventmig.rebuild.gathering import gather_data, gather_range
from eventmig.rebuild.narrow import data_handlers
from eventmig.rebuild.ranges import NeedsRowsError, fold_range, packed, unpacked
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.sharing import Work
from eventmig.stores.faster import DataLines, Members
from eventmig.stores.open import open_store
from tests.unit.rebuild_helpers import (
    Helpers,
    MemorySource,
    engine_at,
    history,
    rows_of,
    same,
    same_data,
)
from tests.unit.test_read_model_fold import (
    OPERATIONS,
    model,
    operations,
    plain,
    reference,
    strict,
)


def helpers(made: ReadModel, source: MemorySource, count: int, seed: int) -> Helpers:
    def work(after: int, until: int) -> tuple[int, bytes] | None:
        try:
            found = fold_range(made, plan_of(source), after, until)
            return found.until, packed(found)
        except (RebuildError, NeedsRowsError, ValueError):
            return None

    def gather(after: int, until: int) -> tuple[int, bytes] | None:
        handlers = data_handlers(made.handlers, "rows")
        assert handlers is not None
        plan = replace(plan_of(source), data_upcaster=same_data)
        found = gather_range(gather_data(handlers, plan, after, until), until)
        return None if found is None else (found[0], gathering.packed(found[1]))

    return Helpers({Work.FOLD: work, Work.GATHER: gather}, count, seed)


def plan_of(source: MemorySource) -> Replay:
    return Replay(source=source, upcast=same, types=None, upto=0, batch_size=2, max_rows=100)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_IT", 1)
    monkeypatch.setattr(side_by_side, "_FEWEST_FOLDED", 1)
    monkeypatch.setattr(gathering, "_AT_ONCE", 2)
    monkeypatch.setattr(bulk, "FEW", 3)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("insert", "insert", "there"),
        ("upsert", "insert", "there"),
        ("delete", "patch", "not there"),
    ],
)
def test_ranges_that_cannot_follow_each_other_are_refused(
    first: str, second: str, why: str
) -> None:
    both = [
        {"do": do, "table": "plain", "key": "x", "values": {"a": 1, "b": 2}}
        for do in (first, second)
    ]
    source = MemorySource(history(("s-1", "Op", one) for one in both))
    made = model()
    earlier = fold_range(made, plan_of(source), 0, 1)
    later = fold_range(made, plan_of(source), 1, 2)
    with pytest.raises(RebuildError, match=why):
        ranges.add_fold(earlier.tables[0], later.tables[0])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(operations, max_size=40),
    st.integers(1, 15),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.sampled_from([None, same_data]),
)
def test_any_cut_into_ranges_gives_the_rows_of_one_operation_at_a_time(
    data: list[dict[str, Any]], batch_size: int, count: int, seed: int, upcaster: Any
) -> None:
    events = history(("s-1", "Op", one) for one in data)
    wanted, failed = reference(events)
    source = MemorySource(events)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        beside = helpers(model(), source, count, seed)
        options = {"source": source, "batch_size": batch_size, "helpers": beside}
        options["data_upcaster"] = upcaster
        if failed is not None:  # the error names the event that it would name in order
            with pytest.raises(RebuildError) as raised:
                rebuild(engine, model(), **options)
            assert raised.value.where.event_id is not None
            assert raised.value.where.key is not None
            options |= {"upto": failed - 1, "helpers": helpers(model(), source, count, seed)}
        rebuild(engine, model(), **options)
        assert {t.name: rows_of(engine, t) for t in (plain, strict)} == wanted
    finally:
        engine.dispose()


def rebuild(engine: Engine, made: ReadModel, **options: Any) -> Any:
    values = {"upcast": same, "engine": engine, "release": "1"} | options
    (result,) = rebuild_read_models([made], **values)
    return result


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_events_of_handlers_that_read_rows_are_gathered_side_by_side(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "_MOST_BYTES", most)
    assert "copy" in OPERATIONS
    entries = [
        {"table": "plain", "key": k, "from": f, "do": d, "values": {"a": n}}
        for n, (d, k, f) in enumerate([("insert", "x", "x"), *[("copy", "y", "x")] * 20])
    ]
    events = history(("s-1", "Op", one) for one in entries)
    wanted, failed = reference(events)
    assert failed is None
    source = MemorySource(events)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    beside = helpers(model(), source, 2, 1)
    beside.ready_by_chance = 1
    at_each = rebuild(engine, model(), source=source, helpers=beside, data_upcaster=same_data)
    assert (at_each.events_read, at_each.events_folded) == (21, 21)
    assert beside.kinds[Work.GATHER] > 0
    assert {t.name: rows_of(engine, t) for t in (plain, strict)} == wanted
    engine.dispose()


class LinesSource(MemorySource):
    """A source that hands data out by type, as PostgreSQL's does."""

    def shares_cores(self) -> bool:
        return False

    def read_lines(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        members: Members,
        batch_size: int,
    ) -> Iterator[list[DataLines]]:
        for batch in self.read_data(after=after, until=until, types=types, batch_size=7):
            yield [
                DataLines(
                    type_,
                    1,
                    [row[0] for row in batch if row[1] == type_],
                    b"".join(row[3] + b"\n" for row in batch if row[1] == type_),
                )
                for type_ in sorted({row[1] for row in batch})
            ]


@pytest.mark.parametrize("kind", [MemorySource, LinesSource])
def test_events_that_were_gathered_by_type_are_handled_in_order(kind: type[MemorySource]) -> None:
    made = ReadModel("ordered", tables=[plain])

    @made.on("Added")
    def added(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        rows.increment(plain, data["key"], a=data["n"])

    @made.on("Doubled")
    def doubled(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        row = rows.get(plain, data["key"]) or {"a": 0}
        rows.upsert(plain, data["key"], a=row["a"] * 2 % 1009)

    entries = [
        ("s-1", "Doubled" if n % 3 == 2 else "Added", {"key": "xyz"[n % 2], "n": n})
        for n in range(60)
    ]
    sums = {"x": 0, "y": 0}
    for _, type_, data in entries:
        before, n = sums[str(data["key"])], data["n"]
        assert isinstance(n, int)
        sums[str(data["key"])] = before * 2 % 1009 if type_ == "Doubled" else before + n
    source = kind(history(entries))
    beside = helpers(made, source, 2, 5)
    beside.ready_by_chance = 1
    engine = create_engine("sqlite://", poolclass=StaticPool)
    rebuild(engine, made, source=source, helpers=beside, data_upcaster=same_data)
    assert beside.kinds[Work.GATHER] > 0
    assert {row[0]: row[1] for row in rows_of(engine, plain)} == sums
    engine.dispose()


def test_a_handler_that_swallows_the_refusal_is_found_out() -> None:
    made = ReadModel("swallows", tables=[plain])

    @made.on("Op")
    def handle(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        try:
            before = rows.get(plain, data["key"])
        except NeedsRowsError:
            before = None
        rows.upsert(plain, data["key"], a=0 if before is None else before["a"] + 1)

    source = MemorySource(history(("s-1", "Op", {"key": "x"}) for _ in range(9)))
    engine = create_engine("sqlite://", poolclass=StaticPool)
    rebuild(engine, made, source=source, helpers=helpers(made, source, 2, 3))
    assert rows_of(engine, plain) == [("x", 8, 5, "new")]
    engine.dispose()


def test_a_range_with_too_many_rows_ends_early() -> None:
    source = MemorySource(history(("s-1", "Op", {"n": n}) for n in range(9)))
    made = ReadModel("many", tables=[plain])

    @made.on("Op")
    def handle(data: dict, rows: Rows) -> None:  # type: ignore[type-arg]
        for n in range(30):
            rows.insert(plain, f"{data['n']}-{n}", a=n)

    found = fold_range(made, plan_of(source), 0, 9)
    assert (found.until, found.events_read, len(found.tables[0])) == (2, 2, 60)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    rebuild(engine, made, source=source, max_rows=40, helpers=helpers(made, source, 2, 3))
    assert len(rows_of(engine, plain)) == 270
    engine.dispose()


def test_a_range_that_takes_long_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, 2)
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    source = MemorySource(history(("s-1", "Op", {"do": "upsert", **OP}) for _ in range(9)))
    found = fold_range(model(), plan_of(source), 0, 9)
    assert (found.until, found.events_read) == (6, 6)  # pages of 2, of which each takes 2 s
    engine = create_engine("sqlite://", poolclass=StaticPool)
    rebuild(engine, model(), source=source, helpers=helpers(model(), source, 2, 3))
    assert rows_of(engine, plain) == [("x", 1, 5, "new")]
    engine.dispose()


# --- between processes

odd = Table(
    "odd",
    MetaData(),
    Column("day", Date, primary_key=True),
    Column("who", Uuid, primary_key=True),
    Column("at", DateTime),
    Column("clock", Time),
    Column("sum", Numeric(30, 10)),
    Column("more", JSON),
    Column("text", String),
    Column("took", Interval),
    Column("n", Integer, default=0),
)
KEY = (date(2026, 1, 31), UUID(int=7))
VALUES = {
    "at": datetime(2026, 1, 31, 12, 30, 1, 5, tzinfo=UTC),
    "clock": clock(1, 2, 3),
    "sum": Decimal("1.10"),
    "more": {"a": [1, None, "ä"]},
    "text": None,
    "n": 1 << 80,
}


def test_values_of_other_types_come_back_as_they_were() -> None:
    made = ReadModel("odd", tables=[odd])
    found = fold_range(made, plan_of(MemorySource([])), 0, 1)
    (fold,) = found.tables
    fold.sums[KEY] = {"sum": Decimal("2.50"), "n": 3}
    fold.signatures.add(("sum", "n"))
    other = (date(2026, 2, 1), UUID(int=8))
    effect = Effect(Needs.PRESENT, Outcome.MERGE, dict(VALUES), {"n": 2}, (5, "Op"))
    fold.effects[other] = effect
    (back,) = unpacked(made, packed(found)).tables
    assert back.sums == {KEY: {"sum": Decimal("2.50"), "n": 3}}
    assert back.signatures == {("sum", "n")}
    got = back.effects[other]
    assert (got.needs, got.outcome, got.values, got.adds, got.cause) == (
        effect.needs,
        effect.outcome,
        effect.values,
        effect.adds,
        effect.cause,
    )
    assert str(back.sums[KEY]["sum"]) == "2.50"


def test_a_folded_range_needs_no_collector_to_be_gone() -> None:
    source = MemorySource(history(("s-1", "Op", {"do": "upsert", **OP}) for _ in range(3)))
    made = model()
    gc.collect()
    gc.disable()
    try:
        found = fold_range(made, plan_of(source), 0, 3)
        back = unpacked(made, packed(found))
        assert len(back.tables[0]) == 1
        del found, back
        assert not [one for one in gc.get_objects() if isinstance(one, ranges.FoldApart)]
    finally:
        gc.enable()


OP = {"table": "plain", "key": "x", "from": "x", "values": {"a": 1}}


def test_a_value_that_cannot_be_carried_is_no_answer() -> None:
    made = ReadModel("odd", tables=[odd])
    found = fold_range(made, plan_of(MemorySource([])), 0, 1)
    found.tables[0].sums[KEY] = {"took": timedelta(1)}
    with pytest.raises(ValueError, match="unmarshallable"):
        packed(found)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.make(events=4_000, streams=200)
    return made


def rows_alone(
    work: Workspace, made: ReadModel = activity_per_customer
) -> list[list[tuple[object, ...]]]:
    commands.rebuild(
        work.project(), [made.name], read_models=url_of(work.store("alone")), workers=1
    )
    engine = engine_at(work.store("alone"))
    try:
        return [rows_of(engine, table) for table in made.tables]
    finally:
        engine.dispose()


@pytest.mark.parametrize("made", [activity_per_customer, purchases], ids=["folds", "gathers"])
def test_another_process_helps_and_is_gone_afterwards(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: ReadModel
) -> None:
    answered: list[int] = []

    def counted(model: ReadModel, message: bytes) -> Any:
        found = ranges.unpacked(model, message)
        answered.append(found.events_read)
        return found

    unpacked_pages = gathering.unpacked

    def counted_pages(message: bytes) -> Any:
        found = unpacked_pages(message)
        answered.extend(page.events_read for page in found)
        return found

    monkeypatch.setattr(side_by_side, "unpacked", counted)
    monkeypatch.setattr(gathering, "unpacked", counted_pages)
    engine = engine_at(tmp_path / "both.db")
    project = work.project()
    url = url_of(work.source)
    store = open_store(url)
    try:
        with fold_processes(project, [made], count=1, source=url, max_rows=10_000) as processes:
            end = time.monotonic() + 60
            while not processes.ready(0) and time.monotonic() < end:
                time.sleep(0.01)
            rebuild(
                engine,
                made,
                source=store,
                upcast=project.registry.upcast_batch,
                source_types=project.registry.sources_of,
                data_upcaster=project.registry.data_upcaster,
                helpers=processes,
            )
            (child,) = processes._children
            assert child.poll() is None
        assert child.poll() is not None
        assert 0 < sum(answered) < 4_000
        assert [rows_of(engine, table) for table in made.tables] == rows_alone(work, made)
    finally:
        store.close()
        engine.dispose()


_SAYS_READY = "sys.stdout.buffer.write(bytes(32)); sys.stdout.flush()"


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "import sys; sys.stdin.read()",
        f"import sys; sys.stdin.readline(); {_SAYS_READY}; sys.stdin.readline()",
    ],
    ids=["ends", "never ready", "ends when it is asked"],
)
def test_a_process_that_is_of_no_help_does_no_harm(
    work: Workspace, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(fold_workers, "_CHILD", code)
    target = work.store("views")
    report = commands.rebuild(work.project(), all_=True, read_models=url_of(target), workers=2)
    assert [result.swapped for result in report.results] == [True] * 4
    engine = engine_at(target)
    assert [rows_of(engine, activity)] == rows_alone(work)
    engine.dispose()


def test_a_registry_that_no_process_could_load_is_refused(work: Workspace) -> None:
    project = replace(work.project(), given_registry=work.project().registry)
    with pytest.raises(ConfigError, match="second worker"):
        commands.rebuild(project, [activity_per_customer.name], workers=2)
