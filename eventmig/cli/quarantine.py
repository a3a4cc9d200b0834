"""Commands about the events that a job set aside."""

from __future__ import annotations

from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import render
from eventmig.cli.exits import ExitCode
from eventmig.cli.options import Json, Release, Source, Target
from eventmig.cli.session import begin


def list_(release: Release = None, target: Target = None, json: Json = False) -> None:
    """List the events that a target's job set aside."""
    session = begin(json)
    found = commands.quarantined(session.project(), release=release, target=target)
    session.show(found, lambda: render.quarantine(found, whole=False))


def show(
    event_id: Annotated[str, typer.Argument(help="The event's id, as `list` shows it.")],
    release: Release = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Show one event that was set aside, with its data and what was wrong."""
    session = begin(json)
    found = [
        q
        for q in commands.quarantined(session.project(), release=release, target=target)
        if q.event.id == event_id
    ]
    if not found:
        raise typer.BadParameter(f"no event {event_id} is in quarantine", param_hint="EVENT_ID")
    session.show(found[0], lambda: render.quarantine(found, whole=True))


def retry(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Try the events set aside again; if all pass, copy on from before the first of them."""
    session = begin(json)
    with session.job_reporting() as on_progress:
        failing, report = commands.retry_quarantined(
            session.project(),
            release=release,
            source=source,
            target=target,
            on_progress=on_progress,
        )
    if report is not None:
        session.show(report, lambda: render.job(report))
        return
    session.show(failing, lambda: render.quarantine(failing, whole=False))
    raise typer.Exit(ExitCode.FOUND)
