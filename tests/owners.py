"""The libraries that own other stores: installed once per checkout, where that can be done.

Each has a folder in `tests/layouts/owners` with what is installed, as names and versions
(`package.json` for npm, `requirements.txt` for pip), and the programs of the tests that use it.
What is installed stands in `.owners` in the checkout, until those names and versions change.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "layouts" / "owners"
CACHE = ROOT / ".owners"

_PACKAGE, _REQUIREMENTS = "package.json", "requirements.txt"
_PATIENCE = 240  # seconds: less than a test may take


class NotInstalledError(Exception):
    """An owner's library cannot be had here; says why."""


def described(name: str) -> str:
    """The library that a folder installs, and its version: `@castore/… 2.4.2`."""
    source = SOURCES / name
    if (source / _PACKAGE).exists():
        packages = json.loads((source / _PACKAGE).read_text())["dependencies"]
        return " ".join(next(iter(packages.items())))
    first = (source / _REQUIREMENTS).read_text().splitlines()[0]
    return " ".join(first.split("=="))


def installed(name: str) -> Path:
    """The folder where this owner's library is installed, with the programs that use it.

    Programs in Python are run with the interpreter in its `venv`. Raises
    `NotInstalledError`.
    """
    source = SOURCES / name
    wanted = next(file for n in (_PACKAGE, _REQUIREMENTS) if (file := source / n).exists())
    needed = ("node", "npm") if wanted.name == _PACKAGE else ()
    for program in needed:
        if shutil.which(program) is None:
            raise NotInstalledError(f"there is no {program} on this machine")
    folder = CACHE / f"{name}-{_key(wanted)}"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / f"{name}.lock"):
        if not (folder / ".ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            shutil.copy(wanted, folder)
            (_npm if wanted.name == _PACKAGE else _pip)(folder)
            (folder / ".ready").touch()
        for program in source.iterdir():
            copy = folder / program.name
            if program.is_file() and not _same(program, copy):
                shutil.copy(program, copy)
    return folder


def _key(wanted: Path) -> str:
    parts = (wanted.read_bytes(), platform.platform().encode(), sys.version.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def _npm(folder: Path) -> None:
    # The packages it asks for are named in package.json; none needs a script to be installed.
    _run(
        ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts",
         "--legacy-peer-deps", "--prefer-offline", "--loglevel=error", "--fetch-retries=1"],
        folder,
    )  # fmt: skip


def _pip(folder: Path) -> None:
    venv = folder / "venv"
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)], folder)
    _run(
        [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "-q",
         "--disable-pip-version-check", "--retries", "1", "-r", _REQUIREMENTS],
        folder,
    )  # fmt: skip


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalledError(f"{command[0]} took more than {_PATIENCE} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise NotInstalledError(f"{Path(command[0]).name} failed: {said[0][:200]}")
