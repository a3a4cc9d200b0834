"""The example of a shop that is migrated while it sells, played to the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.acceptance.support import ROOT


@pytest.mark.slow
def test_a_shop_is_migrated_while_it_sells() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.live_shop", "0.7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for side in ("old", "new"):
        (line,) = [row for row in done.stdout.splitlines() if row.startswith(f"{side} side:")]
        assert line.endswith("acknowledged 0 lost, 0 doubled, 0 streams out of order"), line
    states = [row.split()[0] for row in done.stdout.splitlines() if row.startswith(" " * 19)]
    assert states.count("cutting_over") == 2
    assert states[-1] == "completed"
