"""What rebuilds keep is let go when the job completes: last of all, said by name, killable."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eventmig import Registry, commands, ops, upcaster
from eventmig.cli import render_lifecycle
from eventmig.cli.jsons import to_json
from eventmig.commands.naming import outdated_read_models
from eventmig.errors import CrossingError, RebuildError, StoreError
from eventmig.migrate import failpoints
from eventmig.migrate.crossing import Crossing
from eventmig.migrate.sides import Sides
from eventmig.migrate.states import CROSSED, Side, State, Switch
from eventmig.project import Project, sql_engine
from eventmig.rebuild import Aggregate, ReadModel, bookkeeping
from eventmig.rebuild.bookkeeping import Kind
from eventmig.rebuild.hold import held
from tests.acceptance.support import event, fill, project
from tests.acceptance.test_rebuilding_commands import order
from tests.forks import forked
from tests.unit.read_model_helpers import daily


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
    across_now = commands.cutover(made, switch=Switch.TABLES)
    assert across_now.outdated == ("daily", "order")
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(render_lifecycle.crossing(across_now))
    assert "daily, order; rebuild them" in console.export_text()
    with pytest.raises(RebuildError, match="tables that changed names") as refused:
        commands.follow(made, ["daily"], source=here)
    assert "eventmig rebuild daily" in str(refused.value)
    (finding,) = [f for f in outdated_read_models(made) if "changed names" in f.what]
    assert finding.about == "read model daily"
    again = commands.cutover(made)
    assert (again.already, again.outdated) == (True, ("daily", "order"))

    assert commands.reverse(made).outdated == ()
    commands.follow(made, ["daily"], source=here)
    assert commands.cutover(made).outdated == ("daily", "order")
    commands.rebuild(made, all_=True, source=here)
    commands.follow(made, ["daily"], source=here)
    assert commands.cutover(made).outdated == ()
    commands.follow(made, ["daily"], source=here)
    assert commands.reverse(made).outdated == ("daily", "order")
    with pytest.raises(RebuildError, match="tables that changed names"):
        commands.follow(made, ["daily"], source=here)


MARKING = ["mark: before", "mark: after"]


@pytest.mark.parametrize(
    ("point", "read_models"),
    [
        ("mark: before", "sqlite:///views.db"),
        ("mark: after", "sqlite:///views.db"),
        ("mark: after", None),  # beside the events
        ("switch: after", "sqlite:///views.db"),
        ("fall back: after", "sqlite:///views.db"),
    ],
)
def test_killed_amid_a_crossing_by_tables_nobody_goes_on_with_what_is_outdated(
    tmp_path: Path, point: str, read_models: str | None
) -> None:
    """At no moment, whatever is run next; and what is not outdated is gone on with again."""
    how = {"target": "sqlite:///source.db?tables=v2_", "read_models": read_models}
    made = across(tmp_path, (daily(),), rebuilds=0, crossing=False, **how)
    here = f"sqlite:///{tmp_path}/source.db"
    commands.rebuild(made, all_=True, source=here)

    def follow() -> None:
        commands.follow(made, ["daily"], source=here)

    def fall_back(sides: Sides, crossing: Crossing) -> None:
        sides.before_switch()
        raise CrossingError("the tables were in use")

    for cross, leaves in ((commands.cutover, Side.OLD), (commands.reverse, Side.NEW)):
        follow()
        with pytest.MonkeyPatch.context() as patched:
            if point == "fall back: after":
                patched.setattr(Sides, "switch", fall_back)
            killed_at(point, partial(cross, made, **BY_TABLES if leaves is Side.OLD else {}))
        switched = commands.status(made).job.state in CROSSED
        if point in ("mark: after", "switch: after"):
            with pytest.raises(RebuildError, match="tables that changed names"):
                follow()
        assert switched is ((leaves is Side.OLD) is (point == "switch: after"))
        if point != "switch: after":
            commands.keep_up_once(made)
            follow()
        assert cross(made, **BY_TABLES if leaves is Side.OLD else {}).outdated == ("daily",)
        with pytest.raises(RebuildError, match="tables that changed names"):
            follow()
        commands.rebuild(made, all_=True, source=here)


def test_read_models_that_cannot_be_marked_keep_the_application_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"target": "sqlite:///source.db?tables=v2_", "read_models": "sqlite:///views.db"}
    made = across(tmp_path, rebuilds=1, crossing=False, **how)

    def refused(*_: object) -> None:
        raise StoreError("the read models' database is in use")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bookkeeping, "rename_sources", refused)
        with pytest.raises(StoreError, match="in use"):
            commands.cutover(made, switch=Switch.TABLES)
    assert commands.status(made).job.state is State.CATCHING_UP
    assert commands.cutover(made, switch=Switch.TABLES).outdated == ("daily", "order")


BY_TABLES: dict[str, Any] = {"switch": Switch.TABLES}


def killed_at(point: str, work: Callable[[], object]) -> None:
    """Do this in a process that is killed at a failpoint."""

    def killed() -> None:
        failpoints.handler = lambda name: (
            os.kill(os.getpid(), signal.SIGKILL) if name == point else None
        )
        work()

    assert forked(killed) == -signal.SIGKILL


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

    killed_at(point, partial(commands.complete, made, drop=switch is Switch.TABLES))
    found = commands.complete(made).kept
    assert found is not None
    assert found.names == (() if point == "drop kept: after" else ("daily", "order"))
    assert commands.drop_kept(made, [], all_=True) == []
