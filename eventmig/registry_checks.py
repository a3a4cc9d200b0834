"""What must hold of a registry before it is used. Every finding names its offenders. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from eventmig.errors import RegistryError
from eventmig.routes import Route
from eventmig.schemas import EventSchema
from eventmig.steps import Downcaster, Upcaster, Version
from eventmig.stream_steps import StreamStep


@dataclass(frozen=True, slots=True)
class Parts:
    """A registry taken apart. Where two steps start at one version, the list keeps both."""

    all_upcasters: tuple[Upcaster, ...]
    all_downcasters: tuple[Downcaster, ...]
    all_schemas: tuple[EventSchema, ...]
    stream_steps: tuple[StreamStep, ...]
    routes: tuple[Route, ...]
    upcasters: dict[Version, Upcaster]
    downcasters: dict[Version, Downcaster]
    schemas: dict[Version, EventSchema]

    @classmethod
    def of(
        cls,
        steps: Iterable[Upcaster | Downcaster | StreamStep | Route],
        schemas: Iterable[EventSchema],
    ) -> Parts:
        every = list(steps)
        ups = tuple(s for s in every if isinstance(s, Upcaster))
        downs = tuple(s for s in every if isinstance(s, Downcaster))
        models = tuple(schemas)
        return cls(
            ups,
            downs,
            models,
            tuple(s for s in every if isinstance(s, StreamStep)),
            tuple(s for s in every if isinstance(s, Route)),
            {s.source: s for s in ups},
            {s.source: s for s in downs},
            {(m.type, m.version): m for m in models},
        )

    @property
    def named_steps(self) -> tuple[StreamStep | Route, ...]:
        """The stream and store steps, in order."""
        return (*self.stream_steps, *self.routes)

    def versions(self) -> set[Version]:
        """Every (type, version) that a step or a schema names."""
        named = {s.source for s in self.all_upcasters}
        named |= {to for s in self.all_upcasters for to in s.targets}
        named |= {(m.type, m.version) for m in self.all_schemas}
        for step in self.stream_steps:
            into = getattr(step.change, "into", None)
            if into is not None:
                named.add(into)
        return named

    def newest(self) -> dict[str, int]:
        """The highest version of every named type."""
        newest: dict[str, int] = {}
        for type_, version in self.versions():
            newest[type_] = max(version, newest.get(type_, 0))
        return newest


def check_registry(parts: Parts) -> None:
    """Raise one `RegistryError` that lists everything wrong, with how to mend each."""
    findings = [
        *_bad_versions(parts),
        *_two_from_one(parts),
        *_duplicate_schemas(parts),
        *_duplicate_names(parts),
        *_cycles(parts),
    ]
    if not findings:
        findings = [*_gaps(parts), *_lonely_downcasters(parts)]
    if findings:
        count = len(findings)
        raise RegistryError(
            f"the registry has {count} fault{'s' if count > 1 else ''}:\n"
            + "\n".join(f"  - {finding}" for finding in findings),
            remedy="mend each as its line says; nothing is upcast until then",
        )


def _name(version: Version) -> str:
    return f"{version[0]} v{version[1]}"


def _bad_versions(parts: Parts) -> Iterable[str]:
    for type_, version in sorted(parts.versions()):
        if version < 1:
            yield f"{type_} v{version}: versions start at 1; count from there"
    for step in parts.all_upcasters:
        if step.to and step.to[0] == step.source[0] and step.to[1] != step.source[1] + 1:
            yield (
                f"{step.name}: an upcaster goes to the next version of its type "
                f"(v{step.source[1] + 1}); write one for each version between"
            )


def _two_from_one(parts: Parts) -> Iterable[str]:
    by_source: dict[Version, list[Upcaster]] = defaultdict(list)
    for step in parts.all_upcasters:
        by_source[step.source].append(step)
    for source, steps in sorted(by_source.items()):
        if len(steps) < 2:
            continue
        names = " and ".join(step.name for step in steps)
        if len({step.targets for step in steps}) == 1:
            yield f"duplicate: {len(steps)} upcasters start at {_name(source)} ({names}); keep one"
        else:
            yield (
                f"ambiguous branch: from {_name(source)} lead {names}; keep one, or make them "
                "one split_event with conditions"
            )
    counts = Counter(s.source for s in parts.all_downcasters)
    for source, count in sorted(counts.items()):
        if count > 1:
            yield f"duplicate: {count} downcasters start at {_name(source)}; keep one"


def _duplicate_schemas(parts: Parts) -> Iterable[str]:
    counts = Counter((m.type, m.version) for m in parts.all_schemas)
    for version, count in sorted(counts.items()):
        if count > 1:
            yield f"duplicate: {count} schemas are marked as {_name(version)}; keep one"


def _duplicate_names(parts: Parts) -> Iterable[str]:
    counts = Counter(s.name for s in parts.named_steps)
    for name, count in sorted(counts.items()):
        if count > 1:
            yield f"duplicate: {count} steps are named {name!r}; give each its own name"


def _cycles(parts: Parts) -> Iterable[str]:
    edges = {s.source: s.targets for s in parts.all_upcasters}
    done: set[Version] = set()
    for start in sorted(edges):
        trail: list[Version] = []
        yield from _cycle_from(start, edges, trail, done)


def _cycle_from(
    version: Version,
    edges: dict[Version, tuple[Version, ...]],
    trail: list[Version],
    done: set[Version],
) -> Iterable[str]:
    if version in trail:
        loop = [*trail[trail.index(version) :], version]
        yield f"cycle: {' → '.join(map(_name, loop))}; end the chain at one of them"
        return
    if version in done:
        return
    trail.append(version)
    for target in edges.get(version, ()):
        yield from _cycle_from(target, edges, trail, done)
    trail.pop()
    done.add(version)


def _gaps(parts: Parts) -> Iterable[str]:
    named = parts.versions()
    newest = parts.newest()
    targets = {to for s in parts.all_upcasters for to in s.targets}
    for step in parts.stream_steps:
        into = getattr(step.change, "into", None)
        if into is not None:
            targets.add(into)
    for type_ in sorted(newest):
        known = sorted(v for t, v in named if t == type_)
        first = known[0]
        if first > 1 and (type_, first) not in targets:
            yield (
                f"unreachable version: nothing leads to {type_} v{first}; write the upcaster "
                f"from v{first - 1}, or start the type at v1"
            )
        for version in range(first, newest[type_]):
            if (type_, version + 1) in targets:
                continue
            later = [v for v in known if v > version and (type_, v) in parts.upcasters]
            what = "gap" if later else "unreachable version"
            yield (
                f"{what}: no upcaster takes {type_} v{version} to v{version + 1}"
                f" (known: {', '.join(f'v{v}' for v in known)}); write it"
            )


def _lonely_downcasters(parts: Parts) -> Iterable[str]:
    ways = {(s.to, s.source) for s in parts.all_upcasters if s.to}
    for down in parts.all_downcasters:
        if (down.source, down.to) not in ways:
            yield (
                f"downcaster without its upcaster: {down.name}; write the upcaster from "
                f"{_name(down.to)} to {_name(down.source)}, or remove it"
            )
