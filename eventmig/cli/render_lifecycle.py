"""Crossings, settings and measurements as text for people, for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eventmig import commands
from eventmig.migrate.ledger import Controls
from eventmig.migrate.states import CROSSED, Side, Switch, live_side
from eventmig.ops.base import Loss

_LOSS_STYLE = {Loss.EXACT: "green", Loss.LOSSY: "yellow", Loss.ABSENT: "bold red"}
_LOSS_WORD = {Loss.EXACT: "lossless", Loss.LOSSY: "lossy", Loss.ABSENT: "impossible"}


def crossing(found: commands.CrossingReport) -> RenderableType:
    """A crossing that was done, or one that was only looked at."""
    job = found.job
    old, new = job.source, found.target
    if found.switch is Switch.TABLES and job.state in CROSSED:
        old, new = new, old
    parts: list[RenderableType] = [
        Text.assemble(
            ("job ", "bold"),
            f"{job.job_id[:8]}, release {job.release}: ",
            (job.state.value, "bold green"),
        ),
        Text(f"  old  {old}\n  new  {new}"),
    ]
    if found.dry_run:
        parts.append(
            f"  the {found.crossing} would be by {_by(found.switch)}; "
            f"lag: {found.lag_events:,} events"
        )
    else:
        parts.append(
            f"  crossed by {_by(found.switch)}; "
            f"writers stood still for {found.stood_still_s:.3f} s; live: {live_side(job.state)}"
        )
    if found.held_up is not None:
        parts.append(Text(f"  {found.held_up}\n  {found.held_up.remedy}", style="yellow"))
    if found.already:
        parts.append(Text("  it was across already; nothing was left to do", style="dim"))
    if found.outdated:
        names = ", ".join(found.outdated)
        said = f"  made of the tables that had the name before: {names}; rebuild them"
        parts.append(Text(said, style="yellow"))
    if found.left_behind:
        parts.append(
            Text(f"  {found.left_behind:,} events without a way back stayed", style="yellow")
        )
    if found.hook_failed:
        parts.append(_hook_failed(found.hook_failed))
    if found.ways:
        parts.append(ways(found.ways))
    if found.dry_run:
        parts.append(Text("nothing was changed", style="dim"))
    return Group(*parts)


def _hook_failed(why: str) -> Text:
    return Text(f"  {why}\n  make the same call again to run it again", style="yellow")


def ways(found: tuple[commands.TypeBack, ...]) -> RenderableType:
    """The way back of each type and version."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("type on the new side", overflow="fold")
    table.add_column("events", justify="right")
    table.add_column("way back")
    table.add_column("to", overflow="fold")
    table.add_column("tried", justify="right")
    for back in found:
        way = back.way
        table.add_row(
            f"{way.type} v{way.schema_version}",
            f"{back.events:,}",
            Text(_LOSS_WORD[way.loss], style=_LOSS_STYLE[way.loss]),
            "" if way.to is None else f"{way.to[0]} v{way.to[1]}",
            f"{back.tried - back.unequal} of {back.tried}" if back.tried else "",
        )
    return table


def completed(found: commands.Completed) -> RenderableType:
    """A job that is completed."""
    match found.dropped:
        case None:
            kept = "the old side was kept, closed"
        case 0:
            kept = "the old side holds no events any more"
        case count:
            kept = f"the old side's {count:,} events were dropped"
    lines = [Text(f"job {found.job.job_id[:8]}: {found.job.state.value}; {kept}")]
    rebuilt = found.kept
    if rebuilt is not None and rebuilt.names:
        said = (
            f"  {len(rebuilt.names)} kept generations of read models and snapshots were dropped in "
            f"{rebuilt.database}: {', '.join(rebuilt.names)}"
        )
        lines.append(Text(said))
    if rebuilt is not None and rebuilt.left:
        said = (
            f"  what rebuilds kept in {rebuilt.database} is still there: {rebuilt.left}\n"
            "  drop it later: `eventmig drop-kept --all`, or complete again"
        )
        lines.append(Text(said))
    if found.hook_failed:
        lines.append(_hook_failed(found.hook_failed))
    return Text("\n").join(lines)


def controls(found: Controls) -> RenderableType:
    """What is asked of a job."""
    return (
        f"paused: {_yes(found.paused)}; cut-over postponed: {_yes(found.postponed)}; "
        f"share of time: {found.share:g}; "
        f"batch size: {f'{found.batch_size:,}' if found.batch_size else 'as begun'}"
    )


def measured(found: commands.Measured) -> RenderableType:
    """A job at one moment."""
    it = found.job
    percent = f"{found.done / found.total:.1%}" if found.total else "–"
    lines = [
        f"{found.at:%H:%M:%S}  {it.state.value}"
        + (f" ({it.reason})" if it.reason else "")
        + ("" if found.running else "  [no process works on it]"),
        f"  live: {found.live or 'an operator must tell'}   "
        f"copied {found.done:,} of {found.total:,} ({percent})   "
        f"{_rate(found.events_per_s)} events/s   {_bytes(found.bytes_per_s)}/s",
        f"  lag {found.lag_events:,} events, {found.lag_s:.1f} s   "
        f"checkpoint {found.checkpoint_s:.0f} s ago   "
        f"ETA {'–' if found.eta_s is None else f'{found.eta_s:.0f} s'}",
        f"  quarantined {found.quarantined:,}   verified {found.verified:,}   "
        f"mismatches {found.mismatches:,}",
    ]
    if found.held_up is not None:
        lines += [f"  {found.held_up}", f"  {found.held_up.remedy}"]
    if found.throttled:
        lines.append(f"  throttled: {found.throttled}")
    if found.live is Side.NEW:
        unsafe = f"UNSAFE, {found.unsafe:,} events have none"
        lines.append(f"  way back: {unsafe if found.unsafe else 'safe'}")
    return Text("\n".join(lines))


def _by(switch: Switch) -> str:
    return {Switch.ROUTE: "a route", Switch.TABLES: "the tables' names"}[switch]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "– B"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
