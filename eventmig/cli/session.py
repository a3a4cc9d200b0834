"""One run of the command line: what was asked for, and where results and errors go."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from rich.console import Console, RenderableType

from eventmig.cli.jsons import in_ascii, to_json
from eventmig.cli.progress import Report, progress_on
from eventmig.migrate.job import OnProgress, Progress
from eventmig.project import Project


class Session:
    """What the options said, and the consoles of this run."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.quiet = False
        self.json = False
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr, stderr=True)
        self.opened = contextlib.ExitStack()

    def project(self) -> Project:
        """The configured project. From here on what user code prints goes to standard error."""
        self.opened.enter_context(contextlib.redirect_stdout(sys.stderr))
        return Project.open(self.config)

    def bytes_out(self) -> BinaryIO:
        """Standard output for bytes, whatever user code prints to."""
        return cast(TextIO, self.out.file).buffer

    def show(self, result: object, text: Callable[[], RenderableType]) -> None:
        """Print a result on standard output: as text, or as JSON where that was asked for."""
        if self.json:
            self.out_json(to_json(result))
        else:
            self.out.print(text())

    def out_json(self, line: str) -> None:
        """Print a line of JSON on standard output, whatever characters that can hold."""
        unicode = self.out.encoding.startswith("utf")
        self.out.out(line if unicode else in_ascii(line), highlight=False)

    @contextmanager
    def reporting(self) -> Iterator[Report]:
        """Progress on standard error, for the length of a block."""
        with progress_on(self.err, quiet=self.quiet) as report:
            yield report

    @contextmanager
    def job_reporting(self) -> Iterator[OnProgress]:
        """The same, in the form a job reports in."""
        with self.reporting() as report:

            def on_progress(progress: Progress) -> None:
                report(progress.phase.value, progress.done, progress.total)

            yield on_progress


def _console(stream: TextIO | None, *, stderr: bool = False) -> Console:
    """A console that breaks lines on a terminal alone, and for which no character is too much."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    console = Console(
        file=None if stderr else stream, stderr=stderr, highlight=False, markup=False, emoji=False
    )
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBROKEN
    return console


_UNBROKEN = 10_000
"""Columns: what no line of text reaches."""

_current = Session()


def start() -> Session:
    """A new session; `current` and `begin` give it until the next one."""
    global _current
    _current = Session()
    return _current


def current() -> Session:
    """The session of this run."""
    return _current


def begin(json: bool) -> Session:
    """The session of this run, told by its command whether the result is to be JSON."""
    _current.json = json
    return _current
