"""The command line as a whole: which commands there are, and how a run of one ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer

from eventmig.cli import (
    demo,
    inspecting,
    jobs,
    lifecycle,
    looking,
    metrics,
    quarantine,
    rebuilding,
    releasing,
    render,
    session,
    transfer,
)
from eventmig.cli.exits import INTERRUPTED, MEANING, ExitCode, exit_code
from eventmig.cli.jsons import error_json, usage_json
from eventmig.errors import EventmigError

_EPILOG = "Exit codes: " + "; ".join(f"{code.value} {MEANING[code]}" for code in ExitCode)

app = typer.Typer(
    name="eventmig",
    help="Event-store schema evolution: upcast stored histories, verified, and rebuild from them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, list[Callable[..., None]]] = {
    "The registry and its releases": [releasing.init, releasing.check, releasing.release],
    "A job": [jobs.plan, jobs.upcast, jobs.verify, jobs.status, jobs.history, jobs.cancel],
    "A job beside a live application": [
        lifecycle.pause,
        lifecycle.resume,
        lifecycle.throttle,
        lifecycle.cutover,
        lifecycle.reverse,
        lifecycle.complete,
        metrics.metrics,
    ],
    "Read models and snapshots": [
        rebuilding.rebuild,
        rebuilding.rollback,
        rebuilding.drop_kept,
        rebuilding.project,
        rebuilding.projections,
        rebuilding.diff_readmodel,
        rebuilding.check_snapshots,
    ],
    "Stores": [
        inspecting.inspect,
        looking.current,
        looking.show,
        transfer.import_,
        transfer.export,
        demo.demo,
    ],
}
for _panel, _functions in _COMMANDS.items():
    for _function in _functions:
        _name = _function.__name__.rstrip("_").replace("_", "-")
        app.command(name=_name, rich_help_panel=_panel)(_function)

_quarantine = typer.Typer(help="Events a job set aside: list, show, retry.", no_args_is_help=True)
_quarantine.command(name="list")(quarantine.list_)
_quarantine.command()(quarantine.show)
_quarantine.command()(quarantine.retry)
app.add_typer(_quarantine, name="quarantine", rich_help_panel="A job")


def _print_version(value: bool) -> None:
    if value:
        session.current().out.print(f"eventmig {package_version('eventmig')}")
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
    run = session.current()
    run.config = config
    run.quiet = quiet


_command = typer.main.get_command(app)  # once: called itself, `app` makes it anew for every run


def main(argv: Sequence[str] | None = None) -> int:
    """`eventmig.cli.main`, once everything is imported."""
    run = session.start()
    given = sys.argv[1:] if argv is None else list(argv)
    given.sort(key=lambda word: word not in _ANYWHERE)
    try:
        with run.opened:
            code = _command(args=given, prog_name="eventmig", standalone_mode=False)
    except _WrongArguments as wrong:
        if "--json" in given:
            run.out_json(usage_json(wrong.format_message()))
        wrong.show(sys.stderr)
        return ExitCode.USAGE
    except EventmigError as error:
        return _failed(run, error)
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except (OSError, SystemExit) as error:
        # typer makes an exit of a closed pipe.
        refused = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(refused, OSError):
            raise
        return _refused(run, refused)
    if code == ExitCode.INTERRUPTED:
        run.err.print(f"\n{INTERRUPTED}", style="yellow", soft_wrap=True)
    return int(code or ExitCode.DONE)


def _failed(run: session.Session, error: EventmigError) -> ExitCode:
    if run.json:
        run.out_json(error_json(error))
    run.err.print(render.error(error), soft_wrap=True)
    return exit_code(error)


def _refused(run: session.Session, error: OSError) -> ExitCode:
    """The end of a run to which the system refused a file, or did not take its output."""
    if error.filename is None and sys.__stdout__ is not None:  # what has no name is an output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    if isinstance(error, BrokenPipeError):  # whoever read our output has enough: no error
        return ExitCode.DONE
    place = str(error.filename or "the output")
    return _failed(
        run,
        EventmigError(
            f"the system refused to go on with {place}: {error.strerror or error}",
            remedy="look at permissions, the room on the disk and where the output goes; then run "
            "the same command again",
        ),
    )


_ANYWHERE = ("-q", "--quiet")
"""Options of every command: typer wants them before its name, people write them behind it."""

# What typer raises for any wrong argument. It gives a public name to a subclass alone.
_WrongArguments: Any = typer.BadParameter.__base__
