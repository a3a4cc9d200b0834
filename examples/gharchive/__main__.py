"""Run the real job on one hour of GH Archive, and compare the result with reality.

    python -m examples.gharchive RAW.jsonl.gz UNIFIED.jsonl.gz [--json] [--work DIR]

Line n of UNIFIED is what GH Archive made of line n of RAW. The commands are eventmig's own,
called as the command line calls them; their output goes to stderr, the result to stdout.

Exit code: 0 all events match; 1 some do not; 2 a file that is not what it should be; else that
of the command that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import shutil
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import create_engine, func, select

from eventmig import cli, codec
from eventmig.cli.exits import ExitCode
from eventmig.stores.base import all_events
from eventmig.stores.open import open_store
from examples.gharchive.compare import SHOWN, Comparison, compare
from examples.gharchive.history import BadLineError, Record, events, records
from examples.gharchive.projections import actors, repositories

RELEASE = "unified"
TOP = 5

ReadModels = Mapping[str, Mapping[str, object]]


class ExampleError(Exception):
    """The run cannot go on; `code` is the program's exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        self.code = code
        super().__init__(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    arguments = _arguments().parse_args(argv)
    try:
        with _folder(arguments.work) as folder:
            comparison, read_models = run(arguments.raw, arguments.unified, folder)
    except (ExampleError, BadLineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code if isinstance(error, ExampleError) else 2
    if arguments.json:
        print(json.dumps(asdict(comparison) | {"read_models": read_models}, ensure_ascii=False))
    else:
        print(_report(comparison, read_models))
    return 1 if comparison.mismatched else 0


def run(raw: Path, unified: Path, folder: Path) -> tuple[Comparison, ReadModels]:
    """The whole job in an empty folder: import, upcast, verify, rebuild, compare.

    Raises `ExampleError` and `BadLineError`; before anything is written, if a file is to blame.
    """
    before, after = _lines(raw), _lines(unified)
    if len(before) != len(after):
        raise ExampleError(
            f"{raw.name} has {len(before)} lines and {unified.name} has {len(after)}: "
            "they are no pair (line n of one must be line n of the other)"
        )
    wanted: list[Record] = list(records(after, file=unified.name))
    imported = b"".join(line + b"\n" for line in events(records(before, file=raw.name)))
    with gzip.open(folder / "history.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(imported)
    config = folder / "eventmig.toml"
    shutil.copyfile(Path(__file__).with_name("eventmig.toml"), config)

    history = folder / "history.jsonl.gz"
    source, target = f"sqlite:///{folder / 'history.db'}", folder / f"history-{RELEASE}.db"
    _eventmig(config, "import", str(history), "--store", source)
    _eventmig(config, "release", RELEASE)
    _eventmig(config, "check")
    _eventmig(config, "plan")
    _eventmig(config, "upcast")
    _eventmig(config, "verify")
    _eventmig(config, "rebuild", "--all")
    return compare(_by_line(f"sqlite:///{target}"), iter(wanted)), _top(folder / "views.db")


def _eventmig(config: Path, *command: str) -> None:
    """One command as the shell would run it; its output on stderr."""
    print(f"$ eventmig {' '.join(command)}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            code = cli.main(["--config", str(config), *command])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    if code and (command[0], code) != ("plan", ExitCode.FOUND):  # `upcast` says it exactly
        raise ExampleError(f"`eventmig {command[0]}` ended with {code}; it says why above", code)
    print(f"  ({time.perf_counter() - began:.1f} s)", file=sys.stderr, flush=True)


def _lines(path: Path) -> list[bytes]:
    """The lines of a file, gzipped or not, without their ends; empty ones at the end left out."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ExampleError(f"{path}: cannot be read: {error}") from error
    lines = data.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _by_line(url: str) -> dict[int, list[bytes]]:
    """The data of the target's events by the line of the raw file they came from."""
    found: dict[int, list[bytes]] = defaultdict(list)
    store = open_store(url)
    try:
        for event in all_events(store.read_all()):
            metadata = codec.decode(event.metadata or b"{}")
            assert isinstance(metadata, dict)
            line = metadata.get("line")
            found[line if isinstance(line, int) else 0].append(event.data)
    finally:
        store.close()
    return found


def _top(views: Path) -> ReadModels:
    """How many rows each read model has, and those with most events."""
    result: dict[str, Mapping[str, object]] = {}
    engine = create_engine(f"sqlite:///{views}")
    try:
        with engine.connect() as connection:
            for table in (repositories, actors):
                order = (table.c.events.desc(), *table.primary_key.columns)
                top = connection.execute(select(table).order_by(*order).limit(TOP)).mappings()
                result[table.name] = {
                    "rows": connection.scalar(select(func.count()).select_from(table)),
                    "events": connection.scalar(select(func.sum(table.c.events))) or 0,
                    "top": [dict(row) for row in top],
                }
    finally:
        engine.dispose()
    return result


def _report(comparison: Comparison, read_models: ReadModels) -> str:
    lines = [
        f"events      {comparison.events:>8,}",
        f"matched     {comparison.matched:>8,}  ({comparison.identical:,} byte for byte)",
        f"mismatched  {comparison.mismatched:>8,}",
    ]
    if comparison.differences:
        lines += ["", f"the first {len(comparison.differences)} differences (at most {SHOWN}):"]
    for found in comparison.differences:
        lines.append(f"  line {found.line} {found.type}: {found.path}")
        lines += [f"      got   {found.got}", f"      want  {found.want}"]
    for name, model in read_models.items():
        lines += ["", f"{name}: {model['rows']:,} rows, the most active:"]
        top = model["top"]
        assert isinstance(top, list)
        for row in top:
            shown = ", ".join(f"{key} {value}" for key, value in row.items() if value)
            lines.append(f"  {shown}")
    return "\n".join(lines)


@contextlib.contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    """The folder to work in: the one named, which must be empty, or a temporary one."""
    if named is None:
        with tempfile.TemporaryDirectory(prefix="eventmig-gharchive-") as made:
            yield Path(made)
        return
    try:
        named.mkdir(parents=True, exist_ok=True)
        used = any(named.iterdir())
    except OSError as error:
        raise ExampleError(f"{named}: cannot be used: {error}") from error
    if used:
        raise ExampleError(f"{named} is not empty: name an empty folder, or none")
    yield named.resolve()


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.gharchive",
        description="Upcast one hour of GH Archive with eventmig, and compare with reality.",
    )
    parser.add_argument("raw", type=Path, metavar="RAW", help="records as they were (JSON Lines)")
    parser.add_argument("unified", type=Path, metavar="UNIFIED", help="what they became")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder, which is kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
