"""Plans: what a job would do, with counts and samples before and after. Pure; writes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from eventmig.codec import decode, encode
from eventmig.drafts import Draft
from eventmig.errors import CodecError, UpcastError
from eventmig.events import Event, TypeCount
from eventmig.steps import Dropped, Upcaster
from eventmig.transform import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedType:
    """One (type, schema version) of the source: how many, and the steps it takes.

    A type that is not `registered` passes through as it is.

    `outcome` is "copy", "upcast", "split", "drop", or "refuse" where the release does
    not know the version.
    """

    type: str
    schema_version: int
    events: int
    outcome: str
    steps: tuple[str, ...] = ()
    registered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A stream or store step of the release, and what it is for."""

    name: str
    streams: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One stored event before and after; `error` instead where a step failed."""

    event: Event
    before: str
    after: tuple[str, ...] = ()
    error: str = ""

    @property
    def diff(self) -> tuple[str, ...]:
        """A readable line diff from before to the first event after, without headers."""
        after = "\n".join(self.after)
        lines = difflib.unified_diff(self.before.splitlines(), after.splitlines(), lineterm="", n=2)
        return tuple(line for line in lines if not line.startswith(("---", "+++", "@@")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a job to `release` would do to the source as it is now.

    `left_behind` says what of the owner's it does not copy: snapshots, and streams left out.
    """

    release: str
    source: str
    target: str
    events: int
    types: tuple[PlannedType, ...]
    steps: tuple[PlannedStep, ...]
    samples: tuple[Sample, ...]
    left_behind: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What would stop the job, as far as the counts and samples show."""
        refused = [
            f"{t.events} events of {t.type} v{t.schema_version}, which this release does not know"
            for t in self.types
            if t.outcome == "refuse"
        ]
        return (*refused, *(s.error for s in self.samples if s.error))

    def count(self, outcome: str) -> int:
        """How many events have this outcome."""
        return sum(t.events for t in self.types if t.outcome == outcome)


def make_plan(
    pipeline: Pipeline,
    counts: Sequence[TypeCount],
    samples: Iterable[Event],
    *,
    source: str,
    target: str,
) -> Plan:
    """The plan for a source with these counts; `samples` are upcast to show what changes.

    Source and target are names for people.
    """
    steps = [
        *(PlannedStep(name=s.name, streams=s.streams, why=s.why) for s in pipeline.stream_steps),
        *(
            PlannedStep(name=r.name, streams=f"{r.streams} → {r.to}", why=r.why)
            for r in pipeline.routes
        ),
    ]
    return Plan(
        release=pipeline.release,
        source=source,
        target=target,
        events=sum(c.count for c in counts),
        types=tuple(_planned(pipeline, count) for count in counts),
        steps=tuple(steps),
        samples=tuple(_sample(pipeline, event) for event in samples),
    )


def _planned(pipeline: Pipeline, count: TypeCount) -> PlannedType:
    outcome, names = "refuse", tuple[str, ...]()
    try:
        path = pipeline.chains.goal.path((count.type, count.schema_version))
        outcome, names = _outcome(path), tuple(step.name for step in path)
    except UpcastError:
        pass
    return PlannedType(
        type=count.type,
        schema_version=count.schema_version,
        events=count.count,
        outcome=outcome,
        steps=names,
        registered=count.type in pipeline.chains.goal.current
        or count.type in pipeline.chains.goal.retired,
    )


def _outcome(path: list[Upcaster]) -> str:
    if not path:
        return "copy"
    if path[-1].to is not None:
        return "upcast"
    return "drop" if isinstance(path[-1].outcome, Dropped) else "split"


def _sample(pipeline: Pipeline, event: Event) -> Sample:
    before = pretty(event.type, event.schema_version, event.data)
    try:
        drafts = pipeline.chains.walk(event)
    except UpcastError as error:
        return Sample(event=event, before=before, error=str(error))
    return Sample(event=event, before=before, after=tuple(map(pretty_draft, drafts)))


def pretty_draft(draft: Draft) -> str:
    """A draft as text for people."""
    return pretty(draft.type, draft.schema_version, draft.data)


def pretty(type: str, version: int, data: bytes) -> str:
    """Type, version, and the data as indented JSON (as it is, where it is no JSON)."""
    try:
        body = msgspec.json.format(encode(decode(data)), indent=2).decode()
    except CodecError:
        body = data.decode("utf-8", "backslashreplace")
    return f"{type} v{version}\n{body}"
