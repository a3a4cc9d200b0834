"""The command line: one JSON value or a text of 80 columns, exit codes, and helpful refusals."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eventmig.cli import main, session
from eventmig.cli.exits import INTERRUPTED, MEANING, ExitCode
from tests.acceptance.support import (
    bare,
    cli,
    contents,
    driver,
    event,
    fill,
    history,
    project_in_files,
    sql,
)

Run = Callable[..., tuple[int, str, str]]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Inside = Callable[..., Done]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command in this process: its exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(arguments)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[Path]:
    """What `eventmig init` writes, in a folder whose name has a space and looks like markup."""
    made = tmp_path / "a [bold] folder"
    made.mkdir()
    monkeypatch.chdir(made)
    with bare("upcasters", "projections"):
        assert run("init")[0] == ExitCode.DONE
        yield made


def value(text: str) -> Any:
    """The one JSON value on the one line that was printed."""
    assert text.count("\n") == 1, text
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


STORY = [
    ("check --examples 3", {"findings": [], "right": True}),
    ("check --examples 0", {"right": True}),
    ("release 3", {"name": "3"}),
    ("release 3 --amend", {"name": "3"}),
    ("plan", {"events": 12, "problems": []}),
    ("plan --release 2 --samples 0", {"release": "2", "samples": []}),
    ("upcast", {"ready": True, "resumed": False}),
    ("upcast", {"ready": True, "resumed": True}),
    ("upcast --workers 2 --batch-size 4 -r 2", {"ready": True}),
    ("verify", {"ready": True}),
    ("verify --quick", {"ready": True}),
    ("status", {"running": False}),
    ("history", None),
    ("current", {"release": None, "events": 12}),
    ("current --store sqlite:///history-3.db", {"release": "3", "state": "ready"}),
    ("show order-1", None),
    ("show order-1 --from 2 --limit 1", None),
    ("quarantine list", []),
    ("quarantine retry", {"ready": True}),
    ("rebuild --all", {"release": None}),
    ("rebuild sales_per_day", {}),
    ("project --all", None),
    ("diff-readmodel --all", {"results": None}),
    ("check-snapshots", {"results": []}),
    ("rebuild --all --since-release 2 --quarantine --workers 2", {"results": []}),
    ("rollback --all", {"sales_per_day": 1}),
    ("drop-kept --all", None),
    ("export out.jsonl", {"events": 12}),
    ("import out.jsonl --store sqlite:///copy.db", {"events": 12, "streams": 7}),
    ("cancel", {"deleted": 12}),
    ("demo --events 100", None),
]


def test_every_command_prints_one_json_value_and_nothing_else(folder: Path, run: Run) -> None:
    for line, wanted in STORY:
        code, out, err = run(*line.split(), "--json")
        assert code == ExitCode.DONE, (line, out, err)
        found = value(out)
        if isinstance(wanted, list):
            assert found == wanted, line
        for name, part in (wanted or {}).items() if isinstance(wanted, dict) else ():
            assert name in found, (line, out)
            assert part is None or found[name] == part, (line, out)


def test_every_command_prints_at_most_80_columns(folder: Path, run: Run) -> None:
    for line, _ in STORY:
        code, out, err = run(*line.split())
        assert code == ExitCode.DONE, (line, out, err)
        assert out.strip(), line
        long = [text for text in out.splitlines() if len(text) > 80]
        assert long == [], line
        assert "Traceback" not in err


ORDERS = """
from eventmig.rebuild import Aggregate

orders = Aggregate("orders", category="order", state=dict)

@orders.on("OrderPlaced")
def placed(data: dict) -> dict:
    return data

projections.append(orders)
"""


def test_streams_are_named_by_a_file_or_on_standard_input(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "projections" / "__init__.py").open("a") as file:
        file.write(ORDERS)
    assert value(run("rebuild", "--category", "order", "--json")[1])["results"][0]["rows"] == {
        "eventmig_snapshots": 7
    }
    (folder / "some.txt").write_text("order-1\n\n  order-2 \n")
    (folder / "none.txt").write_text("\n")
    line = ["rebuild", "--stream", "order-3", "--streams-from", "some.txt", "--json"]
    assert value(run(*line)[1])["results"][0]["rows"] == {"eventmig_snapshots": 3}
    monkeypatch.setattr("sys.stdin", io.StringIO("order-4\n"))
    code, out, _ = run("rebuild", "--streams-from", "-", "--json")
    assert (code, value(out)["results"][0]["rows"]) == (0, {"eventmig_snapshots": 1})
    code, out, err = run("rebuild", "--streams-from", "none.txt")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "names no stream" in err


COMMANDS = [
    "init", "check", "release", "plan", "upcast", "verify", "status", "history", "current",
    "show", "cancel", "rebuild", "rollback", "drop-kept", "project",
    "diff-readmodel", "check-snapshots", "import", "export", "demo", "quarantine",
]  # fmt: skip


@pytest.mark.parametrize("line", ["--quiet upcast", "upcast --quiet", "upcast -q"])
def test_quiet_may_stand_before_and_behind_the_command(folder: Path, run: Run, line: str) -> None:
    code, _, progress = run(*line.split())

    assert (code, progress) == (ExitCode.DONE, "")


def test_help_is_printed_and_fits(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == ExitCode.DONE
    for name in COMMANDS:
        assert name in out
        code, text, _ = run(name, "--help")
        assert code == ExitCode.DONE
        assert all(len(line) <= 80 for line in text.splitlines())
    for meaning in MEANING:
        assert str(meaning.value) in out


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("upcsat", "upcast"),
        ("quarantine lst", "list"),
        ("upcast --relese 2", "--release"),
        ("upcast --workers 3", "--workers"),
        ("upcast --workers many", "valid integer"),
        ("upcast --batch-size 0", "--batch-size"),
        ("plan --samples -1", "--samples"),
        ("check --examples x", "--examples"),
        ("verify --quik", "--quick"),
        ("show", "what"),
        ("release", "name"),
        ("import", "file"),
        ("import out.jsonl --map stream", "PART=FIELD"),
        ("quarantine show no-such-id", "no event no-such-id is in quarantine"),
        ("show order-1 order-2", "order-2"),
        ("status 2", "2"),
        ("show order-1 --store=", "--store"),
        ("cancel --target=", "--target"),
        ("status --release=", "--release"),
    ],
)
def test_a_wrong_argument_is_told_with_a_hint(folder: Path, run: Run, line: str, hint: str) -> None:
    run("-q", "upcast")
    code, out, err = run(*line.split())
    assert code == ExitCode.USAGE
    assert out == ""
    assert hint in err
    assert "eventmig" in err
    assert "Traceback" not in err
    code, out, _ = run(*line.split(), "--json")
    assert code == ExitCode.USAGE
    assert hint in value(out)["error"]["what"]


@pytest.mark.parametrize(
    ("line", "code", "kind", "said"),
    [
        ("upcast --release 9", ExitCode.INPUT, "ReleaseError", "there: 2"),
        ("plan --release 9", ExitCode.INPUT, "ReleaseError", "there: 2"),
        ("release 2", ExitCode.INPUT, "ReleaseError", "frozen already"),
        ("release 2/3", ExitCode.INPUT, "ReleaseError", "cannot be a release's name"),
        ("release 3 --amend", ExitCode.INPUT, "ReleaseError", "only the latest release"),
        ("upcast --naming {steam}", ExitCode.INPUT, "ConfigError", "{steam}"),
        ("plan --naming all", ExitCode.INPUT, "ConfigError", "{stream}"),
        ("upcast --target history.db", ExitCode.INPUT, "ConfigError", "not a URL"),
        ("upcast --target sqlite:///x.db?table=x", ExitCode.INPUT, "ConfigError", "tables"),
        ("upcast --target oracle://x", ExitCode.INPUT, "ConfigError", "oracle"),
        ("upcast --source sqlite:///no.db", ExitCode.STOPPED, "NotAStoreError", "no.db"),
        ("upcast --target sqlite:///history.db", ExitCode.STOPPED, "JobError", "is the source"),
        ("plan --target sqlite:///history.db", ExitCode.STOPPED, "JobError", "is the source"),
        ("upcast --target sqlite:///{relase}.db", ExitCode.INPUT, "ConfigError", "{release}"),
        ("verify --target sqlite:///no.db", ExitCode.STOPPED, "JobError", "--target"),
        ("reverse --target sqlite:///no.db", ExitCode.STOPPED, "JobError", "--release"),
        ("show order-99", ExitCode.STOPPED, "JobError", "order-99"),
        ("show order-1 --from 9", ExitCode.STOPPED, "JobError", "no event at 9"),
        ("rebuild sales", ExitCode.STOPPED, "RebuildError", "sales_per_day"),
        ("rebuild", ExitCode.STOPPED, "RebuildError", "--all"),
        ("rebuild salesperday", ExitCode.STOPPED, "RebuildError", "did you mean 'sales_per_day'"),
        ("rebuild --all --read-models sqlite:///no/x.db", ExitCode.STOPPED, "StoreError", "folder"),
        ("export .", ExitCode.STOPPED, "StoreError", "not a file"),
        ("import sample.jsonl --map stream={order", ExitCode.INPUT, "ConfigError", "brace"),
        ("rebuild --all --read-models no://x", ExitCode.INPUT, "ConfigError", "database"),
        ("import missing.jsonl", ExitCode.INPUT, "DataError", "missing.jsonl"),
        ("import sample.jsonl --map strem=x", ExitCode.INPUT, "ConfigError", "stream"),
        ("init", ExitCode.INPUT, "ConfigError", "there already"),
        ("-c nowhere.toml plan", ExitCode.INPUT, "ConfigError", "no configuration file"),
    ],
)  # fmt: skip
def test_an_error_is_told_as_text_and_as_json(
    folder: Path, run: Run, line: str, code: ExitCode, kind: str, said: str
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".db", ".lock")}
    got, out, err = run(*line.split())
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert "remedy: " in err
    got, out, _ = run(*line.split(), "--json")
    assert got == code
    error = value(out)["error"]
    assert error["kind"] == kind
    assert said in error["what"] + error["remedy"] + str(error["where"])
    after = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".db", ".lock")}
    assert after.items() >= before.items()
    assert set(after) - set(before) <= {"history-2.db.lock"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:geheim@localhost/db",
        "postgresql://ada:geheim@localhost:none/db",
        "oracle://ada:geheim@localhost/db",
        "ada:geheim@localhost/db",
        "sqlite://ada:geheim@localhost/x.db",
    ],
)
def test_a_password_is_never_printed(folder: Path, run: Run, url: str) -> None:
    for line in (
        ["upcast", "--target", url],
        ["upcast", "--source", url],
        ["plan", "--target", url],
        ["current", "--store", url],
        ["rebuild", "--all", "--read-models", url],
    ):
        for json_ in ([], ["--json"]):
            code, out, err = run(*line, *json_)
            assert "geheim" not in out + err, line
            assert "Traceback" not in err
            assert code in (ExitCode.INPUT, ExitCode.STOPPED, ExitCode.DONE)


def test_what_user_code_prints_does_not_mix_with_the_result(tmp_path: Path) -> None:
    noisy = """
    from eventmig import Registry, data_upcaster
    print("imported")

    @data_upcaster("Opened", 1)
    def loud(data):
        print("upcast")
        return data

    registry = Registry([loud])
    """
    folder = project_in_files(tmp_path / "noisy", registry=noisy)
    fill(folder / "source.db", [event("s-1", "Opened", {})])
    for workers in ("1", "2"):
        done = cli(
            folder, "upcast", "--json", "--workers", workers, "--target", f"sqlite:///{workers}.db"
        )
        assert done.returncode == 0, done.stderr
        assert value(done.stdout)["ready"]
        assert "imported" in done.stderr
        assert "upcast" in done.stderr


@pytest.fixture
def outside(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as a process of its own, in the folder of `init`."""

    def outside(
        *arguments: str, env: dict[str, str] | None = None, stdout: Any = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "TERM")}
        return subprocess.run(
            [sys.executable, "-m", "eventmig", *arguments],
            cwd=folder,
            env={**clean, **(env or {})},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            check=False,
        )

    return outside


def test_no_line_is_broken_in_a_pipe_and_no_character_is_too_much(
    outside: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    longer = "sqlite:///" + "../a%20[bold]%20folder/" * 10 + "history.db"
    done = outside("current", "--store", longer)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "history.db: 12 events; no job made it: it is as applications wrote it\n" in done.stdout
    done = outside("show", "order-1")
    assert '\n    "order_id": "1",' in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) < 200
    done = outside("check", "--examples", "0", env=ascii_only)
    assert (done.returncode, done.stdout[:6]) == (ExitCode.DONE, "\\u2713"), done.stderr
    done = outside("show", "order-5", "--json", env=ascii_only)
    assert value(done.stdout)[0]["event"]["data"]["mail"] == "łukasz@example.org", done.stderr


def test_inspect_takes_no_table_of_a_store_that_eventmig_made(folder: Path, run: Run) -> None:
    assert run("import", "sample.jsonl", "--store", "sqlite:///two.db?tables=v2_")[0] == 0
    code, out, err = run("inspect", "sqlite:///two.db")
    assert (code, out) == (ExitCode.STOPPED, "")
    assert "?tables=" in err
    assert "12 events" in run("inspect", "sqlite:///two.db?tables=v2_")[1]


def test_a_time_beyond_all_calendars_is_shown_as_a_number(folder: Path, run: Run) -> None:
    line = {"stream": "s-1", "type": "T", "data": {}, "recorded_at": 10**18, "id": "x"}
    (folder / "far.jsonl").write_text(json.dumps(line))
    assert run("import", "far.jsonl", "--store", "sqlite:///far.db")[0] == 0
    for arguments in (
        ["show", "s-1", "--store", "sqlite:///far.db"],
        ["show", "s-1", "--store", "sqlite:///far.db", "--json"],
        ["inspect", "sqlite:///far.db"],
    ):
        code, out, err = run(*arguments)
        assert (code, str(10**18) in out) == (ExitCode.DONE, True), (out, err)


def test_a_result_that_cannot_be_written_is_told(
    outside: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        for arguments in (["current"], ["current", "--json"]):
            done = outside(*arguments, stdout=full)
            assert done.returncode == ExitCode.STOPPED
            assert done.stderr.startswith("error: the system refused to go on with the output")
            assert "Traceback" not in done.stderr


# What the installed command runs, interrupted where it begins to import a module.
INTERRUPTED_AT = """
import sys

class Interrupted:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from eventmig.cli import main
sys.exit(main(["current"]))
"""


@pytest.mark.parametrize("module", ["eventmig.errors", "msgspec", "sqlalchemy", "typer"])
def test_ctrl_c_while_the_program_still_loads(tmp_path: Path, module: str) -> None:
    done = driver(tmp_path, INTERRUPTED_AT, module)
    assert (done.returncode, done.stdout) == (ExitCode.INTERRUPTED, "")
    assert done.stderr == f"\n{INTERRUPTED}\n"


def test_ctrl_c_before_and_after_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "start", interrupted)
    assert main(["current"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == f"\n{INTERRUPTED}\n"


def test_a_closed_pipe_is_no_fault(tmp_path: Path) -> None:
    folder = project_in_files(tmp_path / "pipe")
    fill(folder / "source.db", [event("s-1", "Plain", {"x": "y" * 500}) for _ in range(500)])
    done = driver(
        folder,
        """
        import subprocess, sys
        show = [sys.executable, "-m", "eventmig", "show", "s-1", "--limit", "500"]
        first = subprocess.Popen(show, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first.stdout.read(100)
        first.stdout.close()
        print(first.stderr.read().decode(), file=sys.stderr)
        print(first.wait())
        """,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == f"{ExitCode.DONE}\n"


@pytest.fixture
def inside(run: Run, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """Run a command in a folder of `project_in_files`, in this process; with its code anew."""

    def inside(folder: Path, *arguments: str) -> Done:
        monkeypatch.chdir(folder)
        with bare("steps_here"):
            return Done(*run(*arguments))

    return inside


def test_the_quarantine_on_the_command_line(tmp_path: Path, inside: Inside) -> None:
    failing = """
    from eventmig import Registry, data_upcaster

    @data_upcaster("Opened", 1)
    def divide(data):
        return {"n": 1 // data["n"]}

    registry = Registry([divide])
    """
    folder = project_in_files(tmp_path / "failing", registry=failing)
    fill(folder / "source.db", [event("s-1", "Opened", {"n": n}, id=f"id-{n}") for n in (1, 0, 2)])
    stopped = inside(folder, "upcast", "--json")
    assert stopped.returncode == ExitCode.STOPPED
    error = value(stopped.stdout)["error"]
    assert error["kind"] == "UpcastError"
    assert error["where"]["stream"] == "s-1"
    assert error["where"]["stream_position"] == 2
    assert error["where"]["step"] == "Opened v1 → v2"

    paused = inside(folder, "upcast", "--quarantine", "--json")
    assert paused.returncode == ExitCode.FOUND
    report = value(paused.stdout)
    assert report["job"]["state"] == "paused"
    assert report["job"]["tally"]["quarantined"] == 1
    (listed,) = value(inside(folder, "quarantine", "list", "--json").stdout)
    assert listed["event"]["id"] == "id-0"
    assert listed["event"]["data"] == {"n": 0}
    shown = inside(folder, "quarantine", "show", "id-0")
    assert shown.returncode == ExitCode.DONE
    assert "ZeroDivisionError" in shown.stdout
    assert '{"n": 0}' in shown.stdout
    assert (
        value(inside(folder, "quarantine", "show", "id-0", "--json").stdout)["event"]["id"]
        == "id-0"
    )
    still = inside(folder, "quarantine", "retry", "--json")
    assert still.returncode == ExitCode.FOUND
    assert len(value(still.stdout)) == 1

    module = folder / "steps_here.py"
    module.write_text(module.read_text().replace('1 // data["n"]', 'data["n"] and 1 // data["n"]'))
    drifted = inside(folder, "quarantine", "retry", "--json")
    assert drifted.returncode == ExitCode.FOUND
    assert "--amend" in value(drifted.stdout)["error"]["remedy"]
    assert inside(folder, "release", "2", "--amend").returncode == ExitCode.DONE
    done = inside(folder, "quarantine", "retry", "--json")
    assert done.returncode == ExitCode.DONE, done.stdout
    assert value(done.stdout)["ready"]
    assert value(inside(folder, "quarantine", "list", "--json").stdout) == []


def test_mismatches_and_problems_end_with_code_1(tmp_path: Path, inside: Inside) -> None:
    folder = project_in_files(tmp_path / "found")
    fill(folder / "source.db", [*history(), event("x-1", "Opened", {}, version=9)])
    problem = inside(folder, "plan", "--json")
    assert problem.returncode == ExitCode.FOUND
    assert "Opened v9" in value(problem.stdout)["problems"][0]
    fill(folder / "second.db", history())
    assert inside(folder, "upcast", "--source", "sqlite:///second.db").returncode == ExitCode.DONE
    sql(folder / "target.db", "UPDATE events SET type = 'x' WHERE global_position = 1")
    for options in ([], ["--quick"]):
        found = inside(folder, "verify", "--source", "sqlite:///second.db", "--json", *options)
        assert found.returncode == ExitCode.FOUND
        assert value(found.stdout)["verification"]["mismatches"] > 0
    text = inside(folder, "verify", "--source", "sqlite:///second.db").stdout
    assert re.search(r"type is x, must be \w+", " ".join(text.split()))


def test_two_releases_in_the_tables_of_the_source(tmp_path: Path, inside: Inside) -> None:
    """By naming with the release in it, and by a prefix in the same file; side by side."""
    config = """
    registry = "steps_here:registry"
    source = "sqlite:///source.db"
    target = "sqlite:///source.db?release={release}"
    naming = "{stream}@{release}"
    """
    folder = project_in_files(tmp_path / "same tables", config=config)
    fill(folder / "source.db", history())
    before = contents(folder / "source.db", ledger=False)["events"]
    for command in ("plan", "upcast", "verify", "upcast", "status", "history"):
        assert inside(folder, command).returncode == ExitCode.DONE
    tables = ("--target", "sqlite:///source.db?tables=v2_", "--naming", "{stream}")
    for command in ("plan", "upcast", "verify", "upcast"):
        done = inside(folder, command, *tables)
        assert done.returncode == ExitCode.DONE, done.stderr
    after = contents(folder / "source.db", ledger=False)
    assert set(before) < set(after["events"])
    assert len(after["v2_events"]) == len(after["events"]) - len(before)
    assert len(value(inside(folder, "history", "--json").stdout)) == 2
    assert inside(folder, "cancel").returncode == ExitCode.DONE
    assert set(contents(folder / "source.db", ledger=False)["events"]) == set(before)
    assert inside(folder, "status", *tables[:2]).returncode == ExitCode.DONE


def test_it_writes_nothing_but_what_it_says(tmp_path: Path, inside: Inside) -> None:
    folder = project_in_files(tmp_path / "clean", freeze=False)
    fill(folder / "source.db", history())
    before = set(os.listdir(folder))
    inside(folder, "check", "--examples", "2")
    inside(folder, "plan")
    inside(folder, "status")
    left = set(os.listdir(folder)) - before
    assert left <= {"source.db-shm", "source.db-wal"}, left
