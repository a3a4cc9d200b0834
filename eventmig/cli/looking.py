"""Commands that look into a store."""

from __future__ import annotations

from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import render
from eventmig.cli.options import Json, Release, Store
from eventmig.cli.session import begin


def current(store: Store = None, json: Json = False) -> None:
    """Show the release a store is at, and its event types and versions."""
    session = begin(json)
    found = commands.current(session.project(), store=store)
    session.show(found, lambda: render.current(found))


def show(
    what: Annotated[str, typer.Argument(help="A stream's name, or an event's id.")],
    store: Store = None,
    release: Release = None,
    first: Annotated[
        int | None, typer.Option("--from", help="First stream position (inclusive).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Events shown at the most.")] = 20,
    json: Json = False,
) -> None:
    """Show one event or a stream, before and after each step."""
    session = begin(json)
    found = commands.show(
        session.project(), what, store=store, release=release, first=first, limit=limit
    )
    session.show(found, lambda: render.shown(found))
