"""What rebuilds keep is let go when the job completes: last of all, said by name, killable."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eventmig import Registry, commands, ops, upcaster
from eventmig.cli import render_lifecycle
from eventmig.cli.jsons import to_json
from eventmig.commands import crossing
from eventmig.commands.naming import outdated_read_models
from eventmig.errors import RebuildError
from eventmig.migrate import failpoints
from eventmig.migrate.states import State, Switch
from eventmig.project import Project, sql_engine
from eventmig.rebuild import Aggregate, ReadModel
from eventmig.rebuild.bookkeeping import Kind
from eventmig.rebuild.hold import held
from tests.acceptance.support import event, fill, project
from tests.acceptance.test_rebuilding_commands import order
from tests.forks import assert_no_database_open
from tests.unit.test_read_model import daily


def across(
    folder: Path,
    projections: Iterable[ReadModel | Aggregate[Any]] = (),
    *,
    rebuilds: int = 2,
    switch: Switch = Switch.ROUTE,
    crossing: bool = True,
    **config: Any,
) -> Project:
    """An application on the new side, with what so many rebuilds made."""
    fill(
        folder / "source.db",
        [event(f"order-{n % 3}", "OrderPlaced", {"day": "d", "cent": n}) for n in range(9)],
    )
    registry = Registry([upcaster("OrderPlaced", 1, ops.rename("cent", "cents"))])
    made = project(folder, registry, projections="x:y", **config)
    made.__dict__["projections"] = tuple(projections) or (daily(), order())
    commands.upcast(made)
    for _ in range(rebuilds):
        commands.rebuild(made, all_=True)
    if crossing:
        commands.cutover(made, switch=switch)
    return made


def test_all_that_was_kept_goes_and_is_named(tmp_path: Path) -> None:
    made = across(tmp_path, read_models="sqlite:///views.db")
    found = commands.complete(made)
    assert found.job.state is State.COMPLETED
    assert found.kept is not None
    assert found.kept.names == ("daily", "order")
    assert "2 kept generations" in str(render_lifecycle.completed(found))
    assert "daily, order" in str(render_lifecycle.completed(found))
    assert json.loads(to_json(found))["kept"] == {
        "database": f"sqlite:///{tmp_path}/views.db",
        "names": ["daily", "order"],
        "left": "",
    }
    for name in ("daily", "order"):
        with pytest.raises(RebuildError, match="no earlier generation"):
            commands.rollback(made, [name])
    assert commands.diff_read_models(made, ["daily"]).equal
    again = commands.complete(made)
    assert again.kept is not None
    assert (again.kept.names, again.kept.left) == ((), "")
    assert len(str(render_lifecycle.completed(again)).splitlines()) == 1


def test_read_models_of_the_other_tables_are_not_gone_on_with(tmp_path: Path) -> None:
    """Their positions mean nothing where other events have the name; after `reverse` they do."""
    how = {"target": "sqlite:///source.db?tables=v2_", "read_models": "sqlite:///views.db"}
    made = across(tmp_path, rebuilds=0, crossing=False, **how)
    here = f"sqlite:///{tmp_path}/source.db"
    commands.rebuild(made, all_=True, source=here)
    commands.follow(made, ["daily"], source=here)
    with pytest.MonkeyPatch.context() as killed:  # behind the switch, before anything is marked
        killed.setattr(crossing, "mark_outdated", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            commands.cutover(made, switch=Switch.TABLES)
    across_now = commands.cutover(made)
    assert across_now.already
    assert across_now.outdated == ("daily", "order")
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(render_lifecycle.crossing(across_now))
    assert "daily, order; rebuild them" in console.export_text()
    with pytest.raises(RebuildError, match="tables that changed names") as refused:
        commands.follow(made, ["daily"], source=here)
    assert "eventmig rebuild daily" in str(refused.value)
    (finding,) = [f for f in outdated_read_models(made) if "changed names" in f.what]
    assert finding.about == "read model daily"
    assert commands.cutover(made).outdated == ()  # they are marked, and marked once

    assert commands.reverse(made).outdated == ()
    commands.follow(made, ["daily"], source=here)
    assert commands.cutover(made).outdated == ("daily", "order")
    commands.rebuild(made, all_=True, source=here)
    commands.follow(made, ["daily"], source=here)
    assert commands.reverse(made).outdated == ("daily", "order")
    with pytest.raises(RebuildError, match="tables that changed names"):
        commands.follow(made, ["daily"], source=here)


def test_what_the_project_does_not_declare_stays(tmp_path: Path) -> None:
    both = (daily(), order())
    made = across(tmp_path, both, read_models="sqlite:///views.db")
    made.__dict__["projections"] = both[:1]
    found = commands.complete(made).kept
    assert found is not None
    assert found.names == ("daily",)
    made.__dict__["projections"] = both
    assert commands.rollback(made, ["order"]) == {"order": 1}


def test_beside_the_events_they_are_found_too(tmp_path: Path) -> None:
    made = across(tmp_path)
    found = commands.complete(made).kept
    assert found is not None
    assert (found.database, found.names) == (f"sqlite:///{tmp_path}/target.db", ("daily", "order"))


@pytest.mark.parametrize("read_models", ["sqlite:///nowhere.db", None])
def test_without_a_database_there_is_nothing_to_say(
    tmp_path: Path, read_models: str | None
) -> None:
    made = across(tmp_path, rebuilds=0, read_models=read_models)
    found = commands.complete(made)
    assert found.job.state is State.COMPLETED
    assert found.kept is None or not (found.kept.names or found.kept.left)
    assert not (tmp_path / "nowhere.db").exists()


def test_what_cannot_be_reached_or_is_in_use_is_said_and_refuses_nothing(tmp_path: Path) -> None:
    away = across(tmp_path, rebuilds=0, read_models="postgresql://nobody@127.0.0.1:1/none")
    found = commands.complete(away)
    assert found.job.state is State.COMPLETED
    assert found.kept is not None
    assert "does not answer" in found.kept.left
    assert "is still there" in str(render_lifecycle.completed(found))

    (tmp_path / "other").mkdir()
    used = across(tmp_path / "other", read_models="sqlite:///views.db")
    url = f"sqlite:///{tmp_path}/other/views.db"
    with sql_engine(url) as engine, held(engine, Kind.READ_MODEL, ["daily"]):
        kept = commands.complete(used).kept
    assert kept is not None
    assert "being rebuilt" in kept.left
    again = commands.complete(used).kept
    assert again is not None
    assert again.names == ("daily", "order")


@pytest.mark.parametrize("switch", list(Switch))
@pytest.mark.parametrize("point", ["complete: after", "drop kept: before", "drop kept: after"])
def test_killed_meanwhile_the_same_command_ends_it(
    tmp_path: Path, point: str, switch: Switch
) -> None:
    how = {"target": "sqlite:///source.db?tables=v2_"} if switch is Switch.TABLES else {}
    made = across(tmp_path, switch=switch, read_models="sqlite:///views.db", **how)

    def killed() -> None:
        failpoints.handler = lambda name: (
            os.kill(os.getpid(), signal.SIGKILL) if name == point else None
        )
        commands.complete(made, drop=switch is Switch.TABLES)

    assert_no_database_open()
    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -9
    found = commands.complete(made).kept
    assert found is not None
    assert found.names == (() if point == "drop kept: after" else ("daily", "order"))
    assert commands.drop_kept(made, [], all_=True) == []
