"""Commands about read models and snapshots."""

from __future__ import annotations

from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import render_rebuilds as render
from eventmig.cli.exits import ExitCode
from eventmig.cli.options import All, Json, Names, ReadModels, Source
from eventmig.cli.session import begin

Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that read, upcast and fold side by side.")
]


def rebuild(
    names: Names = None,
    all_: All = False,
    source: Source = None,
    read_models: ReadModels = None,
    workers: Workers = None,
    since_release: Annotated[
        str | None,
        typer.Option(
            metavar="RELEASE",
            help="Only what depends on event types that changed since that release.",
        ),
    ] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Aggregates alone: those named, or all.")
    ] = False,
    stream: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Renew only this stream's snapshots; repeat for more."),
    ] = None,
    streams_from: Annotated[
        typer.FileText | None,
        typer.Option(metavar="FILE", help="Those of each line, too (-: of standard input)."),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Aggregates of this category; repeat for more."),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="A snapshot after each so many events, too.")
    ] = None,
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine", help="Set failing events aside; what has any is not swapped in."
        ),
    ] = False,
    accept_quarantined: Annotated[
        bool,
        typer.Option("--accept-quarantined", help="Swap in even so."),
    ] = False,
    json: Json = False,
) -> None:
    """Rebuild read models and snapshots beside the live ones, and swap them in."""
    session = begin(json)
    streams = list(stream or ())
    if streams_from is not None:
        streams += filter(None, map(str.strip, streams_from))
        if not streams:
            raise typer.BadParameter(f"{streams_from.name} names no stream")
    with session.reporting() as report:
        found = commands.rebuild(
            session.project(),
            names or (),
            all_=all_,
            source=source,
            read_models=read_models,
            workers=workers,
            quarantine=quarantine,
            accept_quarantined=accept_quarantined,
            snapshots=snapshots,
            categories=category or (),
            streams=streams,
            every=every,
            since_release=since_release,
            on_progress=lambda p: report(p.name, p.events_read, p.events_expected),
        )
    session.show(found, lambda: render.rebuilt(found))
    if not found.live:
        raise typer.Exit(ExitCode.FOUND)


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


def drop_kept(
    names: Names = None,
    all_: All = False,
    read_models: ReadModels = None,
    json: Json = False,
) -> None:
    """Drop the read models and snapshots from before the last rebuild: no way back then."""
    session = begin(json)
    dropped = commands.drop_kept(session.project(), names or (), all_=all_, read_models=read_models)
    session.show(dropped, lambda: f"dropped: {', '.join(dropped) or 'nothing was kept'}")


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


def projections(
    names: Names = None,
    source: Source = None,
    read_models: ReadModels = None,
    json: Json = False,
) -> None:
    """Show where read models and snapshots stand: what is live, how far behind, what is kept."""
    session = begin(json)
    found = commands.projections(
        session.project(), names or (), source=source, read_models=read_models
    )
    session.show(found, lambda: render.projections(found))


def diff_readmodel(
    names: Names = None,
    all_: All = False,
    source: Source = None,
    read_models: ReadModels = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Show what a rebuild would change, row by row. Builds beside the live rows; swaps nothing."""
    session = begin(json)
    with session.reporting() as report:
        found = commands.diff_read_models(
            session.project(),
            names or (),
            all_=all_,
            source=source,
            read_models=read_models,
            workers=workers,
            on_progress=lambda p: report(p.name, p.events_read, p.events_expected),
        )
    session.show(found, lambda: render.differences(found))
    if not found.equal:
        raise typer.Exit(ExitCode.FOUND)


def check_snapshots(
    names: Names = None,
    every_stream: Annotated[
        bool, typer.Option("--every-stream", help="All streams, not a sample.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Streams compared per aggregate.")] = 100,
    source: Source = None,
    read_models: ReadModels = None,
    json: Json = False,
) -> None:
    """Compare loading by snapshots with full replays, for a sample of the streams or all."""
    session = begin(json)
    found = commands.check_snapshots(
        session.project(),
        names or (),
        sample=None if every_stream else sample,
        source=source,
        read_models=read_models,
    )
    session.show(found, lambda: render.compared(found))
    if not found.right:
        raise typer.Exit(ExitCode.FOUND)
