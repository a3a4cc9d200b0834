"""What a monitoring system is told, and the command that projections are looked at with."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eventmig import commands
from eventmig.errors import EventmigError, RebuildError
from eventmig.migrate.states import State
from eventmig.monitoring.meter import Asked, Meter
from eventmig.project import Project
from tests.acceptance.support import (
    ROOT,
    cli,
    environment,
    event,
    fill,
    imported,
    project_in_files,
)

REGISTRY = """
    from eventmig import Registry, data_upcaster, ops, upcaster

    @data_upcaster("OneWay", 1)
    def one_way(data):
        return {"sum": 1}

    registry = Registry([upcaster("Opened", 1, ops.rename("name", "title")), one_way])
"""
VIEWS = """
from eventmig.rebuild import Aggregate, ReadModel, Rows
from sqlalchemy import Column, Integer, MetaData, String, Table

titles = Table(
    "titles",
    MetaData(),
    Column("title", String, primary_key=True),
    Column("n", Integer, nullable=False, default=0),
)
opened = ReadModel("opened", tables=[titles])
cart = Aggregate("cart", category="cart", state=dict)


@opened.on("Opened")
def one(data: dict, rows: Rows) -> None:
    rows.increment(titles, key=data["title"], n=1)


@cart.on("Opened")
def first(data: dict) -> dict:
    return data


@cart.on("OneWay")
def then(state: dict, data: dict) -> dict:
    return state


projections = [opened, cart]
"""
CONFIG = """
    registry = "steps_here:registry"
    projections = "views:projections"
    source = "sqlite:///source.db"
    target = "sqlite:///target.db"
    read_models = "sqlite:///views.db"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = project_in_files(tmp_path / "a shop", registry=REGISTRY, config=CONFIG)
    (made / "views.py").write_text(VIEWS)
    fill(made / "source.db", [event(f"cart-{n % 3}", "Opened", {"name": str(n)}) for n in range(9)])
    return made


@pytest.fixture
def its(folder: Path) -> Project:
    """The same project, in this process."""
    made = Project.open(folder / "eventmig.toml")
    made.__dict__["registry"] = imported(folder / "steps_here.py").registry
    made.__dict__["projections"] = tuple(imported(folder / "views.py").projections)
    return made


Told = dict[str, dict[tuple[tuple[str, str], ...], float]]


def parsed(text: str) -> Told:
    """Name → sorted labels → value."""
    found: Told = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def told(its: Project) -> Told:
    def tell(part: str, error: EventmigError) -> None:
        raise AssertionError(part) from error

    return parsed(Meter(its, Asked(), tell).text())


R = (("release", "2"),)
MODEL = (("kind", "read_model"), ("projection", "opened"))
LATE = event("cart-1", "OneWay", {})._replace(recorded_at=0)


def state(found: Told) -> list[str]:
    return [dict(labels)["state"] for labels, one in found["eventmig_job_state"].items() if one]


def test_a_job_and_its_read_models_from_begin_to_end(its: Project, folder: Path) -> None:
    before = told(its)
    assert before["eventmig_up"] == {(("part", "job"),): 1, (("part", "projections"),): 1}
    assert "eventmig_job_info" not in before
    assert before["eventmig_projection_generation"][MODEL] == 0

    commands.upcast(its)
    commands.rebuild(its, all_=True)
    ready = told(its)
    assert state(ready) == ["ready"]
    assert len(ready["eventmig_job_state"]) == len(State)
    assert ready["eventmig_events"] == ready["eventmig_copied_events"] == {R: 9}
    assert ready["eventmig_lag_events"] == ready["eventmig_running"] == {R: 0}
    assert ready["eventmig_live_side"][("release", "2"), ("side", "old")] == 1
    assert ready["eventmig_throttled"] == {}
    assert "eventmig_writers_stalled_seconds" not in ready
    ((labels, one),) = ready["eventmig_job_info"].items()
    assert (one, dict(labels)["release"]) == (1, "2")
    assert ready["eventmig_projection_events"][MODEL] == 9
    assert ready["eventmig_projection_lag_events"] == {MODEL: 0}, "aggregates are not followed"
    assert set(ready["eventmig_projection_stale"].values()) == {0}

    fill(folder / "source.db", [LATE])
    late = told(its)
    assert late["eventmig_lag_events"] == {R: 1}
    assert late["eventmig_lag_seconds"][R] > 0
    commands.steer(its, paused=True)
    assert told(its)["eventmig_paused"] == {R: 1}
    commands.steer(its, paused=False)
    commands.cutover(its)
    fill(folder / "target.db", [LATE._replace(id="late on the new side", schema_version=2)])
    commands.keep_up_once(its)
    crossed = told(its)
    assert state(crossed) == ["reverse_window"]
    assert crossed["eventmig_live_side"][("release", "2"), ("side", "new")] == 1
    assert crossed["eventmig_unsafe_events"] == {R: 1}
    assert crossed["eventmig_writers_stalled_seconds"][R] > 0
    assert crossed["eventmig_copied_bytes_total"][R] >= 0


def test_one_look_answers_for_a_few_seconds(its: Project, folder: Path) -> None:
    commands.upcast(its)
    meter = Meter(its, Asked(), lambda part, error: None)
    assert parsed(meter.text())["eventmig_lag_events"] == {R: 0}
    fill(folder / "source.db", [LATE])
    assert parsed(meter.text())["eventmig_lag_events"] == {R: 0}
    assert told(its)["eventmig_lag_events"] == {R: 1}


def test_what_cannot_be_looked_at_is_down_and_said(its: Project, folder: Path) -> None:
    commands.upcast(its)
    (folder / "source.db").write_bytes(b"no database, and long enough to be looked at" * 99)
    done = cli(folder, "metrics")
    assert done.returncode == 0
    assert parsed(done.stdout)["eventmig_up"][("part", "job"),] == 0
    assert "source.db" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_is_written_whole(its: Project, folder: Path) -> None:
    commands.upcast(its)
    done = cli(folder, "metrics", "--textfile", "for node exporter.prom")
    assert (done.returncode, done.stdout) == (0, "")
    assert state(parsed((folder / "for node exporter.prom").read_text())) == ["ready"]
    assert not list(folder.glob(".for*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "nowhere"], "names no port"),
        (["--listen", "1:99999"], "names no port"),
        (["--listen", "9187", "--textfile", "x"], "name one of them"),
        (["--every", "5"], "goes with --textfile"),
    ],
)
def test_wrong_options(folder: Path, options: list[str], said: str) -> None:
    done = cli(folder, "metrics", *options)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_it_is_served_until_interrupted(its: Project, folder: Path) -> None:
    commands.upcast(its)
    command = [sys.executable, "-m", "eventmig", "metrics", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as serving:
        try:
            assert serving.stderr is not None
            line = serving.stderr.readline()
            (url,) = re.findall(r"http://\S+/metrics", line)
            for _ in range(2):
                with urllib.request.urlopen(url, timeout=30) as answer:
                    assert "text/plain" in answer.headers["Content-Type"]
                    assert state(parsed(answer.read().decode())) == ["ready"]
            serving.send_signal(signal.SIGINT)
            assert serving.wait(30) == 130
        finally:
            serving.kill()


def test_alerts_ask_for_what_is_told(its: Project) -> None:
    commands.upcast(its)
    commands.rebuild(its, all_=True)
    commands.cutover(its)
    found = told(its)
    rules = (ROOT / "examples" / "monitoring" / "alerts.yml").read_text()
    expressions = re.findall(r"expr: (?:\|\n)?((?:.|\n)*?)\n        (?:for|labels):", rules)
    assert len(expressions) == rules.count("alert: ") == 10
    named = set(re.findall(r"\beventmig_\w+", " ".join(expressions)))
    assert len(named) > 8
    assert named <= set(found)
    states = re.findall(r'state=~?"([\w|]+)"', rules)
    assert {s for several in states for s in several.split("|")} <= {s.value for s in State}
    page = (ROOT / "docs" / "how-to" / "watch-and-alert.md").read_text()
    for alert in re.findall(r"alert: (\w+)", rules):
        assert f"`{alert}`" in page


def test_projections_are_listed(its: Project, folder: Path) -> None:
    commands.upcast(its)
    never = commands.projections(its).results
    assert [(one.name, one.live, one.stale) for one in never] == [
        ("opened", None, "it was never rebuilt"),
        ("cart", None, "it was never rebuilt"),
    ]
    assert not (folder / "views.db").exists()
    commands.rebuild(its, all_=True)
    commands.rebuild(its, ["opened"])
    fill(
        folder / "target.db", [event("cart-9", "Opened", {"title": "x"})._replace(schema_version=2)]
    )
    found = commands.projections(its).results
    assert [(one.name, one.live, one.kept, one.lag_events, one.stale) for one in found] == [
        ("opened", 2, 1, 1, ""),
        ("cart", 1, None, None, ""),
    ]
    (folder / "views.py").write_text(VIEWS.replace("n=1", "n=2"))
    shown = cli(folder, "projections", "opened")
    assert "opened: other code, another version or release made its rows" in shown.stdout
    assert max(map(len, shown.stdout.splitlines()[1:])) <= 80
    assert "cart" not in shown.stdout
    with pytest.raises(RebuildError, match="there is no projection 'opend'"):
        commands.projections(its, ["opend"])
