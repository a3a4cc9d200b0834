"""The wheel, as a stranger gets it: built, installed alone, and used in an empty folder.

Building needs no network (the backend is in the dev group); installing takes the packages of
constraints.txt from where `make` took them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the checkout; return its stdout."""
    clean = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert result.returncode == 0, (
        f"{command}: exit code {result.returncode}\n{result.stdout}{result.stderr}"
    )
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a fresh environment that holds the wheel and what it requires."""
    env = tmp_path_factory.mktemp("fresh env") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=env.parent)
    scripts = env / ("Scripts" if os.name == "nt" else "bin")
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python")
    quiet = ("-qq", "--disable-pip-version-check")
    run(*pip, "install", *quiet, "-c", ROOT / "constraints.txt", wheel, cwd=env.parent)
    return scripts


def test_it_ships_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    roots = {name.split("/")[0] for name in names}
    assert roots == {"eventmig", "eventmig-0.1.0.dist-info"}
    assert "eventmig/py.typed" in names
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "eventmig").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def test_it_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read("eventmig-0.1.0.dist-info/METADATA"))

    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra", [])) == {"postgres", "kurrent", "metrics"}
    drivers = {"psycopg", "esdbclient", "prometheus"}
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert not [r for r in required if any(r.startswith(d) for d in drivers)]


def test_init_check_upcast_rebuild_in_an_empty_folder(scripts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my shop"
    folder.mkdir()
    eventmig = scripts / "eventmig"

    run(eventmig, "init", cwd=folder)
    assert (folder / "upcasters").is_dir()
    assert (folder / "projections").is_dir()

    run(eventmig, "check", cwd=folder)
    first = json.loads(run(eventmig, "upcast", "--json", cwd=folder))
    again = json.loads(run(eventmig, "upcast", "--json", cwd=folder))
    run(eventmig, "rebuild", "--all", cwd=folder)

    assert isinstance(first, dict)
    assert isinstance(again, dict)
