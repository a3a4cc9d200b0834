"""Engines share what they compile, and nothing else: each reads and binds what is its own."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.pool import StaticPool

from eventmig.stores.engines import create_engine

TABLE = Table("numbers", MetaData(), Column("n", Integer))


def test_a_statement_is_compiled_once_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    select_of = SQLiteCompiler.visit_select

    def counted(self: SQLiteCompiler, *args: object, **kwargs: object) -> str:
        compiled.append(args)
        return select_of(self, *args, **kwargs)

    monkeypatch.setattr(SQLiteCompiler, "visit_select", counted)
    for n in range(3):
        engine = create_engine("sqlite://", poolclass=StaticPool)
        with engine.begin() as connection:
            TABLE.create(connection)
            connection.execute(insert(TABLE), [{"n": n}, {"n": n + 10}])
            assert connection.scalars(select(TABLE.c.n).where(TABLE.c.n >= 10)).all() == [n + 10]
            assert connection.scalars(select(TABLE.c.n).where(TABLE.c.n >= n)).all() == [n, n + 10]
        engine.dispose()
    assert len(compiled) == 1


def test_dialects_that_would_write_it_differently_share_nothing() -> None:
    engines = [create_engine("sqlite://", poolclass=StaticPool) for _ in range(3)]
    engines[1].dialect.server_version_info = (3, 0, 0)  # type: ignore[attr-defined]
    compiled = engines[0].get_execution_options()["compiled_cache"]
    for number, engine in enumerate(engines):
        compiled[engine.dialect, "a statement"] = number
    found = [compiled.get((engine.dialect, "a statement")) for engine in engines]
    assert found == [2, 1, 2]
