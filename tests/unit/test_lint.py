"""What `make lint` checks, in the test run: style, types, and the import table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent  # not resolved: the environment's own scripts


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--quiet"], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "--quiet"], id="ruff-format"),
        pytest.param(["mypy"], id="mypy-strict"),
        pytest.param(["lint-imports", "--no-logo", "--no-cache"], id="import-table"),
    ],
)
def test_the_tree_is_clean(command: list[str]) -> None:
    tool, *arguments = command
    result = subprocess.run(
        [str(BIN / tool), *arguments],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
