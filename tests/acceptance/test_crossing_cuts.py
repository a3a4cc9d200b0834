"""A crossing on PostgreSQL whose connections are cut: nothing half done, nothing lost."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from eventmig import Registry, commands, ops, upcaster
from eventmig.errors import EventmigError
from eventmig.events import NewEvent
from eventmig.live import LiveStore
from eventmig.migrate import failpoints
from eventmig.migrate.states import Side, State
from eventmig.stores.base import ANY
from tests.acceptance.support import event, project
from tests.acceptance.test_postgres_jobs import fill

CUT = [f"{step}: {when}" for step in ("close", "drain", "prepare", "switch", "open")
       for when in ("before", "after")]  # fmt: skip


def test_connections_are_cut_at_each_step(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = f"{postgres_url}&schema=one", f"{postgres_url}&schema=two"
    fill(old, [event(f"cart-{n % 3}", "Opened", {"name": str(n)}) for n in range(9)])
    its = project(
        tmp_path,
        Registry([upcaster("Opened", 1, ops.rename("name", "title"))]),
        source=old,
        target=new,
    )
    commands.upcast(its)
    appended = 0
    for point in CUT:

        def cut(name: str, point: str = point) -> None:
            if name == point:
                monkeypatch.setattr(failpoints, "handler", None)
                with psycopg.connect(postgres_url, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )

        with LiveStore(old, new, kept_s=0) as store:
            before = store.route().side
            cross = commands.cutover if before is Side.OLD else commands.reverse
            monkeypatch.setattr(failpoints, "handler", cut)
            try:
                cross(its)
            except EventmigError:
                commands.keep_up_once(its)  # whoever comes next mends
        with LiveStore(old, new, kept_s=0) as store:
            version, name = (1, b"name") if store.route().side is Side.OLD else (2, b"title")
            data = b'{"' + name + b'":"x"}'
            store.append("cart-0", [NewEvent("Opened", data, version)], expected=ANY)
            appended += 1
            if store.route().side is before:
                cross(its)
    if commands.status(its).job.state is not State.REVERSE_WINDOW:
        commands.cutover(its)
    commands.keep_up_once(its)
    counts = {commands.current(its, store=url).events for url in (old, new)}
    assert counts == {9 + appended}
