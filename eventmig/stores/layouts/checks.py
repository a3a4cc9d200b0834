"""What keeps a described store from being migrated, as far as the database can see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, func, inspect, select, table, text

from eventmig.errors import StoreDamagedError, Where
from eventmig.stores.layouts.columns import columns_of
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.rows import Rows
from eventmig.stores.layouts.tables import Tables

_SHOWN: Final = 20


def damages(
    connection: Connection, tables: Tables, rows: Rows, url: str
) -> Iterator[StoreDamagedError]:
    """Missing positions, holes and repeats in streams; at most 20 of each. Reads only."""
    layout = tables.layout
    yield from _not_carried(connection, layout, url)
    yield from lost_rows(connection, layout, url)
    yield from _missing(connection, tables, rows, url)
    yield from _too_low(connection, tables, rows, url)
    if layout.stream.counted:
        return
    position = tables.stream_position
    previous = func.lag(position, 1, layout.stream.first - 1).over(
        partition_by=tables.keys, order_by=position
    )
    names = [tables.plain(name) for name in layout.stream.columns]
    placed = (
        select(
            *(name.label(f"k{n}") for n, name in enumerate(names)),
            position.label("at"),
            previous.label("previous"),
        )
        .select_from(tables.source)
        .where(*rows.ours(), position.is_not(None))
        .subquery()
    )
    wrong = select(placed).where(placed.c.at != placed.c.previous + 1).limit(_SHOWN)
    for *key, at, before in connection.execute(wrong):
        stream = tables.stream(key)
        first = before < layout.stream.first
        yield StoreDamagedError(
            f"the stream {stream!r} "
            + (
                f"begins at position {at}, not at {layout.stream.first}"
                if first
                else f"goes on at position {at} after {before}"
            ),
            where=Where(store=url, stream=stream, stream_position=at),
            remedy="a stream must be whole: restore what is missing, or describe the rows that "
            "are events in the layout (where, stream.left_out)",
        )


def _not_carried(connection: Connection, layout: Layout, url: str) -> Iterator[StoreDamagedError]:
    for name in layout.not_carried:
        if not inspect(connection).has_table(name):
            continue
        count = connection.execute(select(func.count()).select_from(table(name))).scalar_one()
        if count:
            yield StoreDamagedError(
                f"the table {name!r} holds {count} rows about events, which a copy would lose",
                where=Where(store=url),
                remedy="copy that table by hand afterwards (global positions change), and leave "
                "it out of the layout (not_carried = [])",
            )


def lost_rows(connection: Connection, layout: Layout, url: str) -> Iterator[StoreDamagedError]:
    """What of the owner's tables a copy would lose, as the layout says. Reads only."""
    for lost in layout.lost:
        known = columns_of(connection, lost.table)
        if lost.column and lost.column not in known:
            continue
        rows = select(func.count()).select_from(table(lost.table)).where(text(lost.condition))
        count = connection.execute(rows).scalar_one()
        if count:
            yield StoreDamagedError(
                f"the table {lost.table!r} holds {count} {lost.what}, which a copy would lose",
                where=Where(store=url),
                remedy=lost.remedy,
            )


def _too_low(
    connection: Connection, tables: Tables, rows: Rows, url: str
) -> Iterator[StoreDamagedError]:
    """Positions before the first that is read."""
    first = tables.layout.first
    low = select(func.count(), func.min(tables.position)).select_from(tables.source)
    count, lowest = connection.execute(low.where(*rows.ours(), tables.position < first)).one()
    if count:
        yield StoreDamagedError(
            f"{count} rows have a {tables.layout.position!r} below {first}, where reading "
            "begins: they would be left out",
            where=Where(store=url),
            remedy="say `first = 0` in the layout: its positions count from 0"
            if lowest == 0
            else f"positions below 0 (here {lowest}) are not read: describe a view of the table "
            "that counts from 0 or 1",
        )


def _missing(
    connection: Connection, tables: Tables, rows: Rows, url: str
) -> Iterator[StoreDamagedError]:
    layout = tables.layout
    given = [layout.transaction.column] if layout.transaction else []
    counted = () if layout.stream.counted else (layout.stream.position,)
    for name in (layout.position, *given, *layout.stream.columns, *counted):
        column = tables.column(name)
        count = connection.execute(
            select(func.count()).select_from(tables.source).where(*rows.ours(), column.is_(None))
        ).scalar_one()
        if count:
            yield StoreDamagedError(
                f"{count} rows have no {name!r}: their order is not known",
                where=Where(store=url),
                remedy="leave such rows out (`where` in the layout), have stream positions counted "
                "(stream.counted), or give them one with the library that owns them",
            )
