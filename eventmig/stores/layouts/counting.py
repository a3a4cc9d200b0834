"""Stream positions that tables do not have: counted, in the global order.

While all events are read from the first on, each is counted as it comes. From anywhere else,
and where events of some types alone are read, the database counts what lies before a page in
the page's streams: that costs what these streams have, never what the whole table has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.rows import Rows
from eventmig.stores.layouts.tables import Tables

_NAMED: Final = 500  # streams in one statement
_KEPT: Final = 200_000  # streams whose numbers of events are kept


class Counting:
    """Gives the rows of one reading their stream positions, page by page in the global order.

    `whole`: no event is left out between two that are read. `before`: how many events streams
    have before the first page, where that is known; `complete`: other streams have none.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        whole: bool,
        before: dict[str, int] | None = None,
        complete: bool = False,
    ) -> None:
        self._tables = tables
        self._whole = whole
        self._known = dict(before or {})
        self._complete = complete

    def placed(
        self, connection: Connection, rows: Rows, found: Sequence[Row[Any]]
    ) -> list[Sequence[Any]]:
        """Rows of `Rows.events` with their stream positions. Reads only."""
        if not found:
            return []
        keys = len(self._tables.keys)
        base = self._tables.layout.stream.first - 1
        streams = [self._tables.stream(row[1 : 1 + keys]) for row in found]
        positions = (self._next if self._whole else self._among)(connection, rows, found, streams)
        return [
            (*row[: 1 + keys], base + position, *row[2 + keys :])
            for row, position in zip(found, positions, strict=True)
        ]

    def _next(
        self,
        connection: Connection,
        rows: Rows,
        found: Sequence[Row[Any]],
        streams: Sequence[str],
    ) -> list[int]:
        known = self._known
        if not self._complete:
            new = [stream for stream in dict.fromkeys(streams) if stream not in known]
            known |= self._before(connection, rows, found[0][0], new)
        out = []
        for stream in streams:
            known[stream] = known.get(stream, 0) + 1
            out.append(known[stream])
        if len(known) > _KEPT:
            known.clear()
            self._complete = False
        return out

    def _among(
        self,
        connection: Connection,
        rows: Rows,
        found: Sequence[Row[Any]],
        streams: Sequence[str],
    ) -> list[int]:
        tables, order = self._tables, self._tables.order
        names = list(dict.fromkeys(streams))
        before = self._before(connection, rows, found[0][0], names)
        within: dict[int, int] = {}
        number = func.row_number().over(partition_by=tables.keys, order_by=tables.position)
        here = (order.after(found[0][0] - 1), order.upto(found[-1][0]))
        for of in self._of(names):
            numbered = select(order.place, number).select_from(tables.placed())
            numbered = numbered.where(of, *rows.ours(), *here)
            within.update((place, n) for place, n in connection.execute(numbered))
        return [
            before.get(stream, 0) + within[row[0]]
            for row, stream in zip(found, streams, strict=True)
        ]

    def _before(
        self, connection: Connection, rows: Rows, first: int, streams: Sequence[str]
    ) -> dict[str, int]:
        """How many events these streams have before a global position, where they have some."""
        tables = self._tables
        names = [tables.plain(name) for name in tables.layout.stream.columns]
        counts: dict[str, int] = {}
        for of in self._of(streams):
            earlier = select(*names, func.count()).select_from(tables.placed())
            earlier = earlier.where(of, *rows.ours(), tables.order.upto(first - 1))
            for *key, count in connection.execute(earlier.group_by(*tables.keys)):
                counts[tables.stream(key)] = count
        return counts

    def _of(self, streams: Sequence[str]) -> list[Expression]:
        """Conditions that a row is of one of these streams, for one statement each."""
        keys = [key for key in map(self._tables.key_of, streams) if key is not None]
        return [self._tables.among(keys[at : at + _NAMED]) for at in range(0, len(keys), _NAMED)]
