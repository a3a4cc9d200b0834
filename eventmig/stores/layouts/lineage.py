"""What the owner's tables cannot carry: a side table beside them, in the same transaction.

One row per event a job wrote, by its position's column: its origin and, where the
layout has no place for them, its id and schema version. An event without a row was
appended by an application. The rows of one `namespace` are one job's events; with
several jobs in one table, `eventmig_layout_streams` says whose each new stream is.
The owner's tables get no column, and no foreign key points to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    select,
)

from eventmig.events import Origin

metadata: Final = MetaData()

origins: Final = Table(
    "eventmig_layout_origins",
    metadata,
    Column("namespace", String(255), primary_key=True),
    Column("global_position", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 0-based, in order
    Column("stream", Text),  # NULL: no origin, or the stream of the event itself
    Column("stream_position", BigInteger),  # NULL: no origin
    Column("ordinal", Integer),
    Column("event_id", Text),  # on the row with number 0, where the layout has no column
    Column("schema_version", Integer),  # likewise
    sqlite_with_rowid=False,
)
"""The origins of each event a job wrote: one row, or several for a merged event."""

streams: Final = Table(
    "eventmig_layout_streams",
    metadata,
    Column("events_table", String(255), primary_key=True),
    Column("stream", String(1024), primary_key=True),
    Column("release", String(255), nullable=False),
    sqlite_with_rowid=False,
)
"""The streams that jobs made in a table that holds other streams too, with their release."""


def add_others(
    connection: Connection,
    namespace: str,
    places: Sequence[int],
    streams: Sequence[str],
    firsts: list[tuple[Origin, ...]],
) -> None:
    """Add all other origins to the first ones of events. Reads only.

    `places`: what the column of the position holds.
    """
    index = {place: n for n, place in enumerate(places)}
    o = origins.c
    others = connection.execute(
        select(o.global_position, o.stream, o.stream_position, o.ordinal)
        .where(
            o.namespace == namespace,
            o.global_position.between(min(index), max(index)),
            o.number > 0,
        )
        .order_by(o.global_position, o.number)
    )
    for place, stream, position, ordinal in others:
        at = index.get(place)
        if at is not None:
            own = streams[at] if stream is None else stream
            firsts[at] += (Origin(own, position, ordinal),)
