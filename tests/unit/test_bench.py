"""The benchmark runs, prints every ratio, and compares copies that are equal. No times here."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from bench import history, measure, step
from bench.__main__ import main
from bench.domain import registry
from bench.figures import Figure, unequal
from bench.measure import Place
from bench.report import Report
from tests.conftest import ROOT
from tests.forks import forked

HAS_PEER = importlib.util.find_spec("eventsourcing") is not None


def test_the_history_is_as_large_as_it_says_and_always_the_same() -> None:
    events = [event for batch in history.batches(4_000, 200) for event in batch]

    assert [event.global_position for event in events] == list(range(1, 4_001))
    assert 380 < sum(len(event.data) for event in events) / 4_000 < 420
    assert 85 < sum(len(event.metadata or b"") for event in events) / 4_000 < 115
    assert len({event.stream for event in events}) == 200
    assert events == [event for batch in history.batches(4_000, 200) for event in batch]


def test_every_type_has_the_chain_it_says_and_ends_at_a_model() -> None:
    steps = {type_: len(registry.goal.path((type_, 1))) for type_ in history.SHARES}

    assert steps == {"OrderPlaced": 3, "PaymentReceived": 2, "ParcelShipped": 1, "PageViewed": 0}
    assert {(type_, count + 1) for type_, count in steps.items()} == registry.schemas.keys()


OPTIONS = ("--json", "--events", "2000", "--rounds", "1")


def test_it_runs_as_a_program_each_step_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *OPTIONS, "--folder", str(tmp_path), "--only", "read"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [figure["name"] for figure in found["figures"]] == ["read"] * 8


def forked_step(name: str, arguments: str) -> subprocess.CompletedProcess[str]:
    """The step in a process that need not import anything."""

    def run() -> None:
        os.dup2(out.fileno(), 1)
        with os.fdopen(1, "w", closefd=False) as sys.stdout:
            step.main(name, arguments)
        os._exit(0)

    with tempfile.TemporaryFile("w+") as out:
        code = forked(run)
        out.seek(0)
        return subprocess.CompletedProcess([], code, out.read(), "")


@pytest.mark.slow
def test_a_run_has_every_ratio_of_copies_that_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "process", forked_step)
    code = main([*OPTIONS, "--folder", str(tmp_path)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    found = json.loads(printed.out)

    assert found["compared"]
    assert found["unequal"] == []
    ratios = {(f["name"], f["what"], f["reference"]): f["ratio"] for f in found["figures"]}
    assert all(ratio > 0 for ratio in ratios.values())
    counts = {name: sum(key[0] == name for key in ratios) for name, _, _ in ratios}
    assert counts == {
        "copy": 5,
        "disk": 5,
        "models": 16 if HAS_PEER else 12,
        "live": 1,
        "postgres-copy": 6 if HAS_PEER else 4,
        "read": 8,
        "verify": 2,
        "rebuild": 4,
        "kurrentdb": 6,
        "postgres": 24 if HAS_PEER else 20,
        "pushdown": 6,
        **({"peer": 2} if HAS_PEER else {}),
    }
    assert all(m["peak_mb"] > 0 and m["quarter_peak_mb"] > 0 for m in found["memory"])
    assert len(found["memory"]) == 8
    assert found["facts"].keys() >= {"cores", "Python", "SQLite"}
    assert any("not installed" in note for note in found["notes"]) is not HAS_PEER
    assert list(tmp_path.iterdir()) == []


def test_copies_that_differ_are_named() -> None:
    place = Place(
        name="here", folder=Path(), events=1, streams=1, compare=True, say=lambda text: None
    )
    place.contents["upcast"] |= {"one": "a", "two": "a"}
    assert unequal([place]) == []

    place.contents["upcast"]["three"] = "b"
    assert unequal([place]) == ["upcast of 1 events: here: one = a, here: two = a, here: three = b"]


def test_the_table_says_what_is_compared_with_what() -> None:
    report = Report(
        events=10,
        streams=1,
        rounds=1,
        places={"in memory": "/dev/shm tmpfs"},
        figures=[
            Figure(
                name="copy",
                what="copy, 1 process",
                rate=90,
                reference="INSERT … SELECT",
                reference_rate=180,
                ratio=0.5,
                target=0.45,
                peak_mb=120,
            )
        ],
        memory=[("verify", 130, 129)],
    )
    console = Console(width=140, record=True, file=io.StringIO())
    report.show(console)
    shown = console.export_text()

    for part in ("copy, 1 process", "INSERT … SELECT", "0.50", "≥ 0.45", "130", "SQLite", "cores"):
        assert part in shown
