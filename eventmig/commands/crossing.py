"""Cut-over, reverse, complete: the commands that take an application across."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eventmig.commands.holding import check_before, checks, held
from eventmig.commands.outdating import Marks, marks_of
from eventmig.drafts import Draft
from eventmig.errors import CrossingError, EventmigError, UpcastError, Where
from eventmig.events import Event
from eventmig.export import export_line
from eventmig.files import write_atomically
from eventmig.hooks import run_hook
from eventmig.migrate import ledger
from eventmig.migrate.crossing import CUT_OVER, REVERSE, Crossing, cross
from eventmig.migrate.follow import Follower, Stop
from eventmig.migrate.ledger import Job, Quarantined
from eventmig.migrate.sides import Sides, take_steps
from eventmig.migrate.states import Side, State, Switch, live_side
from eventmig.ops.base import Loss
from eventmig.project import Project, public
from eventmig.stores.base import JobTarget
from eventmig.stores.held_up import HeldUp, held_up
from eventmig.ways_back import WayBack

_SAMPLED = 50
_LEAST_LAG_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeBack:
    """The way back of one type and version of the new side.

    `events` are stored there; `tried` of them were taken back and compared with the event
    they came from, and `unequal` were not the same (some loss is allowed where it is LOSSY).
    """

    way: WayBack
    events: int
    tried: int
    unequal: int

    @property
    def problem(self) -> str:
        """What is not as the registry claims; empty where nothing is."""
        if self.unequal and self.way.loss is Loss.EXACT:
            return f"claims to be exact, and {self.unequal} of {self.tried} came back other"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossingReport:
    """A crossing: the job afterwards, how long writers stood still (seconds), the ways back.

    With `dry_run` nothing was changed; `already` says that the application was across before
    this call, which then only finished what an interrupted one had left. `left_behind` are
    events without a way back. `outdated` are live read models and snapshots that must be rebuilt:
    they were made of the tables that had the name before. `hook_failed` says what went wrong with
    the after-hook, which takes nothing back: the same call made again runs it again.
    `held_up` is what the crossing would have to wait for, with `dry_run`.
    """

    crossing: str
    job: Job
    target: str
    switch: Switch
    dry_run: bool = False
    already: bool = False
    stood_still_s: float = 0.0
    lag_events: int = 0
    ways: tuple[TypeBack, ...] = ()
    left_behind: int = 0
    outdated: tuple[str, ...] = ()
    hook_failed: str = ""
    held_up: HeldUp | None = None


def cutover(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    switch: Switch | None = None,
    dry_run: bool = False,
    when_lag_below: float = _LEAST_LAG_S,
    postpone_file: Path | None = None,
    budget_s: float = 10.0,
    on_wait: Callable[[str], None] = lambda why: None,
) -> CrossingReport:
    """Take the application to the new side: catch up, prove, shut the writers out, switch.

    Waits until the lag is below `when_lag_below` seconds, and as long as `postpone_file` is
    there or `postpone` was asked for. Where it cannot be done within `budget_s` seconds the
    writers go on where they were, and `CrossingError` says why. Where the application is across
    already it stays there: a call that was interrupted, or whose answer was lost, is made again.
    Reads and writes both sides; with `dry_run` it only looks.
    """
    name = project.release(release).name
    urls = (project.url("source", source, name), project.url("target", target, name))
    with held(
        project, release=release, source=source, target=target, switch=switch, budget_s=budget_s
    ) as (sides, writer):
        if not dry_run and (crossed := _crossed_before(sides, writer, CUT_OVER)):
            outdated = _marks(project, sides, urls).outdated(Side.NEW)
            failed = _tell_across(project, sides, "cutover", crossed.stood_still_s, already=True)
            return replace(crossed, outdated=outdated, hook_failed=failed)
        _check_windows(sides, writer)
        sides.check_switch()
        follower = Follower(
            sides,
            writer,
            checks=checks(project, sides.side(Side.OLD)),
            until_lag_below_s=when_lag_below,
            on_wait=on_wait,
        )
        if not dry_run:
            check_before(
                sides.job,
                writer,
                *(State.READY, State.CATCHING_UP, State.VERIFYING, State.BACKFILLING),
                *(State.PAUSED, State.THROTTLED, State.REVERSED, State.FAILED),
            )
            _wait_for(follower, sides, writer, postpone_file, on_wait)
        ways = survey(sides)
        for back in ways:
            if back.problem:
                raise CrossingError(
                    f"{back.way.type} v{back.way.schema_version}: its way back {back.problem}",
                    where=Where(store=writer.url),
                    remedy="mend the downcaster, or declare it lossy",
                )
        lag, outdated, failed = _lag_events(sides), tuple[str, ...](), ""
        waits_for = held_up(sides.side(Side.OLD))
        if not dry_run:
            check_before(sides.job, writer, State.READY)
            _say(waits_for, on_wait)
            outdated, failed = _take(project, sides, CUT_OVER, "cutover", urls)
        return CrossingReport(
            crossing=CUT_OVER.name,
            job=sides.job,
            target=public(writer.url),
            switch=sides.plan.switch,
            dry_run=dry_run,
            stood_still_s=sides.stood_still_s,
            lag_events=lag,
            held_up=waits_for if dry_run else None,
            ways=tuple(ways),
            outdated=outdated,
            hook_failed=failed,
        )


def reverse(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    export: Path | None = None,
    budget_s: float = 10.0,
    on_wait: Callable[[str], None] = lambda why: None,
) -> CrossingReport:
    """Take the application back to the old side, with all it appended since.

    Events without a way back are written to the JSON Lines file `export`, and stay behind;
    without that file nothing is changed, and `CrossingError` counts them. Where the application
    is back already it stays there, as with `cutover`.
    """
    name = project.release(release).name
    urls = (project.url("source", source, name), project.url("target", target, name))
    with held(project, release=release, source=source, target=target, budget_s=budget_s) as (
        sides,
        writer,
    ):
        if crossed := _crossed_before(sides, writer, REVERSE):
            back = sides.copier(Side.NEW)
            if export is not None:
                _leave_behind(sides, writer, export)
            outdated = _marks(project, sides, urls).outdated(Side.OLD)
            failed = _tell_across(project, sides, "reverse", crossed.stood_still_s, already=True)
            left = back.job.tally.quarantined
            return replace(crossed, left_behind=left, outdated=outdated, hook_failed=failed)
        check_before(sides.job, writer, State.REVERSE_WINDOW)
        sides.check_switch()
        back = sides.copier(Side.NEW)
        back.follow(sides.side(Side.NEW).head_position())
        sides.verify_tail(Side.NEW)
        _leave_behind(sides, writer, export)
        seen = back.job.tally.quarantined
        sides.may_leave_behind = export is not None
        _say(held_up(sides.side(Side.NEW)), on_wait)
        outdated, failed = _take(project, sides, REVERSE, "reverse", urls)
        left = back.job.tally.quarantined
        if export is not None and left > seen:  # appended while we looked
            _leave_behind(sides, writer, export, held_by=back.job)
        return CrossingReport(
            crossing=REVERSE.name,
            job=sides.job,
            target=public(writer.url),
            switch=sides.plan.switch,
            stood_still_s=sides.stood_still_s,
            left_behind=left,
            outdated=outdated,
            hook_failed=failed,
        )


# the ways back ----------------------------------------------------------------------------------


def survey(sides: Sides) -> list[TypeBack]:
    """The way back of every type the new side holds, tried on some stored events. Reads only."""
    new, old = sides.side(Side.NEW), sides.side(Side.OLD)
    stored = {(t.type, t.schema_version): t.count for t in new.type_counts()}
    current = sides.plan.forth.chains.goal.current.items()
    found = []
    for way in sides.plan.back.ways([*stored, *current]):
        version = (way.type, way.schema_version)
        tried = [] if way.to is None else _tried(sides, old, new.examples(*version, _SAMPLED))
        found.append(
            TypeBack(
                way=way,
                events=stored.get(version, 0),
                tried=len(tried),
                unequal=tried.count(False),
            )
        )
    return found


def _tried(sides: Sides, old: JobTarget, events: Iterable[Event]) -> list[bool]:
    """For each event that one source event became: whether the way back makes it again."""
    equal = []
    for event in events:
        if len(event.origins) != 1 or event.origins[0].ordinal:
            continue
        stream, position, _ = event.origins[0]
        source = next(iter(old.read_stream(stream, first=position, last=position)), None)
        if source is None:
            continue
        try:
            forth = sides.plan.forth.chains.plain(source)
            back = sides.plan.back.chains.plain(event)
        except UpcastError:
            equal.append(False)
            continue
        if len(forth) == 1:
            equal.append(_same(sides, back, source))
    return equal


def _same(sides: Sides, back: list[Draft], source: Event) -> bool:
    """Whether what came back and the source become the same on the way forth."""
    if len(back) != 1:
        return False
    forth = sides.plan.forth.chains.plain
    again = source._replace(
        type=back[0].type, schema_version=back[0].schema_version, data=back[0].data
    )
    return [draft.values() for draft in forth(again)] == [d.values() for d in forth(source)]


# parts ------------------------------------------------------------------------------------------


def _take(
    project: Project, sides: Sides, crossing: Crossing, name: str, urls: tuple[str, str]
) -> tuple[tuple[str, ...], str]:
    """Take the application across; returns which read models are outdated then, and what went
    wrong with the after-hook.
    """
    run_hook(project.config, f"before_{name}", context_of(sides.job))
    marks = _marks(project, sides, urls)
    sides.before_switch = lambda: marks.leave(crossing.leaves)
    try:
        take_steps(cross(sides, crossing))
    except EventmigError:
        if sides.job.state is crossing.back:
            marks.settle(crossing.leaves)
        raise
    marks.settle(crossing.enters)
    outdated = marks.outdated(crossing.enters)
    return outdated, _tell_across(project, sides, name, sides.stood_still_s, already=False)


def _marks(project: Project, sides: Sides, urls: tuple[str, str]) -> Marks:
    """Those that a crossing of these sides makes: none, but where the tables change names."""
    by_tables = sides.plan.switch is Switch.TABLES
    stores = (sides.side(Side.OLD), sides.side(Side.NEW))
    return marks_of(project, sides.job, stores, urls if by_tables else ())


def _tell_across(
    project: Project, sides: Sides, name: str, stood_still_s: float, *, already: bool
) -> str:
    """Run the after-hook: at least once per crossing, for each call that reports it does.

    Returns what went wrong with it.
    """
    context = {**context_of(sides.job), "stood_still_s": stood_still_s, "already": already}
    return run_hook(project.config, f"after_{name}", context)


def _crossed_before(sides: Sides, writer: JobTarget, crossing: Crossing) -> CrossingReport | None:
    """The report of a crossing that an earlier call took, where the job stands behind it."""
    with writer.reading() as connection:
        crossed = ledger.journal(connection, sides.job)
    if not crossed or crossed[-1].crossing != crossing.name:
        return None
    if live_side(sides.job.state) is not crossing.enters:
        return None
    return CrossingReport(
        crossing=crossing.name,
        job=sides.job,
        target=public(writer.url),
        switch=sides.plan.switch,
        already=True,
        stood_still_s=crossed[-1].stood_still_us / 1e6,
    )


def _wait_for(
    follower: Follower,
    sides: Sides,
    writer: JobTarget,
    postpone_file: Path | None,
    on_wait: Callable[[str], None],
) -> None:
    """Follow until it is time: the lag is low enough, and nothing postpones."""
    while follower.run() is not Stop.ENDED:
        with writer.reading() as connection:
            asked = ledger.controls(connection, sides.job)
        if postpone_file is not None and postpone_file.exists():
            why = f"postponed while {postpone_file} is there"
        elif asked.postponed:
            why = "postponed by command (`eventmig throttle --no-postpone` ends it)"
        else:
            return
        on_wait(why)
        time.sleep(0.2)


def _say(found: HeldUp | None, on_wait: Callable[[str], None]) -> None:
    if found is not None:
        on_wait(f"{found}; {found.remedy}")


def _check_windows(sides: Sides, writer: JobTarget) -> None:
    with writer.reading() as connection:
        windows = ledger.windows(connection, sides.job)
    if windows and sides.plan.forth.stream_steps:
        raise CrossingError(
            "this job was reversed, and it has stream steps: they would see events twice",
            where=Where(store=writer.url),
            remedy="cancel it and run it anew",
        )


def _lag_events(sides: Sides) -> int:
    old, seen = sides.side(Side.OLD), sides.copier(Side.OLD).job.source_position
    return old.count() - old.count(until=seen)


def _leave_behind(
    sides: Sides, writer: JobTarget, export: Path | None, held_by: Job | None = None
) -> None:
    """Write the events without a way back to a file; raises where there are some and no file."""
    back = held_by or sides.copier(Side.NEW).job
    with sides.back_ledger.reading() as connection:
        found: list[Quarantined] = list(ledger.quarantined(connection, back))
    if found and export is None:
        types = Counter(f"{q.event.type} v{q.event.schema_version}" for q in found)
        raise CrossingError(
            f"{len(found)} {'event has' if len(found) == 1 else 'events have'} no way back: "
            + ", ".join(f"{count} {name}" for name, count in sorted(types.items())),
            where=Where(store=writer.url),
            remedy="--export FILE writes them to a file and goes on without them",
        )
    if found and export is not None:
        write_atomically(export, b"".join(export_line(q.event) for q in found).decode())


def context_of(job: Job) -> dict[str, object]:
    """What hooks are told of a job."""
    return {
        "job_id": job.job_id,
        "release": job.release,
        "state": job.state.value,
        "reason": job.reason,
        "source": job.source,
    }
