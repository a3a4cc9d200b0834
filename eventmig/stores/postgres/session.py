"""A session on a PostgreSQL store that reads: its connection, its statements, its safe head.

One connection in autocommit that cannot write; each statement is a short read, so that no
transaction stays open between them. The tables may change names with others' at any time (a
cut-over by tables): what was read of one set is never taken for the other's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from threading import RLock
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.pool import NullPool

from eventmig.errors import CapabilityError, StoreError, Where
from eventmig.stores.engines import create_engine
from eventmig.stores.postgres import tail
from eventmig.stores.postgres.check import Found, MovedError, check_sequence, find_tables
from eventmig.stores.postgres.failures import translated
from eventmig.stores.postgres.json_fit import compact, storable
from eventmig.stores.postgres.location import Location, connect
from eventmig.stores.postgres.schema import Statements, Tables
from eventmig.stores.postgres.sent import Sent

LAST: Final = 2**63 - 1
"""No global or stream position is beyond it."""

PAGE_BYTES: Final = 16 * 1024 * 1024
"""A page of events ends with the one whose data passes this."""

FETCH_ROWS: Final = 1_000
"""Rows asked for with one statement, at the most."""

FIRST_ROWS: Final = 100
"""Rows asked for while nobody knows how large they are."""

Bound: TypeAlias = Mapping[str, object]
Row: TypeAlias = tuple[Any, ...]
_T = TypeVar("_T")


class PostgresSession:
    """What reading a PostgreSQL store stands on; several threads may share one."""

    def __init__(self, location: Location) -> None:
        self.url = location.url
        self.namespace = location.namespace
        self.location = location
        self._guard = RLock()
        self._reader: psycopg.Connection | None = None
        self._sent: Sent | None = None
        self._closed = False
        self._rows_that_fit = FIRST_ROWS
        self._spelled: Callable[[bytes], bytes] = bytes
        self._found: Found
        self._tables: Tables
        self._sql: Statements

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only SQLAlchemy connection to the database: one snapshot for the block."""
        engine = self._reading_engine
        with translated(self.location), engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close the connection; harmless twice."""
        with self._guard:
            if self._reader is not None:
                self._reader.close()
                self._reader = self._sent = None
            self._closed = True

    # --- below

    @cached_property
    def _reading_engine(self) -> Engine:
        """Connects anew each time, but asks only once what kind of server it is."""

        def connected() -> psycopg.Connection:
            connection = connect(self.location)
            connection.autocommit = False
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return connection

        return create_engine(
            "postgresql+psycopg://", creator=connected, poolclass=NullPool, hide_parameters=True
        )

    def _open_tables(self) -> None:
        """Find the tables, and learn what they hold; raises `NotAStoreError` and others."""
        with self._guard, translated(self.location), self._cursor() as cursor:
            self._found, self._tables, self._sql = find_tables(cursor, self.location)
            self._spelled = compact if self._found.data == "jsonb" else bytes

    def find_again(self) -> None:
        """Forget what was known of the tables, and learn it anew: others have the names now."""
        with self._guard:
            self._open_tables()

    def _check_same(self, bound: Bound) -> None:
        """Raise `MovedError` where other tables have the names: what is empty says nothing."""
        if self._rows(self._sql.table_now, {})[0][0] != bound["table"]:
            raise MovedError

    def _anew(self, work: Callable[[], _T]) -> _T:
        """What `work` returns; done anew where the tables changed names before it ended."""
        while True:
            try:
                return work()
            except MovedError:
                self.find_again()

    def _steadily(self, read: Callable[[], Iterator[_T]]) -> Iterator[_T]:
        """What `read` yields, of one and the same tables: begun anew, but only while it can be."""
        begun = False
        while True:
            try:
                for page in read():
                    begun = True
                    yield page
                return
            except MovedError:
                self.find_again()
                if begun:
                    raise StoreError(
                        "the tables changed names while they were read: a cut-over, or its reverse",
                        where=Where(store=self.url),
                        remedy="read again from the start; global positions are others now",
                    ) from None

    def _end(self, until: int | None) -> tuple[int, bool]:
        """Where a read ends, and whether all rows up to there are this release's."""
        if self._found.replica and until is not None:
            return until, False
        settled = self._settled()
        bound = {"release": self.location.release}
        if until is None:
            until = self._head(settled)
        # Up to what was settled before, no stream of another release can appear any more.
        alone = until <= settled and not self._rows(self._sql.other_release, bound)[0][0]
        return until, alone

    def _head(self, until: int) -> int:
        """The last event's position up to `until`; 0 where there is none."""
        rows = self._rows_there(self._sql.head_position, self._span(until, None))
        return int(rows[0][0]) if rows else 0

    def _settled(self) -> int:
        found = self._found
        if found.replica:
            raise CapabilityError(
                "a replica does not know which transactions are under way, so it has no safe head",
                where=Where(store=self.url),
                remedy="name the primary server as the source",
            )
        with self._guard, translated(self.location), self._cursor() as cursor:
            check_sequence(cursor, self.location, found)
            return tail.settled(cursor, table=found.events, sequence=found.positions)

    # A row is what its statement selects; its columns are named there.
    def _rows(self, sql: str, bound: Bound) -> list[Row]:
        with self._guard, translated(self.location), self._cursor() as cursor, _collector_paused():
            return cursor.execute(sql.encode(), bound).fetchall()

    def _rows_there(self, sql: str, bound: Bound) -> list[Row]:
        """Rows of a statement that has some, unless other tables have the names now."""
        rows = self._rows(sql, bound)
        if not rows:
            self._check_same(bound)
        return rows

    def _send(self, sql: str, bound: Bound) -> Sent:
        """Have the server begin with a statement, whose rows `_rows_of` takes.

        Raises `StoreError` where the session was closed: whoever read is not there any more.
        """
        with self._guard, translated(self.location):
            if self._closed:
                raise StoreError(
                    "the store was closed while it was read",
                    where=Where(store=self.url),
                    remedy="open it again",
                )
            self._sent = Sent(self._free(), sql, bound)
            return self._sent

    def _rows_of(self, sent: Sent) -> list[Row]:
        with self._guard, translated(self.location), _collector_paused():
            return sent.rows()

    @contextmanager
    def _cursor(self) -> Iterator[tail.Cursor]:
        with self._free().cursor(binary=True) as cursor:
            yield cursor

    def _free(self) -> psycopg.Connection:
        """The connection, when it has answered what was sent before."""
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.receive()
        if self._reader is None or self._reader.closed:
            self._reader = connect(self.location, read_only=True)
            self._closed = False
        return self._reader

    def _span(self, until: int | None, types: Collection[str] | None) -> dict[str, object]:
        return {
            "until": LAST if until is None else until,
            "release": self.location.release,
            "table": self._found.events,
            "types": None if types is None else list(filter(storable, types)),
        }


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No run of the garbage collector while rows are made: they are many, and no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
