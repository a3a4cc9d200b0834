"""Stored events on their way to a fold that has to be in order: read, upcast, not yet folded.

    pages of columns ─▶ data upcast, many events at once ─▶ `Gathered` ─▶ folded, in order

What is gathered depends on nothing before it, so that it can be done anywhere: ranges of
events by several processes. Where an event needs to be whole (a handler takes it, it is split,
its steps read metadata), it is. Pure, but for the reading of the source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from eventmig import codec
from eventmig.events import Event, Page
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.ahead import ahead
from eventmig.rebuild.handlers import Call, OnData
from eventmig.rebuild.narrow import NeedsEventError, Plans, data_handlers
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.sharing import FoldHelpers, Made, Ranges, Work, in_order, worth_sharing
from eventmig.stores.base import DataRow
from eventmig.stores.faster import DataLines, ReadingLines

_AT_ONCE: Final = 5_000
"""Events in a range that is gathered: its data is kept until it is its turn."""

_MOST_BYTES: Final = 32 * 1024 * 1024
"""Of data, in a range that is gathered as a whole."""


_PLACE: Final = itemgetter(0)


class Group(NamedTuple):
    """Handled events of one type, as data of the release.

    `at` are their places (0-based) in the columns of `Gathered`. `data` holds them in that
    order: as lines of up to `codec.AT_ONCE` events, or (not `lines`) one by one.
    """

    type: str
    at: list[int]
    data: list[bytes]
    lines: bool


class Gathered(NamedTuple):
    """A page of stored events, upcast: those after a global position up to `until` (inclusive).

    `events_read` of them are of the source's types that were asked for. For an aggregate the
    columns have those of its streams, in global order; for a read model there are only the
    global positions. Handled are the `groups`, or (where they are not None) the `whole` events.
    """

    after: int
    until: int
    events_read: int
    global_positions: Sequence[int]
    streams: Sequence[str]
    stream_positions: Sequence[int]
    ids: Sequence[str]
    groups: list[Group]
    whole: list[Event] | None


def gather(aggregate: Aggregate[Any], plan: Replay, after: int, until: int) -> Iterator[Gathered]:
    """Everything after one global position and up to another, page by page (reads the source).

    Raises what reading and upcasting raise.
    """
    handlers = data_handlers(aggregate.handlers, "state")
    if handlers is not None and plan.data_upcaster is not None:
        plans = Plans(handlers, plan.data_upcaster)
        pages = plan.source.read_pages(
            after=after, until=until, types=plan.types, batch_size=plan.read_at_once
        )
        with ahead(pages, wanted=plan.read_ahead) as found:
            for page in found:
                last = page.global_positions[-1]
                try:
                    yield _narrow(aggregate, plans, page, after)
                except NeedsEventError:
                    break
                except Exception:  # noqa: BLE001 - whole events say what is wrong
                    yield from gather_whole(aggregate, plan, after, last)
                after = last
            else:
                return
    yield from gather_whole(aggregate, plan, after, until)


def gather_whole(
    aggregate: Aggregate[Any], plan: Replay, after: int, until: int
) -> Iterator[Gathered]:
    """`gather`, by whole events."""
    batches = plan.source.read_all(
        after=after, until=until, types=plan.types, batch_size=plan.read_at_once
    )
    with ahead(batches, wanted=plan.read_ahead) as found:
        for stored in found:
            mine = stored
            if (own := _own(aggregate, [event.stream for event in stored])) is not None:
                mine = [*compress(stored, own)]
            last = stored[-1].global_position
            yield Gathered(
                after=after,
                until=last,
                events_read=len(stored),
                global_positions=[event.global_position for event in mine],
                streams=[event.stream for event in mine],
                stream_positions=[event.stream_position for event in mine],
                ids=[event.id for event in mine],
                groups=[],
                whole=plan.upcast(mine),
            )
            after = last


def gather_data(
    handlers: Mapping[str, OnData], plan: Replay, after: int, until: int
) -> Iterator[Gathered]:
    """Everything of a range for a read model's handlers, page by page (reads the source).

    Raises anything where an event cannot be upcast, or has to be whole.
    """
    assert plan.data_upcaster is not None
    plans = Plans(handlers, plan.data_upcaster)
    if isinstance(plan.source, ReadingLines):
        lines = plan.source.read_lines(
            after=after,
            until=until,
            types=plan.types,
            members=plans.members,
            batch_size=plan.read_at_once,
        )
        pages = (_of_lines(plans, batch) for batch in lines)
    else:
        rows = plan.source.read_data(
            after=after, until=until, types=plan.types, batch_size=plan.read_at_once
        )
        pages = (_of_rows(plans, batch) for batch in rows)
    with ahead(pages, wanted=plan.read_ahead) as found:
        for positions, groups in found:
            last = max(positions)
            yield Gathered(after, last, len(positions), positions, (), (), (), groups, None)
            after = last


def _of_rows(plans: Plans, batch: list[DataRow]) -> tuple[Sequence[int], list[Group]]:
    positions, types, versions, data = zip(*batch, strict=True)
    return positions, _groups(plans, types, versions, data)


def _of_lines(plans: Plans, batch: list[DataLines]) -> tuple[Sequence[int], list[Group]]:
    positions = sorted(chain.from_iterable(some.global_positions for some in batch))
    places = {position: at for at, position in enumerate(positions)}
    groups = []
    for some in batch:
        kind = some.type, some.schema_version
        plan = plans[kind]
        data = some.lines.split(b"\n")[:-1]
        if some.sound and kind not in plans.members:
            data = [*map(codec.compact, data)]
        if len(data) != len(some.global_positions):
            raise ValueError("data with newlines of its own")
        upcast = plan.upcast(data)
        if plan.handle is not None:
            ats = [*map(places.__getitem__, some.global_positions)]
            groups.append(Group(plan.chain.type, ats, *upcast))
    return positions, groups


def gather_range(pages: Iterator[Gathered], until: int) -> tuple[int, list[Gathered]] | None:
    """The pages of a range at once, and the global position they reach; None where that fails.

    They end before `until`, the range's last position, where they are too much to be kept in
    memory.
    """
    found: list[Gathered] = []
    size = 0
    try:
        for page in pages:
            found.append(page)
            size += sum(len(data) for group in page.groups for data in group.data)
            size += sum(len(event.data) for event in page.whole or ())
            if size > _MOST_BYTES:
                return page.until, found
    except Exception:  # noqa: BLE001 - in its turn, it is found out
        return None
    return until, found


def gather_together(
    work: Work,
    name: str,
    pages: Callable[[int, int], Iterator[Gathered]],
    plan: Replay,
    after: int,
    helpers: FoldHelpers,
) -> Iterator[Made[list[Gathered]]] | None:
    """Every range after a position in order, gathered by helpers, and by this process (`pages`).

    None where that is of no use. Reads the source; raises `JobError` where a helper is gone.
    """
    spacing = worth_sharing(plan, after)
    if spacing is None:
        return None
    most = math.ceil(_AT_ONCE * spacing)
    ranges = Ranges(after, plan.upto, helpers.count + 1, fewest=most, most=most)

    def here(
        after: int, until: int, _meanwhile: Callable[[], None]
    ) -> tuple[int, list[Gathered]] | None:
        return gather_range(pages(after, until), until)

    def found() -> Iterator[Made[list[Gathered]]]:
        for made in in_order(work, name, ranges, helpers, here, unpacked, queued=2):
            yield made
            if events := sum(page.events_read for page in made.found or ()):
                spacing = (made.until - made.after) / events
                ranges.most = min(2 * ranges.most, math.ceil(_AT_ONCE * spacing))

    return found()


def _own(aggregate: Aggregate[Any], streams: Sequence[str]) -> list[bool] | None:
    """Which of these streams are the aggregate's; None: all."""
    category = aggregate.category
    if category is None:
        return None
    prefix = category + "-"
    own = [stream.startswith(prefix) or stream == category for stream in streams]
    return None if all(own) else own


def _narrow(aggregate: Aggregate[Any], plans: Plans, page: Page, after: int) -> Gathered:
    until, count = page.global_positions[-1], len(page.ids)
    if (own := _own(aggregate, page.streams)) is not None:
        page = Page._make([*compress(column, own)] for column in page)
    return Gathered(
        after=after,
        until=until,
        events_read=count,
        global_positions=page.global_positions,
        streams=page.streams,
        stream_positions=page.stream_positions,
        ids=page.ids,
        groups=_groups(plans, page.types, page.schema_versions, page.data),
        whole=None,
    )


def _groups(
    plans: Plans, types: Iterable[str], versions: Iterable[int], data: Iterable[bytes]
) -> list[Group]:
    places: dict[tuple[str, int], tuple[list[int], list[bytes]]] = {}
    for at, (type_, version, one) in enumerate(zip(types, versions, data, strict=True)):
        try:
            ats, some = places[type_, version]
        except KeyError:
            ats, some = places[type_, version] = [], []
        ats.append(at)
        some.append(one)
    groups = []
    for kind, (ats, some) in places.items():
        plan = plans[kind]
        upcast = plan.upcast(some)
        if plan.handle is not None:
            groups.append(Group(plan.chain.type, ats, *upcast))
    return groups


def handled(handlers: Mapping[str, OnData], page: Gathered) -> list[tuple[int, Call, object]]:
    """A page's events in order: place in its columns, handler, what that takes; raises anything."""
    found: list[tuple[int, Call, object]] = []
    for group in page.groups:
        handle = handlers[group.type]
        values = _decoded(handle, group)
        found += zip(group.at, [handle.call] * len(values), values, strict=True)
    found.sort(key=_PLACE)
    return found


def _decoded(handle: OnData, group: Group) -> list[object]:
    """What the handler takes of a group's events; raises anything."""
    values: list[object] = []
    if group.lines and handle.decode_lines is not None:
        for lines in group.data:
            values += handle.decode_lines(lines)
    elif group.lines:
        for lines in group.data:
            values += map(handle.decode, lines.split(b"\n")[:-1])
    else:
        values += map(handle.decode, group.data)
    if len(values) != len(group.at):
        raise ValueError(f"{len(values)} values of {len(group.at)} events")
    return values


# between processes ---------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Gathered])


def packed(pages: list[Gathered]) -> bytes:
    """What was gathered as bytes."""
    return _encoder.encode(pages)


def unpacked(message: bytes) -> list[Gathered]:
    """What `packed` made bytes of."""
    return _decoder.decode(message)
