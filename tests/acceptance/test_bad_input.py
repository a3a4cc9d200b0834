"""Bad input: a clear error with the place and the remedy, and everything as it was.

Each case of issue 2, section 9, by its name.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventmig import EventSchema, Registry, commands, data_upcaster, ops, upcaster
from eventmig.cli.exits import ExitCode, exit_code
from eventmig.errors import (
    ConfigError,
    DataError,
    EventmigError,
    ImportLineError,
    JobError,
    NewerEventError,
    NewerLedgerError,
    NotAStoreError,
    StoreDamagedError,
    StoreError,
    UpcastError,
)
from eventmig.migrate.states import State
from eventmig.project import Project
from tests.acceptance.support import (
    cli,
    contents,
    driver,
    event,
    fill,
    history,
    project,
    project_in_files,
    read,
    sql,
    steps,
)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for SQLite's own beside a database that is only read."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock"))
    }


def at_rest(path: Path) -> None:
    """Everything in the database's one file, so that its bytes can be compared."""
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")


def refused(
    its: Project, kind: type[EventmigError], code: ExitCode, **options: Any
) -> EventmigError:
    """The error of an upcast that changes no file; it says what, where, and what to do."""
    before = bytes_of(its.config.folder)
    with pytest.raises(kind) as caught:
        commands.upcast(its, **options)
    error = caught.value
    assert type(error) is kind
    assert exit_code(error) == code
    assert error.what
    assert error.remedy
    assert str(error.where)
    assert bytes_of(its.config.folder) == before
    return error


@pytest.fixture
def its(tmp_path: Path) -> Project:
    """A project with a history, and no target yet."""
    fill(tmp_path / "source.db", history())
    at_rest(tmp_path / "source.db")
    return project(tmp_path, Registry(steps()), batch_size=5)


# the source --------------------------------------------------------------------------------------


def text_file(path: Path) -> None:
    path.write_text("stream,type\ncart-1,Opened\n" * 30)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def another_database(path: Path) -> None:
    path.unlink()
    sql(path, "CREATE TABLE customers (id INTEGER)")


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("make", [text_file, empty_file, another_database, gone, a_folder])
def test_a_store_that_is_not_one(its: Project, make: Callable[[Path], None]) -> None:
    make(its.config.folder / "source.db")
    error = refused(its, NotAStoreError, ExitCode.STOPPED)
    assert "source.db" in str(error.where)


def test_a_truncated_file(its: Project) -> None:
    path = its.config.folder / "source.db"
    path.write_bytes(path.read_bytes()[:-5000])
    error = refused(its, StoreDamagedError, ExitCode.STOPPED)
    assert "truncated" in error.what
    assert "backup" in error.remedy


def test_a_page_of_noise(its: Project) -> None:
    path = its.config.folder / "source.db"
    content = bytearray(path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    path.write_bytes(bytes(content))
    refused(its, StoreDamagedError, ExitCode.STOPPED)


def test_a_hole_in_the_positions_of_a_stream(its: Project) -> None:
    path = its.config.folder / "source.db"
    sql(path, "DELETE FROM events WHERE stream_position = 3")
    at_rest(path)
    error = refused(its, StoreDamagedError, ExitCode.STOPPED)
    assert "hole: position 3 is missing" in error.what
    assert error.where.stream is not None
    assert error.where.stream_position == 4


def test_duplicate_event_ids_in_a_store(its: Project) -> None:
    path = its.config.folder / "source.db"
    sql(
        path,
        "DROP INDEX events_by_id",
        "UPDATE events SET event_id = 'twice' WHERE type = 'Untouched'",
    )
    at_rest(path)
    source = path.read_bytes()
    with pytest.raises(StoreError, match="twice") as caught:
        commands.upcast(its)
    assert caught.value.remedy
    assert exit_code(caught.value) == ExitCode.STOPPED
    assert path.read_bytes() == source


def test_a_newer_format_of_store(its: Project) -> None:
    path = its.config.folder / "source.db"
    sql(path, "UPDATE eventmig_store SET format = 99")
    at_rest(path)
    error = refused(its, StoreError, ExitCode.STOPPED)
    assert "newer eventmig: its format is 99" in error.what


# the target --------------------------------------------------------------------------------------


def test_a_newer_ledger(its: Project) -> None:
    commands.upcast(its)
    path = its.config.folder / "target.db"
    sql(path, "UPDATE eventmig_ledger SET format = 99")
    at_rest(path)
    error = refused(its, NewerLedgerError, ExitCode.STOPPED)
    assert "format 99" in error.what
    for command in (commands.status, commands.verify, commands.cancel, commands.history):
        with pytest.raises(NewerLedgerError):
            command(its)  # type: ignore[operator]


def test_a_target_that_is_the_source(its: Project) -> None:
    for target in ("sqlite:///source.db", "sqlite:///./source.db"):
        error = refused(its, JobError, ExitCode.STOPPED, target=target)
        assert "the target is the source" in error.what
    link = its.config.folder / "link.db"
    link.symlink_to(its.config.folder / "source.db")
    error = refused(its, JobError, ExitCode.STOPPED, target="sqlite:///link.db")
    assert "the target is the source" in error.what


def test_the_same_tables_without_new_names(its: Project) -> None:
    error = refused(its, JobError, ExitCode.STOPPED, target="sqlite:///source.db?release=2")
    assert "the streams keep their names" in error.what


@pytest.mark.parametrize("make", [text_file, a_folder])
def test_a_target_that_is_something_else(its: Project, make: Callable[[Path], None]) -> None:
    path = its.config.folder / "target.db"
    path.touch()
    make(path)
    refused(its, NotAStoreError, ExitCode.STOPPED)


def test_a_target_in_no_folder(its: Project) -> None:
    error = refused(its, NotAStoreError, ExitCode.STOPPED, target="sqlite:///nowhere/target.db")
    assert "no folder" in error.what


def test_a_damaged_source_leaves_no_tables_in_its_file(its: Project) -> None:
    path = its.config.folder / "source.db"
    sql(path, "DELETE FROM events WHERE stream_position = 3")
    at_rest(path)
    before = contents(path)
    refused(its, StoreDamagedError, ExitCode.STOPPED, target="sqlite:///source.db?tables=v2_")
    assert contents(path) == before


NOBODY = """
import os, sys
import eventmig.cli.app
from eventmig.cli import main
import tests.acceptance.support
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
sys.exit(main(["upcast", "--json"]))
"""


@pytest.mark.parametrize("there", ["nothing", "a target"])
def test_a_read_only_target(tmp_path: Path, there: str) -> None:
    folder = project_in_files(tmp_path / "deep")
    fill(folder / "source.db", history())
    at_rest(folder / "source.db")
    if there == "a target":
        assert cli(folder, "upcast").returncode == 0
        fill(folder / "source.db", [event("late-1", "Opened", {"name": "x"})])
        at_rest(folder / "source.db")
        at_rest(folder / "target.db")
    before = bytes_of(folder)
    for path in folder.iterdir():
        path.chmod(0o444 if path.is_file() else 0o555)
    folder.chmod(0o555)
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & 0o005 != 0o005:
            above.chmod(mode | 0o055)
    try:
        done = driver(folder, NOBODY)
    finally:
        folder.chmod(0o755)
    assert done.returncode == ExitCode.STOPPED, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["kind"] in ("ReadOnlyError", "StoreError")
    assert "target.db" in json.dumps(error["where"])
    assert error["remedy"]
    assert bytes_of(folder) == before


FULL = """
import resource, signal, sys
from eventmig.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(["upcast", "--json", "--batch-size", "20", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    ("limit", "workers"), [(33_000, "1"), (60_000, "1"), (140_000, "1"), (190_000, "2")]
)
def test_a_disk_that_is_full(tmp_path: Path, limit: int, workers: str) -> None:
    folder = project_in_files(tmp_path / "full")
    fill(folder / "source.db", [event(f"s-{n}", "Opened", {"name": "x" * 900}) for n in range(200)])
    at_rest(folder / "source.db")
    before = (folder / "source.db").read_bytes()
    done = driver(folder, FULL, limit, "--workers", workers)

    assert done.returncode == ExitCode.STOPPED, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "StoreFullError", error
    assert "target.db" in error["where"]["store"]
    assert "space" in error["remedy"]
    assert "Traceback" not in done.stderr
    assert (folder / "source.db").read_bytes() == before
    if limit == 33_000:
        assert not (folder / "target.db").exists()
    resumed = cli(folder, "upcast")  # there is room again
    assert resumed.returncode == 0, resumed.stderr
    assert len(read(folder / "target.db")) == 200


# events ------------------------------------------------------------------------------------------


def put(its: Project, data: bytes, type: str = "Opened") -> None:
    """One more event whose data no store would take."""
    path = its.config.folder / "source.db"
    fill(path, [event("odd-1", type, {"name": "to be replaced"})])
    sql(path, ("UPDATE events SET data = CAST(? AS TEXT) WHERE global_position = 41", (data,)))
    at_rest(path)


BAD_DATA = {
    "JSON that is none": (b'{"name": ', "not JSON"),
    "no object": (b"[1]", "array"),
    "wrong UTF-8": (b'{"name": "\xff\xfe"}', "not UTF-8"),
    "a NUL in text": (b'{"name": "a\x00b"}', "not JSON"),
    "a key twice": (b'{"name": 1, "name": 2}', "'name' stands twice"),
    "half a pair": (b'{"name": 1, "x": "\\ud800"}', "lone surrogate"),
    "half a pair, the low one": (b'{"name":1,"x":"\\udc00"}', "lone surrogate"),
    "NaN": (b'{"name": NaN}', "not"),
    "nested too deeply": (b'{"name":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deep"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_an_upcaster_cannot_read(its: Project, name: str) -> None:
    data, said = BAD_DATA[name]
    put(its, data)
    source = (its.config.folder / "source.db").read_bytes()
    with pytest.raises(UpcastError) as caught:
        commands.upcast(its)
    error = caught.value
    assert said in error.what
    assert (error.where.stream, error.where.stream_position) == ("odd-1", 1)
    assert (error.where.type, error.where.schema_version) == ("Opened", 1)
    assert error.where.step == ("Opened v2 → v3" if name == "no object" else "Opened v1 → v2")
    assert error.remedy
    assert commands.status(its).job.state is State.FAILED
    assert (its.config.folder / "source.db").read_bytes() == source


@pytest.mark.parametrize("name", BAD_DATA)
def test_the_same_data_without_an_upcaster_is_copied_as_it_is(its: Project, name: str) -> None:
    data, _ = BAD_DATA[name]
    put(its, data, "Untouched")
    if name == "wrong UTF-8":
        with pytest.raises(DataError, match="not UTF-8") as caught:
            commands.upcast(its)
        assert caught.value.where.stream == "odd-1"
        assert caught.value.where.stream_position == 1
        assert caught.value.remedy
        assert commands.status(its).job.state is State.FAILED
    else:
        assert commands.upcast(its).ready
        assert read(its.config.folder / "target.db")[-1].data == data


def test_a_key_twice_where_no_upcaster_looks_is_carried(its: Project) -> None:
    """In compact JSON a member that nobody opens stays the bytes it is, and the verifier agrees."""
    data = b'{"name":1,"x":{"a":1,"a":2}}'
    put(its, data)
    fill(its.config.folder / "source.db", [event("pair-7", "Opened", data)])  # with a stream step
    assert commands.upcast(its).ready
    for found in read(its.config.folder / "target.db")[-2:]:
        assert b'"x":{"a":1,"a":2}' in found.data


def test_an_event_of_an_unknown_newer_version(its: Project) -> None:
    fill(its.config.folder / "source.db", [event("odd-1", "Opened", {}, version=7)])
    with pytest.raises(NewerEventError, match="Opened v7 is newer than what is known") as caught:
        commands.upcast(its)
    assert caught.value.where.stream == "odd-1"
    assert "deploy the release" in caught.value.remedy
    plan = commands.plan(its)
    assert any("Opened v7" in problem for problem in plan.problems)


BIG = """
import resource, sys
from eventmig.cli import main
code = main(["upcast", "--json", "--workers", sys.argv[1]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("type_", ["Untouched", "Old", "Opened"])
def test_an_event_of_100_mb(tmp_path: Path, type_: str) -> None:
    folder = project_in_files(tmp_path / "big")
    data = b'{"name":"' + b"x" * 100_000_000 + b'"}'
    fill(folder / "source.db", [*history(20), event("big-1", type_, data)])
    done = driver(folder, BIG, 1)

    assert done.returncode == 0, done.stderr[-500:]
    assert json.loads(done.stdout)["ready"]
    peak = int(done.stderr.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert peak < 1_500_000_000  # a few copies of that one event
    (found,) = [e for e in read(folder / "target.db") if e.stream == "big-1"]
    assert len(found.data) >= len(data)


# upcasters ---------------------------------------------------------------------------------------


@data_upcaster("Odd", 1)
def raises(data: dict[str, Any]) -> dict[str, Any]:
    return {"n": data["missing"]}


@data_upcaster("Odd", 1)
def returns_nothing(data: dict[str, Any]) -> None:
    data["n"] = 1


@data_upcaster("Odd", 1)
def never_the_same(data: dict[str, Any]) -> dict[str, Any]:
    return {"n": uuid.uuid4().int}


@data_upcaster("Odd", 1)
def yields_invalid_data(data: dict[str, Any]) -> dict[str, Any]:
    return {"n": "text"}


@data_upcaster("Odd", 1)
def yields_no_json(data: dict[str, Any]) -> dict[str, Any]:
    return {"n": {1, 2}}


@data_upcaster("Odd", 1)
def yields_infinity(data: dict[str, Any]) -> dict[str, Any]:
    return {"n": float("inf")}


class Numbered(msgspec.Struct, forbid_unknown_fields=True):
    n: int


ODD_SCHEMA = EventSchema("Odd", 2, Numbered)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (raises, "raised KeyError: 'missing'"),
        (returns_nothing, "returned nothing"),
        (never_the_same, "twice gave two different results"),
        (yields_invalid_data, "Odd v2 rejects the data: Expected `int`, got `str`"),
        (yields_no_json, "JSON has no set"),
        (yields_infinity, "inf is not a JSON number"),
        (upcaster("Odd", 1, ops.rename("a", "b")), "there is a member at b already"),
    ],
)
@pytest.mark.parametrize("stepped", [False, True])
def test_an_upcaster_that_fails(its: Project, step: Any, said: str, stepped: bool) -> None:
    stream = "pair-1" if stepped else "odd-1"
    fill(its.config.folder / "source.db", [event(stream, "Odd", {"a": 1, "b": 2})])
    registry = Registry([*steps(), step], schemas=[ODD_SCHEMA])
    failing = project(its.config.folder, registry)
    with pytest.raises(UpcastError) as caught:
        commands.upcast(failing)
    error = caught.value
    assert said in error.what
    assert error.where.stream == stream
    assert error.where.type == "Odd"
    assert error.where.step == "Odd v1 → v2"
    assert error.where.event_id is not None
    assert error.remedy
    assert exit_code(error) == ExitCode.STOPPED


# imports -----------------------------------------------------------------------------------------

GOOD = {
    "stream": "s-1",
    "type": "T",
    "data": {},
    "id": "one",
    "recorded_at": "2020-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"stream": "s-1", ', "line 2"),
        (b'{"stream": "s-\xff", "type": "T", "data": {}}', "line 2"),
        (b'{"stream": "s\\u0000", "type": "T", "data": {}}', "line 2"),
        (json.dumps({**GOOD, "id": "one"}).encode(), "the id one stands in line 1 and in line 2"),
        (json.dumps({**GOOD, "id": "two", "stream_position": 5}).encode(), "a hole in the stream"),
    ],
)
def test_a_file_with_a_bad_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    its = project(tmp_path, Registry([]))
    with pytest.raises(ImportLineError, match=said) as caught:
        commands.import_history(its, path)
    assert caught.value.where.line is not None
    assert exit_code(caught.value) == ExitCode.INPUT
    assert not (tmp_path / "source.db").exists()


# configuration -----------------------------------------------------------------------------------


NAMED = "registry = 'steps_here"


@pytest.mark.parametrize(
    ("config", "module", "said", "place"),
    [
        ('registri = "a:b"', "", "did you mean registry?", "eventmig.toml"),
        ('batch_size = "many"', "", "batch_size", "eventmig.toml"),
        ("batch_size = 0", "", "batch_size", "eventmig.toml"),
        ("workers = 3", "", "workers", "eventmig.toml"),
        ("registry = ", "", "not TOML", "eventmig.toml"),
        ('registry = "steps_here"', "", "not of the form module:object", ""),
        ('registry = "no_such:registry"', "", "there is no module 'no_such'", ""),
        (f"{NAMED}:registri'", "registry = 1", "did you mean 'registry'?", "steps_here.py"),
        (f"{NAMED}:registry'", "registry = 1", "must be a Registry", "steps_here.py"),
        (f"{NAMED}:registry'", "x = (", "SyntaxError", "steps_here.py, line 1"),
        (f"{NAMED}:registry'", "\n1 / 0", "ZeroDivisionError", "steps_here.py, line 2"),
        (f"{NAMED}:registry'", "import nowhere", "No module named", "steps_here.py, line 1"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_right(
    tmp_path: Path, config: str, module: str, said: str, place: str
) -> None:
    urls = 'source = "sqlite:///source.db"\ntarget = "sqlite:///target.db"\n'
    name = f"steps_{uuid.uuid4().hex}"  # a module is imported once in a process
    (tmp_path / "eventmig.toml").write_text(config.replace("steps_here", name) + "\n" + urls)
    (tmp_path / f"{name}.py").write_text(module)
    with pytest.raises(ConfigError) as caught:
        commands.check(Project.open(tmp_path / "eventmig.toml"), examples=0)
    error = caught.value
    assert said in error.what
    assert place.replace("steps_here", name) in str(error.where)
    assert error.remedy
    assert exit_code(error) == ExitCode.INPUT


def test_files_that_a_user_limits_are_named(tmp_path: Path) -> None:
    """The soft limit of open files is no news here: nothing keeps one per stream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fill(tmp_path / "source.db", [event(f"s-{n}", "T", {}) for n in range(300)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 128), hard))
    try:
        assert commands.upcast(project(tmp_path, Registry([]))).ready
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_database_that_somebody_writes_to_is_waited_for(its: Project) -> None:
    """A writer elsewhere in the source's file does not disturb the reading."""
    connection = sqlite3.connect(its.config.folder / "source.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        assert commands.upcast(its).ready
    finally:
        connection.rollback()
        connection.close()
