"""Commands that bring histories in and out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import render
from eventmig.cli.options import Json, Store
from eventmig.cli.session import begin
from eventmig.mapping import Mapping
from eventmig.project import Project


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
    session = begin(json)
    project = session.project()
    mapping = _mapping(project, map_ or ())
    with session.reporting() as report:
        result = commands.import_history(
            project,
            file,
            store=store,
            mapping=mapping,
            on_progress=lambda done: report("importing", done, 0),
        )
    session.show(
        result,
        lambda: (
            f"imported {render.some(result.events, 'event')} in "
            f"{render.some(result.streams, 'stream')}"
        ),
    )


def _mapping(project: Project, options: Sequence[str]) -> Mapping:
    given: dict[str, str] = {}
    for option in options:
        part, equals, field = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option!r} is not PART=FIELD", param_hint="--map")
        given[part] = field
    return project.config.mapping(given)


def export(
    file: Annotated[
        Path,
        typer.Argument(help="The JSON Lines file to write; .gz by name; - for standard output."),
    ],
    store: Store = None,
    json: Json = False,
) -> None:
    """Write a store's events to a JSON Lines file."""
    session = begin(json)
    if str(file) == "-":
        with tempfile.TemporaryDirectory() as folder:
            beside = Path(folder, "history.jsonl")
            commands.export_history(session.project(), beside, store=store)
            with beside.open("rb") as lines:
                shutil.copyfileobj(lines, session.bytes_out())
        return
    count = commands.export_history(session.project(), file, store=store)
    session.show({"events": count}, lambda: f"exported {render.some(count, 'event')} to {file}")
