"""Results of the commands about read models and snapshots, as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from eventmig import commands
from eventmig.cli.tables import table
from eventmig.rebuild.bookkeeping import Kind
from eventmig.rebuild.comparing import RowDifference, TableDifference

_SHOWN = 10


def rebuilt(found: commands.RebuildReport) -> RenderableType:
    """What a rebuild made."""
    if not found.results and found.owners is None:
        return Text("nothing of what the project declares is to be rebuilt", style="yellow")
    made = table("name", "events", "rows", "generation", numbers=("events", "rows", "generation"))
    parts: list[RenderableType] = [made]
    for result in found.results:
        rows = sum(result.rows.values())
        made.add_row(result.name, f"{result.events_folded:,}", f"{rows:,}", str(result.generation))
        for event in result.quarantined[:_SHOWN]:
            parts.append(
                Text.assemble(
                    (f"{result.name}: ", "bold"),
                    f"{event.type} v{event.schema_version}, {event.stream} at "
                    f"{event.stream_position}, {event.event_id}\n  ",
                    (event.reason, "red"),
                )
            )
        if len(result.quarantined) > _SHOWN:
            parts.append(Text(f"{result.name}: and {len(result.quarantined) - _SHOWN:,} more"))
    parts += [
        Text(f"{result.name}: {result.events_summed:,} of the events were summed by the store")
        for result in found.results
        if result.events_summed
    ]
    parts += [
        Text(f"{result.name}: {result.stale:,} stale snapshots were replaced")
        for result in found.results
        if result.stale
    ]
    if found.owners is not None:
        parts += _owners(found.owners)
    if found.live:
        head = Text(f"rebuilt from {found.source} into {found.database}", style="green")
    else:
        head = Text(f"built from {found.source} in {found.database}; not swapped in:", style="red")
        count = sum(len(result.quarantined) for result in found.results)
        parts.append(
            Text(
                f"{count:,} set aside. Mend handlers or upcasters and rebuild, or swap in "
                "without them: --accept-quarantined",
                style="yellow",
            )
        )
    return Group(head, *parts)


def _owners(found: commands.OwnersSnapshots) -> list[RenderableType]:
    lines: list[RenderableType] = [
        Text(
            f"{one.name}: {one.written:,} snapshots of {one.streams:,} streams written into "
            f"{one.table} of {found.store}"
            + (f"; {one.replaced:,} old ones went" * bool(one.replaced))
        )
        for one in found.written
        if one.table
    ]
    if found.astray:
        lines.append(Text(f"{found.astray:,} snapshots that stood where no event is were deleted"))
    return lines + [Text(why, style="yellow") for why in found.why_not]


def followed(found: commands.FollowReport) -> RenderableType:
    """How far live read models were brought on."""
    made = table("name", "new events", "position", numbers=("new events", "position"))
    for one in found.results:
        made.add_row(one.name, f"{one.events:,}", f"{one.position:,}")
    head = f"brought up to date from {found.source} in {found.database}"
    return Group(Text(head, style="green"), made)


def projections(found: commands.ProjectionsReport) -> RenderableType:
    """Where read models and aggregates stand."""
    numbers = ("version", "live", "kept", "events", "behind")
    made = table("name", "kind", *numbers, "release", numbers=numbers)
    parts: list[RenderableType] = []
    for one in found.results:
        made.add_row(
            one.name,
            one.kind.value.replace("_", " "),
            str(one.version),
            _number(one.live),
            _number(one.kept),
            f"{one.events_folded:,}",
            _number(one.lag_events),
            one.release,
        )
        if one.building is not None:
            parts.append(Text(f"{one.name}: generation {one.building} is being built"))
        if one.quarantined:
            parts.append(
                Text(f"{one.name}: {one.quarantined:,} events are in quarantine", style="yellow")
            )
        if one.stale:
            remedy = "" if one.live is None else f" (`eventmig diff-readmodel {one.name}`)"
            remedy = remedy if one.kind is Kind.READ_MODEL else ""
            parts.append(Text(f"{one.name}: {one.stale}{remedy}", style="yellow"))
    head = f"made from {found.source} in {found.database}"
    return Group(Text(head, style="bold"), made, *parts)


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def differences(found: commands.DifferenceReport) -> RenderableType:
    """What rebuilds would change."""
    counts = ("added", "removed", "changed", "same")
    made = table("name", "table", *counts, numbers=counts)
    parts: list[RenderableType] = []
    for model in found.results:
        for one in model.tables:
            numbers = (one.added, one.removed, one.changed, one.same)
            made.add_row(model.name, one.table, *(f"{number:,}" for number in numbers))
            parts += _rows(one)
    if found.equal:
        return Group(made, Text("a rebuild would change nothing", style="green"))
    return Group(made, *parts)


def _rows(found: TableDifference) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if found.columns:
        names = ", ".join(found.columns)
        parts.append(Text(f"{found.table}: on one side only, not compared: {names}"))
    for row in found.examples:
        parts.append(_row(found.table, row))
    return parts


def _row(name: str, row: RowDifference) -> Text:
    text = Text.assemble((f"{name} ", "bold"), row.key)
    if row.live is not None:
        text.append(f"\n  - {_values(row.live)}", style="red")
    if row.rebuilt is not None:
        text.append(f"\n  + {_values(row.rebuilt)}", style="green")
    return text


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items()) or "(no other columns)"


def compared(found: commands.SnapshotReport) -> RenderableType:
    """What comparing snapshots with full replays came to."""
    numbers = ("checked", "stale", "wrong")
    made = table("name", *numbers, numbers=numbers)
    parts: list[RenderableType] = []
    named = [(one.aggregate, one) for one in found.results]
    named += [(f"{one.aggregate}, its owner's", one) for one in found.owners]
    for name, one in named:
        made.add_row(name, f"{one.checked:,}", f"{one.stale:,}", f"{len(one.mismatches):,}")
        for wrong in one.mismatches[:_SHOWN]:
            parts.append(
                Text.assemble(
                    (f"{wrong.stream} at {wrong.stream_position}: ", "bold"), (wrong.reason, "red")
                )
            )
    if not named:
        return Text("the project declares no aggregates: there are no snapshots", style="yellow")
    if found.stale:
        parts.append(Text("stale snapshots are not used; rebuild to have new ones", style="yellow"))
    return Group(made, *parts)
