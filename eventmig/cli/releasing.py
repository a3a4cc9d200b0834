"""Commands about the registry and its releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from eventmig import commands
from eventmig.check import EXAMPLES
from eventmig.cli import render
from eventmig.cli.exits import ExitCode
from eventmig.cli.options import Json
from eventmig.cli.session import begin


def init(
    folder: Annotated[Path, typer.Argument(help="An empty folder, or a new one.")] = Path(),
    json: Json = False,
) -> None:
    """Write a first configuration, upcaster, projection and sample history, ready to run."""
    session = begin(json)
    result = commands.init(folder)
    session.show(result, lambda: _started(result))


def _started(result: commands.Started) -> RenderableType:
    files = "\n".join(f"  {path}" for path in result.files)
    return (
        f"written:\n{files}\n"
        f"{result.events} sample events are in {result.store}; release {result.release} is frozen\n"
        "next: eventmig check, eventmig plan, eventmig upcast, eventmig rebuild --all"
    )


def check(
    examples: Annotated[
        int, typer.Option(min=0, help="Random valid events to try per step (0: none).")
    ] = EXAMPLES,
    json: Json = False,
) -> None:
    """Check the registry: against the lock, the schemas, and random valid events."""
    session = begin(json)
    with session.reporting() as report:
        found = commands.check(
            session.project(),
            examples=examples,
            on_step=lambda done, total: report("checking", done, total),
        )
    session.show(found, lambda: render.check(found))
    if not found.right:
        raise typer.Exit(ExitCode.FOUND)


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
    session = begin(json)
    frozen = commands.release(session.project(), name, amend=amend)
    session.show(
        frozen,
        lambda: (
            f"release {frozen.name} is frozen: {render.some(len(frozen.types), 'type')}, "
            f"{render.some(len(frozen.upcasters), 'upcaster')}, "
            f"{render.some(len(frozen.steps), 'stream or store step')}; "
            "commit eventmig.lock"
        ),
    )
