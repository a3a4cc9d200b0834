"""The pipeline: what a job does to source events, as pure functions over batches.

upcast (event by event) → stream steps (stream by stream) → upcast what those made →
validate → route. Renumbering (`drafts.renumber`) is the last step, and the job's, for
it alone needs the target's heads.

A stream step sees its whole stream, but a job reads in global order and must be able
to stop after any batch. So each event of such a stream asks for the whole stream, has
it transformed (the result is kept for a while), and takes those of its drafts that are
due at its own position: a draft is due at the last of its sources, and never before a
draft that stands before it in the stream. Nothing is remembered over a restart.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventmig.chains import Chains
from eventmig.drafts import Draft
from eventmig.errors import ConfigError, DataError, OpError, UpcastError, Where
from eventmig.events import Event
from eventmig.goal import place_of
from eventmig.routes import Route
from eventmig.stream_steps import StreamStep

ReadStream = Callable[[str], list[Event]]
"""Reads one source stream whole, up to the job's end of reading."""

_KEPT_EVENTS = 100_000


class Due(NamedTuple):
    """A draft and the source global position at which it is written."""

    position: int
    draft: Draft


class Pipeline:
    """All steps of a job to one release; built by `Registry.at`."""

    def __init__(
        self,
        chains: Chains,
        stream_steps: Sequence[StreamStep],
        routes: Sequence[Route],
        *,
        naming: str = "{stream}",
        release: str = "",
    ) -> None:
        self.chains = chains
        self.stream_steps = tuple(stream_steps)
        self.routes = tuple(routes)
        self.naming = _checked_naming(naming)
        self.release = release

    def needs_stream(self, stream: str) -> bool:
        """Whether a stream step works on this stream."""
        return any(step.fits(stream) for step in self.stream_steps)

    def stream(self, events: Sequence[Event], *, walk: bool = False) -> list[Due]:
        """One whole source stream through its chains and stream steps, in target order.

        `walk` takes the slow, obvious reading. Raises `UpcastError`.
        """
        upcast = self.chains.plain if walk else self.chains.upcast
        drafts = [draft for event in events for draft in upcast(event)]
        for step in self.stream_steps:
            if not step.fits(events[0].stream):
                continue
            try:
                drafts = step.apply(drafts)
            except Exception as error:
                raise _step_failed(step, events[0], error) from error
        drafts = [current for draft in drafts for current in self._current(draft, upcast)]
        out: list[Due] = []
        position = 0
        for draft in with_ordinals(drafts):
            position = max(position, draft.sources[-1].global_position)
            out.append(Due(position, draft))
        return out

    def _current(self, draft: Draft, upcast: Callable[[Event], list[Draft]]) -> list[Draft]:
        """What a stream step made, through its own chain to the current version."""
        source = draft.sources[0]
        event = source._replace(
            type=draft.type,
            schema_version=draft.schema_version,
            data=draft.data,
            metadata=draft.metadata,
            recorded_at=draft.recorded_at,
        )
        made = upcast(event)
        if len(made) == 1 and made[0].data is draft.data and made[0].version == draft.version:
            schema = self.chains.goal.schemas.get(draft.version)
            if schema is not None and draft.data is not source.data:
                try:
                    schema.validate(draft.data)
                except DataError as error:
                    where = Where(type=draft.type, schema_version=draft.schema_version)
                    raise UpcastError(
                        error.what,
                        where=where.within(error.where).within(place_of(source)),
                        remedy="mend the stream step that made it, or the model",
                    ) from error
            return [draft]
        return [
            draft._replace(
                type=after.type,
                schema_version=after.schema_version,
                data=after.data,
                split=draft.split or after.split,
            )
            for after in made
        ]

    def target_stream(self, draft: Draft) -> str:
        """The stream a draft goes to: the first route that takes it, then the naming.

        Raises `UpcastError` naming the route and the event.
        """
        stream = draft.stream
        for route in self.routes:
            try:
                taken = route.takes(draft)
            except OpError as error:
                where = Where(step=route.name, path=error.where.path)
                raise UpcastError(
                    error.what,
                    where=where.within(place_of(draft.sources[0])),
                    remedy=error.remedy,
                ) from error
            if taken is not None:
                stream = taken
                break
        return self.renamed(stream)

    @property
    def renames_alone(self) -> bool:
        """Whether `renamed` says of every stream where its events go."""
        return not self.routes

    def renamed(self, stream: str) -> str:
        """A stream's name by the naming alone, which no route takes."""
        if self.naming == "{stream}":
            return stream
        fields = {"{stream}": stream, "{release}": self.release}
        return _NAMING_FIELD.sub(lambda found: fields[found[0]], self.naming)


_NAMING_FIELD = re.compile(r"\{[^{}]*\}")


def _checked_naming(naming: str) -> str:
    unknown = set(_NAMING_FIELD.findall(naming)) - {"{stream}", "{release}"}
    if unknown or "{stream}" not in naming:
        what = "has no {stream}: all streams would become one"
        if unknown:
            what = f"uses {', '.join(sorted(unknown))}, which it does not know"
        raise ConfigError(
            f"the naming {naming!r} {what}",
            remedy="name new streams by {stream} and {release}, as in {stream}-{release}",
        )
    return naming


def with_ordinals(drafts: Sequence[Draft]) -> list[Draft]:
    """Drafts numbered 0, 1, … per set of sources, in order."""
    counts = Counter(map(_positions, drafts))
    if all(n == 1 for n in counts.values()) and not any(d.split or d.ordinal for d in drafts):
        return list(drafts)
    seen: Counter[tuple[int, ...]] = Counter()
    out: list[Draft] = []
    for draft in drafts:
        key = _positions(draft)
        out.append(draft._replace(ordinal=seen[key], split=draft.split or counts[key] > 1))
        seen[key] += 1
    return out


def _positions(draft: Draft) -> tuple[int, ...]:
    return tuple(source.global_position for source in draft.sources)


class StreamCache:
    """Transformed streams, kept while they are likely to be needed again.

    Bounded by the number of events in them; the longest unused goes first.
    `settled` is an earlier end of reading, and `written` the source position up to which
    drafts are written: a stream is refused whose drafts up to both would now be others.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        read: ReadStream,
        *,
        walk: bool = False,
        settled: int = 0,
        written: int = 0,
    ) -> None:
        self._pipeline = pipeline
        self._read = read
        self._walk = walk
        self._settled = settled
        self._written = min(settled, written)
        self._kept: OrderedDict[str, _Transformed | UpcastError] = OrderedDict()
        self._size = 0

    def due(self, event: Event) -> tuple[list[Draft], Draft | None]:
        """The drafts due at this event's position, and a draft it is a source of (or None).

        Raises `UpcastError` for every event of a stream that cannot be transformed.
        """
        kept = self._kept.get(event.stream)
        if kept is None:
            try:
                kept = self._transform(event.stream)
            except UpcastError as error:
                kept = self._kept[event.stream] = error
        self._kept.move_to_end(event.stream)
        if isinstance(kept, UpcastError):
            raise kept.with_traceback(None)
        if event.global_position >= kept.last:  # nothing of this stream will be asked for again
            del self._kept[event.stream]
            self._size -= kept.size
        return kept.due.get(event.global_position, []), kept.became.get(event.global_position)

    def _transform(self, stream: str) -> _Transformed:
        events = self._read(stream)
        made = self._pipeline.stream(events, walk=self._walk)
        self._check_settled(stream, events, made)
        kept = _Transformed({}, {}, len(events), events[-1].global_position)
        for position, draft in made:
            kept.due.setdefault(position, []).append(draft)
            for source in draft.sources:
                kept.became.setdefault(source.global_position, draft)
        self._kept[stream] = kept
        self._size += kept.size
        while self._size > _KEPT_EVENTS and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._size -= 0 if isinstance(oldest, UpcastError) else oldest.size
        return kept

    def _check_settled(self, stream: str, events: list[Event], made: list[Due]) -> None:
        old = [e for e in events if e.global_position <= self._settled]
        if not old or len(old) == len(events):
            return
        try:
            before = self._pipeline.stream(old, walk=self._walk)
        except UpcastError:
            before = []  # it was set aside then: nothing of it is written
        if _essence(before, self._written) != _essence(made, self._written):
            raise UpcastError(
                "events appended since would change what was already written of this stream",
                where=Where(stream=stream),
                remedy="cancel this job and run it anew: its stream steps need the whole stream",
            )


class _Transformed(NamedTuple):
    due: dict[int, list[Draft]]
    became: dict[int, Draft]
    size: int
    last: int


def _essence(made: list[Due], until: int) -> list[Draft]:
    return [draft for position, draft in made if position <= until]


def _step_failed(step: StreamStep, first: Event, error: Exception) -> UpcastError:
    place = getattr(error, "where", Where())
    where = Where(step=step.name).within(place).within(Where(stream=first.stream))
    if isinstance(error, DataError):
        return UpcastError(error.what, where=where, remedy=error.remedy)
    return UpcastError(
        f"the stream step raised {type(error).__name__}: {error}",
        where=where,
        remedy="mend the step; it must take every stored stream",
    )
