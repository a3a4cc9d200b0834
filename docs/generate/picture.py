"""The picture of the demo in the README: an SVG of what `make demo` really printed.

Long output is cut where a line of dots stands. The fonts are those of the reader's machine:
nothing is fetched.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from eventmig import demo
from eventmig.cli import render
from eventmig.plan import Plan
from eventmig.project import Project

FILE = "images/demo.svg"
_WIDTH = 104
_ROOT = Path(__file__).resolve().parents[2]
_EVENTS = 100_000
_DOTS = Text("  …", style="dim")
_FETCHED = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)


def draw() -> str:
    """Run the demo, and return its picture."""
    return as_svg(lines_of_demo(_EVENTS))


def as_svg(lines: Iterable[RenderableType]) -> str:
    """The lines in a terminal's window, below the command."""
    console = _console(record=True)
    console.print(Text("$ make demo", style="bold"))
    for line in lines:
        console.print(line)
    return _FETCHED.sub("", console.export_svg(title="eventmig", unique_id="demo"))


def lines_of_demo(events: int) -> Iterator[RenderableType]:
    """What the picture shows of a demo with so many events."""
    stages: list[demo.Stage] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        project = Project.open(_ROOT / "pyproject.toml")
        for stage in demo.run(project, events=events, folder=folder, reporting=_quiet):
            stages.append(stage)
            lines = _rendered(render.stage(stage), str(folder))
            if isinstance(stage.result, Plan):
                lines = _cut_plan(lines)
            elif stage.command == "eventmig verify":  # says what `upcast` said
                lines = [*lines[:2], _DOTS, lines[-1]]
            yield from lines
        yield from _rendered(render.demo_summary(stages), str(folder))


def _cut_plan(lines: list[Text]) -> list[Text]:
    """The head of a plan, its first sample, and its last line."""
    blank = [n for n, line in enumerate(lines) if not line.plain.strip()]
    sample = next(n for n, line in enumerate(lines) if line.plain.startswith(("-", "+"))) - 1
    end = next(n for n in blank if n > sample)
    return [*lines[:18], _DOTS, Text(), *lines[sample:end], _DOTS, Text(), lines[-1]]


def _rendered(part: RenderableType, folder: str) -> list[Text]:
    console = _console()
    with console.capture() as captured:
        console.print(part)
    shown = Text.from_ansi(captured.get().replace(folder, "")).split("\n", allow_blank=True)
    return list(shown)[:-1] or [Text()]


def _console(*, record: bool = False) -> Console:
    return Console(
        record=record,
        file=io.StringIO(),
        width=_WIDTH if record else 200,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        legacy_windows=False,
    )


@contextmanager
def _quiet() -> Iterator[demo.Report]:
    yield lambda what, done, total: None
