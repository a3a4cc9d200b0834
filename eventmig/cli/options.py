"""Options that more than one command has."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Release = Annotated[
    str | None, typer.Option("--release", "-r", help="The release (default: the latest frozen).")
]
Source = Annotated[str | None, typer.Option(help="URL of the store to read.")]
Target = Annotated[str | None, typer.Option(help="URL of the store to write.")]
Naming = Annotated[
    str | None,
    typer.Option(help="Template of the new streams' names: {stream} and {release}."),
]
Store = Annotated[str | None, typer.Option(help="URL of the store (default: the source).")]
ReadModels = Annotated[str | None, typer.Option(help="URL of the read models' database.")]
Names = Annotated[list[str] | None, typer.Argument(help="Read models and aggregates by name.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
