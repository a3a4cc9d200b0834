"""Rebuilds in a database that is full, or cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from eventmig.errors import ReadOnlyError, StoreFullError
from eventmig.project import sql_engine
from tests.unit.read_model_helpers import daily, orders, rebuild, texts, wide
from tests.unit.rebuild_helpers import MemorySource, engine_at, rows_of


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


def rows_of_pragma(engine: Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").one()
