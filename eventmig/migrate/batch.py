"""One batch: source events in, target events without their places out. Pure but for reading
the streams that stream steps need.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from eventmig.chains import Simple
from eventmig.drafts import Draft
from eventmig.errors import UpcastError, Where
from eventmig.events import (
    Columns,
    Event,
    Group,
    Kept,
    Origin,
    Page,
    Renewed,
    Stretch,
    part_id,
)
from eventmig.goal import place_of
from eventmig.migrate.ahead import one_ahead
from eventmig.migrate.tally import Fate, Tally
from eventmig.stores.base import Capability, DataRow, EventReader
from eventmig.stores.faster import GroupingReader
from eventmig.transform import Pipeline, StreamCache


@dataclass(slots=True)
class Transformed:
    """What one batch of source events became.

    `columns` are the target events, in their order, without their places, or `kept` is what
    is new of them, of events with so many bytes of data; `failed` holds each event that could
    not be upcast, with its error. `until` is the batch's last source global position.
    """

    until: int = 0
    columns: Columns = field(default_factory=lambda: Columns.of(()))
    tally: Tally = field(default_factory=Tally)
    failed: list[tuple[Event, UpcastError]] = field(default_factory=list)
    kept: Kept | None = None
    kept_bytes: int = 0

    @property
    def data_bytes(self) -> int:
        """How much data the batch's events have."""
        return self.kept_bytes + sum(map(len, self.columns.data))

    def add(self, events: list[Event], drafts: list[Draft]) -> None:
        """Add target events at the end, made of these drafts."""
        for event, draft in zip(events, drafts, strict=True):
            self.columns.add(event, draft.origin_global)


class Transformer:
    """Turns batches of source events into target events.

    With `quarantine`, an event that cannot be upcast is set aside; without, its
    `UpcastError` is raised. The first events of each type and version are upcast twice,
    to find upcasters that do not repeat themselves.

    `keeping`: the target can copy what does not change by itself, and every source event so
    far stayed one event at its place. It ends with the first that does not.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        read_stream: Callable[[str], list[Event]],
        *,
        keep_source_ids: bool,
        quarantine: bool,
        settled: int = 0,
        written: int = 0,
        keeping: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._keep_ids = keep_source_ids
        self._quarantine = quarantine
        self._streams = StreamCache(pipeline, read_stream, settled=settled, written=written)
        self._stepped = bool(pipeline.stream_steps)
        self._same_stream = not pipeline.routes and pipeline.naming == "{stream}"
        self._tried: dict[tuple[str, int], int] = {}
        self._simple_ones: dict[tuple[str, int], Simple] = {}
        self._unchanged: set[tuple[str, int]] = set()
        self._keeping = keeping and keep_source_ids and self._same_stream and not self._stepped

    def all(
        self, source: EventReader, *, after: int, until: int, batch_size: int
    ) -> Generator[Transformed, None, None]:
        """What a source's events become, batch by batch: `after` exclusive, `until` inclusive.

        Reads only as much of them as is needed. Raises as `page` does.
        """
        while self._keeping and after < until:
            after = yield from self._keep(source, after, until, batch_size)
        pages = source.read_pages(after=after, until=until, batch_size=batch_size)
        for page in one_ahead(pages) if Capability.SERVER in source.capabilities else pages:
            yield self.page(page)

    def _keep(
        self, source: EventReader, after: int, until: int, batch_size: int
    ) -> Generator[Transformed, None, int]:
        """Batches by their data alone, up to the first that needs more, and that one."""
        with closing(self._stretches(source, after, until, batch_size)) as stretches:
            for stretch in stretches:
                made = self._kept(stretch)
                if made is not None:
                    yield made
                else:
                    for page in source.read_pages(
                        after=after, until=stretch.last, batch_size=batch_size
                    ):
                        yield self.page(page)
                    if not self._keeping:
                        return stretch.last
                after = stretch.last
        return until

    def _stretches(
        self, source: EventReader, after: int, until: int, batch_size: int
    ) -> Generator[Stretch, None, None]:
        if isinstance(source, GroupingReader):
            grouped = source.read_grouped(
                after=after, until=until, batch_size=batch_size, without=self._unchanged
            )
            yield from one_ahead(grouped)
        else:
            rows = source.read_data(after=after, until=until, batch_size=batch_size)
            yield from map(_stretch, rows)

    def _kept(self, stretch: Stretch) -> Transformed | None:
        """Events that each stay one at its place, from their data alone; else None."""
        tally = Tally()
        renewed: list[Renewed] = []
        for type_, version, count, positions, data in stretch.groups:
            chain = self._simple_ones.get((type_, version))
            if chain is None:
                return None
            tally.read += count
            if chain.new_data is None:
                tally.copied += count
                continue
            change = chain.from_sound if stretch.sound else chain.from_many
            if change is None:
                self._keeping = False
                return None
            try:
                new = change(data)
            except Exception:  # noqa: BLE001 - event by event it is found out, told, or set aside
                return None
            tally.upcast += count
            renewed.append(Renewed((type_, version), chain[:2], positions, new))
        tally.written = tally.read
        kept = Kept(stretch.first, stretch.last, tally.read, renewed)
        size = sum(sum(map(len, group.data)) for group in stretch.groups)
        return Transformed(until=stretch.last, tally=tally, kept=kept, kept_bytes=size)

    def page(self, page: Page) -> Transformed:
        """What one page becomes; raises `UpcastError` unless failures are set aside."""
        made = self._whole(page) or self.batch(page.events())
        self._keeping = self._keeping and made.tally.even
        return made

    def _whole(self, page: Page) -> Transformed | None:
        """The page at once, where each event stays one event in its stream; else None.

        That is most of any history: what does not change is taken over column by column,
        and only data is made anew.
        """
        if self._stepped or not self._same_stream:
            return None
        try:
            kinds = zip(page.types, page.schema_versions, strict=True)
            chains = list(map(self._simple_ones.__getitem__, kinds))
            types, versions, changes, _, from_many, *_ = zip(*chains, strict=True)
            copied = changes.count(None)
            if from_many.count(None) == copied:
                data = list(page.data)
                for at, new in _new_data(from_many, data):
                    data[at] = new
            else:
                data = [
                    event.data if change is None else change(event)
                    for event, change in zip(page.events(), changes, strict=True)
                ]
        except Exception:  # noqa: BLE001 - event by event it is found out, told, or set aside
            return None
        count, streams = len(data), list(page.streams)
        return Transformed(
            until=page.global_positions[-1],
            columns=Columns(
                streams=streams,
                ids=list(page.ids) if self._keep_ids else [part_id(id_, 0) for id_ in page.ids],
                types=list(types),
                schema_versions=list(versions),
                data=data,
                metadata=list(page.metadata),
                recorded_at=list(page.recorded_at),
                origin_streams=streams,
                origin_positions=list(page.stream_positions),
                origin_ordinals=[0] * count,
                origin_globals=list(page.global_positions),
                merged={},
            ),
            tally=Tally(read=count, copied=copied, upcast=count - copied, written=count),
        )

    def batch(self, events: list[Event]) -> Transformed:
        """What these events become, one by one; raises as `page` does."""
        out = Transformed(until=events[-1].global_position)
        tally = out.tally
        tally.read = len(events)
        for event in events:
            try:
                self._event(event, out)
            except UpcastError as error:
                if not self._quarantine:
                    raise
                tally.quarantined += 1
                out.failed.append((event, error))
        tally.written = len(out.columns.ids)
        return out

    def _event(self, event: Event, out: Transformed) -> None:
        stream = event.stream
        chain = self._pipeline.chains.chain(event)
        version = (event.type, event.schema_version)
        tried = self._tried.get(version, 0)
        if tried < _TRIED_TWICE:
            self._tried[version] = tried + 1
            self._try_twice(event)
        elif isinstance(chain, Simple):
            self._simple_ones[version] = chain
            if chain.new_data is None:
                self._unchanged.add(version)
        if self._stepped and self._pipeline.needs_stream(stream):
            drafts, became = self._streams.due(event)
            made = self._placeless(drafts)
            self._count_in_stream(event, became, out.tally)
            out.add(made, drafts)
            return
        if isinstance(chain, Simple):
            self._simple(event, chain, out)
            return
        drafts = chain(event)
        made = self._placeless(drafts)
        if drafts:
            out.tally.split += 1
            out.add(made, drafts)
        else:
            out.tally.drop(self._dropping_rule(event))

    def _simple(self, event: Event, chain: Simple, out: Transformed) -> None:
        """One event that stays one."""
        at, stream, position, id_, _, _, data, metadata, recorded_at, _ = event
        type_, version, new_data = chain[:3]
        if new_data is not None:
            data = new_data(event)
        target = stream
        if not self._same_stream:
            draft = Draft((event,), type_, version, data, metadata, recorded_at)
            target = self._pipeline.target_stream(draft)
        if not self._keep_ids:
            id_ = part_id(id_, 0)
        origins = (Origin(stream, position),)
        out.columns.add(
            Event(0, target, 0, id_, type_, version, data, metadata, recorded_at, origins), at
        )
        if new_data is None:
            out.tally.copied += 1
        else:
            out.tally.upcast += 1

    def _try_twice(self, event: Event) -> None:
        upcast = self._pipeline.chains.upcast
        if upcast(event) != upcast(event):
            raise UpcastError(
                "upcasting this event twice gave two different results",
                where=Where(step=self._path(event)).within(place_of(event)),
                remedy="an upcaster must be pure: take the time, an id or a random number "
                "from the event or its metadata, never from outside",
            )

    def _placeless(self, drafts: list[Draft]) -> list[Event]:
        """Target events in their streams, with ids and origins, but without positions."""
        keep = self._keep_ids
        stream_of = self._pipeline.target_stream
        same = self._same_stream
        return [
            Event(
                0,
                d.sources[0].stream if same else stream_of(d),
                0,
                d.id(keep_source_id=keep),
                d.type,
                d.schema_version,
                d.data,
                d.metadata,
                d.recorded_at,
                d.origins(),
            )
            for d in drafts
        ]

    def _count_in_stream(self, event: Event, became: Draft | None, tally: Tally) -> None:
        if became is None:
            names = [s.name for s in self._pipeline.stream_steps if s.fits(event.stream)]
            rule = self._dropping_rule(event)
            tally.drop(rule if rule else f"stream step {' or '.join(names)}")
        elif len(became.sources) > 1:
            tally.merged += 1
        elif became.split:
            tally.split += 1
        else:
            tally.count(Fate.UPCAST if became.changed else Fate.COPIED)

    def _dropping_rule(self, event: Event) -> str:
        path = self._pipeline.chains.goal.path((event.type, event.schema_version))
        if not path or path[-1].to is not None:
            return ""
        return f"{path[-1].name}" + (f": {path[-1].why}" if path[-1].why else "")

    def _path(self, event: Event) -> str:
        path = self._pipeline.chains.goal.path((event.type, event.schema_version))
        return ", ".join(step.name for step in path)


def _stretch(rows: Sequence[DataRow]) -> Stretch:
    groups: dict[tuple[str, int], tuple[list[int], list[bytes]]] = {}
    for position, type_, version, data in rows:
        found = groups.get((type_, version))
        if found is None:
            found = groups[type_, version] = ([], [])
        found[0].append(position)
        found[1].append(data)
    return Stretch(
        rows[0][0],
        rows[-1][0],
        [Group(*version, len(data), at, data) for version, (at, data) in groups.items()],
        sound=False,
    )


def _new_data(
    from_many: Sequence[Callable[[Sequence[bytes]], list[bytes]] | None], data: Sequence[bytes]
) -> Iterator[tuple[int, bytes]]:
    """Where data changes, by index, and what it becomes; those of one chain at once."""
    places: dict[Callable[[Sequence[bytes]], list[bytes]], list[int]] = {}
    for at, change in enumerate(from_many):
        if change is not None:
            places.setdefault(change, []).append(at)
    for change, where in places.items():
        yield from zip(where, change([data[at] for at in where]), strict=True)


_TRIED_TWICE = 5
