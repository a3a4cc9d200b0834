"""Results as text for people, for a terminal of 80 columns or more."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from eventmig import commands
from eventmig.check import CheckReport
from eventmig.cli.render_rebuilds import rebuilt
from eventmig.cli.tables import table as _table
from eventmig.demo import Stage
from eventmig.errors import EventmigError
from eventmig.migrate.ledger import Quarantined
from eventmig.migrate.pushdown import Pushed
from eventmig.migrate.states import State
from eventmig.migrate.tally import Fate, Tally
from eventmig.ops.base import Loss
from eventmig.plan import Plan, PlannedType, Sample


def some(count: int, thing: str) -> str:
    """A number of things, in words: `1 step`, `2,000 steps`."""
    plural = "es" if thing.endswith("ch") else "s"
    return f"{count:,} {thing}{'' if count == 1 else plural}"


def error(found: EventmigError) -> RenderableType:
    """An error: what happened, where, what to do."""
    text = Text()
    text.append("error: ", style="bold red")
    text.append(found.what)
    where = str(found.where)
    if where:
        text.append(f"\n  where:  {where}", style="dim")
    if found.remedy:
        text.append("\n  remedy: ")
        text.append(found.remedy, style="green")
    for note in getattr(found, "__notes__", []):
        text.append(f"\n  note:   {note}")
    return text


def plan(found: Plan, *, samples: int | None = None) -> RenderableType:
    """A plan: what happens to which types, the steps, and samples as diffs (the first few)."""
    head = Text.assemble(
        ("plan", "bold"),
        f" for release {found.release}: {found.events:,} events\n",
        f"  from {found.source}\n  to   {found.target}",
    )
    table = _table("type", "v", "events", "what", "steps", numbers=("v", "events"))
    for planned in found.types:
        table.add_row(
            planned.type,
            str(planned.schema_version),
            f"{planned.events:,}",
            Text(
                planned.outcome if planned.registered else f"{planned.outcome} (not registered)",
                style=_OUTCOME_STYLE.get(planned.outcome, ""),
            ),
            _steps_of(planned),
        )
    parts: list[RenderableType] = [head, "", table]
    if found.steps:
        steps = _table("stream and store steps", "streams", "why")
        for step in found.steps:
            steps.add_row(step.name, step.streams, step.why)
        parts += ["", steps]
    for sample in found.samples[:samples]:
        parts += ["", _sample(sample)]
    if samples is not None and len(found.samples) > samples:
        parts += ["", Text(f"… and {len(found.samples) - samples} more samples", style="dim")]
    if found.problems:
        parts += [
            "",
            Text(f"{some(len(found.problems), 'problem')} would stop the job:", style="bold red"),
        ]
        parts += [Padding(Text(problem), (0, 0, 0, 2), expand=False) for problem in found.problems]
    parts += [Text(f"{one} stay behind") for one in found.left_behind]
    counts = ", ".join(f"{found.count(o):,} {o}" for o in ("copy", "upcast", "split", "drop"))
    parts += ["", Text(f"{counts}; nothing was written", style="dim")]
    return Group(*parts)


_OUTCOME_STYLE = {"upcast": "cyan", "split": "magenta", "drop": "yellow", "refuse": "bold red"}


def _steps_of(planned: PlannedType) -> str:
    return ", ".join(name.removeprefix(f"{planned.type} ") for name in planned.steps)


def _sample(sample: Sample) -> RenderableType:
    event = sample.event
    head = Text(
        f"{event.type} v{event.schema_version}, {event.stream} at {event.stream_position}",
        style="bold",
    )
    if sample.error:
        return Group(head, Text(sample.error, style="red"))
    if not sample.after:
        return Group(head, Text("- the whole event", style="yellow"))
    lines = Text()
    for line in sample.diff:
        style = {"-": "red", "+": "green"}.get(line[:1], "dim")
        lines.append(line + "\n", style=style)
    lines.rstrip()
    return Group(head, lines)


def job(found: commands.JobReport) -> RenderableType:
    """A job as it stands, with its accounting and what verification found."""
    it = found.job
    style = {"ready": "bold green", "failed": "bold red", "paused": "yellow"}.get(it.state, "cyan")
    head = Text.assemble(
        ("job ", "bold"),
        f"{it.job_id[:8]}, release {it.release}: ",
        (it.state.value, style),
        f" ({it.reason})" if it.reason else "",
        " [resumed]" if found.resumed else "",
        " [a process works on it]" if found.running else "",
        _NOBODY
        if not found.running and it.state in _WORKING and found.verification is None
        else "",
    )
    lines = Text(f"  from {it.source}\n  to   {found.target}")
    parts: list[RenderableType] = [head, lines, tally(it.tally)]
    if found.pushed is not None and not found.pushed.why_not:
        parts.append(pushed(found.pushed))
    if found.verification is not None:
        parts.append(verification(found))
    if found.held_up is not None:
        parts.append(Text(f"  {found.held_up}\n  {found.held_up.remedy}", style="yellow"))
    parts += [Text(f"  {one} stay behind") for one in found.left_behind]
    parts += [
        Text(f"  in the target are {one}, not of this job: `rebuild --snapshots`", style="yellow")
        for one in found.in_target
    ]
    return Group(*parts)


def pushed(found: Pushed) -> RenderableType:
    """Which way the batches of a run went."""
    lines = [f"  inside the database: {some(found.inside, 'batch')}"]
    for reason, count in found.reasons.items():
        lines.append(f"  through Python: {some(count, 'batch')} ({reason})")
    return Text("\n".join(lines))


_WORKING = frozenset({State.PLANNED, State.BACKFILLING, State.CATCHING_UP, State.VERIFYING})
_NOBODY = " [no process works on it; `eventmig upcast` resumes it]"


def tally(found: Tally) -> RenderableType:
    """The accounting: one line that adds up."""
    fates = " + ".join(
        f"{getattr(found, fate.value):,} {fate.value}"
        for fate in Fate
        if getattr(found, fate.value)
    )
    text = Text(f"  {found.read:,} read = {fates or '0'}; {found.written:,} written")
    for rule, count in sorted(found.dropped_by.items()):
        text.append(f"\n  {count:,} dropped by {rule}", style="yellow")
    return text


def verification(found: commands.JobReport) -> RenderableType:
    """What a verification compared, and the first mismatches."""
    it = found.verification
    assert it is not None
    if it.right:
        return Text(
            f"  verified: {it.target_events:,} events derived anew and equal, "
            f"{it.streams_hashed:,} streams hashed, 0 mismatches"
            if it.target_events
            else f"  verified: {it.streams_hashed:,} streams as when last verified, 0 mismatches",
            style="green",
        )
    text = Text(f"  {it.mismatches:,} mismatches", style="bold red")
    for mismatch in it.shown:
        text.append(f"\n  - {mismatch}", style="red")
    if it.mismatches > len(it.shown):
        text.append(f"\n  … and {it.mismatches - len(it.shown):,} more", style="red")
    return text


def check(found: CheckReport) -> RenderableType:
    """What a check found, each with what to do."""
    parts: list[RenderableType] = []
    for finding in found.findings:
        text = Text.assemble(("✗ ", "bold red"), (finding.about, "bold"), f": {finding.what}")
        text.append(f"\n  remedy: {finding.remedy}", style="green")
        parts.append(text)
    looked = ", ".join(
        (
            some(found.types, "type"),
            some(found.steps, "step"),
            some(found.schemas, "schema"),
            some(found.examples, "random event"),
        )
    )
    losses = [
        f"{sum(1 for v in found.ways_back.values() if v is loss)} {loss.value}" for loss in Loss
    ]
    for warning in found.warnings:
        text = Text.assemble(("! ", "bold yellow"), (warning.about, "bold"), f": {warning.what}")
        text.append(f"\n  remedy: {warning.remedy}", style="green")
        parts.append(text)
    if found.right:
        parts.append(Text(f"✓ sound: {looked}", style="green"))
    else:
        count = len(found.findings)
        parts.append(Text(f"{count} to mend; looked at {looked}", style="red"))
    parts.append(Text(f"  ways back: {', '.join(losses)}", style="dim"))
    if found.unreleased:
        parts.append(
            Text(
                f"  not released yet: upcasters from {', '.join(found.unreleased)}", style="yellow"
            )
        )
    return Group(*parts)


def history(found: Sequence[commands.JobHistory]) -> RenderableType:
    """Every job with the states it entered."""
    if not found:
        return Text("no job yet; begin one with `eventmig upcast`")
    table = _table("job", "release", "state", "since", "why")
    for entry in found:
        for number, transition in enumerate(entry.transitions):
            table.add_row(
                entry.job.job_id[:8] if number == 0 else "",
                entry.job.release if number == 0 else "",
                transition.state.value,
                transition.at,
                transition.reason,
            )
    return table


def current(found: commands.Current) -> RenderableType:
    """What a store holds, and the release it is at."""
    at = (
        f"release {found.release} ({found.state})"
        if found.release
        else "no job made it: it is as applications wrote it"
    )
    table = _table("type", "v", "events", numbers=("v", "events"))
    for type_, version, count in found.types:
        table.add_row(type_, str(version), f"{count:,}")
    return Group(Text(f"{found.store}: {found.events:,} events; {at}"), table)


def shown(found: Sequence[commands.Shown]) -> RenderableType:
    """Events before and after each step."""
    parts: list[RenderableType] = []
    for it in found:
        event = it.event
        parts.append(
            Text(
                f"{event.stream} at {event.stream_position} ({event.id}, {event.recorded_text})",
                style="bold",
            )
        )
        parts.append(Padding(Text(it.before), (0, 0, 0, 2), expand=False))
        for name, texts in it.after:
            parts.append(Text(f"  after {name}:", style="cyan"))
            parts += [Padding(Text(text), (0, 0, 0, 2), expand=False) for text in texts]
            if not texts:
                parts.append(Text("  (nothing is left of it)", style="yellow"))
        if it.error:
            parts.append(Text(it.error, style="red"))
        parts.append(Text(""))
    return Group(*parts)


def quarantine(found: Sequence[Quarantined], *, whole: bool) -> RenderableType:
    """The events set aside; with `whole`, their data too."""
    if not found:
        return Text("nothing is in quarantine", style="green")
    if not whole:
        table = _table("id", "stream", "at", "type", "v", "what", numbers=("at", "v"))
        for q in found:
            e = q.event
            table.add_row(
                e.id, e.stream, str(e.stream_position), e.type, str(e.schema_version), q.what
            )
        return table
    parts: list[RenderableType] = []
    for q in found:
        e = q.event
        head = Text(
            f"{e.type} v{e.schema_version}, {e.stream} at {e.stream_position}, {e.id}", style="bold"
        )
        reason = Text.assemble((q.what, "red"), f"\n  where:  {q.where}", ("\n  remedy: ", ""))
        reason.append(q.remedy, style="green")
        parts += [head, reason]
        data = Text(q.event.data.decode("utf-8", "backslashreplace"))
        parts.append(Padding(data, (0, 0, 1, 2), expand=False))
    return Group(*parts)


_DEMO_SAMPLES = 4


def stage(found: Stage) -> RenderableType:
    """One stage of the demo: the command, and what it printed."""
    head = Text.assemble(
        ("\n$ " if found.command.startswith("eventmig") else "\n", "dim"),
        (found.command, "bold"),
        (f"  ({found.seconds:.1f} s)", "dim"),
    )
    match found.result:
        case Plan() as it:
            return Group(head, plan(it, samples=_DEMO_SAMPLES))
        case commands.JobReport() as it:
            return Group(head, job(it))
        case commands.RebuildReport() as it:
            return Group(head, rebuilt(it))
    return head


def demo_summary(stages: Sequence[Stage]) -> RenderableType:
    """What the whole demo did, in a few lines with the numbers."""
    results = [s.result for s in stages]
    jobs = [r for r in results if isinstance(r, commands.JobReport)]
    rebuilds = [r for r in results if isinstance(r, commands.RebuildReport)]
    text = Text("\nin short\n", style="bold")
    if jobs:
        it = jobs[-1]
        tally_ = it.job.tally
        text.append(
            f"  {tally_.read:,} events of the old release became {tally_.written:,} of release "
            f"{it.job.release}: {tally_.copied:,} copied byte for byte, {tally_.upcast:,} upcast, "
            f"{tally_.split:,} split, {tally_.merged:,} merged, {tally_.dropped:,} dropped by "
            "rule\n",
            style="not bold",
        )
        if it.verification is not None:
            text.append(
                f"  every one derived anew and compared: {it.verification.mismatches} mismatches\n",
                style="green",
            )
    for rebuild in rebuilds:
        rows = sum(sum(r.rows.values()) for r in rebuild.results)
        text.append(
            f"  {len(rebuild.results)} read models and aggregates rebuilt: {rows:,} rows\n",
            style="not bold",
        )
    total = sum(s.seconds for s in stages)
    text.append(f"  {total:.1f} seconds in all; the source was only read", style="dim")
    return text
