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
from eventmig.cli.exits import MEANING, ExitCode, exit_code
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (`ExitCode`). Prints, and nothing else does.

    `argv` is without the program's name; None takes the process's own.
    """
    run = session.start()
    given = sys.argv[1:] if argv is None else list(argv)
    given.sort(key=lambda word: word not in _ANYWHERE)
    try:
        with run.opened:
            code = app(args=given, prog_name="eventmig", standalone_mode=False)
    except _WrongArguments as wrong:
        if "--json" in given:
            run.out.out(usage_json(wrong.format_message()), highlight=False)
        wrong.show(sys.stderr)
        return ExitCode.USAGE
    except EventmigError as error:
        if run.json:
            run.out.out(error_json(error), highlight=False)
        run.err.print(render.error(error), soft_wrap=True)
        return exit_code(error)
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough: no error, and no more output
        code = ExitCode.DONE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    if code == ExitCode.INTERRUPTED:
        run.err.print(
            "\ninterrupted; everything up to the last batch is kept, and the same command resumes",
            style="yellow",
        )
    return int(code or ExitCode.DONE)


_ANYWHERE = ("-q", "--quiet")
"""Options of every command: typer wants them before its name, people write them behind it."""

# What typer raises for any wrong argument. It gives a public name to a subclass alone.
_WrongArguments: Any = typer.BadParameter.__base__
