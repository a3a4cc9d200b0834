"""The conformance suite, for every kind of store and every way to name one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventmig.stores.open import open_store
from tests import kurrent
from tests.conformance.suite import Make, StoreConformance, an_event

SQLITE = {
    "file": "",
    "tables": "?tables=v2_",
    "release": "?release=2024.1",
    "tables and release": "?tables=v2_&release=r2",
}


class TestSqlite(StoreConformance):
    @pytest.fixture(params=list(SQLITE.values()), ids=list(SQLITE))
    def make(self, tmp_path: Path, request: pytest.FixtureRequest) -> Make:
        url = f"sqlite:///{tmp_path}/store.db{request.param}"
        if request.param:  # beside another set of tables, and another release's streams
            tables = request.param.split("&")[0] if "tables" in request.param else ""
            for beside in {"", tables}:
                with open_store(f"sqlite:///{tmp_path}/store.db{beside}", mode="create"):
                    pass
        return lambda: open_store(url, mode="create")


@pytest.fixture(scope="module")
def kurrent_server() -> Iterator[str]:
    with kurrent.server() as url:
        yield url


class TestKurrent(StoreConformance):
    @pytest.fixture(params=["global", "stream", "by grpc's public calls"])
    def make(
        self, kurrent_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Make:
        order = request.param
        if order.startswith("by"):
            order = "global"
            monkeypatch.setattr("eventmig.stores.kurrent.exchange._core", lambda channel: None)
        url = kurrent.fresh(kurrent_server, order=order)
        return lambda: open_store(url, mode="create")


def test_releases_in_one_set_of_tables_see_only_themselves(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with (
        open_store(url, mode="create") as old,
        open_store(f"{url}?release=r2", mode="write") as new,
        open_store(f"{url}?tables=t_", mode="create") as apart,
    ):
        first = old.append("cart-1", [an_event(1)], expected=None)
        second = new.append("cart-1@r2", [an_event(2)], expected=None)
        third = apart.append("cart-1", [an_event(1)], expected=None)
        assert [*old.read_all()] == [first]
        assert [*new.read_all()] == [second]
        assert [*apart.read_all()] == [third]
        assert [*old.read_data()] == [[(1, "Counted", 1, b'{"n":1}')]]
        assert [*new.read_data(types=["Counted"])] == [[(2, "Counted", 1, b'{"n":1}')]]
        assert [page.events() for page in old.read_pages()] == [first]
        assert [page.events() for page in new.read_pages()] == [second]
        assert old.count(types=["Counted"]) == new.count(types=["Counted"]) == 1
        assert [h.stream for h in old.heads()] == ["cart-1"]
        assert new.event(first[0].id) is None
        assert old.id_scope() == new.id_scope() != apart.id_scope()
        assert len({old.identity(), new.identity(), apart.identity()}) == 3
        with new.begin() as transaction:
            assert transaction.truncate_after(0) == 1
        assert old.count() == 1
        with pytest.raises(Exception, match="as one of no release"):
            new.append("cart-1", [an_event(3)], expected=None)


def test_a_release_that_begins_while_another_is_read_is_not_seen(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with (
        open_store(url, mode="create") as old,
        open_store(f"{url}?release=r2", mode="write") as new,
    ):
        old.append("a", [an_event(1), an_event(2)], expected=None)
        batches = old.read_data(until=10, batch_size=1)
        assert [row[0] for row in next(batches)] == [1]
        pages = old.read_pages(until=10, batch_size=1)
        assert next(pages).streams == ["a"]
        new.append("a@r2", [an_event(3)], expected=None)
        old.append("b", [an_event(4)], expected=None)
        assert [row[0] for batch in batches for row in batch] == [2, 4]
        assert [name for page in pages for name in page.streams] == ["a", "b"]
        assert old.count(types=["Counted"]) == 3
