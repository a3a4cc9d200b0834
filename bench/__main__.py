"""`python -m bench`: every figure in one run, as ratios within it (see docs/performance.md)."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bench import figures
from bench.live import live
from bench.measure import Place, StepError
from bench.report import Report, file_system
from eventmig.errors import ConfigError

GROUPS = (
    *("copy", "disk", "peer", "read", "verify", "rebuild", "models"),
    *("pushdown", "postgres", "postgres-copy", "kurrentdb", "live", "memory"),
)
MEMORY_FOLDER = Path("/dev/shm")  # a tmpfs, where there is one
BYTES_PER_EVENT = 5_000  # of the folders together: histories, targets, logs
COMPARED_UP_TO = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 unless a step failed or two copies differ."""
    options = _options(argv)
    progress = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="eventmig-bench-", dir=options.folder) as disk,
        tempfile.TemporaryDirectory(prefix="eventmig-bench-", dir=_fast(options)) as fast,
    ):
        try:
            report = _measured(options, Path(disk), Path(fast), progress)
        except StepError as error:
            progress.print(str(error), markup=False)
            return 1
    console = Console(width=None if sys.stdout.isatty() else 150)
    if options.json:
        console.file.write(report.as_json() + "\n")
    else:
        report.show(console)
    return 1 if report.unequal else 0


def _measured(options: argparse.Namespace, disk: Path, fast: Path, progress: Console) -> Report:
    wanted, rounds = options.only or GROUPS, options.rounds

    def place(name: str, folder: Path, part: int = 1) -> Place:
        return Place(
            name=name,
            folder=folder,
            events=max(1, options.events // part),
            streams=max(1, options.streams // part),
            compare=options.compare or options.events <= COMPARED_UP_TO,
            say=lambda text: progress.print(text, markup=False, highlight=False),
        )

    whole = place("in memory" if file_system(fast) == "tmpfs" else "temporary", fast / "whole")
    quarter = place("a quarter", fast / "quarter", 4)
    on_disk = place("on disk", disk / "whole")
    report = Report(
        events=options.events,
        streams=options.streams,
        rounds=rounds,
        places={
            p.name: f"{p.folder.parent.parent} {file_system(p.folder.parent)}".strip()
            for p in (whole, on_disk)
        },
        compared=whole.compare,
    )
    whole.prepare()
    if "memory" in wanted:
        quarter.prepare()
    add = report.figures.extend
    if "copy" in wanted:
        add(figures.copying(whole, rounds, on_disk=False))
    if "disk" in wanted:
        shutil.copytree(whole.folder, on_disk.folder, ignore=shutil.ignore_patterns("target*"))
        add(figures.copying(on_disk, rounds, on_disk=True))
        shutil.rmtree(on_disk.folder)
    if "peer" in wanted:
        measured = figures.peer(whole, rounds)
        add(measured)
        if not measured:
            report.notes.append(
                "eventsourcing is not installed, so it was not measured (`make bench` installs it)"
            )
    if "postgres-copy" in wanted:
        with _postgres() as url:
            add(figures.copying_in_postgres(whole, rounds, url))
    if "read" in wanted:
        add(figures.reading(whole, rounds))
    if "verify" in wanted:
        add(figures.verifying(whole, rounds))
    if "rebuild" in wanted:
        add(figures.rebuilding(whole, rounds))
    if "models" in wanted:
        add(figures.models(whole, rounds))
    if "postgres" in wanted:
        add(figures.models_in_postgres(whole, rounds))
    if "pushdown" in wanted:
        add(figures.pushing_down(whole, rounds))
    if "kurrentdb" in wanted:
        add(_kurrentdb(disk, options.events, report))
    if "live" in wanted:
        measured, said = live(disk, options.events)
        add(measured)
        report.notes.extend(said)
    if "memory" in wanted:
        report.memory = figures.memory(whole, quarter)
    report.unequal = figures.unequal((whole, quarter, on_disk))
    return report


def _kurrentdb(folder: Path, events: int, report: Report) -> list[figures.Figure]:
    try:
        from bench.kurrentdb import kurrentdb
    except ConfigError as error:  # no client is installed
        report.notes.append(f"KurrentDB was not measured: {error.what}")
        return []
    return kurrentdb(folder, events)


@contextmanager
def _postgres() -> Iterator[str]:
    """A database on a server of the tests' package, or on the one that is named for them."""
    server = importlib.import_module("tests.postgres").start(durable=True)
    try:
        with server.database() as url:
            yield url
    finally:
        server.remove()


def _fast(options: argparse.Namespace) -> Path | None:
    """A folder in memory, where there is one with room; else the one on disk."""
    there = MEMORY_FOLDER.is_dir() and os.access(MEMORY_FOLDER, os.W_OK)
    if there and shutil.disk_usage(MEMORY_FOLDER).free > options.events * BYTES_PER_EVENT:
        return MEMORY_FOLDER
    folder: Path | None = options.folder
    return folder


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, help="one per 20 events unless given")
    parser.add_argument(
        "--folder", type=Path, help="where to measure on disk (default: a temp dir)"
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=3, help="how often each step is run")
    parser.add_argument("--compare", action="store_true", help="compare the copies' contents, too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    options.streams = options.streams or max(1, options.events // 20)
    return options


if __name__ == "__main__":
    sys.exit(main())
