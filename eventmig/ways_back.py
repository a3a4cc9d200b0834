"""The ways back of a release: which events of the new side the old one can take, and how.

The old side knows each type up to a schema version: that of the release before, or, where
there was none, the newest that is stored there. An event of the new side goes back step by
step, by downcasters, until it is at such a version. Read as a registry's goal, the ways back
run through the same chains as the way forth. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eventmig.chains import Chains
from eventmig.drafts import Draft
from eventmig.errors import UpcastError, Where
from eventmig.goal import Goal, place_of
from eventmig.ops.base import Loss, worst
from eventmig.registry import Registry
from eventmig.steps import Downcaster, Rewrite, Upcaster, Version
from eventmig.transform import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What becomes of the events of one type and version on the way back.

    `to` is where they arrive; None where `loss` is ABSENT.
    """

    type: str
    schema_version: int
    to: Version | None
    loss: Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class BackGoal(Goal):
    """A goal whose steps lead down, to the versions that the old side knows (`current`)."""

    unknown: frozenset[Version]
    """Versions that only this release has, and that nothing leads down from."""

    def arrived(self, version: Version) -> bool:
        """Whether the old side knows this version."""
        type_, number = version
        if type_ in self.current:
            return number <= self.current[type_]
        return version not in self.steps and version not in self.unknown

    def step_from(self, version: Version) -> Upcaster | None:
        """The next step down, or None where the old side knows the version.

        Raises `UpcastError` where there is none.
        """
        if self.arrived(version):
            return None
        step = self.steps.get(version)
        if step is None:
            type_, number = version
            raise UpcastError(
                f"there is no way back for {type_} v{number}",
                where=Where(type=type_, schema_version=number),
                remedy="give the registry a downcaster for it; until then the window is unsafe",
            )
        return step

    def way(self, version: Version, losses: Mapping[Version, Loss]) -> WayBack:
        """Where events of this version arrive, and what is lost on the way."""
        found, lost = version, [Loss.EXACT]
        try:
            while (step := self.step_from(found)) is not None:
                lost.append(losses[found])
                assert step.to is not None
                found = step.to
        except UpcastError:
            return WayBack(type=version[0], schema_version=version[1], to=None, loss=Loss.ABSENT)
        return WayBack(type=version[0], schema_version=version[1], to=found, loss=worst(lost))


class BackPipeline(Pipeline):
    """What takes events of the new side to the old one: down, and under their old stream."""

    def __init__(self, registry: Registry, forth: Pipeline, known: Mapping[str, int]) -> None:
        downcasters = {version: registry.downcaster(version) for version in _versions(registry)}
        found = {version: d for version, d in downcasters.items() if d is not None}
        made = {to for step in registry.upcasters.values() for to in step.targets}
        self.goal = BackGoal(
            steps={version: _step(d) for version, d in found.items()},
            schemas=registry.schemas,
            current=known,
            retired={},
            unknown=frozenset(v for v in made if v not in found),
        )
        self._losses = {version: d.loss for version, d in found.items()}
        self._forth = forth
        super().__init__(
            Chains(self.goal), (), forth.routes, naming=forth.naming, release=forth.release
        )

    def target_stream(self, draft: Draft) -> str:
        """The stream on the old side whose events of this kind go to the draft's stream.

        Raises `UpcastError` where none can be told from the name.
        """
        stream = draft.stream
        for name in self._candidates(stream):
            source = draft.sources[0]._replace(stream=name)
            if self._forth.target_stream(draft._replace(sources=(source,))) == stream:
                return name
        raise UpcastError(
            f"no stream of the old side leads to {stream!r}",
            where=place_of(draft.sources[0]),
            remedy="a route that names streams by their data has no way back",
        )

    @property
    def renames_alone(self) -> bool:
        """Only where names stay: `renamed` is the way forth."""
        return super().renames_alone and self.naming == "{stream}"

    def _candidates(self, stream: str) -> Iterable[str]:
        before, _, after = self.naming.replace("{release}", self.release).partition("{stream}")
        if not (stream.startswith(before) and stream.endswith(after)):
            return
        plain = stream[len(before) : len(stream) - len(after)]
        for route in self.routes:
            if (name := route.back(plain)) is not None:
                yield name
        yield plain

    def ways(self, versions: Iterable[Version]) -> list[WayBack]:
        """The way back of each of these versions, in order."""
        return [self.goal.way(version, self._losses) for version in sorted(set(versions))]


def _versions(registry: Registry) -> set[Version]:
    steps = registry.upcasters.values()
    return {*registry.schemas, *(to for step in steps for to in step.targets)}


def _step(back: Downcaster) -> Upcaster:
    return Upcaster(source=back.source, outcome=Rewrite(back.ops), to=back.to)
