"""Options that more than one command has."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def _not_empty(value: str | None) -> str | None:
    if value == "":  # mostly a variable of the shell that is not set
        raise typer.BadParameter("it is empty: name one, or leave the option out")
    return value


def _text(*names: str, help: str) -> Any:
    return typer.Option(*names, callback=_not_empty, help=help)


Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Release = Annotated[
    str | None, _text("--release", "-r", help="The release (default: the latest frozen).")
]
Source = Annotated[str | None, _text(help="URL of the store to read.")]
Target = Annotated[str | None, _text(help="URL of the store to write.")]
Naming = Annotated[
    str | None, _text(help="Template of the new streams' names: {stream} and {release}.")
]
Store = Annotated[str | None, _text(help="URL of the store (default: the source).")]
ReadModels = Annotated[str | None, _text(help="URL of the read models' database.")]
Names = Annotated[list[str] | None, typer.Argument(help="Read models and aggregates by name.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
