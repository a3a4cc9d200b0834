"""The demonstration."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from eventmig import demo as demonstration
from eventmig.cli import render
from eventmig.cli.options import Json
from eventmig.cli.session import begin


def demo(
    events: Annotated[int, typer.Option(min=100, help="Events of release 1 to make.")] = 100_000,
    folder: Annotated[
        Path | None, typer.Option(help="Where to work (default: a temporary folder).")
    ] = None,
    json: Json = False,
) -> None:
    """Make a history of release 1, and take it through plan, upcast, verify and rebuild."""
    session = begin(json)
    stages: list[demonstration.Stage] = []
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventmig-demo-")))
        for stage in demonstration.run(
            session.project(), events=events, folder=folder, reporting=session.reporting
        ):
            stages.append(stage)
            if not json:
                session.out.print(render.stage(stage))
    session.show(stages, lambda: render.demo_summary(stages))
