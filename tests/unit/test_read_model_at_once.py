"""Rebuilds while others rebuild, take the hold over, or read."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from eventmig.errors import JobLockedError, JobLostError
from eventmig.rebuild import RebuildProgress, bookkeeping, rollback_read_models
from tests.unit.read_model_helpers import daily, orders, rebuild, sales, sums
from tests.unit.rebuild_helpers import MemorySource, rows_of


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
