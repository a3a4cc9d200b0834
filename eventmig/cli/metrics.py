"""The command that tells a monitoring system how a job and its read models are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eventmig.cli.options import ReadModels, Release, Source, Target
from eventmig.cli.session import Session, begin
from eventmig.errors import ConfigError, EventmigError
from eventmig.files import write_atomically

if TYPE_CHECKING:
    from eventmig.monitoring.meter import Meter


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Serve /metrics there, until interrupted."),
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write them to FILE, whole or not at all."),
    ] = None,
    every: Annotated[
        float | None, typer.Option(min=1, metavar="S", help="With a file: again every S seconds.")
    ] = None,
    release: Release = None,
    source: Source = None,
    target: Target = None,
    read_models: ReadModels = None,
) -> None:
    """Print the metrics of the job and the read models for Prometheus; or serve them."""
    if listen is not None and textfile is not None:
        raise typer.BadParameter("--listen and --textfile are two ways: name one of them")
    if every is not None and textfile is None:
        raise typer.BadParameter("--every goes with --textfile")
    place = None if listen is None else _place(listen)
    session = begin(json=False)
    meter = _meter(session, release, source, target, read_models)
    if place is not None:
        _serve(session, meter, *place)
    elif textfile is None:
        session.out.out(meter.text(), end="", highlight=False)
    else:
        write_atomically(textfile, meter.text())
        while every is not None:
            time.sleep(every)
            write_atomically(textfile, meter.text())


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) < 2**16:
        raise typer.BadParameter(f"{text!r} names no port; write 9187, or 0.0.0.0:9187")
    return host.strip("[]") or "127.0.0.1", int(port)


def _meter(
    session: Session,
    release: str | None,
    source: str | None,
    target: str | None,
    read_models: str | None,
) -> Meter:
    try:
        from eventmig.monitoring.meter import Asked, Meter
    except ImportError as error:
        raise ConfigError(
            "the client for Prometheus is not installed",
            remedy="install it: pip install 'eventmig[metrics]'",
        ) from error
    told: dict[str, str] = {}

    def tell(part: str, error: EventmigError) -> None:
        if told.get(part) != error.what:
            session.err.print(f"{part}: {error}", style="yellow", soft_wrap=True)
        told[part] = error.what

    asked = Asked(release=release, source=source, target=target, read_models=read_models)
    return Meter(session.project(), asked, tell)


def _serve(session: Session, meter: Meter, host: str, port: int) -> None:
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(port, host, meter.registry())
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error.strerror}",
            remedy="name another port: --listen 9188",
        ) from error
    session.err.print(f"serving http://{host}:{server.server_port}/metrics until interrupted")
    try:
        while True:
            time.sleep(3600)
    finally:
        server.shutdown()
        server.server_close()
