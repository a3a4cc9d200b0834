"""Stored events on their way to the states of an aggregate: read, upcast, not yet folded.

    pages of columns ─▶ data upcast, many events at once ─▶ `Gathered` ─▶ folded (`states`)

What is gathered depends on nothing before it, so that it can be done anywhere: ranges of
events by several processes. Where an event needs to be whole (a handler takes it, it is split,
its steps read metadata), it is. Pure, but for the reading of the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple

import msgspec

from eventmig.errors import EventmigError
from eventmig.events import Event, Page
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.ahead import ahead
from eventmig.rebuild.handlers import OnData
from eventmig.rebuild.narrow import NeedsEventError, Plans, data_handlers
from eventmig.rebuild.replay import Replay

_MOST_BYTES: Final = 32 * 1024 * 1024
"""Of data, in a range that is gathered as a whole."""


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

    `events_read` of them are of the source's types that were asked for. The columns have those
    of the aggregate's streams, in global order. Handled are the `groups`, or (where they are
    not None) the `whole` events.
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


def gather_range(
    aggregate: Aggregate[Any], plan: Replay, after: int, until: int
) -> list[Gathered] | None:
    """`gather` at once; None where that fails, or is too much to be kept in memory."""
    pages: list[Gathered] = []
    size = 0
    try:
        for page in gather(aggregate, plan, after, until):
            pages.append(page)
            size += sum(len(data) for group in page.groups for data in group.data)
            size += sum(len(event.data) for event in page.whole or ())
            if size > _MOST_BYTES:
                return None
    except EventmigError:
        return None
    return pages


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
    places: dict[tuple[str, int], tuple[list[int], list[bytes]]] = {}
    for at, (type_, version, data) in enumerate(
        zip(page.types, page.schema_versions, page.data, strict=True)
    ):
        try:
            ats, some = places[type_, version]
        except KeyError:
            ats, some = places[type_, version] = [], []
        ats.append(at)
        some.append(data)
    groups = []
    for kind, (ats, some) in places.items():
        plan = plans[kind]
        upcast, lines = plan.upcast(some)
        if plan.handle is not None:
            groups.append(Group(plan.type, ats, upcast, lines))
    return Gathered(
        after=after,
        until=until,
        events_read=count,
        global_positions=page.global_positions,
        streams=page.streams,
        stream_positions=page.stream_positions,
        ids=page.ids,
        groups=groups,
        whole=None,
    )


def decoded(handle: OnData, group: Group) -> list[object]:
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
