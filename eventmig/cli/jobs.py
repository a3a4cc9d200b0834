"""Commands about a target's job."""

from __future__ import annotations

from typing import Annotated

import typer

from eventmig import commands
from eventmig.cli import lifecycle, render
from eventmig.cli.exits import ExitCode
from eventmig.cli.options import Json, Naming, Release, Source, Target
from eventmig.cli.session import begin
from eventmig.migrate.states import CROSSED, State


def plan(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    naming: Naming = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Events shown before and after, per type and version.")
    ] = commands.SAMPLES_EACH,
    json: Json = False,
) -> None:
    """Show what a job would do: counts, steps, samples. Writes nothing."""
    session = begin(json)
    found = commands.plan(
        session.project(),
        release=release,
        source=source,
        target=target,
        naming=naming,
        samples=samples,
    )
    session.show(found, lambda: render.plan(found))
    if found.problems:
        raise typer.Exit(ExitCode.FOUND)


def upcast(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    naming: Naming = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Set failing events aside instead of stopping.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=2, help="2: a second process, or a second connection.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Events per transaction.")] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Then keep both sides in step, until the job is completed."),
    ] = False,
    pushdown: Annotated[
        commands.Pushdown,
        typer.Option(help="Run batches inside the database: where faster, always, or never."),
    ] = commands.Pushdown.AUTO,
    json: Json = False,
) -> None:
    """Rewrite the stored history to a release, verified. Resumes where it was stopped."""
    session = begin(json)
    project = session.project()
    if follow and commands.was_ready(project, release=release, target=target):
        lifecycle.keep_up(session, project, release, source, target, quarantine, batch_size)
        return
    with session.job_reporting() as on_progress:
        found = commands.upcast(
            project,
            release=release,
            source=source,
            target=target,
            naming=naming,
            quarantine=quarantine,
            workers=workers,
            batch_size=batch_size,
            pushdown=pushdown,
            on_progress=on_progress,
        )
    if follow and found.job.state is not State.PAUSED:
        lifecycle.keep_up(session, project, release, source, target, quarantine, batch_size)
        return
    session.show(found, lambda: render.job(found))
    if not found.ready and found.job.state not in CROSSED:
        raise typer.Exit(ExitCode.FOUND)


def verify(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    naming: Naming = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Heads and recorded hashes only, nothing derived.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=2, help="2: a second process takes half of it.")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Prove batch after batch as they come, until the job ends."),
    ] = False,
    json: Json = False,
) -> None:
    """Verify a target against its source: heads, every event derived anew, stream hashes."""
    session = begin(json)
    if follow:
        lifecycle.watch_copies(session, release, source, target)
        return
    with session.job_reporting() as on_progress:
        found = commands.verify(
            session.project(),
            release=release,
            source=source,
            target=target,
            naming=naming,
            derive=not quick,
            workers=workers,
            on_progress=on_progress,
        )
    session.show(found, lambda: render.job(found))
    assert found.verification is not None
    if not found.verification.right:
        raise typer.Exit(ExitCode.FOUND)


def status(
    release: Release = None,
    source: Source = None,
    target: Target = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Measure both sides again and again.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="S", help="Seconds between.")] = 1.0,
    json: Json = False,
) -> None:
    """Show where a target's job stands."""
    session = begin(json)
    if watch:
        lifecycle.watch(session, release, target, source, every)
        return
    found = commands.status(session.project(), release=release, target=target)
    session.show(found, lambda: render.job(found))


def history(release: Release = None, target: Target = None, json: Json = False) -> None:
    """List the jobs of a target's database and the states they went through."""
    session = begin(json)
    found = commands.history(session.project(), release=release, target=target)
    session.show(found, lambda: render.history(found))


def cancel(release: Release = None, target: Target = None, json: Json = False) -> None:
    """End a target's job and delete what it wrote. The source stays as it is."""
    session = begin(json)
    deleted = commands.cancel(session.project(), release=release, target=target)
    session.show({"deleted": deleted}, lambda: f"cancelled; {deleted:,} copied events deleted")
