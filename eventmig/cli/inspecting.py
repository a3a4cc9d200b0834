"""The command that looks at a database for the first time."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eventmig import commands
from eventmig.cli.exits import ExitCode
from eventmig.cli.left_behind import left_behind
from eventmig.cli.options import Json
from eventmig.cli.session import begin
from eventmig.events import Event

_WIDTH = 78


def inspect(
    url: Annotated[str, typer.Argument(help="URL of the database.")],
    layout: Annotated[
        str | None, typer.Option(help="The layout to read it with (default: the one that fits).")
    ] = None,
    json: Json = False,
) -> None:
    """Look at an existing database: its layout, ten events, what would be refused."""
    session = begin(json)
    found = commands.inspect(session.project(), url, layout=layout)
    session.show(found, lambda: text(found))
    if found.refused:
        raise typer.Exit(ExitCode.FOUND)


def text(found: commands.Inspection) -> RenderableType:
    """What was found, as text."""
    parts: list[RenderableType] = [_head(found), "", _types(found), ""]
    parts += [line for event in found.shown for line in _event(event)]
    if found.description is not None:
        parts += [
            "",
            Text("no preset fits; a description to begin with, for the configuration:"),
            Padding(Text(found.description.rstrip(), style="cyan"), (0, 0, 0, 2), expand=False),
        ]
    parts += ["", *_verdict(found)]
    return Group(*parts)


def _head(found: commands.Inspection) -> RenderableType:
    what = f"{found.layout}: {found.system}" if found.system else str(found.layout)
    if found.layout is None:
        what = "a store that eventmig made"
    elif found.table:
        what += f"; table {found.table}"
    head = Text.assemble((found.store, "bold"), f"\n  {what}")
    head.append(f"\n  {found.events:,} events in {found.streams:,} streams")
    if found.order:
        head.append(f"\n  read in the order of ({', '.join(found.order)})")
    if found.held_up is not None:
        head.append(f"\n  {found.held_up}\n  {found.held_up.remedy}", style="yellow")
    if found.others:
        head.append(f"\n  would fit too: {', '.join(found.others)}", style="dim")
    return head


def _types(found: commands.Inspection) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("type", overflow="fold")
    table.add_column("v", justify="right")
    table.add_column("events", justify="right")
    for type_, version, count in found.types:
        table.add_row(type_, str(version), f"{count:,}")
    return table


def _event(event: Event) -> list[RenderableType]:
    time = event.recorded_text.partition("+")[0].partition(".")[0].replace("T", " ")
    head = Text(overflow="fold")
    head.append(f"{event.type} v{event.schema_version}", "bold")
    head.append(f", {event.stream} at {event.stream_position}, {time}")
    data = Text(f"  {event.data.decode('utf-8', 'backslashreplace')}", style="dim")
    data.truncate(_WIDTH, overflow="ellipsis")
    return [head, data]


def _verdict(found: commands.Inspection) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if found.refused:
        lines.append(Text("a job would refuse:", style="bold red"))
        lines += [Padding(Text(why), (0, 0, 0, 2), expand=False) for why in found.refused]
    else:
        lines.append(Text(f"nothing in the first {commands.EVENTS_TRIED:,} events is refused"))
    if found.writable:
        lines.append(Text("a job can write such a store"))
    else:
        lines.append(Text(f"such a store is only read: {found.why_not}", style="yellow"))
    lines += left_behind(found.left_behind, found.snapshot_form)
    if found.side_by_side:
        lines.append(Text(f"old and new side by side: {' '.join(found.side_by_side.split())}"))
    if found.proof:
        lines.append(Text(f"read back by: {' '.join(found.proof.split())}"))
    lines.append(Text(f'for the configuration: source = "{found.source}"', style="green"))
    return lines
