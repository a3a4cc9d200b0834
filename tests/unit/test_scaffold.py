"""What `eventmig init` writes: all of it or nothing, never over a file, and it runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from eventmig import errors, scaffold

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def test_it_writes_a_project_and_says_which_files(tmp_path: Path) -> None:
    folder = tmp_path / "not there yet" / "my shop"

    written = scaffold.init(folder)

    assert [path.relative_to(folder).as_posix() for path in written] == list(scaffold.FILES)
    assert files_below(folder) == set(scaffold.FILES)
    assert "the event history of my shop." in (folder / "eventmig.toml").read_text("utf-8")


def test_every_template_is_one_of_its_files() -> None:
    templates = Path(str(resources.files("eventmig").joinpath("templates")))

    assert {name.removesuffix(".tmpl") for name in files_below(templates)} == set(scaffold.FILES)


@pytest.mark.parametrize(
    ("name", "said"),
    [("tea\nand more", "tea and more"), ("Łódź \x00\ud800☕", "Łódź ☕"), ("\n", "this project")],
)
def test_a_name_stays_within_its_comment(tmp_path: Path, name: str, said: str) -> None:
    scaffold.init(tmp_path, name=name)

    first = (tmp_path / "eventmig.toml").read_text("utf-8").splitlines()[0]
    assert first == f"# eventmig: the event history of {said}."


def test_it_refuses_to_overwrite_and_names_each_file(tmp_path: Path) -> None:
    (tmp_path / "upcasters").mkdir()
    (tmp_path / "upcasters" / "orders.py").write_text("mine")
    (tmp_path / "sample.jsonl").symlink_to("nowhere")

    with pytest.raises(errors.ConfigError, match=r"sample\.jsonl, upcasters/orders\.py"):
        scaffold.init(tmp_path)

    assert files_below(tmp_path) == {"upcasters/orders.py", "sample.jsonl"}
    assert (tmp_path / "upcasters" / "orders.py").read_text() == "mine"


def test_it_leaves_alone_what_is_none_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "upcasters").mkdir()
    (tmp_path / "upcasters" / "old.py").write_text("mine")
    (tmp_path / "README.md").write_text("mine")

    scaffold.init(tmp_path)

    assert files_below(tmp_path) == {*scaffold.FILES, "upcasters/old.py", "README.md"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(errors.ConfigError, match="no folder"):
        scaffold.init(tmp_path / "file")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = os.fsync
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(handle)

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(errors.ConfigError, match="No space left"):
        scaffold.init(tmp_path / "new")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_in_between_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "projections").mkdir()
    (tmp_path / "projections" / "__init__.py").write_text("mine")
    monkeypatch.setattr(scaffold, "_refuse_existing", lambda folder: None)
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    with pytest.raises(errors.ConfigError, match="came in between"):
        scaffold.init(tmp_path)

    assert files_below(tmp_path) == {"projections/__init__.py"}
    assert (tmp_path / "projections" / "__init__.py").read_text() == "mine"


def test_it_writes_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)

    scaffold.init(tmp_path)

    assert files_below(tmp_path) == set(scaffold.FILES)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a new project") / "my shop"
    scaffold.init(folder)
    return folder


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command in the project, where this repository's own domain is not found."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_its_sample_is_read_by_its_registry(project: Path) -> None:
    script = """
import sys; sys.path[:0] = ["."]
from collections import Counter
from eventmig.events import Event
from eventmig.mapping import Mapping
from projections import projections
from upcasters import registry

types, heads, ids = Counter(), Counter(), set()
for number, line in enumerate(open("sample.jsonl", "rb"), 1):
    part = Mapping().parts(line.rstrip(b"\\n"))
    heads[part.stream] += 1
    assert part.stream_position == heads[part.stream]
    ids.add(part.id)
    stored = Event(number, part.stream, part.stream_position, part.id, part.type,
                   part.schema_version, part.data, part.metadata, part.recorded_at)
    registry.schemas[stored.type, stored.schema_version].validate(stored.data)
    types[type(registry.load(stored)).__name__] += 1
    assert registry.chains.upcast(stored) == registry.chains.walk(stored)
assert len(ids) == number
assert projections[0].types <= registry.current.keys()
print(sorted(types.items()))
"""
    shown = run(sys.executable, "-c", script, cwd=project)

    assert shown.strip() == "[('OrderPaid', 5), ('OrderPlaced', 7)]"


def test_its_sample_has_a_dozen_events_in_the_order_of_time(project: Path) -> None:
    lines = (project / "sample.jsonl").read_text("utf-8").splitlines()
    times = [json.loads(line)["recorded_at"] for line in lines]

    assert len(lines) == 12
    assert times == sorted(times)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--config", ROOT / "pyproject.toml", "."],
        ["ruff", "format", "--check", "--config", ROOT / "pyproject.toml", "."],
        ["mypy", "--strict", "upcasters", "projections"],
    ],
    ids=["ruff-check", "ruff-format", "mypy-strict"],
)
def test_its_code_is_as_clean_as_this_repository(project: Path, command: list[str | Path]) -> None:
    run(BIN / str(command[0]), *command[1:], cwd=project)
