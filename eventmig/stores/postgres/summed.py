"""Reading a PostgreSQL store as sums: what a read model adds up, the server does.

A range of events becomes a row per key. Members are looked at as strictly as Python decodes
them: an event that lacks one, or has another type there, is never left out of a sum, it spoils
the range (`NotSummedError`). For data in `jsonb`, which holds no key twice, and integers with
all their digits.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Final, NamedTuple

import psycopg

from eventmig.stores.faster import NotSummedError, Summed
from eventmig.stores.postgres.failures import translated
from eventmig.stores.postgres.location import connect
from eventmig.stores.postgres.sent import Sent
from eventmig.stores.postgres.session import Bound, PostgresSession, Row
from eventmig.stores.postgres.sums import Addends

_FIRST: Final = 25_000  # global positions in the first ranges
_GROWTH: Final = 8  # from a range to the next, at the most
_SECONDS: Final = 2.0  # that the server is to work on one, about
_MOST_ROWS: Final = 200_000  # that a range is to come to, about


class _Range(NamedTuple):
    """A range that is summed: after a global position, until one (inclusive), since when."""

    after: int
    until: int
    begun: float
    connection: psycopg.Connection
    sent: Sent


class SummingReader(PostgresSession):
    """The sums of `PostgresReader`."""

    def kinds_to_sum(
        self, *, after: int, until: int, types: Collection[str] | None
    ) -> Mapping[tuple[str, int], int] | None:
        """Types and versions in a range, each with its last position: see `Summing`.

        None unless data is `jsonb` and these tables hold this release's streams alone.
        """

        def found() -> Mapping[tuple[str, int], int] | None:
            if not self._can_sum(until):
                return None
            rows = self._rows_there(self._sql.kinds, {**self._span(until, types), "after": after})
            return {(type_, version): last for type_, version, last in rows}

        return self._anew(found)

    def read_sums(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        sums: Sequence[Addends],
        at_once: int,
    ) -> Iterator[Summed]:
        """Each of the sums, range by range: see `Summing`.

        Over `at_once` connections of its own. The server works on a range for two seconds, about;
        while one is used, it works on the next.
        """

        def ranges() -> Iterator[Summed]:
            if not self._can_sum(until):
                raise NotSummedError
            bound = self._span(until, types)
            statements = self._statements(sums)
            under_way: deque[_Range] = deque()
            with self._connections(at_once, under_way) as free:
                at, size = after, _FIRST

                def begin() -> None:
                    nonlocal at
                    while free and at < until:
                        share = math.ceil((until - at) / at_once)
                        end = min(until, at + min(size, max(share, size // 4)))
                        under_way.append(self._begun(free.pop(), statements[0], bound, at, end))
                        at = end

                begin()
                while under_way:
                    first = under_way.popleft()
                    found = self._found_of(first, statements, bound)
                    growth = min(
                        _GROWTH,
                        _MOST_ROWS / max(1, *map(len, found)),
                        _SECONDS / max(0.001, time.monotonic() - first.begun),
                    )
                    size = max(1, int((first.until - first.after) * growth))
                    free.append(first.connection)
                    begin()
                    yield _checked(first.until, found)

        return self._steadily(ranges)

    def _can_sum(self, until: int) -> bool:
        return self._found.data == "jsonb" and self._end(until)[1]

    def _statements(self, sums: Sequence[Addends]) -> list[str]:
        """A statement for each of the sums; it counts the events that none before it does."""
        statements, counted = [], set[tuple[str, int]]()
        every = {kind for addends in sums for kind in addends}
        for addends in sums:
            new_first = sorted(addends, key=counted.__contains__)
            ordered = {kind: addends[kind] for kind in new_first}
            new = len(ordered.keys() - counted)
            statements.append(self._sql.summed(ordered, sorted(every - ordered.keys()), new))
            counted |= addends.keys()
        return statements

    @contextmanager
    def _connections(
        self, count: int, under_way: Collection[_Range]
    ) -> Iterator[list[psycopg.Connection]]:
        """So many connections; what they still work on at the end is given up."""
        with ExitStack() as stack, translated(self.location):
            free = [
                stack.enter_context(closing(connect(self.location, read_only=True)))
                for _ in range(count)
            ]
            for connection in free:  # by a bitmap: the range's pages, each once; a tenth faster
                connection.execute("SET enable_indexscan = off")
                connection.execute("SET enable_seqscan = off")
            try:
                yield free
            finally:
                for one in under_way:
                    with suppress(psycopg.Error):
                        one.sent.give_up()

    def _begun(
        self, connection: psycopg.Connection, sql: str, bound: Bound, after: int, until: int
    ) -> _Range:
        with translated(self.location):
            sent = Sent(connection, sql, {**bound, "after": after, "until": until})
        return _Range(after, until, time.monotonic(), connection, sent)

    def _found_of(
        self, one: _Range, statements: Sequence[str], bound: Bound
    ) -> Sequence[Sequence[Row]]:
        """The rows of each sum over a range, of which the first has been asked for."""
        here = {**bound, "after": one.after, "until": one.until}
        try:
            with translated(self.location):
                found = [one.sent.rows()]
                found += [Sent(one.connection, sql, here).rows() for sql in statements[1:]]
        except psycopg.DataError as error:
            raise NotSummedError from error
        if not any(found):
            self._check_same(bound)
        return found


def _checked(until: int, found: Sequence[Sequence[Row]]) -> Summed:
    """The rows of each sum without what the server says of them, which has to be good."""
    events, sums = 0, []
    for rows in found:
        *columns, fits, counts = zip(*rows, strict=True) if rows else ((), ())
        if not all(fits):
            raise NotSummedError
        events += sum(counts)
        sums.append(columns)
    return Summed(until, events, sums)
