"""Commands of a page, run in its folder; what they print, as the pages show it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests import served

ROOT = Path(__file__).resolve().parents[2]
HOME = "/home/ada/shop"
"""What the pages call the folder that their commands run in."""

_PLAIN = re.compile(r"eventmig(?: (?:'[^']*'|[^|&;<>$`*()'])*)?\Z")
_PROGRESS = re.compile(r"[\w ]+: [\d,]+( of [\d,]+ \(\d+%\))?(, [\d,]+/s)?\n")
_WIDTH = "240"  # nothing is wrapped, wherever the folder is


class Shell:
    """Runs commands in one folder. `code` is the last one's exit code; `really`, what stands
    in the pages for what is meant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0
        self.really: dict[str, str] = {}
        self._bin = folder.parent / f"{folder.name}-bin"
        self._bin.mkdir()
        for name, arguments in (("eventmig", "-m eventmig"), ("python", "")):
            script = self._bin / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            script.chmod(0o755)

    def run(self, command: str) -> str:
        """Run one command; return what a reader sees: results, then errors, no progress."""
        if command == "echo $?":
            return f"{self.code}\n"
        command = self.meant(command)
        if _PLAIN.match(command):
            argv = shlex.split(command, comments=True)[1:]
            done = served.run(argv, self.folder, environment(os.environ["PATH"]))
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=self.folder,
                env=environment(f"{self._bin}{os.pathsep}{os.environ['PATH']}"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
        self.code = done.returncode
        return self._as_shown(done.stdout + _PROGRESS.sub("", done.stderr))

    def meant(self, text: str) -> str:
        """A page's text with what is meant in place of what stands for it."""
        for shown, real in self.really.items():
            text = text.replace(shown, real)
        return text

    def _as_shown(self, text: str) -> str:
        for shown, real in self.really.items():
            text = text.replace(real, shown)
        for name in (os.path.realpath(self.folder), str(self.folder)):
            text = text.replace(name, HOME)
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def environment(path: str) -> dict[str, str]:
    """What commands see of the environment: nothing of this machine's own settings."""
    return {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": _WIDTH,
        "NO_COLOR": "1",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "HOME": os.environ.get("HOME", "/"),
    }


_VARIES = (
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r"(?<=job )[0-9a-f]{8}\b|^[0-9a-f]{8}(?=  )", re.MULTILINE), "<job>"),
    (re.compile(r"\b\d+\.\d+ s\b"), "<seconds>"),
)
"""What differs from run to run: moments, the ids of jobs, how long something took."""


def same(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed.

    A line of the page that is `…` stands for any lines, and `…` at the end of a line for
    its rest. Moments, job ids and durations need not be equal.
    """
    pattern = ""
    for line in _steady(shown).splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        elif line.endswith("…"):
            pattern += re.escape(line.removesuffix("…")) + r".*\n"
        else:
            pattern += re.escape(line) + r"\n"
    return re.fullmatch(pattern, _steady(printed)) is not None


def _steady(text: str) -> str:
    for varying, name in _VARIES:
        text = varying.sub(name, text)
    return text
