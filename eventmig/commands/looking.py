"""Looking, without writing: plan, current, show."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from eventmig import plan as planning
from eventmig.drafts import Draft
from eventmig.errors import (
    JobError,
    StoreError,
    UpcastError,
    Where,
)
from eventmig.events import Event
from eventmig.migrate.setting import check_sides
from eventmig.project import (
    Project,
    opened,
    public,
)
from eventmig.stores.owned import OwnerSnapshots

SAMPLES_EACH = 1


def plan(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    naming: str | None = None,
    samples: int = SAMPLES_EACH,
) -> planning.Plan:
    """What a job would do: counts per type and version, steps, samples. Writes nothing.

    `samples` is how many events of each (type, version) that changes are shown.
    """
    frozen = project.release(release)
    target_url = project.url("target", target, frozen.name)
    with opened(project.url("source", source, frozen.name)) as store:
        with suppress(StoreError), opened(target_url) as there:
            check_sides(store, there)
        pipeline = project.pipeline(frozen, store, naming)
        counts = store.type_counts()
        chosen: list[Event] = []
        for count in counts:
            if not pipeline.chains.goal.arrived((count.type, count.schema_version)):
                chosen += store.examples(count.type, count.schema_version, samples)
        found = planning.make_plan(
            pipeline, counts, chosen, source=public(store.url), target=public(target_url)
        )
        left = store.left_behind() if isinstance(store, OwnerSnapshots) else []
        return replace(found, left_behind=tuple(map(str, left)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What a store holds: the release it was upcast to (None: no job made it), and counts."""

    store: str
    release: str | None
    state: str | None
    events: int
    types: tuple[tuple[str, int, int], ...]


def current(project: Project, *, store: str | None = None) -> Current:
    """The release a store is at, with its types, versions and counts. Reads only."""
    name = project.lock.latest.name if project.lock.latest else None
    url = project.url("source", store, name)
    with opened(url) as reader:
        job = project.made_by(reader)
        return Current(
            store=public(url),
            release=job.release if job else None,
            state=job.state.value if job else None,
            events=reader.count(),
            types=tuple((c.type, c.schema_version, c.count) for c in reader.type_counts()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One stored event, and what it is after each step: (step, texts of the events then)."""

    event: Event
    before: str
    after: tuple[tuple[str, tuple[str, ...]], ...]
    error: str = ""


def show(
    project: Project,
    what: str,
    *,
    store: str | None = None,
    release: str | None = None,
    first: int | None = None,
    limit: int = 20,
) -> list[Shown]:
    """A stream or one event (by id), before and after each step. Reads only.

    `first` is a stream position (inclusive). Raises `JobError` where nothing is named so.
    """
    frozen = project.release(release) if release or project.lock.latest else None
    url = project.url("source", store, frozen.name if frozen else None)
    with opened(url) as reader:
        event = reader.event(what)
        events = [event] if event else []
        if not events:
            for event in reader.read_stream(what, first=first):
                events.append(event)
                if len(events) == limit:
                    break
        if not events and first is not None and any(True for _ in reader.read_stream(what)):
            raise JobError(
                f"the stream {what!r} has no event at {first} or behind it",
                where=Where(store=public(url)),
                remedy="begin further in front, or leave --from out",
            )
    if not events:
        raise JobError(
            f"there is no stream and no event named {what!r}",
            where=Where(store=public(url)),
            remedy="streams have names such as order-17; `eventmig current` shows the types",
        )
    chains = project.registry.at(frozen).chains if frozen else project.registry.chains
    shown: list[Shown] = []
    for event in events:
        before = planning.pretty(event.type, event.schema_version, event.data)
        try:
            steps = chains.walker.before_and_after(event)
            after = tuple((n, _texts(drafts)) for n, drafts in steps)
            shown.append(Shown(event=event, before=before, after=after))
        except UpcastError as error:
            shown.append(Shown(event=event, before=before, after=(), error=str(error)))
    return shown


def _texts(drafts: Sequence[Draft]) -> tuple[str, ...]:
    return tuple(map(planning.pretty_draft, drafts))
