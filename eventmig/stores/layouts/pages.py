"""The way of a page: rows of a layout's tables, in the order that is asked for, made events.

Each page is one short read over a connection that cannot write, cut after 16 MiB of data. Its
rows come in the order of the columns; late ones are put where they stand, stream positions that
no column has are counted, and what the tables do not carry of events a job wrote is taken from
the side tables (`lineage`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select

from eventmig.events import Event, Origin, Page
from eventmig.stores.layouts import lineage
from eventmig.stores.layouts.access import Access
from eventmig.stores.layouts.counting import Counting
from eventmig.stores.layouts.rows import Rows

_PAGE_BYTES: Final = 16 * 1024 * 1024
_FETCHED: Final = 250  # rows at a time, at the most
_STREAM_PAGE: Final = 1_000


class Pages:
    """Pages of a layout's events. Everything here reads only, and raises `DataError`s as `Rows`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._stream = access.place.layout.stream

    def between(
        self,
        after: int,
        last: int,
        types: Collection[str] | None,
        batch_size: int,
        *,
        origins: bool,
    ) -> Iterator[tuple[Page, list[tuple[Origin, ...]]]]:
        """Pages in global order: `after` exclusive, `last` inclusive, so many events at the most.

        Each comes with its events' origins if they are asked for. With `types` there may be
        events of others among them.
        """
        order, late = self._access.tables.order, self._access.late
        counting = self._counting(whole=types is None, complete=after == 0)
        if late is not None and after < last:
            with self._access.reading() as (connection, rows):
                late.look(connection, rows, last)
        while after < last:
            with self._access.reading() as (connection, rows):
                events = rows.events()
                if types is not None:
                    events = events.where(rows.of_types(sorted(types)))
                due = events.where(order.after(after), order.upto(last))
                due = order.ascending(due).limit(batch_size)
                found = self._fetch(connection, rows, due, counting)
                after, found = self._with_late(
                    connection, rows, events, found, after=after, last=last, limit=batch_size
                )
                if not found:
                    continue
                page = rows.page(found)
                lineages = self._lineage(connection, rows, page, found) if origins else []
            yield page, lineages

    def of_stream(self, stream: str, first: int, last: int) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive stream positions."""
        tables = self._access.tables
        key = tables.key_of(stream)
        if key is None:
            return
        following = first
        while following <= last:
            with self._access.reading() as (connection, rows):
                statement = rows.events().where(tables.among([key]))
                statement = self._in_stream(statement, following, last)
                counting = self._counting(before={stream: following - self._stream.first})
                found = self._fetch(connection, rows, statement, counting)
                page = self._events(connection, rows, found)
            yield from page
            if len(found) < _STREAM_PAGE and self._size(found) <= _PAGE_BYTES:
                return
            following = page[-1].stream_position + 1

    def _in_stream(self, statement: Select[Any], following: int, last: int) -> Select[Any]:
        """Rows of one stream, between these positions in it; at most a page."""
        tables = self._access.tables
        if self._stream.counted:
            wanted = min(last - following + 1, _STREAM_PAGE)
            rows = statement.order_by(tables.position)
            return rows.offset(following - self._stream.first).limit(wanted)
        position = tables.stream_position
        rows = statement.where(position >= following, position <= last)
        return rows.order_by(position).limit(_STREAM_PAGE)

    def events(self, connection: Connection, rows: Rows, statement: Select[Any]) -> list[Event]:
        """The events of a statement of `Rows.events`; at most a page."""
        found = self._fetch(connection, rows, statement, self._counting())
        return self._events(connection, rows, found)

    # a page's rows --------------------------------------------------------------------------

    def _fetch(
        self,
        connection: Connection,
        rows: Rows,
        statement: Select[Any],
        counting: Counting | None,
    ) -> Sequence[Sequence[Any]]:
        """The rows of a statement of `Rows.events`, cut after 16 MiB of data."""
        found: list[Row[Any]] = []
        size, step = 0, 1  # few rows at first: each may be large
        with connection.execute(statement) as result:
            while size <= _PAGE_BYTES and (some := result.fetchmany(step)):
                found += some
                step = min(2 * step, _FETCHED)
                size += self._size(some)
        return found if counting is None else counting.placed(connection, rows, found)

    def _counting(
        self, *, whole: bool = True, complete: bool = False, before: dict[str, int] | None = None
    ) -> Counting | None:
        """What counts stream positions for one reading; None where the tables have them."""
        if not self._stream.counted:
            return None
        return Counting(self._access.tables, whole=whole, complete=complete, before=before)

    def _size(self, found: Sequence[Sequence[Any]]) -> int:
        data = len(self._stream.columns) + 3
        return sum(len(row[data] or b"") for row in found)

    def _with_late(
        self,
        connection: Connection,
        rows: Rows,
        events: Select[Any],
        found: Sequence[Sequence[Any]],
        *,
        after: int,
        last: int,
        limit: int,
    ) -> tuple[int, Sequence[Sequence[Any]]]:
        """The rows of a page in their order, and the global position that it goes up to.

        `found` are in the order of the columns.
        """
        until = last if not found or found[-1][0] is None else int(found[-1][0])
        late = self._access.late
        if late is None or not late.places:
            return until, found
        due = late.between(after, until, limit)
        if len(due) == limit:
            until = late.places[due[-1]]
        page = [row for row in found if row[0] not in late.places and row[0] <= until]
        if due:
            page += connection.execute(events.where(late.among(due)))
            page.sort(key=rows.place)
        return until, page

    # its events -----------------------------------------------------------------------------

    def _events(
        self, connection: Connection, rows: Rows, found: Sequence[Sequence[Any]]
    ) -> list[Event]:
        if not found:
            return []
        late = self._access.late
        if late is not None:
            late.look_at(connection, rows, found)
        page = rows.page(found)
        return list(map(Event, *page, self._lineage(connection, rows, page, found)))

    def _lineage(
        self, connection: Connection, rows: Rows, page: Page, found: Sequence[Sequence[Any]]
    ) -> list[tuple[Origin, ...]]:
        firsts = rows.first_origins(found)
        if self._access.beside:
            order = self._access.tables.order
            places = [order.column_value(row[0]) for row in found]
            namespace = self._access.place.namespace
            lineage.add_others(connection, namespace, places, page.streams, firsts)
        return firsts
