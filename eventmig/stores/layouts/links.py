"""Rows that put an event into further streams: links, which are events of their own here.

The first row of an event is the event, in the stream it was published to: whoever links it
can only do so after that has committed, so it has the lowest position. Every other row is an
event of the type `$>` (KurrentDB's word for a link), whose data name the linked event, and
which stands in its stream and in the global order as the row does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import Connection, Text, cast, exists, not_, select

from eventmig.errors import DataError, Where
from eventmig.events import Columns, Event, part_id
from eventmig.stores.layouts import values
from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.joined import Made
from eventmig.stores.layouts.tables import Tables

LINK: Final = "$>"
"""The type of a link."""
_NAMED: Final = 500  # ids in one statement


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    event_id: str


_decode: Final = msgspec.json.Decoder(_Link).decode


def data_of(event_id: str) -> bytes:
    """The data of a link to this event."""
    return msgspec.json.encode(_Link(event_id))


def linked(data: bytes) -> str:
    """The id of the event that a link's data name. Raises `DataError`."""
    try:
        return _decode(data).event_id
    except msgspec.MsgspecError as error:
        raise DataError(
            f"a link's data name no event ({error})",
            remedy=f'an event of the type {LINK} has data as {{"event_id": "…"}}',
        ) from error


def is_event(tables: Tables) -> Expression:
    """Whether a row is its event; else it is a link to it."""
    earlier = tables.events.alias("earlier")
    id_ = tables.layout.link_column()
    return not_(
        exists().where(
            earlier.c[id_] == tables.events.c[id_],
            earlier.c[tables.layout.position] < tables.position,
        )
    )


def resolved(connection: Connection, tables: Tables, ids: Iterable[str]) -> dict[str, str]:
    """The ids that these events have in the tables: a copy has the same, or one made of it.

    Those that are not there are left out. Reads only.
    """
    wanted = list(dict.fromkeys(ids))
    copies = {part_id(id_, 0): id_ for id_ in wanted}
    assert tables.layout.id.column is not None
    column = tables.column(tables.layout.id.column)
    there: set[str] = set()
    candidates = [*wanted, *copies]
    for at in range(0, len(candidates), _NAMED):
        some = tables.among_ids(candidates[at : at + _NAMED])
        there.update(connection.execute(select(cast(column, Text)).where(some)).scalars())
    found = {id_: id_ for id_ in wanted if id_ in there}
    return found | {id_: copy for copy, id_ in copies.items() if copy in there}


def among(events: Columns) -> list[int]:
    """The indexes of the links among these events."""
    return [n for n, type_ in enumerate(events.types) if type_ == LINK]


def without(made: Made, linked: Collection[int]) -> Made:
    """Columns without the rows of these links."""
    if not linked:
        return made
    gone = set(linked)
    return {name: [v for n, v in enumerate(c) if n not in gone] for name, c in made.items()}


def pointed(made: Made, id_column: str, ids: Mapping[int, str]) -> Made:
    """Columns in which the rows of links, by their index, have the id of the event they are to."""
    return {**made, id_column: [ids.get(n, id_) for n, id_ in enumerate(made[id_column])]}


def targets(
    connection: Connection,
    tables: Tables,
    events: Columns,
    positions: Sequence[int],
    where: Where,
) -> dict[int, str]:
    """By the index of each link among these events: the id of the event it is to, in the tables.

    Raises `DataError` naming the first whose event is not there. Reads only.
    """
    named = {n: linked(events.data[n]) for n in among(events)}
    for n in named:
        if values.without_columns(events.metadata[n])[0] is not None:
            raise DataError(
                "a link has metadata, and the layout has no place for them",
                where=_where(where, events, positions, n),
                remedy=f"drop them in a step for {LINK}",
            )
    there = resolved(connection, tables, named.values())
    for n, id_ in named.items():
        if id_ not in there:
            raise DataError(
                f"the link is to the event {id_}, which the target does not have",
                where=_where(where, events, positions, n),
                remedy="a step has dropped that event, or it was left out; drop its links too, "
                f"in a step for {LINK} that looks at their data",
            )
    return {n: there[id_] for n, id_ in named.items()}


def _where(where: Where, events: Columns, positions: Sequence[int], n: int) -> Where:
    stream, id_ = events.streams[n], events.ids[n]
    return replace(where, stream=stream, stream_position=positions[n], event_id=id_, type=LINK)


def as_held(connection: Connection, tables: Tables, events: Sequence[Event]) -> list[Event]:
    """These events with links as they are read back: with the ids of the tables. Reads only."""
    named = {n: linked(e.data) for n, e in enumerate(events) if e.type == LINK}
    there = resolved(connection, tables, named.values())
    return [
        e._replace(data=data_of(there.get(named[n], named[n]))) if n in named else e
        for n, e in enumerate(events)
    ]
