"""The figures as a table for people, or as JSON."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.figures import Figure

LIMIT_MB = 300


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything one run of the benchmark found."""

    events: int
    streams: int
    rounds: int
    places: dict[str, str]
    figures: list[Figure] = field(default_factory=list)
    memory: list[tuple[str, float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: bool = False
    unequal: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(
            {
                "facts": facts(),
                "events": self.events,
                "streams": self.streams,
                "rounds": self.rounds,
                "places": self.places,
                "figures": [asdict(figure) for figure in self.figures],
                "memory": [
                    {"what": what, "peak_mb": whole, "quarter_peak_mb": quarter, "limit": LIMIT_MB}
                    for what, whole, quarter in self.memory
                ],
                "notes": self.notes,
                "compared": self.compared,
                "unequal": self.unequal,
            },
            indent=2,
        )

    def show(self, console: Console) -> None:
        """Print tables and facts."""
        if self.figures:
            console.print(_figures(self.figures))
        if self.memory:
            console.print(_memory(self.memory))
        for note in self.notes:
            console.print(note)
        if self.compared:
            console.print(
                "copies of the same events are NOT equal in content:\n" + "\n".join(self.unequal)
                if self.unequal
                else "all copies of the same events are equal in content"
            )
        console.print(
            f"{self.events:,} events, {self.streams:,} streams, {self.rounds} rounds, medians; "
            "k/s = thousand events per second; quote the ratios only"
        )
        console.print("; ".join(f"{name}: {place}" for name, place in self.places.items()))
        console.print(", ".join(f"{name} {value}" for name, value in facts().items()))


def facts() -> dict[str, str]:
    """The machine, as far as it matters."""
    return {
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "system": platform.system(),
    }


def file_system(folder: Path) -> str:
    """The kind of file system a folder is on, or "" where the system does not say."""
    try:
        lines = Path("/proc/mounts").read_text("utf-8").splitlines()
    except OSError:
        return ""
    mounts = {line.split()[1]: line.split()[2] for line in lines}
    for above in (folder.resolve(), *folder.resolve().parents):
        if str(above) in mounts:
            return mounts[str(above)]
    return ""


def _figures(figures: Sequence[Figure]) -> Table:
    table = Table("what", "k/s", "reference", "k/s", "ratio", "target", "peak MB")
    for n in (1, 3, 4, 5, 6):
        table.columns[n].justify = "right"
    before = figures[0].name
    for figure in figures:
        if figure.name != before:
            table.add_section()
        before = figure.name
        short = figure.target is not None and figure.ratio is not None
        low = short and figure.ratio < figure.target  # type: ignore[operator]
        ratio = _number(figure.ratio, 2)
        table.add_row(
            figure.what,
            _number(figure.rate),
            figure.reference,
            _number(figure.reference_rate),
            f"[yellow]{ratio}[/]" if low else ratio,
            "" if figure.target is None else f"≥ {figure.target:g}",
            _number(figure.peak_mb),
        )
    return table


def _memory(rows: Sequence[tuple[str, float, float]]) -> Table:
    table = Table("peak memory", "whole history, MB", "a quarter of it, MB", "limit")
    for n in (1, 2, 3):
        table.columns[n].justify = "right"
    for what, whole, quarter in rows:
        table.add_row(what, _number(whole), _number(quarter), f"< {LIMIT_MB}")
    return table


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
