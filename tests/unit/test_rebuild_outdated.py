"""A rebuild amid which other tables get the source's name goes no further with what it began."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from eventmig.errors import RebuildError
from eventmig.rebuild import (
    Phase,
    RebuildProgress,
    bookkeeping,
    rebuild_read_models,
    rebuild_snapshots,
)
from eventmig.rebuild.following import bring_up_to_date
from tests.unit.read_model_helpers import daily, orders, sales, sums
from tests.unit.rebuild_helpers import MemorySource, engine_at, rows_of, same
from tests.unit.test_snapshots import cart, carts


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = engine_at(tmp_path / "read.db")
    yield made
    made.dispose()


def renaming(engine: Engine, phase: Phase) -> Callable[[RebuildProgress], None]:
    """Gives the source's name to other tables, once, in this phase, after the first events."""

    def tell(progress: RebuildProgress) -> None:
        if progress.phase is phase and progress.events_read:
            rename(engine)

    return tell


def rename(engine: Engine) -> None:
    renamed = {"memory": bookkeeping.outdated_source("memory", "old side of 1")}
    with engine.begin() as connection:
        bookkeeping.rename_sources(connection, renamed)


@pytest.mark.parametrize("phase", [Phase.REPLAYING, Phase.CHECKING])
def test_a_read_model(engine: Engine, phase: Phase) -> None:
    def rebuild(events: int, **more: Any) -> Any:
        return rebuild_read_models(
            [daily()],
            source=MemorySource(orders(events)),
            upcast=same,
            engine=engine,
            release="1",
            batch_size=10,
            **more,
        )

    rebuild(40)
    with pytest.raises(RebuildError, match="bear another name now"):
        rebuild(40, progress=renaming(engine, phase))
    assert rows_of(engine, sales) == sums(40)
    (result,) = rebuild(60)
    assert not result.resumed
    assert rows_of(engine, sales) == sums(60)


@pytest.mark.parametrize("phase", [Phase.REPLAYING, Phase.CHECKING])
def test_snapshots(engine: Engine, phase: Phase) -> None:
    def rebuild(**more: Any) -> Any:
        return rebuild_snapshots(
            [cart(1)],
            source=MemorySource(carts(60)),
            upcast=same,
            engine=engine,
            release="1",
            batch_size=20,
            **more,
        )

    with pytest.raises(RebuildError, match="bear another name now"):
        rebuild(progress=renaming(engine, phase))
    with engine.connect() as connection:
        made = bookkeeping.all_generations(connection, bookkeeping.Kind.AGGREGATE)
    assert [one.state for _, one in made] == [bookkeeping.State.BUILDING]
    (result,) = rebuild()
    assert not result.resumed


def test_a_follower(engine: Engine) -> None:
    source = MemorySource(orders(40))
    rebuild_read_models([daily()], source=source, upcast=same, engine=engine, release="1")
    rows = rows_of(engine, sales)

    class Renamed(MemorySource):
        def read_data(self, **span: Any) -> Any:
            rename(engine)
            return super().read_data(**span)

        def read_all(self, **span: Any) -> Any:
            rename(engine)
            return super().read_all(**span)

    with pytest.raises(RebuildError, match="bear another name now"):
        bring_up_to_date([daily()], source=Renamed(orders(50)), upcast=same, engine=engine)
    assert rows_of(engine, sales) == rows
