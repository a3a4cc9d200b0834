"""Read models rebuilt from KurrentDB and kept up to date, through reads that drop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from eventmig.rebuild.following import bring_up_to_date, follow
from eventmig.stores.kurrent.store import KurrentStore
from eventmig.stores.kurrent.url import locate
from tests import kurrent
from tests.acceptance.kurrent_support import into_kurrent
from tests.kurrent_server.server import Node, running
from tests.unit.rebuild_helpers import engine_at, rows_of, same
from tests.unit.test_read_model import daily, orders, rebuild, sales, sums
from tests.unit.test_read_model_following import until


@pytest.fixture
def node() -> Iterator[Node]:
    with running() as node:
        yield node


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = engine_at(tmp_path / "read.db")
    yield made
    made.dispose()


def test_a_read_model_is_rebuilt_and_kept_up_to_date(node: Node, engine: Engine) -> None:
    url, events = kurrent.fresh(node.url), orders(60)
    into_kurrent(url, events[:30])
    with KurrentStore(locate(url), mode="read") as source:
        node.faults.on_read(12)
        rebuild(daily(), engine, source)
        assert rows_of(engine, sales) == sums(30)
        into_kurrent(url, events[30:45])
        node.faults.on_read(9)
        bring_up_to_date([daily()], source=source, upcast=same, engine=engine)
        assert rows_of(engine, sales) == sums(45)

        end = threading.Event()
        following = threading.Thread(
            target=lambda: follow(
                [daily()], source=source, upcast=same, engine=engine, stop=end.is_set
            )
        )
        following.start()
        try:
            node.stop()  # while it follows
            node.start()
            into_kurrent(url, events[45:])
            until(lambda: rows_of(engine, sales) == sums(60))
        finally:
            end.set()
            following.join()
