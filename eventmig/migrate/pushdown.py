"""Batches that run inside the database: which can, what they become, and what was counted.

A batch can where source and target stand in one database and every step is ops that SQL
can say (`ops.sql`). It goes the Python way, whole, where one of its events would come out
otherwise: then Python makes the result, or the error.

Nothing is believed of the database: what it made is read back in the same transaction and
validated by the very functions that validate in Python. The verifier afterwards does not
know which way a batch went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from eventmig.errors import JobError, UpcastError, Where
from eventmig.goal import Goal
from eventmig.migrate.tally import Tally
from eventmig.ops.base import Op
from eventmig.ops.sql import DIALECTS, expression
from eventmig.ops.sql_dialect import NoSql
from eventmig.steps import Rewrite, Version
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.pushing import (
    Change,
    Extent,
    NotPushedError,
    PushingTarget,
    PushingTransaction,
)
from eventmig.transform import Pipeline


class Pushdown(StrEnum):
    """Whether batches run inside the database: where that is faster, wherever possible, never.

    Faster it is in PostgreSQL over two connections; over one, Python is (docs/performance.md).
    """

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(slots=True)
class Pushed:
    """How many batches of this run went which way, and why some went through Python.

    `why_not` says why none was tried; "" where they were.
    """

    inside: int = 0
    through_python: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    why_not: str = ""

    def left(self, reason: str) -> None:
        """Count a batch that went the Python way."""
        self.through_python += 1
        self.reasons[reason] += 1


class Pusher:
    """Takes batches over inside the target's database; made by `pusher_for`.

    `targets` are the one target, opened once for each connection that may work on it.
    """

    def __init__(self, goal: Goal, target: PushingTarget, targets: Sequence[JobTarget]) -> None:
        self.counted = Pushed()
        self.targets = targets
        self._goal = goal
        self._dialect = target.dialect
        self._checks_text = target.checks_text
        self._known: dict[tuple[Version, ...], tuple[list[Change], Mapping[str, str | int]]] = {}

    def take(self, tx: PushingTransaction, after: int, extent: Extent, before: int) -> Tally:
        """Copy a run of source events after the target's position `before`; the accounting.

        Raises `NotPushedError` where it has to go the Python way, the transaction undone.
        """
        changes, values = self._changes(tuple(extent.counts))
        tx.append_pushed(after, extent, before, changes, values)
        count = sum(extent.counts.values())
        self._validate(tx, before, before + count, changes)
        copied = sum(
            extent.counts[change.source] for change in changes if self._goal.arrived(change.source)
        )
        return Tally(read=count, copied=copied, upcast=count - copied, written=count)

    def check(self, versions: Iterable[Version]) -> None:
        """Raise `NotPushedError` naming the first of these versions that SQL cannot upcast."""
        self._changes(tuple(versions))

    def _changes(
        self, versions: tuple[Version, ...]
    ) -> tuple[list[Change], Mapping[str, str | int]]:
        found = self._known.get(versions)
        if found is None:
            sql = DIALECTS[self._dialect]()
            changes = []
            for version in versions:
                end, ops = chain_of(self._goal, version)
                try:
                    data = expression(ops, "e.data", sql) if ops else None
                except NoSql as error:
                    raise NotPushedError(f"{_name(version)}: {error.args[0]}") from None
                changes.append(Change(version, end, data))
            found = self._known[versions] = changes, sql.values
        return found

    def _validate(
        self, tx: PushingTransaction, before: int, last: int, changes: list[Change]
    ) -> None:
        """What the Python way validates, on what is stored."""
        checks: dict[Version, Callable[[Sequence[bytes]], object]] = {}
        for change in changes:
            if self._goal.arrived(change.source):
                continue
            schema = self._goal.schemas.get(change.target)
            if schema is not None:
                checks[change.target] = schema.parse_many
            elif not self._checks_text and change.data is not None:
                checks[change.target] = _decode
        for type_, version, data in tx.pushed_data(before, last, checks) if checks else ():
            try:
                checks[type_, version](data)
            except Exception as error:
                name = _name((type_, version))
                raise NotPushedError(f"an event would not be a valid {name}") from error


def chain_of(goal: Goal, version: Version) -> tuple[Version, tuple[Op, ...]]:
    """Where a version ends, and all ops on the way; raises `NotPushedError` for other steps."""
    try:
        steps = goal.path(version)
    except UpcastError as error:
        raise NotPushedError(error.what) from None
    ops: list[Op] = []
    end = version
    for step in steps:
        if not isinstance(step.outcome, Rewrite) or step.to is None:
            raise NotPushedError(f"{step.name} does not leave one event one event")
        ops += step.outcome.ops
        end = step.to
    return end, tuple(ops)


def pusher_for(
    mode: Pushdown, source: EventReader, targets: Sequence[JobTarget], pipeline: Pipeline
) -> Pusher | str:
    """What takes batches over inside the database, or why that is not done.

    `targets` are one target, opened once for each worker. Reads both stores. Raises
    `JobError` with the reason where `mode` is ALWAYS.
    """
    target = targets[0]
    if mode is Pushdown.AUTO and len(targets) == 1 and _pushes_faster(target):
        return "with one worker it is faster through Python"  # docs/performance.md
    reason = next(filter(None, (_why_not(mode, source, t, pipeline) for t in targets)), "")
    if not reason and isinstance(target, PushingTarget):
        pusher = Pusher(pipeline.chains.goal, target, targets)
        try:
            pusher.check(pipeline.chains.goal.steps)
        except NotPushedError:  # does the source hold any of those? it takes a look at all of it
            try:
                pusher.check((c.type, c.schema_version) for c in source.type_counts())
            except NotPushedError as error:
                reason = str(error)
        if not reason:
            return pusher
    if mode is Pushdown.ALWAYS:
        raise JobError(
            f"the batches cannot run inside the database: {reason}",
            where=Where(store=target.url),
            remedy="leave --pushdown away: what can run there does where that is faster",
        )
    return reason


def may_push(mode: Pushdown, store: EventReader) -> bool:
    """Whether a second connection to this target, or one of its kind, may be of use."""
    return mode is not Pushdown.NEVER and _pushes_faster(store)


def _pushes_faster(store: EventReader) -> bool:
    return isinstance(store, PushingTarget) and store.pushes_faster


def _why_not(mode: Pushdown, source: EventReader, target: JobTarget, pipeline: Pipeline) -> str:
    if mode is Pushdown.NEVER:
        return "it was not asked for"
    if not isinstance(target, PushingTarget):
        return "this kind of target cannot"
    if mode is Pushdown.AUTO and not target.pushes_faster:
        return "through Python it is faster"
    if pipeline.stream_steps:
        return f"the step {pipeline.stream_steps[0].name} needs whole streams"
    if pipeline.routes:
        return f"the route {pipeline.routes[0].name} looks at single events"
    if pipeline.naming != "{stream}":
        return f"the naming {pipeline.naming} gives streams other names"
    if source.id_scope() == target.id_scope():
        return "source and target are the same tables, so that events need other ids"
    if source.first_position != target.first_position:
        return "source and target count streams from different numbers"
    return target.why_not_pushed(source)


def _decode(data: Sequence[bytes]) -> None:
    for text in data:
        text.decode()


def _name(version: Version) -> str:
    return f"{version[0]} v{version[1]}"
