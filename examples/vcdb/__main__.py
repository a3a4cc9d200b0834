"""Run the real job on incidents of VERIS 1.3.0, and compare the result with reality.

    python -m examples.vcdb CHAINS.jsonl.gz [--schemas DIR] [--json] [--work DIR]

A line of CHAINS is one incident as it was before and after each of seven real migrations.
The first of these records is imported as an event and upcast with eventmig's own commands,
called as the command line calls them; the upcast event must be the last. The commands'
output goes to stderr, the result to stdout.

Exit code: 0 all incidents match; 1 some do not; 2 a file that is not what it should be; else
that of the command that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, select

from eventmig import cli, codec
from eventmig.cli.exits import ExitCode
from eventmig.codec import Value
from eventmig.errors import ImportLineError
from eventmig.stores.base import all_events
from eventmig.stores.open import open_store
from examples.vcdb.compare import Difference, differences
from examples.vcdb.history import RELEASE, Chain, as_import_lines, read_chains
from examples.vcdb.projections import metadata
from examples.vcdb.schemas import FOLDER_VARIABLE, VERSIONS, WITHOUT_VARIABLE
from examples.vcdb.validity import Validity, validity

SHOWN = 20
TOP = 5

ReadModels = Mapping[str, Sequence[Mapping[str, object]]]


class ExampleError(Exception):
    """The run cannot go on; `code` is the program's exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        self.code = code
        super().__init__(message)


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of the run. `schemas` is None where there were none to validate with."""

    incidents: int = 0
    matched: int = 0
    mismatched: int = 0
    differences: list[dict[str, object]] = field(default_factory=list)
    schemas: dict[str, Validity] | None = None
    unvalidated: list[str] = field(default_factory=list)
    check: str = ""
    read_models: ReadModels = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    arguments = _arguments().parse_args(argv)
    try:
        with _folder(arguments.work) as folder:
            result = run(arguments.chains, folder, schemas=arguments.schemas)
    except (ExampleError, ImportLineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code if isinstance(error, ExampleError) else 2
    if arguments.json:
        print(codec.encode_checked(asdict(result)).decode())
    else:
        print(_report(result))
    return 1 if result.mismatched else 0


def run(file: Path, folder: Path, *, schemas: Path | None = None) -> Result:
    """The whole job in an empty folder: import, upcast, verify, rebuild, compare.

    `schemas` is the folder of the official schemas; by default the folder `schemas` beside
    the file. Raises `ExampleError` and `ImportLineError`; before anything is written, if the
    file is to blame.
    """
    chains = list(read_chains(file))
    if not chains:
        raise ExampleError(f"{file} holds no chains")
    result = Result(incidents=len(chains))
    _prepare_models(result, chains, file, schemas)
    history, config = folder / "incidents.jsonl.gz", folder / "eventmig.toml"
    with gzip.open(history, "wb", compresslevel=1) as out:
        out.writelines(line + b"\n" for line in as_import_lines(chains))
    shutil.copyfile(Path(__file__).with_name("eventmig.toml"), config)

    _eventmig(config, "import", str(history), "--store", f"sqlite:///{folder / 'history.db'}")
    _eventmig(config, "release", RELEASE)
    result.check = _check(config)
    _eventmig(config, "plan")
    _eventmig(config, "upcast")
    _eventmig(config, "verify")
    _eventmig(config, "rebuild", "--all")
    _compare(result, chains, f"sqlite:///{folder / f'history-{RELEASE}.db'}")
    result.read_models = _top(folder / "views.db")
    return result


def _prepare_models(
    result: Result, chains: Sequence[Chain], file: Path, schemas: Path | None
) -> None:
    """Find the official schemas, hold the real records against them, and name the folder.

    A version of which the model would refuse real records is left without one, for then it
    is the model that is wrong: the job must yield those very records.
    """
    folder = schemas or file.parent / "schemas"
    if schemas is not None and not folder.is_dir():
        raise ExampleError(f"--schemas {schemas}: there is no such folder")
    os.environ.pop(FOLDER_VARIABLE, None)
    os.environ.pop(WITHOUT_VARIABLE, None)
    if not folder.is_dir():
        _say(f"no folder {folder}: nothing is validated against the official schemas")
        return
    result.schemas = validity(chains, folder)
    absent = [v for v in [*VERSIONS][1:] if v not in result.schemas]
    refused = [v for v, found in result.schemas.items() if found.refused]
    result.unvalidated = sorted([*absent, *refused])
    for version in absent:
        _say(f"no schema of VERIS {version} in {folder}: that version is not validated")
    for version in refused:
        _say(
            f"the schema of VERIS {version} rejects {result.schemas[version].refused} of the "
            f"real records ({result.schemas[version].first}): that version is not validated"
        )
    os.environ[FOLDER_VARIABLE] = str(folder.resolve())
    os.environ[WITHOUT_VARIABLE] = ",".join(refused)


def _check(config: Path) -> str:
    """`check`, which may find what is true: the schemas are not what the migrations made.

    The committee that wrote the schemas changed more in them than the scripts changed in the
    records, and the scripts do not take every record an older schema allows; so no random
    records either. What matters is checked on the real ones.
    """
    code = _command(config, "check", "--examples", "0")
    if code not in (ExitCode.DONE, ExitCode.FOUND):
        raise ExampleError(f"`eventmig check` ended with {code}; it says why above", code)
    return "right" if code == ExitCode.DONE else "findings"


def _eventmig(config: Path, *command: str) -> None:
    code = _command(config, *command)
    if code and (command[0], code) != ("plan", ExitCode.FOUND):  # `upcast` says it exactly
        raise ExampleError(f"`eventmig {command[0]}` ended with {code}; it says why above", code)


def _command(config: Path, *command: str) -> int:
    """One command as the shell would run it; its output on stderr."""
    _say(f"$ eventmig {' '.join(command)}")
    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            code = cli.main(["--config", str(config), *command])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    _say(f"  ({time.perf_counter() - began:.1f} s)")
    return code


def _compare(result: Result, chains: Sequence[Chain], target: str) -> None:
    """Read the target back and hold each event against the last record of its chain."""
    upcast: dict[str, list[Value]] = defaultdict(list)
    store = open_store(target)
    try:
        for event in all_events(store.read_all()):
            if event.schema_version == VERSIONS[RELEASE]:
                upcast[event.stream].append(codec.decode(event.data))
    finally:
        store.close()
    for chain in sorted(chains, key=lambda chain: chain.created):  # as imported
        events = upcast[chain.stream]
        real = chain.records[RELEASE]
        found = (
            differences(events.pop(0), real)
            if events
            else [Difference("(the whole event)", "<absent>", real)]
        )
        result.matched += not found
        result.mismatched += bool(found)
        for difference in found[: SHOWN - len(result.differences)]:
            result.differences.append({"incident": chain.incident, **asdict(difference)})
    left = [stream for stream, events in upcast.items() if events]
    if left:
        raise ExampleError(f"the target has events that nobody wrote, in {left[0]}", 1)


def _top(views: Path) -> ReadModels:
    """Every read model's rows, largest first."""
    rows: dict[str, Sequence[Mapping[str, object]]] = {}
    engine = create_engine(f"sqlite:///{views}")
    try:
        with engine.connect() as connection:
            for table in metadata.sorted_tables:
                keys = table.primary_key.columns
                count = next(column for column in table.columns if column not in set(keys))
                query = select(table).order_by(count.desc(), *keys)
                rows[table.name] = [dict(row) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()
    return rows


def _report(result: Result) -> str:
    lines = [
        f"incidents   {result.incidents:>8,}",
        f"matched     {result.matched:>8,}",
        f"mismatched  {result.mismatched:>8,}",
    ]
    if result.differences:
        lines += ["", f"the first {len(result.differences)} differences (at most {SHOWN}):"]
    for found in result.differences:
        lines.append(f"  {found['incident']}: {found['path']}")
        lines.append(f"      upcast  {_short(found['upcast'])}")
        lines.append(f"      real    {_short(found['real'])}")
    if result.schemas is not None:
        lines += ["", "the official schemas on the real records of their own versions:"]
        for version, said in result.schemas.items():
            rejects = f", {said.rejected} rejected ({said.first})" if said.rejected else ""
            lines.append(f"  {version}  {said.records:,} records{rejects}")
    for version in result.unvalidated:
        lines.append(f"  {version} was not validated in this run")
    for name, rows in result.read_models.items():
        lines += ["", f"{name.replace('_', ' ')}: {len(rows):,} rows, the first:"]
        for row in rows[:TOP]:
            lines.append("  " + ", ".join(f"{key} {value}" for key, value in row.items()))
    return "\n".join(lines)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else text[:119] + "…"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    """The folder to work in: the one named, which must be empty, or a temporary one."""
    if named is None:
        with tempfile.TemporaryDirectory(prefix="eventmig-vcdb-") as made:
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
        prog="python -m examples.vcdb",
        description="Upcast VERIS incidents with eventmig, and compare with reality.",
    )
    parser.add_argument("chains", type=Path, metavar="CHAINS", help="incidents (JSON Lines)")
    parser.add_argument(
        "--schemas",
        type=Path,
        metavar="DIR",
        help="the official JSON Schemas; default: schemas/ beside CHAINS",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder, which is kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
