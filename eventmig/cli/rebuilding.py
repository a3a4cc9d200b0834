"""Commands about read models and snapshots."""

from __future__ import annotations

from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import render
from eventmig.cli.options import All, Json, Names, ReadModels, Source
from eventmig.cli.session import begin


def rebuild(
    names: Names = None,
    all_: All = False,
    source: Source = None,
    read_models: ReadModels = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read, upcast and fold side by side."),
    ] = None,
    json: Json = False,
) -> None:
    """Rebuild read models and snapshots beside the live ones, and swap them in."""
    session = begin(json)
    with session.reporting() as report:
        found = commands.rebuild(
            session.project(),
            names or (),
            all_=all_,
            source=source,
            read_models=read_models,
            workers=workers,
            on_progress=lambda p: report(p.name, p.events_read, p.events_expected),
        )
    session.show(found, lambda: render.rebuilt(found.results, found.source, found.database))


def rollback(
    names: Names = None,
    all_: All = False,
    read_models: ReadModels = None,
    json: Json = False,
) -> None:
    """Bring back the read models and snapshots from before the last rebuild."""
    session = begin(json)
    live = commands.rollback(session.project(), names or (), all_=all_, read_models=read_models)
    session.show(
        live,
        lambda: "\n".join(f"{name}: generation {number} is live" for name, number in live.items()),
    )


def project(
    names: Names = None,
    all_: All = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Go on as events come, until interrupted. One process leads; others stand by.",
        ),
    ] = False,
    source: Source = None,
    read_models: ReadModels = None,
    json: Json = False,
) -> None:
    """Bring live read models up to date with the store, by the handlers that made them."""
    session = begin(json)
    with session.reporting() as report:
        found = commands.follow(
            session.project(),
            names or (),
            all_=all_,
            source=source,
            read_models=read_models,
            stop=(lambda: False) if follow else None,
            on_commit=lambda f: report(f.name, f.events, 0),
            on_standby=lambda: report("standing by: another process leads", 0, 0),
        )
    session.show(found, lambda: render.followed(found))
