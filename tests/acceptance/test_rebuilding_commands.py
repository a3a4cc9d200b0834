"""What the commands about read models and snapshots choose, check and say."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eventmig import Registry, commands, ops, upcaster
from eventmig.cli import render_rebuilds
from eventmig.config import Config
from eventmig.errors import RebuildError, ReleaseError
from eventmig.project import Project
from eventmig.rebuild import Aggregate, ReadModel
from eventmig.release import Lock
from tests.acceptance.support import event, fill, sql, url
from tests.unit.read_model_helpers import OrderPlaced, daily

renamed = upcaster("Paid", 1, ops.rename("sum", "cents"))
more = upcaster("OrderPlaced", 1, ops.add("channel", "web"))


def order(bug: int = 0) -> Aggregate[dict[str, Any]]:
    made = Aggregate("order", category="order", state=dict, version=1 + bug)

    @made.on("OrderPlaced")
    def placed(state: dict[str, Any] | None, data: OrderPlaced) -> dict[str, Any]:
        return {"cents": (state or {"cents": 0})["cents"] + data.cents}

    return made


def payments() -> Aggregate[dict[str, Any]]:
    made = Aggregate("payment", category="payment", state=dict)

    @made.on("Paid")
    def paid(state: dict[str, Any] | None, data: dict[str, Any]) -> dict[str, Any]:
        return data

    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.db"
    fill(
        path,
        [
            *(event(f"order-{n % 4}", "OrderPlaced", {"day": "d", "cents": n}) for n in range(20)),
            *(event(f"payment-{n % 2}", "Paid", {"sum": n}) for n in range(6)),
        ],
    )
    return path


def project(
    folder: Path,
    *steps: Any,
    projections: Iterable[ReadModel | Aggregate[Any]] = (),
    **config: Any,
) -> Project:
    """With release 1 frozen before any step, and release 2 with the renaming alone."""
    content = {"folder": folder, "source": url(folder / "source.db"), "projections": "x:y"}
    made = Project(
        Config.model_validate(content | {"read_models": url(folder / "views.db")} | config),
        given_registry=Registry(steps),
        given_lock=Lock((Registry([]).freeze("1"), Registry([renamed]).freeze("2"))),
    )
    made.__dict__["projections"] = tuple(projections) or (daily(), order(), payments())
    return made


def rebuilt(made: Project, *names: str, **options: Any) -> list[str]:
    return [result.name for result in commands.rebuild(made, names, **options).results]


def test_since_a_release_only_what_it_touched_is_rebuilt(source: Path, tmp_path: Path) -> None:
    folder = tmp_path
    both, one = project(folder, renamed, more), project(folder, renamed)
    assert rebuilt(both, all_=True, since_release="2") == ["daily", "order"]
    assert rebuilt(both, "payment", "order", since_release="2") == ["order"]
    assert rebuilt(both, all_=True, since_release="1") == ["daily", "order", "payment"]
    assert rebuilt(one, all_=True, since_release="2") == []
    with pytest.raises(ReleaseError, match="no release '7'"):
        rebuilt(one, all_=True, since_release="7")


def test_snapshots_of_all_of_some_and_of_streams(source: Path, tmp_path: Path) -> None:
    made = project(tmp_path, renamed)
    assert rebuilt(made, snapshots=True) == ["order", "payment"]
    assert rebuilt(made, "payment", snapshots=True, every=2) == ["payment"]
    result = commands.rebuild(made, streams=["order-1", "order-2", "payment-0"]).results
    assert [(one.name, one.events_read) for one in result] == [("order", 10), ("payment", 3)]
    assert rebuilt(made, categories=["payment"]) == ["payment"]
    assert rebuilt(made, categories=["payment", "order"]) == ["order", "payment"]
    assert rebuilt(made, snapshots=True, since_release="1") == ["payment"]
    more_made = project(tmp_path, renamed, more)
    assert rebuilt(more_made, snapshots=True, since_release="2") == ["order"]
    assert rebuilt(more_made, streams=["order-1", "payment-0"], since_release="2") == ["order"]
    with pytest.raises(RebuildError, match="no aggregate has the category basket"):
        rebuilt(made, categories=["order", "basket"])
    with pytest.raises(RebuildError, match="no aggregate has the stream order-1"):
        rebuilt(made, categories=["payment"], streams=["order-1"])
    with pytest.raises(RebuildError, match="no aggregate has the stream basket-1"):
        rebuilt(made, streams=["basket-1"])
    with pytest.raises(RebuildError, match="daily is a read model"):
        rebuilt(made, "daily", snapshots=True)


def test_snapshots_are_compared_and_stale_ones_counted(source: Path, tmp_path: Path) -> None:
    made = project(tmp_path, renamed)
    rebuilt(made, snapshots=True)
    report = commands.check_snapshots(made, sample=None)
    assert [(one.aggregate, one.checked, one.stale) for one in report.results] == [
        ("order", 4, 0),
        ("payment", 2, 0),
    ]
    sql(
        tmp_path / "views.db",
        """UPDATE eventmig_snapshots SET state = '{"cents": 1}' WHERE stream = 'order-1'""",
    )
    wrong = commands.check_snapshots(made, ["order"], sample=None)
    assert not wrong.right
    assert [one.stream for one in wrong.results[0].mismatches] == ["order-1"]

    changed = project(tmp_path, renamed, projections=[daily(), order(bug=1), payments()])
    stale = commands.check_snapshots(changed, sample=None)
    assert (stale.right, stale.stale) == (True, 4)
    text = io.StringIO()
    one = commands.rebuild(changed, streams=["order-1"])
    assert (one.results[0].stale, one.results[0].rows) == (1, {"eventmig_snapshots": 1})
    assert commands.check_snapshots(changed, sample=None).stale == 3
    Console(file=text).print(render_rebuilds.rebuilt(commands.rebuild(changed, ["order"])))
    assert "order: 3 stale snapshots were replaced" in text.getvalue()
    assert commands.check_snapshots(changed, sample=None).stale == 0
    assert [r.stale for r in commands.rebuild(changed, snapshots=True).results] == [0, 0]
    with pytest.raises(RebuildError, match="no snapshots"):
        commands.check_snapshots(made, ["daily"])


def test_snapshots_of_another_source_and_of_moved_events_are_stale(
    source: Path, tmp_path: Path
) -> None:
    made = project(tmp_path, renamed, target="sqlite:///target.db")
    rebuilt(made, "order")
    shutil.copy(source, tmp_path / "copy.db")
    elsewhere = {"source": url(tmp_path / "copy.db")}
    found = commands.check_snapshots(made, ["order"], **elsewhere)  # type: ignore[arg-type]
    assert (found.right, found.stale) == (True, 4)
    sql(
        tmp_path / "views.db",
        "UPDATE eventmig_snapshots SET event_id = 'other' WHERE stream = 'order-1'",
    )
    assert commands.load(made, "order", "order-1").stale is not None
    found = commands.check_snapshots(made, ["order"])
    assert (found.right, found.stale) == (True, 1)
    (result,) = commands.rebuild(made, ["order"], **elsewhere).results  # type: ignore[arg-type]
    assert result.stale == 4
    assert commands.check_snapshots(made, ["order"], **elsewhere).stale == 0  # type: ignore[arg-type]


def test_an_aggregate_without_a_category_has_the_streams_it_folds(
    source: Path, tmp_path: Path
) -> None:
    anywhere = Aggregate("anywhere", state=dict[str, Any])

    @anywhere.on("Paid")
    def paid(state: dict[str, Any] | None, data: dict[str, Any]) -> dict[str, Any]:
        return {"paid": (state or {"paid": 0})["paid"] + data["cents"]}

    made = project(tmp_path, renamed, projections=[anywhere])
    (result,) = commands.rebuild(made, ["anywhere"]).results
    assert result.rows == {"eventmig_snapshots": 2}
    loaded = commands.load(made, "anywhere", "payment-1")
    assert (loaded.state, loaded.from_snapshot) == ({"paid": 9}, True)
    (result,) = commands.rebuild(made, streams=["payment-1", "order-1"]).results
    assert result.rows == {"eventmig_snapshots": 1}
    assert commands.load(made, "anywhere", "order-1").state is None


def test_check_warns_of_rows_that_other_handlers_made(source: Path, tmp_path: Path) -> None:
    made = project(tmp_path, renamed)
    assert commands.check(made, examples=0).warnings == ()  # nothing was rebuilt yet
    assert not (tmp_path / "views.db").exists()
    rebuilt(made, "daily")
    assert commands.check(made, examples=0).warnings == ()

    same_version = daily()
    same_version.on("Paid")(same_version.handlers["OrderPlaced"].function)
    (warning,) = commands.check(
        project(tmp_path, renamed, projections=[same_version]), examples=0
    ).warnings
    assert warning.about == "read model daily"
    assert "its version is 1 still" in warning.what
    assert "raise its version" in warning.remedy

    (warning,) = commands.check(
        project(tmp_path, renamed, projections=[daily(version=2)]), examples=0
    ).warnings
    assert "still" not in warning.what


def test_check_does_without_a_database_that_is_out_of_reach(source: Path, tmp_path: Path) -> None:
    away = "postgresql://nobody@127.0.0.1:1/none"
    found = commands.check(project(tmp_path, renamed, read_models=away), examples=0)
    assert found.right
    assert "could not be looked at" in found.warnings[0].what


def test_an_aggregate_is_neither_followed_nor_compared(source: Path, tmp_path: Path) -> None:
    made = project(tmp_path, renamed)
    with pytest.raises(RebuildError, match="order is an aggregate"):
        commands.follow(made, ["order"])
    with pytest.raises(RebuildError, match="not compared row by row"):
        commands.diff_read_models(made, ["daily", "order"])
    rebuilt(made, all_=True)
    assert [one.name for one in commands.follow(made, all_=True).results] == ["daily"]
    assert commands.diff_read_models(made, all_=True).equal


def test_what_is_kept_can_be_dropped(source: Path, tmp_path: Path) -> None:
    made = project(tmp_path, renamed)
    for _ in range(2):
        rebuilt(made, all_=True)
    assert commands.drop_kept(made, ["order"]) == ["order"]
    assert commands.drop_kept(made, [], all_=True) == ["daily", "payment"]
    assert commands.drop_kept(made, [], all_=True) == []
    for name in ("daily", "order"):
        with pytest.raises(RebuildError, match="no earlier generation"):
            commands.rollback(made, [name])
    assert commands.diff_read_models(made, ["daily"]).equal
    assert commands.check_snapshots(made, sample=None).stale == 0
