"""The commands as typer sees them: options in, a typed command called, its result printed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO, TypeVar, cast

import typer
from rich.console import Console, RenderableType

from eventmig import commands, demo
from eventmig.check import EXAMPLES
from eventmig.cli import render
from eventmig.cli.exits import MEANING, ExitCode, exit_code
from eventmig.cli.jsons import error_json, to_json, usage_json
from eventmig.cli.progress import Report, progress_on
from eventmig.errors import EventmigError
from eventmig.mapping import Mapping
from eventmig.migrate.job import OnProgress, Progress
from eventmig.project import Project

T = TypeVar("T")

_EPILOG = "Exit codes: " + "; ".join(f"{code.value} {MEANING[code]}" for code in ExitCode)

app = typer.Typer(
    name="eventmig",
    help="Event-store schema evolution: upcast stored histories, verified, and rebuild from them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
quarantine_app = typer.Typer(
    help="Events a job set aside: list, show, retry.", no_args_is_help=True
)
app.add_typer(quarantine_app, name="quarantine")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", "-r", help="The release (default: the latest frozen).")
]
Source = Annotated[str | None, typer.Option(help="URL of the store to read.")]
Target = Annotated[str | None, typer.Option(help="URL of the store to write.")]
Naming = Annotated[
    str | None,
    typer.Option(help="Template of the new streams' names: {stream} and {release}."),
]
Store = Annotated[str | None, typer.Option(help="URL of the store (default: the source).")]


class _Session:
    """What the options before the command said, and where results and errors go."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.quiet = False
        self.json = False
        self.out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.opened = contextlib.ExitStack()

    def project(self) -> Project:
        """The configured project. From here on what user code prints goes to standard error."""
        self.opened.enter_context(contextlib.redirect_stdout(sys.stderr))
        return Project.open(self.config)

    def bytes_out(self) -> BinaryIO:
        """Standard output for bytes, whatever user code prints to."""
        return cast(TextIO, self.out.file).buffer

    def show(self, result: object, text: Callable[[], RenderableType], *, json: bool) -> None:
        """Print a result on standard output."""
        if json:
            self.out.out(to_json(result), highlight=False)
        else:
            self.out.print(text())

    @contextmanager
    def reporting(self) -> Iterator[Report]:
        with progress_on(self.err, quiet=self.quiet) as report:
            yield report

    @contextmanager
    def job_reporting(self) -> Iterator[OnProgress]:
        with self.reporting() as report:

            def on_progress(progress: Progress) -> None:
                report(progress.phase.value, progress.done, progress.total)

            yield on_progress


_session = _Session()


def _print_version(value: bool) -> None:
    if value:
        _session.out.print(f"eventmig {package_version('eventmig')}")
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="EVENTMIG_CONFIG",
            help="The configuration file (default: eventmig.toml, or \\[tool.eventmig] in "
            "pyproject.toml, here or in a folder above).",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    _session.config = config
    _session.quiet = quiet


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="An empty folder, or a new one.")] = Path(),
    json: Json = False,
) -> None:
    """Write a first configuration, upcaster, projection and sample history, ready to run."""
    _session.json = json
    result = commands.init(folder)
    _session.show(result, lambda: _started(result), json=json)


def _started(result: commands.Started) -> RenderableType:
    files = "\n".join(f"  {path}" for path in result.files)
    return (
        f"written:\n{files}\n"
        f"{result.events} sample events are in {result.store}; release {result.release} is frozen\n"
        "next: eventmig check, eventmig plan, eventmig upcast, eventmig rebuild --all"
    )


@app.command()
def check(
    examples: Annotated[
        int, typer.Option(min=0, help="Random valid events to try per step (0: none).")
    ] = EXAMPLES,
    json: Json = False,
) -> None:
    """Check the registry: against the lock, the schemas, and random valid events."""
    _session.json = json
    with _session.reporting() as report:
        found = commands.check(
            _session.project(),
            examples=examples,
            on_step=lambda done, total: report("checking", done, total),
        )
    _session.show(found, lambda: render.check(found), json=json)
    if not found.right:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="The release's name, such as 2026.11.")],
    amend: Annotated[
        bool,
        typer.Option(
            "--amend", help="Freeze the latest release anew: an upcaster was mended in time."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Freeze the registry as it is now as a release, in eventmig.lock."""
    _session.json = json
    frozen = commands.release(_session.project(), name, amend=amend)
    _session.show(
        frozen,
        lambda: (
            f"release {frozen.name} is frozen: {render.some(len(frozen.types), 'type')}, "
            f"{render.some(len(frozen.upcasters), 'upcaster')}, "
            f"{render.some(len(frozen.steps), 'stream or store step')}; "
            "commit eventmig.lock"
        ),
        json=json,
    )


@app.command()
def plan(
    release: ReleaseOption = None,
    source: Source = None,
    target: Target = None,
    naming: Naming = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Events shown before and after, per type and version.")
    ] = commands.SAMPLES_EACH,
    json: Json = False,
) -> None:
    """Show what a job would do: counts, steps, samples. Writes nothing."""
    _session.json = json
    found = commands.plan(
        _session.project(),
        release=release,
        source=source,
        target=target,
        naming=naming,
        samples=samples,
    )
    _session.show(found, lambda: render.plan(found), json=json)
    if found.problems:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def upcast(
    release: ReleaseOption = None,
    source: Source = None,
    target: Target = None,
    naming: Naming = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Set failing events aside instead of stopping.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=2, help="2: read and upcast in a second process.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Events per transaction.")] = None,
    json: Json = False,
) -> None:
    """Rewrite the stored history to a release, verified. Resumes where it was stopped."""
    _session.json = json
    with _session.job_reporting() as on_progress:
        found = commands.upcast(
            _session.project(),
            release=release,
            source=source,
            target=target,
            naming=naming,
            quarantine=quarantine,
            workers=workers,
            batch_size=batch_size,
            on_progress=on_progress,
        )
    _session.show(found, lambda: render.job(found), json=json)
    if not found.ready:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def verify(
    release: ReleaseOption = None,
    source: Source = None,
    target: Target = None,
    naming: Naming = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Heads and recorded hashes only, nothing derived.")
    ] = False,
    json: Json = False,
) -> None:
    """Verify a target against its source: heads, every event derived anew, stream hashes."""
    _session.json = json
    with _session.job_reporting() as on_progress:
        found = commands.verify(
            _session.project(),
            release=release,
            source=source,
            target=target,
            naming=naming,
            derive=not quick,
            on_progress=on_progress,
        )
    _session.show(found, lambda: render.job(found), json=json)
    assert found.verification is not None
    if not found.verification.right:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def status(release: ReleaseOption = None, target: Target = None, json: Json = False) -> None:
    """Show where a target's job stands."""
    _session.json = json
    found = commands.status(_session.project(), release=release, target=target)
    _session.show(found, lambda: render.job(found), json=json)


@app.command()
def history(release: ReleaseOption = None, target: Target = None, json: Json = False) -> None:
    """List the jobs of a target's database and the states they went through."""
    _session.json = json
    found = commands.history(_session.project(), release=release, target=target)
    _session.show(found, lambda: render.history(found), json=json)


@app.command()
def current(store: Store = None, json: Json = False) -> None:
    """Show the release a store is at, and its event types and versions."""
    _session.json = json
    found = commands.current(_session.project(), store=store)
    _session.show(found, lambda: render.current(found), json=json)


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A stream's name, or an event's id.")],
    store: Store = None,
    release: ReleaseOption = None,
    first: Annotated[
        int | None, typer.Option("--from", help="First stream position (inclusive).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Events shown at the most.")] = 20,
    json: Json = False,
) -> None:
    """Show one event or a stream, before and after each step."""
    _session.json = json
    found = commands.show(
        _session.project(), what, store=store, release=release, first=first, limit=limit
    )
    _session.show(found, lambda: render.shown(found), json=json)


@app.command()
def cancel(release: ReleaseOption = None, target: Target = None, json: Json = False) -> None:
    """End a target's job and delete what it wrote. The source stays as it is."""
    _session.json = json
    deleted = commands.cancel(_session.project(), release=release, target=target)
    _session.show(
        {"deleted": deleted}, lambda: f"cancelled; {deleted:,} copied events deleted", json=json
    )


@app.command()
def rebuild(
    names: Annotated[
        list[str] | None, typer.Argument(help="Read models and aggregates by name.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    source: Source = None,
    read_models: Annotated[
        str | None, typer.Option(help="URL of the read models' database.")
    ] = None,
    json: Json = False,
) -> None:
    """Rebuild read models and snapshots beside the live ones, and swap them in."""
    _session.json = json
    with _session.reporting() as report:
        found = commands.rebuild(
            _session.project(),
            names or (),
            all_=all_,
            source=source,
            read_models=read_models,
            on_progress=lambda p: report(p.name, p.events_read, p.events_expected),
        )
    _session.show(
        found, lambda: render.rebuilt(found.results, found.source, found.database), json=json
    )


@app.command()
def rollback(
    names: Annotated[
        list[str] | None, typer.Argument(help="Read models and aggregates by name.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    read_models: Annotated[
        str | None, typer.Option(help="URL of the read models' database.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring back the read models and snapshots from before the last rebuild."""
    _session.json = json
    live = commands.rollback(_session.project(), names or (), all_=all_, read_models=read_models)
    _session.show(
        live,
        lambda: "\n".join(f"{name}: generation {number} is live" for name, number in live.items()),
        json=json,
    )


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON Lines, also .gz; - for standard input.")],
    store: Store = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="PART=FIELD",
            help="Which field of a record is which part of an event, such as "
            "stream='cart-{cart_id}' or data=payload; repeat for each part.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Append a history from a JSON Lines file to a store, all of it or nothing."""
    _session.json = json
    project = _session.project()
    mapping = _mapping(project, map_ or ())
    with _session.reporting() as report:
        result = commands.import_history(
            project,
            file,
            store=store,
            mapping=mapping,
            on_progress=lambda done: report("importing", done, 0),
        )
    _session.show(
        result,
        lambda: (
            f"imported {render.some(result.events, 'event')} in "
            f"{render.some(result.streams, 'stream')}"
        ),
        json=json,
    )


def _mapping(project: Project, options: Sequence[str]) -> Mapping:
    given: dict[str, str] = {}
    for option in options:
        part, equals, field = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option!r} is not PART=FIELD", param_hint="--map")
        given[part] = field
    return project.config.mapping(given)


@app.command()
def export(
    file: Annotated[
        Path,
        typer.Argument(help="The JSON Lines file to write; .gz by name; - for standard output."),
    ],
    store: Store = None,
    json: Json = False,
) -> None:
    """Write a store's events to a JSON Lines file."""
    _session.json = json
    if str(file) == "-":
        with tempfile.TemporaryDirectory() as folder:
            beside = Path(folder, "history.jsonl")
            commands.export_history(_session.project(), beside, store=store)
            with beside.open("rb") as lines:
                shutil.copyfileobj(lines, _session.bytes_out())
        return
    count = commands.export_history(_session.project(), file, store=store)
    _session.show(
        {"events": count}, lambda: f"exported {render.some(count, 'event')} to {file}", json=json
    )


@quarantine_app.command(name="list")
def quarantine_list(
    release: ReleaseOption = None, target: Target = None, json: Json = False
) -> None:
    """List the events that a target's job set aside."""
    _session.json = json
    found = commands.quarantined(_session.project(), release=release, target=target)
    _session.show(found, lambda: render.quarantine(found, whole=False), json=json)


@quarantine_app.command(name="show")
def quarantine_show(
    event_id: Annotated[str, typer.Argument(help="The event's id, as `list` shows it.")],
    release: ReleaseOption = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Show one event that was set aside, with its data and what was wrong."""
    _session.json = json
    found = [
        q
        for q in commands.quarantined(_session.project(), release=release, target=target)
        if q.event.id == event_id
    ]
    if not found:
        raise typer.BadParameter(f"no event {event_id} is in quarantine", param_hint="EVENT_ID")
    _session.show(found[0], lambda: render.quarantine(found, whole=True), json=json)


@quarantine_app.command(name="retry")
def quarantine_retry(
    release: ReleaseOption = None,
    source: Source = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Try the events set aside again; if all pass, copy on from before the first of them."""
    _session.json = json
    with _session.job_reporting() as on_progress:
        failing, report = commands.retry_quarantined(
            _session.project(),
            release=release,
            source=source,
            target=target,
            on_progress=on_progress,
        )
    if report is not None:
        _session.show(report, lambda: render.job(report), json=json)
        return
    _session.show(failing, lambda: render.quarantine(failing, whole=False), json=json)
    raise typer.Exit(ExitCode.FOUND)


@app.command(name="demo")
def demo_(
    events: Annotated[int, typer.Option(min=100, help="Events of release 1 to make.")] = 100_000,
    folder: Annotated[
        Path | None, typer.Option(help="Where to work (default: a temporary folder).")
    ] = None,
    json: Json = False,
) -> None:
    """Make a history of release 1, and take it through plan, upcast, verify and rebuild."""
    _session.json = json
    stages: list[demo.Stage] = []
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventmig-demo-")))
        for stage in demo.run(
            _session.project(), events=events, folder=folder, reporting=_session.reporting
        ):
            stages.append(stage)
            if not json:
                _session.out.print(render.stage(stage))
    _session.show(stages, lambda: render.demo_summary(stages), json=json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (`ExitCode`). Prints, and nothing else does.

    `argv` is without the program's name; None takes the process's own.
    """
    global _session
    _session = _Session()
    given = sys.argv[1:] if argv is None else list(argv)
    given.sort(key=lambda word: word not in _ANYWHERE)
    try:
        with _session.opened:
            code = app(args=given, prog_name="eventmig", standalone_mode=False)
    except _WrongArguments as wrong:
        if "--json" in given:
            _session.out.out(usage_json(wrong.format_message()), highlight=False)
        wrong.show(sys.stderr)
        return ExitCode.USAGE
    except EventmigError as error:
        if _session.json:
            _session.out.out(error_json(error), highlight=False)
        _session.err.print(render.error(error), soft_wrap=True)
        return exit_code(error)
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough: no error, and no more output
        code = ExitCode.DONE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    if code == ExitCode.INTERRUPTED:
        _session.err.print(
            "\ninterrupted; everything up to the last batch is kept, and the same command resumes",
            style="yellow",
        )
    return int(code or ExitCode.DONE)


_ANYWHERE = ("-q", "--quiet")
"""Options of every command: typer wants them before its name, people write them behind it."""

# What typer raises for any wrong argument. It gives a public name to a subclass alone.
_WrongArguments: Any = typer.BadParameter.__base__
