"""Reading a PostgreSQL store by type and version: the server puts the data together.

A batch's data comes as one value per type and version, not as one row per event; of `jsonb`
only what somebody looks at. For folds (`read_lines`) and for copies that stay in the database
(`read_grouped`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from eventmig.errors import DataError
from eventmig.events import Group, Stretch
from eventmig.stores.base import DataLines, Members
from eventmig.stores.postgres.session import (
    FETCH_ROWS,
    FIRST_ROWS,
    PAGE_BYTES,
    PostgresSession,
    Row,
    storable,
)

_MOST_LINES: Final = 4_000


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
            compose = self._sql.read_lines if alone else self._sql.read_lines_ours
            bound = self._span(last, types)
            fits, read = FIRST_ROWS, after
            while read < last:
                known = _of_jsonb(members) if self._found.data == "jsonb" else {}
                limit = min(batch_size, fits)
                page = {**bound, "after": read, "limit": limit}
                try:
                    rows = self._rows_there(compose(known), page)
                except DataError:  # together they are more than one value can hold
                    if limit == 1:
                        raise
                    fits = max(1, limit // 8)
                    continue
                if not rows:
                    return
                batch = [self._spelled_lines(DataLines._make(row), known) for row in rows]
                yield batch
                read = max(max(some.global_positions) for some in batch)
                events = sum(len(some.global_positions) for some in batch)
                mean = max(1, sum(len(some.lines) for some in batch) // events)
                fits = max(1, min(_MOST_LINES, PAGE_BYTES // mean // 4))

        return self._steadily(batches)

    def _spelled_lines(self, found: DataLines, known: Members) -> DataLines:
        if self._found.data != "jsonb" or (found.type, found.schema_version) in known:
            return found
        spelled = [*map(self._spelled, found.lines.split(b"\n")[:-1]), b""]
        return found._replace(lines=b"\n".join(spelled))

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
            read = after
            while read < until:
                rows = self._grouped(read, until, batch_size, tuple(without))
                if not rows:
                    return
                yield _stretch(rows)
                read = max(row[4] for row in rows)

        return self._steadily(batches)

    def _grouped(
        self, after: int, until: int, batch_size: int, without: Sequence[tuple[str, int]]
    ) -> list[Row]:
        """The rows of one batch of `read_grouped`, from as many reads as its data needs."""
        bound = self._span(until, None) | {
            "types": [type_ for type_, _ in without],
            "versions": [version for _, version in without],
        }
        rows: list[Row] = []
        count = total = 0
        while count < batch_size and total <= PAGE_BYTES:
            wanted = min(batch_size - count, self._rows_that_fit)
            page = bound | {"after": after, "limit": wanted}
            try:
                found = self._rows_there(self._sql.read_grouped, page)
            except DataError:  # together they are more than one value can hold
                if wanted == 1:
                    raise
                self._rows_that_fit = max(1, wanted // 8)
                continue
            rows += found
            read = sum(row[2] for row in found)
            count += read
            total += sum(len(row[6] or b"") for row in found)
            after = max((row[4] for row in found), default=after)
            if read < wanted:
                break
            mean = max(1, total // count)
            self._rows_that_fit = max(1, min(FETCH_ROWS, PAGE_BYTES // mean // 4))
        return rows


def _of_jsonb(members: Members) -> Members:
    """The members that the server can be asked for; of other types and versions, data is whole."""
    return {
        kind: names
        for kind, names in dict(members).items()
        if storable(kind[0]) and all(map(storable, names))
    }


def _stretch(rows: Sequence[Row]) -> Stretch:
    """Groups of successive reads as one."""
    groups: dict[tuple[str, int], Group] = {}
    for type_, version, count, _, _, positions, lines in rows:
        data = [] if lines is None else lines.split(b"\n")
        before = groups.get((type_, version))
        if before is not None:
            count += before.events
            positions = [*before.positions, *(positions or ())]
            data = [*before.data, *data]
        groups[type_, version] = Group(type_, version, count, positions or [], data)
    first, last = min(row[3] for row in rows), max(row[4] for row in rows)
    return Stretch(first, last, list(groups.values()), sound=True)
