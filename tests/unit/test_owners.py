"""How the tests install the libraries of others: what is missing is said, never worked around."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import owners


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(owners, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_machine_without_npm_is_told_of(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(owners.NotInstalledError, match="there is no node on this machine"):
        owners.installed("castore")


def test_an_install_that_fails_says_why_and_is_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("node", "npm"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'the registry is asleep' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('sh') or '').parent}")
    for _ in range(2):
        with pytest.raises(owners.NotInstalledError, match="npm failed: the registry is asleep"):
            owners.installed("castore")


@pytest.mark.parametrize("name", [path.name for path in owners.SOURCES.iterdir()])
def test_versions_are_exact_and_nothing_else_is_kept(name: str) -> None:
    library, version = owners.described(name).rsplit(" ", 1)
    assert library
    assert version.replace(".", "").isdigit()
    kept = {path.name for path in (owners.SOURCES / name).iterdir() if path.is_file()}
    assert kept <= {"package.json", "carts.mjs", "requirements.txt", "till.py"}
