"""Reading by transactions: the safe end of a live table, and events whose stream ran ahead of them.

All transactions below the oldest one that is open have ended. So what they wrote can be read,
and nothing comes before it any more; a transaction that is open for long holds it up, wherever
on the server it is.

A transaction gets its number when it begins to write, and may append to a stream after a
later one has: in the order of (transaction, position) an event then stands before its
predecessor in the stream. Such an event is **late**. It is read behind its predecessor: in the
place of the highest transaction that its stream holds up to it. Where several events of one
stream stand in one place (sequences that cache hand positions out in any order), they share
their positions out in the stream's order. So nobody else's positions change, and none is twice.
Both are settled once every transaction up to that place has ended, and never change again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    and_,
    any_,
    cast,
    func,
    not_,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from eventmig.errors import StoreDamagedError, Where
from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.order import Order
from eventmig.stores.layouts.rows import Rows
from eventmig.stores.layouts.tables import Tables

_AT_ONCE: Final = 500  # streams
_SNAPSHOT: Final = text(
    "SELECT CAST(CAST(pg_snapshot_xmin(s) AS text) AS bigint),"
    " CAST(CAST(pg_snapshot_xmax(s) AS text) AS bigint) FROM pg_current_snapshot() AS s"
)


def places_of(stream: Sequence[int], order: Order) -> dict[int, int]:
    """Where the late events of one stream are read, by their places in (transaction, position).

    `stream` has those places in the stream's order. Events that are not late have no entry.
    """
    latest = 0
    together: dict[int, list[int]] = {}
    for place in stream:
        latest = max(latest, order.transaction(place))
        together.setdefault(latest, []).append(place)
    found: dict[int, int] = {}
    for transaction, places in together.items():
        first = order.first_of(transaction)
        within = sorted(place - order.first_of(order.transaction(place)) for place in places)
        found |= dict(zip(places, (first + at for at in within), strict=True))
    return {own: place for own, place in found.items() if own != place}


class Late:
    """The late events of one store, as far as it was looked at; everything here reads only.

    `places` maps the place of each in (transaction, position) to its global position.
    """

    def __init__(self, tables: Tables, url: str) -> None:
        self._tables = tables
        self._order = tables.order
        self._url = url
        self._looked = 0  # at everything of transactions below this one
        self._known = 0  # and at everything up to this global position
        self.places: dict[int, int] = {}
        self._own: dict[int, int] = {}
        self._sorted: list[int] = []

    # finding

    def look(self, connection: Connection, rows: Rows, until: int) -> None:
        """Find what is late up to a global position, if that is not known yet.

        Nothing may be written at or before it any more.
        """
        if until > self._known and self._order.transaction(until) >= self._looked:
            self._look(connection, rows)
            self._known = until

    def look_at(self, connection: Connection, rows: Rows, found: Sequence[Sequence[Any]]) -> None:
        """Find what is late in the streams of these rows of `Rows.events`, if it is not known."""
        transaction, looked = self._order.transaction, self._looked
        new = [row for row in found if row[0] is not None and transaction(row[0]) >= looked]
        keys = {self._tables.key_of(rows.stream(row)) for row in new}
        self._find(connection, rows, [key for key in keys if key is not None])

    def _look(self, connection: Connection, rows: Rows) -> tuple[int, int]:
        oldest, next_one = connection.execute(_SNAPSHOT).one()
        tables, order = self._tables, self._order
        mine = rows.ours()
        if self._looked:
            new = select(*tables.keys).select_from(tables.source)
            new = new.where(*mine, order.since(self._looked)).correlate(None)
            mine = [*mine, tuple_(*tables.keys).in_(new)]
        before = func.lag(order.place).over(
            partition_by=tables.keys, order_by=tables.stream_position
        )
        named = [tables.plain(name) for name in tables.layout.stream.columns]
        placed = (
            select(
                *(name.label(f"k{n}") for n, name in enumerate(named)),
                order.place.label("place"),
                before.label("before"),
            )
            .select_from(tables.source)
            .where(*mine)
            .subquery()
        )
        *keys, place, previous = placed.c
        streams = connection.execute(select(*keys).where(place < previous).distinct())
        self._find(connection, rows, [tuple(map(str, key)) for key in streams])
        self._looked = int(oldest)
        return int(oldest), int(next_one)

    def _find(self, connection: Connection, rows: Rows, streams: Sequence[tuple[str, ...]]) -> None:
        """Note what is late in these streams, and forget what was noted of them before.

        What is settled does not change meanwhile: another thread may read on.
        """
        tables = self._tables
        for at in range(0, len(streams), _AT_ONCE):
            statement = (
                select(*tables.keys, self._order.place)
                .select_from(tables.source)
                .where(*rows.ours(), tables.among(streams[at : at + _AT_ONCE]))
                .order_by(*tables.keys, tables.stream_position)
            )
            for _, stream in groupby(connection.execute(statement), key=lambda row: row[:-1]):
                places = [row[-1] for row in stream]
                if None in places:
                    raise self._order.too_large()
                late = places_of(places, self._order)
                self.places |= late
                for place in places:
                    if place not in late:
                        self.places.pop(place, None)
        if streams:
            self._own = {place: own for own, place in self.places.items()}
            self._sorted = sorted(self._own)

    # reading

    def head(self, connection: Connection, rows: Rows) -> int:
        """The last global position that no open transaction can precede; 0 for none.

        Raises `StoreDamagedError` for events of transactions that this server has not begun.
        """
        oldest, next_one = self._look(connection, rows)
        last = self._last(connection, rows, None)
        if self._order.transaction(last) >= next_one:
            raise self._foreign(self._order.transaction(last), next_one)
        return self._last(connection, rows, oldest)

    def last(self, connection: Connection, rows: Rows) -> int:
        """The last global position of any event, whatever is open; 0 for none."""
        self._look(connection, rows)
        return self._last(connection, rows, None)

    def _last(self, connection: Connection, rows: Rows, before: int | None) -> int:
        """The last global position, of the transactions before one (None: of all)."""
        order, late = self._order, self._sorted
        ours = order.last(self._tables.source).where(*rows.ours())
        if before is not None:
            ours = ours.where(order.before(before))
            late = late[: bisect_left(late, order.first_of(before))]
        found = connection.execute(ours.limit(1 + len(self.places))).scalars()
        in_time = next((place for place in found if place not in self.places), 0)
        if in_time is None:
            raise order.too_large()
        return max(in_time, *late[-1:], 0)

    def upto(self, until: int) -> Expression:
        """The condition that a row stands at this global position, or before it."""
        late = list(self.places.items())
        behind = [own for own, place in late if own <= until < place]
        ahead = [own for own, place in late if place <= until < own]
        condition = self._order.upto(until)
        if behind:
            condition = and_(condition, not_(self.among(behind)))
        return or_(condition, self.among(ahead)) if ahead else condition

    def among(self, places: Collection[int]) -> Expression:
        """The condition that a row has one of these places in (transaction, position)."""
        values = list(map(self._order.column_value, places))
        return self._tables.position == any_(cast(values, ARRAY(BigInteger())))

    def between(self, after: int, until: int, limit: int) -> list[int]:
        """The places in (transaction, position) of the first late events of a range, in order."""
        first, end = bisect_right(self._sorted, after), bisect_right(self._sorted, until)
        return [self._own[place] for place in self._sorted[first : min(end, first + limit)]]

    def _foreign(self, transaction: int, next_one: int) -> StoreDamagedError:
        given = self._tables.layout.transaction
        column = "" if given is None else given.column
        return StoreDamagedError(
            f"there are events of transaction {transaction}, and this server has come to "
            f"{next_one - 1}: they come from another server (a dump, a logical copy), so "
            "what will come before them cannot be told",
            where=Where(store=self._url),
            remedy=f"while nobody appends, give all rows a number that is long past: "
            f"UPDATE {self._tables.layout.table} SET {column} = '3'; their order by "
            f"{self._tables.layout.position} stays",
        )
