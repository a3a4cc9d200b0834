"""The registry: every step and schema of a domain, checked whole when it is built.

User code builds one and names it in the configuration as `module:object`. An
application uses `upcast` and `load`; jobs use `at(release)`. Pure; immutable once
built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eventmig.chains import Chains, DataChain, Simple
from eventmig.drafts import Draft, renumber
from eventmig.errors import RegistryError, UpcastError, Where
from eventmig.events import Event
from eventmig.goal import Goal
from eventmig.registry_checks import Parts, check_registry
from eventmig.release import Release
from eventmig.routes import Route
from eventmig.schemas import EventSchema
from eventmig.steps import Downcaster, Upcaster, Version
from eventmig.stream_steps import StreamStep
from eventmig.transform import Pipeline

Step = Upcaster | Downcaster | StreamStep | Route


class Registry:
    """Upcasters, downcasters, stream steps, routes and schemas of one domain.

    `steps` may hold lists and tuples of steps. `schemas` are classes marked with
    `@schema(type, version)`, or `EventSchema` values. Raises `RegistryError` naming
    every offender: gaps, duplicates, ambiguous branches, cycles, unreachable versions,
    downcasters without their upcaster.
    """

    def __init__(
        self,
        steps: Iterable[Step | Sequence[Step]] = (),
        *,
        schemas: Iterable[type[Any] | EventSchema] = (),
    ) -> None:
        parts = Parts.of(_flat(steps), map(_schema, schemas))
        check_registry(parts)
        self._parts = parts
        self.goal = _latest_goal(parts)
        self.chains = Chains(self.goal)
        self.stream_steps = parts.stream_steps
        self.routes = parts.routes
        self._pipeline = Pipeline(self.chains, parts.stream_steps, ())

    # for applications --------------------------------------------------------------------

    def upcast(self, event: Event) -> list[Event]:
        """The current events that stand for a stored one: one, or none, or several.

        Stream position, global position, metadata and time are the stored event's.
        Reads only. Raises `UpcastError` (`NewerEventError` for a version newer than
        this registry knows). Stream steps need the stream: `upcast_stream`.
        """
        return [_placed(draft, event) for draft in self.chains.upcast(event)]

    def upcast_batch(self, events: Sequence[Event]) -> list[Event]:
        """`upcast` for many events, in order."""
        upcast = self.chains.upcast
        out: list[Event] = []
        for event in events:
            drafts = upcast(event)
            if len(drafts) == 1 and drafts[0].data is event.data:
                draft = drafts[0]
                if draft.type == event.type and draft.schema_version == event.schema_version:
                    out.append(event)
                    continue
            out += [_placed(draft, event) for draft in drafts]
        return out

    def data_upcaster(self, type: str, schema_version: int) -> DataChain | None:
        """What upcasts the data of these events where their data is all that is needed.

        None where it is not: the event is split or dropped, an op reads its metadata (or
        is not one of eventmig's own), or nothing leads on from this version. What it
        raises does not name the event; `upcast` of the whole event does.
        """
        try:
            chain = self.chains.chain_from((type, schema_version))
        except UpcastError:
            return None
        if not isinstance(chain, Simple):
            return None
        if chain.new_data is not None and chain.from_data is None:
            return None
        return DataChain(
            chain.type,
            chain.from_data,
            chain.from_few,
            chain.model,
            chain.from_models,
            chain.sound_lines,
            chain.sound_models,
        )

    def upcast_stream(self, events: Sequence[Event]) -> list[Event]:
        """A whole stream as the current release sees it, stream steps included.

        `events` are one stream's, in order, from its first. Positions count anew from
        the first event's; the events keep their stream's name.
        """
        if not events:
            return []
        first = events[0]
        drafts = self._pipeline.stream([*events])
        heads = {first.stream: first.stream_position - 1}
        return renumber([(first.stream, d.draft) for d in drafts], heads, keep_source_ids=True)

    def load(self, event: Event) -> Any:
        """The event's data, upcast, as an instance of the current model.

        Raises `UpcastError` where the event now stands for none or several, or where
        its type has no model.
        """
        events = self.upcast(event)
        if len(events) != 1:
            raise UpcastError(
                f"this event now stands for {len(events)} events",
                where=Where(event_id=event.id, type=event.type),
                remedy="use `load_all`",
            )
        return self._loaded(events[0])

    def load_all(self, event: Event) -> list[Any]:
        """Like `load`, for events that may be split or dropped."""
        return [self._loaded(current) for current in self.upcast(event)]

    def _loaded(self, event: Event) -> Any:
        found = self.goal.schemas.get((event.type, event.schema_version))
        if found is None:
            raise UpcastError(
                f"{event.type} v{event.schema_version} has no model",
                where=Where(event_id=event.id, type=event.type),
                remedy="give its model to the registry: schemas=[…]",
            )
        return found.decode(event.data)

    # for jobs and checks --------------------------------------------------------------------

    @property
    def upcasters(self) -> Mapping[Version, Upcaster]:
        """Every upcaster by the (type, version) it starts from."""
        return self._parts.upcasters

    @property
    def schemas(self) -> Mapping[Version, EventSchema]:
        """Every schema by (type, version)."""
        return self._parts.schemas

    @property
    def current(self) -> Mapping[str, int]:
        """Every type that is not retired, with its current schema version."""
        return self.goal.current

    @property
    def retired(self) -> Mapping[str, int]:
        """Types whose chains end in other types or in nothing, with their last version."""
        return self.goal.retired

    def downcaster(self, version: Version) -> Downcaster | None:
        """The way back of the step that ends at this version: declared, or the ops' own."""
        declared = self._parts.downcasters.get(version)
        if declared is not None:
            return declared
        for step in self.upcasters.values():
            if step.to == version:
                return step.way_back()
        return None

    def freeze(self, name: str) -> Release:
        """The registry as it stands now, as a release."""
        return Release(
            name=name,
            types=dict(self.current),
            schemas={s.name: s.fingerprint for s in self.schemas.values()},
            upcasters={_text(v): step.fingerprint() for v, step in self.upcasters.items()},
            steps={s.name: s.fingerprint() for s in self._parts.named_steps},
        )

    def at(
        self, release: Release, *, done: Iterable[str] = (), naming: str = "{stream}"
    ) -> Pipeline:
        """Everything a job to this release does to events.

        `done` are names of stream and store steps the source has behind it. `naming`
        is the template of target stream names: `{stream}` and `{release}`.
        Raises `RegistryError` where the release needs what the registry lacks.
        """
        goal = _release_goal(self._parts, release)
        skip = set(done)
        stream_steps = [
            s for s in self.stream_steps if s.name in release.steps and s.name not in skip
        ]
        routes = [r for r in self.routes if r.name in release.steps and r.name not in skip]
        missing = release.steps.keys() - {s.name for s in self._parts.named_steps}
        if missing - skip:
            raise RegistryError(
                f"release {release.name} has steps the registry lacks: "
                f"{', '.join(sorted(missing))}",
                remedy="put them back, or upcast to a later release",
            )
        return Pipeline(
            Chains(goal), tuple(stream_steps), tuple(routes), naming=naming, release=release.name
        )

    def sources_of(self, types: Iterable[str]) -> set[str]:
        """The stored types whose events can become one of these types by their own chains."""
        wanted = set(types)
        grown = True
        while grown:
            more = {
                step.source[0]
                for step in self.upcasters.values()
                if any(to in wanted for to, _ in step.targets)
            }
            grown = not more <= wanted
            wanted |= more
        return wanted

    def fingerprint(self) -> str:
        """16 hex digits over everything that decides what an upcast yields."""
        return self.freeze("").fingerprint()


def _flat(steps: Iterable[Step | Sequence[Step]]) -> list[Step]:
    out: list[Step] = []
    for step in steps:
        if isinstance(step, Upcaster | Downcaster | StreamStep | Route):
            out.append(step)
        elif isinstance(step, list | tuple):
            out += _flat(step)
        else:
            raise RegistryError(
                f"{step!r} is not a step",
                remedy="decorate functions with @data_upcaster(…) or @model_upcaster, and give "
                "the registry what the decorator returns",
            )
    return out


def _schema(model: type[Any] | EventSchema) -> EventSchema:
    return model if isinstance(model, EventSchema) else EventSchema.of(model)


def _text(version: Version) -> str:
    return f"{version[0]} v{version[1]}"


def _latest_goal(parts: Parts) -> Goal:
    newest = parts.newest()
    retired = {t: v for t, v in newest.items() if (t, v) in parts.upcasters}
    current = {t: v for t, v in newest.items() if t not in retired}
    return Goal(steps=parts.upcasters, schemas=parts.schemas, current=current, retired=retired)


def _release_goal(parts: Parts, release: Release) -> Goal:
    newest = parts.newest()
    for type_, version in release.types.items():
        if newest.get(type_, 1) < version:
            raise RegistryError(
                f"release {release.name} has {type_} at v{version}, and the registry ends at "
                f"v{newest.get(type_, 1)}",
                where=Where(type=type_, schema_version=version),
                remedy="deploy the code of that release or a later one",
            )
    steps = {v: s for v, s in parts.upcasters.items() if _text(v) in release.upcasters}
    retired: dict[str, int] = {}
    for type_, version in steps:
        if type_ not in release.types:
            retired[type_] = max(version, retired.get(type_, 0))
    return Goal(
        steps=steps,
        schemas=parts.schemas,
        current=dict(release.types),
        retired=retired,
    )


def _placed(draft: Draft, event: Event) -> Event:
    return Event(
        event.global_position,
        event.stream,
        event.stream_position,
        draft.id(keep_source_id=True),
        draft.type,
        draft.schema_version,
        draft.data,
        draft.metadata,
        draft.recorded_at,
        event.origins,
    )
