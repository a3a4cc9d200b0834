"""Progress on standard error: a bar on a terminal, a line now and then without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Report = Callable[[str, int, int], None]
"""Told (what is going on, done, total); total 0 where it is not known."""

_LINE_EVERY_S = 10.0
_ETA_FROM = 0.01


class _Rate(ProgressColumn):
    """Events per second; nothing before there is a speed."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.0f}/s", style="progress.data.speed")


class _Remaining(TimeRemainingColumn):
    """The time that is left; none before one percent is done."""

    def render(self, task: Task) -> Text:
        if not task.total or task.completed < task.total * _ETA_FROM:
            return Text("")
        return super().render(task)


@contextmanager
def progress_on(console: Console, *, quiet: bool) -> Iterator[Report]:
    """Something to report progress to, for the length of a block."""
    if quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        with Progress(
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _Rate(),
            _Remaining(compact=True),
            console=console,
            transient=True,
        ) as bars:
            yield _on_bars(bars)
    else:
        yield _in_lines(console)


def _on_bars(bars: Progress) -> Report:
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total or None, completed=done)
        bars.update(tasks[what], completed=done, total=total or None)

    return report


def _in_lines(console: Console) -> Report:
    begun: dict[str, tuple[float, int]] = {}
    ended: set[tuple[str, int]] = set()
    last = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        moment = time.monotonic()
        start, first = begun.setdefault(what, (moment, done))
        finished = total > 1 and done >= total
        if total == 1 or (what, total) in ended:
            return
        if finished:
            ended.add((what, total))
        elif moment - last < _LINE_EVERY_S:
            return
        last = moment
        seconds = moment - start
        rate = f", {(done - first) / seconds:,.0f}/s" if seconds > 0.05 and total > 1 else ""
        share = f" of {total:,} ({done / total:.0%})" if total else ""
        console.print(f"{what}: {done:,}{share}{rate}", highlight=False)

    return report
