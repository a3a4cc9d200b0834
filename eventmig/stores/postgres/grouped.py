"""Reading a PostgreSQL store by type and version: the server puts the data together.

A page's data comes as one value per type and version, not as one row per event; of `jsonb`
only what somebody looks at. For folds (`read_lines`), for which the server makes the next page
while one is folded, and for copies that stay in the database (`read_grouped`), which may be made
to wait between two batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from eventmig.errors import DataError
from eventmig.events import Group, Stretch
from eventmig.stores.faster import DataLines, Members
from eventmig.stores.postgres.failures import translated
from eventmig.stores.postgres.json_fit import storable
from eventmig.stores.postgres.sent import Sent
from eventmig.stores.postgres.session import (
    FETCH_ROWS,
    FIRST_ROWS,
    PAGE_BYTES,
    PostgresSession,
    Row,
)

_MOST_LINES: Final = 4_000

_GROWTH: Final = 8  # of a page, at the most: what one is like is known when the next is under way


class _Pages(NamedTuple):
    """Which events are read, and what of them: see `read_lines` and `read_grouped`.

    `members` and `without` are looked at anew for each page. A page has `most` events at the
    most; a batch ends with the page that brings it to `batch_size` or past 16 MiB of data.
    `ahead`: a page is asked for before the one before it is used. The server may have to wait
    then, amid its statement, until that is done.
    """

    after: int
    until: int
    types: Collection[str] | None
    members: Members
    without: Collection[tuple[str, int]]
    batch_size: int
    most: int
    ahead: bool


class GroupedReader(PostgresSession):
    """The readings by type and version of `PostgresReader`."""

    def read_lines(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        members: Members,
        batch_size: int,
    ) -> Iterator[list[DataLines]]:
        """What `read_data` reads, put together by the server: see `ReadingLines`.

        Of `jsonb` the `members` alone come, where they are known. Each batch has as many events
        as are likely to hold 4 MiB of data.
        """

        def batches() -> Iterator[list[DataLines]]:
            last, alone = self._end(until)
            sound = self._found.data == "jsonb"
            pages = _Pages(after, last, types, members, (), batch_size, _MOST_LINES, ahead=True)
            for rows, _ in self._grouped_pages(pages, alone=alone):
                yield [
                    DataLines(type_, version, positions, lines, sound)
                    for type_, version, _, _, _, positions, lines in rows
                ]

        return self._steadily(batches)

    def shares_cores(self) -> bool:
        """Whether the server runs on this machine: it is reached by a socket file or itself."""
        with self._guard, translated(self.location):
            info = self._free().info
            return info.host.startswith(("/", "@")) or info.hostaddr in ("127.0.0.1", "::1")

    def read_grouped(
        self,
        *,
        after: int,
        until: int,
        batch_size: int,
        without: Collection[tuple[str, int]],
    ) -> Iterator[Stretch]:
        """What `read_data` reads, by type and version; of those in `without`, only counts.

        For tables of `jsonb` that hold streams of one release alone. A batch ends early when
        it passes 16 MiB of data.
        """

        def batches() -> Iterator[Stretch]:
            batch: list[Row] = []
            pages = _Pages(after, until, None, {}, without, batch_size, FETCH_ROWS, ahead=False)
            for rows, ends in self._grouped_pages(pages, alone=True):
                batch += rows
                if ends:
                    yield _stretch(batch)
                    batch = []
            if batch:
                yield _stretch(batch)

        return self._steadily(batches)

    def _grouped_pages(self, wanted: _Pages, *, alone: bool) -> Iterator[tuple[list[Row], bool]]:
        """Pages of rows, one per type and version, and whether a batch ends with a page.

        `alone`: these tables hold this release's streams alone.
        """
        after, until, types, members, without, batch_size, most, ahead = wanted
        compose = self._sql.read_grouped if alone else self._sql.read_grouped_ours
        bound = self._span(until, types)
        jsonb = self._found.data == "jsonb"
        fits, room, size = min(FIRST_ROWS, most), batch_size, 0
        asked, statement = None, ""

        def send() -> tuple[Sent, int]:
            nonlocal asked, statement
            now = (_of_jsonb(members) if jsonb else {}, list(without))
            if now != asked:
                asked, statement = now, compose(*now)
            limit = min(fits, room)
            return self._send(statement, {**bound, "after": after, "limit": limit}), limit

        limit, sent = 0, None
        more = after < until
        while more:
            if sent is None:
                sent, limit = send()
            try:
                rows = self._rows_of(sent)
            except DataError:  # together they are more than one value can hold
                if limit == 1:
                    raise
                fits = max(1, limit // 8)
                continue
            finally:
                sent = None
            if not rows:
                self._check_same(bound)
                return
            after = max(row[4] for row in rows)
            count = sum(row[2] for row in rows)
            data = sum(len(row[6] or b"") for row in rows)
            fits = max(1, min(most, fits * _GROWTH, PAGE_BYTES // 4 * count // max(1, data)))
            room, size = room - count, size + data
            ends = room <= 0 or size > PAGE_BYTES
            if ends:
                room, size = batch_size, 0
            more = count == limit and after < until
            if more and ahead:
                sent, limit = send()
            yield rows, ends


def _of_jsonb(members: Members) -> Members:
    """The members that the server can be asked for; of other types and versions, data is whole."""
    return {
        kind: names
        for kind, names in dict(members).items()
        if storable(kind[0]) and all(map(storable, names))
    }


def _stretch(rows: Sequence[Row]) -> Stretch:
    """Groups of successive pages as one."""
    groups: dict[tuple[str, int], Group] = {}
    for type_, version, count, _, _, positions, lines in rows:
        data = [] if lines is None else lines.split(b"\n")[:-1]
        before = groups.get((type_, version))
        if before is not None:
            count += before.events
            positions = [*before.positions, *(positions or ())]
            data = [*before.data, *data]
        groups[type_, version] = Group(type_, version, count, positions or [], data)
    first, last = min(row[3] for row in rows), max(row[4] for row in rows)
    return Stretch(first, last, list(groups.values()), sound=True)
