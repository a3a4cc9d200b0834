"""Finding one event of a described layout by its id: in a column, in the side table, or derived."""

from __future__ import annotations

import uuid
from itertools import chain

from sqlalchemy import Text, cast, select

from eventmig.events import Event
from eventmig.stores.base import EventReader
from eventmig.stores.layouts import lineage, links
from eventmig.stores.layouts.access import Access
from eventmig.stores.layouts.pages import Pages
from eventmig.stores.layouts.rows import derived_id


def event_by_id(reader: EventReader, access: Access, pages: Pages, event_id: str) -> Event | None:
    """The event with this id, or None. Without a column for ids it reads all positions."""
    layout = access.place.layout
    if layout.id.column is not None:
        column = access.tables.column(layout.id.column)
        with access.reading() as (connection, rows):
            statement = rows.events().where(cast(column, Text) == event_id)
            if layout.links:
                statement = statement.where(links.is_event(access.tables))
            found = pages.events(connection, rows, statement.limit(1))
        if found or not layout.links:
            return found[0] if found else None
        every = chain.from_iterable(reader.read_all(types=[links.LINK]))
        return next((link for link in every if link.id == event_id), None)
    kept = _kept(access, pages, event_id)
    event = _derived(reader, event_id) if kept is None else kept
    return event if event is not None and event.id == event_id else None


def _kept(access: Access, pages: Pages, event_id: str) -> Event | None:
    """The event whose id is in the side table."""
    kept = lineage.origins.c
    with access.reading() as (connection, rows):
        if not access.beside:
            return None
        place = connection.execute(
            select(kept.global_position).where(
                kept.namespace == access.place.namespace, kept.event_id == event_id
            )
        ).scalar()
        statement = rows.events().where(access.tables.position == place)
        found = pages.events(connection, rows, statement)
    return found[0] if found else None


def _derived(reader: EventReader, event_id: str) -> Event | None:
    """The event whose id comes from its stream and position: the one that has this id."""
    try:
        if uuid.UUID(event_id).version != 5:
            return None
    except ValueError:
        return None
    for head in reader.heads():
        for position in range(head.first, head.last + 1):
            if derived_id(head.stream, position) == event_id:
                events = reader.read_stream(head.stream, first=position, last=position)
                return next(events, None)
    return None
