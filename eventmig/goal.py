"""Where chains lead, and how a failure on the way is named. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eventmig.errors import DataError, NewerEventError, UpcastError, Where
from eventmig.events import Event
from eventmig.schemas import EventSchema
from eventmig.steps import Upcaster, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What chains lead to: the steps, the schemas, and each type's current version.

    `current` holds every type the registry knows and does not retire; a type that is
    in none of them is unregistered and passes through.
    """

    steps: Mapping[Version, Upcaster]
    schemas: Mapping[Version, EventSchema]
    current: Mapping[str, int]
    retired: Mapping[str, int]

    def arrived(self, version: Version) -> bool:
        """Whether an event of this version needs no step."""
        type_, number = version
        current = self.current.get(type_)
        return number == current if current is not None else type_ not in self.retired

    def step_from(self, version: Version) -> Upcaster | None:
        """The next step, or None where the goal is reached.

        Raises `NewerEventError`, or `UpcastError` for a version below all that are known.
        """
        if self.arrived(version):
            return None
        type_, number = version
        newest = max(self.current.get(type_, 0), self.retired.get(type_, 0))
        step = self.steps.get(version)
        where = Where(type=type_, schema_version=number)
        if number > newest:
            raise NewerEventError(
                f"{type_} v{number} is newer than what is known (v{newest})",
                where=where,
                remedy="deploy the release that wrote it, or upcast to that release",
            )
        if step is None:
            raise UpcastError(
                f"no upcaster starts at {type_} v{number}",
                where=where,
                remedy="write the upcaster for the events of that version",
            )
        return step

    def path(self, version: Version) -> list[Upcaster]:
        """The steps from a version on, as long as they lead to one version each."""
        steps: list[Upcaster] = []
        while (step := self.step_from(version)) is not None:
            steps.append(step)
            if step.to is None:
                break
            version = step.to
        return steps


def place_of(event: Event) -> Where:
    """Where an event stands, for errors."""
    return Where(
        stream=event.stream,
        stream_position=event.stream_position,
        global_position=event.global_position or None,
        event_id=event.id,
        type=event.type,
        schema_version=event.schema_version,
    )


def placed(error: UpcastError, event: Event) -> UpcastError:
    """The same error, at this event."""
    return type(error)(error.what, where=error.where.within(place_of(event)), remedy=error.remedy)


def failed(event: Event, step: Upcaster | None, error: Exception) -> UpcastError:
    """What a step raised on an event, as an error that names both."""
    name = step.name if step else None
    if isinstance(error, DataError):
        where = Where(step=name, path=error.where.path).within(place_of(event))
        return UpcastError(error.what, where=where, remedy=error.remedy)
    return UpcastError(
        f"the step raised {type(error).__name__}: {error}",
        where=Where(step=name).within(place_of(event)),
        remedy="mend the upcaster (it must take every stored event), try it with "
        "`eventmig show`, then run the same command again",
    )
