"""Commands of eventmig, each in a process of its own that is forked where all is imported.

The process that forks (`tests/serve.py`) is started once, when first asked for.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.owners import ROOT


def run(
    argv: Sequence[str], folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `eventmig ARGV…` in a folder: its exit code, and what it wrote."""
    return _server().run(argv, folder, env)


class _Server:
    """`tests.serve`, running; one command at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="eventmig-served-")
        self._one = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve"],
            cwd=ROOT,
            # A module that is written anew within a second must not be taken from a cache.
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, argv: Sequence[str], folder: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = (Path(self._folder.name) / name for name in ("out", "err"))
        request = {
            "argv": list(argv),
            "folder": str(folder),
            "env": dict(env),
            "out": str(out),
            "err": str(err),
        }
        with self._one:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the process that runs the commands has ended"
            said = out.read_text("utf-8"), err.read_text("utf-8")
        return subprocess.CompletedProcess(["eventmig", *argv], int(answer), *said)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)
        self._folder.cleanup()


@cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server
