"""Steps on whole streams: merge, move an attribute between events, reorder, or a function.

A stream step sees one stream's drafts in order, after their own upcasters, and
returns the drafts that stand for them. It keeps no state between calls: a job that
resumes reads the stream again. Pure.
"""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias, cast

from eventmig import codec, fingerprint
from eventmig.codec import Value
from eventmig.drafts import Draft
from eventmig.errors import OpError, Where
from eventmig.events import Event
from eventmig.ops.base import Op
from eventmig.ops.control import run
from eventmig.paths import ABSENT, Path, PathLike, get, parse, put, text, without


class Unfinished(StrEnum):
    """What becomes of a group whose last part never came."""

    KEEP = "keep"
    DROP = "drop"
    REFUSE = "refuse"


class StreamChange(Protocol):
    """What a stream step does: a value that maps a stream's drafts to others."""

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """The new drafts, in their new order; pure."""
        ...

    def fingerprint(self) -> str:
        """Equal for changes that mean the same."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStep:
    """A named change to every stream whose name fits `streams` (`payment-*`, `*`)."""

    name: str
    streams: str
    change: StreamChange
    why: str = ""

    def fits(self, stream: str) -> bool:
        """Whether the step works on a stream of this name."""
        return fnmatch.fnmatchcase(stream, self.streams)

    def fingerprint(self) -> str:
        """Equal for steps that mean the same; name and `why` do not count."""
        return fingerprint.of_value(["stream", self.streams, self.change.fingerprint()])

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """The stream after the step; raises `OpError` naming the step and the event."""
        made = self.change.apply(drafts)
        known = {id(s) for d in drafts for s in d.sources}
        for draft in made:
            if not draft.sources or any(id(s) not in known for s in draft.sources):
                raise OpError(
                    "a stream step returned an event that has no source in the stream",
                    where=Where(step=self.name, type=draft.type),
                    remedy="make new events from those given, with `with_values`, `_replace` "
                    "or `merged_with`",
                )
        return made


def _key(draft: Draft, by: Path | None) -> str:
    if by is None:
        return ""
    found = get(draft.values(), by)
    return "" if found is ABSENT else codec.canonical(cast(Value, found)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """One event of each of `types`, in that order and with equal `by`, becomes one.

    The merged event stands where the last of them stood; metadata and time are the
    last's, data is the members of all, changed by `ops`. Two parts that hold the same
    member with different values are refused.
    """

    types: tuple[str, ...]
    into: tuple[str, int]
    by: Path | None
    ops: tuple[Op, ...]
    unfinished: Unfinished

    def fingerprint(self) -> str:
        by = None if self.by is None else text(self.by)
        parts = [*self.types, *self.into, by, self.unfinished.value]
        return fingerprint.of_value(["merge", *parts, *[op.fingerprint() for op in self.ops]])

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        open_groups: dict[str, list[int]] = {}
        merged: dict[int, Draft] = {}
        gone: set[int] = set()
        for index, draft in enumerate(drafts):
            if draft.type not in self.types:
                continue
            key = _key(draft, self.by)
            group = open_groups.setdefault(key, [])
            if draft.type != self.types[len(group)]:
                self._close(drafts, group, gone)
                group = open_groups[key] = []
                if draft.type != self.types[0]:
                    self._close(drafts, [index], gone)
                    continue
            group.append(index)
            if len(group) == len(self.types):
                merged[index] = self._merge([drafts[i] for i in group])
                gone.update(group)
                del open_groups[key]
        for group in open_groups.values():
            self._close(drafts, group, gone)
        return [merged.get(i, d) for i, d in enumerate(drafts) if i in merged or i not in gone]

    def _close(self, drafts: list[Draft], group: list[int], gone: set[int]) -> None:
        if not group or self.unfinished is Unfinished.KEEP:
            return
        if self.unfinished is Unfinished.DROP:
            gone.update(group)
            return
        first = drafts[group[0]]
        others = " and ".join(t for t in self.types if t != first.type)
        raise OpError(
            f"{first.type} has no matching {others}",
            where=_where(first.sources[0]),
            remedy="say what becomes of such events: unfinished=KEEP or DROP",
        )

    def _merge(self, parts: list[Draft]) -> Draft:
        values: dict[str, Value] = {}
        for part in parts:
            data = part.values()
            if not isinstance(data, dict):
                raise OpError(
                    f"the data of {part.type} is no object and cannot be merged",
                    where=_where(part.sources[0]),
                    remedy="write this step as a function",
                )
            for key, item in data.items():
                if key in values and not codec.same(values[key], item):
                    raise OpError(
                        f"the parts to merge disagree about {key}",
                        where=_where(part.sources[0]),
                        remedy="rename the member in the upcaster of one of them",
                    )
                values[key] = item
        last = parts[-1]
        return last.merged_with(
            *parts[:-1],
            type=self.into[0],
            schema_version=self.into[1],
            values=run(self.ops, values, last.sources[0]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveAttribute:
    """A member of each `source` event goes to the next (or previous) `target` event.

    Only between events with equal `by`. Where there is no such target, or it holds
    the member already, the member stays where it is.
    """

    path: Path
    source: str
    target: str
    to: Path
    by: Path | None
    backwards: bool

    def fingerprint(self) -> str:
        by = None if self.by is None else text(self.by)
        where = [text(self.path), self.source, self.target, text(self.to)]
        return fingerprint.of_value(["move attribute", *where, by, self.backwards])

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        made = list(drafts)
        for index, draft in enumerate(drafts):
            if draft.type != self.source:
                continue
            found = get(made[index].values(), self.path)
            if found is ABSENT:
                continue
            target = self._target(made, index)
            if target is None:
                continue
            made[target] = made[target].with_values(
                put(made[target].values(), self.to, cast(Value, found))
            )
            made[index] = made[index].with_values(without(made[index].values(), self.path))
        return made

    def _target(self, drafts: list[Draft], index: int) -> int | None:
        key = _key(drafts[index], self.by)
        places = range(index - 1, -1, -1) if self.backwards else range(index + 1, len(drafts))
        for place in places:
            candidate = drafts[place]
            if candidate.type == self.target and _key(candidate, self.by) == key:
                values = candidate.values()
                free = get(values, self.to) is ABSENT
                return place if free and isinstance(get(values, self.to[:-1]), dict) else None
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """Each event of type `move` that comes after an event of type `before` (with equal
    `by`) goes directly before the first of those; their own order stays.
    """

    move: str
    before: str
    by: Path | None

    def fingerprint(self) -> str:
        by = None if self.by is None else text(self.by)
        return fingerprint.of_value(["reorder", self.move, self.before, by])

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        first: dict[str, int] = {}
        moved: dict[int, list[Draft]] = defaultdict(list)
        gone: set[int] = set()
        for index, draft in enumerate(drafts):
            if draft.type == self.before:
                first.setdefault(_key(draft, self.by), index)
            elif draft.type == self.move:
                target = first.get(_key(draft, self.by))
                if target is not None:
                    moved[target].append(draft)
                    gone.add(index)
        out: list[Draft] = []
        for index, draft in enumerate(drafts):
            out += moved.get(index, [])
            if index not in gone:
                out.append(draft)
        return out


StreamFunction: TypeAlias = Callable[[list[Draft]], Sequence[Draft]]


@dataclass(frozen=True, slots=True)
class ByFunction:
    """Whatever a pure function makes of the stream."""

    function: StreamFunction

    def fingerprint(self) -> str:
        return fingerprint.of_value(["function", fingerprint.of_function(self.function)])

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        made = self.function(list(drafts))
        if made is None:
            raise OpError(
                f"{self.function.__qualname__} returned nothing",
                remedy="return the stream's events as a list, also where nothing changes",
            )
        return list(made)


def merge(
    name: str,
    *types: str,
    into: str,
    streams: str,
    version: int = 1,
    by: PathLike | None = None,
    ops: Sequence[Op] = (),
    unfinished: Unfinished = Unfinished.KEEP,
    why: str = "",
) -> StreamStep:
    """Several events, one of each type in this order, become one `into` at `version`.

    `by` names the member that must be equal in all of them; without it, the next of
    each type in the stream. `ops` change the merged data.
    """
    if len(types) < 2 or len(set(types)) != len(types):
        raise ValueError("merge needs at least two different types")
    change = Merge(
        types=types,
        into=(into, version),
        by=None if by is None else parse(by),
        ops=tuple(ops),
        unfinished=unfinished,
    )
    return StreamStep(name=name, streams=streams, change=change, why=why)


def move_attribute(
    name: str,
    path: PathLike,
    *,
    source: str,
    target: str,
    streams: str,
    to: PathLike | None = None,
    by: PathLike | None = None,
    backwards: bool = False,
    why: str = "",
) -> StreamStep:
    """A member goes from each `source` event to the next `target` event of its stream."""
    change = MoveAttribute(
        path=parse(path),
        source=source,
        target=target,
        to=parse(path if to is None else to),
        by=None if by is None else parse(by),
        backwards=backwards,
    )
    return StreamStep(name=name, streams=streams, change=change, why=why)


def reorder(
    name: str, *, move: str, before: str, streams: str, by: PathLike | None = None, why: str = ""
) -> StreamStep:
    """Events of type `move` go directly before the first `before` event of their stream."""
    change = Reorder(move=move, before=before, by=None if by is None else parse(by))
    return StreamStep(name=name, streams=streams, change=change, why=why)


def stream_step(
    name: str, *, streams: str, why: str = ""
) -> Callable[[StreamFunction], StreamStep]:
    """Decorator: a pure function from a stream's drafts to its new drafts.

    It gets them in order, after their own upcasters. A draft left out is counted as
    dropped by this step.
    """

    def make(function: StreamFunction) -> StreamStep:
        reason = why or (function.__doc__ or "").strip().split("\n", 1)[0]
        return StreamStep(name=name, streams=streams, change=ByFunction(function), why=reason)

    return make


def _where(event: Event) -> Where:
    return Where(
        stream=event.stream,
        stream_position=event.stream_position,
        type=event.type,
        schema_version=event.schema_version,
    )
