"""Commands about the life of a job whose source is in use: across, back, and in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import render_lifecycle as render
from eventmig.cli.options import Json, Release, Source, Target
from eventmig.cli.session import Session, begin
from eventmig.migrate.states import ENDED, Switch
from eventmig.project import Project

Budget = Annotated[
    float, typer.Option("--budget", min=0, help="Seconds that writers may be kept out.")
]


def cutover(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    switch: Annotated[
        Switch | None,
        typer.Option(help="What takes the application across (default: route)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the ways back, and change nothing.")
    ] = False,
    when_lag_below: Annotated[
        float, typer.Option(min=0, metavar="S", help="Wait until the lag is below S seconds.")
    ] = 2.0,
    postpone_file: Annotated[
        Path | None, typer.Option(metavar="F", help="Wait as long as this file is there.")
    ] = None,
    budget: Budget = 10.0,
    json: Json = False,
) -> None:
    """Take the application to the new side: catch up, prove, shut writers out, switch."""
    session = begin(json)
    found = commands.cutover(
        session.project(),
        release=release,
        source=source,
        target=target,
        switch=switch,
        dry_run=dry_run,
        when_lag_below=when_lag_below,
        postpone_file=postpone_file,
        budget_s=budget,
        on_wait=_waiting(session),
    )
    session.show(found, lambda: render.crossing(found))


def reverse(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="F", help="Write events without a way back to F, and go on."),
    ] = None,
    budget: Budget = 10.0,
    json: Json = False,
) -> None:
    """Take the application back to the old side, with all it appended since."""
    session = begin(json)
    found = commands.reverse(
        session.project(),
        release=release,
        source=source,
        target=target,
        export=export,
        budget_s=budget,
        on_wait=_waiting(session),
    )
    session.show(found, lambda: render.crossing(found))


def complete(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the old side's events.")] = False,
    json: Json = False,
) -> None:
    """End the reverse window: no way back then, nor to what rebuilds kept."""
    session = begin(json)
    found = commands.complete(
        session.project(), release=release, source=source, target=target, drop=drop
    )
    session.show(found, lambda: render.completed(found))


def pause(release: Release = None, target: Target = None, json: Json = False) -> None:
    """Stop a job that runs, before its next batch, whichever terminal it runs in."""
    session = begin(json)
    found = commands.steer(session.project(), release=release, target=target, paused=True)
    session.show(found, lambda: render.controls(found))


def resume(
    release: Release = None, source: Source = None, target: Target = None, json: Json = False
) -> None:
    """End a pause; let a job go on that needed an operator, if all is right now."""
    session = begin(json)
    found = commands.resume(session.project(), release=release, source=source, target=target)
    session.show(found, lambda: f"job {found.job_id[:8]}: {found.state.value}")


def throttle(
    release: Release = None,
    target: Target = None,
    share: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Work at most this share of the time.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Events per transaction.")] = None,
    postpone: Annotated[
        bool | None,
        typer.Option("--postpone/--no-postpone", help="Keep a cut-over waiting, or let it go."),
    ] = None,
    json: Json = False,
) -> None:
    """Change the settings of a job that runs, whichever terminal it runs in."""
    session = begin(json)
    found = commands.steer(
        session.project(),
        release=release,
        target=target,
        share=share,
        batch_size=batch_size,
        postponed=postpone,
    )
    session.show(found, lambda: render.controls(found))


def watch(
    session: Session, release: str | None, target: str | None, source: str | None, every: float
) -> None:
    """Measure again and again, until the job has ended; one line of JSON each, if asked for."""
    project = session.project()
    before = None
    while True:
        found = commands.measure(
            project, release=release, source=source, target=target, before=before
        )
        session.show(found, lambda found=found: render.measured(found))  # type: ignore[misc]
        if found.job.state in ENDED:
            return
        before = found
        time.sleep(every)


def watch_copies(
    session: Session, release: str | None, source: str | None, target: str | None
) -> None:
    """Prove what is copied until the job has ended; how far it is, on standard error."""
    with session.reporting() as report:
        found = commands.watch_copies(
            session.project(),
            release=release,
            source=source,
            target=target,
            on_round=lambda watched: report("verified", watched.found.target_events, 0),
        )
    session.show(
        found,
        lambda: (
            f"job {found.job.job_id[:8]}: {found.job.state.value}; "
            f"{found.found.target_events:,} events derived anew and equal"
        ),
    )


def keep_up(
    session: Session,
    project: Project,
    release: str | None,
    source: str | None,
    target: str | None,
    quarantine: bool,
    batch_size: int | None,
) -> None:
    """Follow until the job has ended, telling what happens on standard error."""

    def on_event(what: str, why: str) -> None:
        session.err.print(f"{what}{': ' if why else ''}{why}")

    found = commands.keep_up(
        project,
        release=release,
        source=source,
        target=target,
        quarantine=quarantine,
        batch_size=batch_size,
        on_event=on_event,
    )
    session.show(found, lambda: f"job {found.job_id[:8]}: {found.state.value}")


def _waiting(session: Session) -> Callable[[str], None]:
    said = ""

    def on_wait(why: str) -> None:
        nonlocal said
        if why != said and not session.quiet:
            session.err.print(f"waiting: {why}")
        said = why

    return on_wait
