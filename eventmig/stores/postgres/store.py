"""The PostgreSQL store (`EventReader`, `EventAppender`, `JobTarget`).

Writes go over one connection, which also holds the job's lock: a lock and the transactions
under it live and die together. Reads go over a connection of their own (`read`). The tables
are in `schema`, the write transaction in `write`, why a live store can be followed in `tail`.

One store object may be read in one thread while another thread writes with it; a process
that forks or spawns opens its own.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, insert
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateSchema

from eventmig.errors import (
    ConflictError,
    CrossingError,
    JobLockedError,
    NotAStoreError,
    ReadOnlyError,
    StoreError,
    StoreUnavailableError,
    Where,
)
from eventmig.events import Event, NewEvent
from eventmig.stores import fences
from eventmig.stores.base import EventReader, Expected, Mode, TargetTransaction
from eventmig.stores.crossing import Fence
from eventmig.stores.engines import create_engine
from eventmig.stores.held_up import HeldUp, transaction_of
from eventmig.stores.postgres import fence, switch, tail
from eventmig.stores.postgres.check import current_schema
from eventmig.stores.postgres.failures import translated
from eventmig.stores.postgres.fence import Place
from eventmig.stores.postgres.location import Location, connect
from eventmig.stores.postgres.parts import check_nothing_left
from eventmig.stores.postgres.pushdown import Pairing
from eventmig.stores.postgres.read import PostgresReader
from eventmig.stores.postgres.refusals import check_names
from eventmig.stores.postgres.schema import FIRST_POSITION, FORMAT, define_tables
from eventmig.stores.postgres.write import Ground, PostgresTransaction
from eventmig.stores.stream_cache import StreamCache

_HELD = """SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ExclusiveLock' AND granted
      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND classid::bigint << 32 | objid::bigint = %(key)s)"""


_BUSY_SECONDS = 30  # as SQLite's store waits
_LAST = 2**63 - 1
_MAY_READ = """SELECT bool_and(has_schema_privilege(n.oid, 'USAGE')
        AND has_table_privilege(c.oid, 'SELECT'))
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s::text[])"""


class PostgresStore(PostgresReader):
    """An event store in a PostgreSQL schema. Open it with `open_store`; close it.

    `first_position` is 1. Raises `StoreUnavailableError`, `NotAStoreError`,
    `StoreDamagedError`, `ReadOnlyError` or `StoreError` when it is opened; "create" makes
    the schema and the tables where they are missing, the other modes never do.
    """

    dialect = "postgresql"
    pushes_faster = True  # docs/performance.md
    checks_text = True

    def __init__(self, location: Location, *, mode: Mode) -> None:
        super().__init__(location)
        self.mode: Mode = mode
        self._cache = StreamCache()
        self._engine: Engine | None = None
        self._locked_by: int | None = None
        self._pairing: Pairing | None = None
        self._exchanged: tuple[PostgresStore, ...] = ()
        self._created_schema = self._created_tables = False
        try:
            if mode == "create":
                self._create()
            self._open_tables()
            if mode != "read" and self._found.replica:
                raise ReadOnlyError(
                    "this server is a replica, which takes no writes",
                    where=Where(store=self.url),
                    remedy="name the primary server (target_session_attrs=read-write finds it "
                    "among several hosts)",
                )
        except BaseException:
            self.close()
            raise

    # --- writing

    def append(self, stream: str, events: Sequence[NewEvent], *, expected: Expected) -> list[Event]:
        """Append in one transaction; return the events as stored.

        Ids default to UUIDv4, times to now. Raises `ConflictError` when the stream is not
        at `expected`, `DuplicateIdError` when an id is there already, `DataError` for
        what cannot be stored; then nothing was written. Other writers of the same stream
        wait for each other, those of other streams do not.
        """
        now = time.time_ns() // 1_000
        drafts = [
            Event(
                0,
                stream,
                n,
                str(uuid.uuid4()) if new.id is None else new.id,
                new.type,
                new.schema_version,
                new.data,
                new.metadata,
                now if new.recorded_at is None else new.recorded_at,
            )
            for n, new in enumerate(events, FIRST_POSITION)
        ]
        check_names(drafts, self.url)
        with self.begin() as transaction:
            if transaction.deferred:
                raise StoreError(
                    "a job is filling this store",
                    where=Where(store=self.url, stream=stream),
                    remedy="let the job end (`eventmig upcast` resumes it), then append",
                )
            head = transaction.head_alone(stream)
            self._expect(stream, head, expected)
            placed = [event._replace(stream_position=head + n) for n, event in enumerate(drafts, 1)]
            return transaction.append_stored(placed)

    @contextmanager
    def begin(self) -> Iterator[PostgresTransaction]:
        """Open a write transaction: commit at the end, else roll back.

        Raises the store's errors in place of the driver's, also for statements the block
        runs on `connection`. One at a time per store object.
        """
        if self.mode == "read":
            raise ReadOnlyError(
                "the store was opened for reading only",
                where=Where(store=self.url),
                remedy='open it with mode="write"',
            )
        try:
            with translated(self.location), self._transaction() as connection:
                self._check_lock(connection)
                yield self._anew(lambda: PostgresTransaction(connection, self._ground()))
        except BaseException:
            self._exchanged = ()
            self._cache.clear()
            if self._pairing is not None:
                self._pairing.forget()
            raise
        exchanged, self._exchanged = self._exchanged, ()
        for store in exchanged:
            store.find_again()

    def why_not_pushed(self, source: EventReader) -> str:
        """Why this source's events cannot be copied inside the database; "" where they can."""
        if not isinstance(source, PostgresStore):
            return "source and target are different kinds of store"
        if source._found.database != self._found.database:
            return "source and target are different databases"
        if (source._found.data, self._found.data) != ("jsonb", "jsonb"):
            return "the data column is not jsonb in both"
        if source.holds_releases() or self.holds_releases():
            return "the tables hold streams of several releases"
        theirs = source._tables
        names = {
            "schema": theirs.events.schema,
            "tables": [theirs.events.name, theirs.streams.name],
        }
        if not self._rows(_MAY_READ, names)[0][0]:
            return "the target's user may not read the source's tables"
        if self._pairing is None or self._pairing.tables is not theirs:
            self._pairing = Pairing(theirs, source.head_position())
        return ""

    def keeps(self, source: EventReader) -> bool:
        """Whether `append_kept` works with this source: tables of the same database."""
        return not self.why_not_pushed(source)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this target (schema, tables, release) for one job.

        A session lock of the connection that writes: it ends with that connection, and
        only when its last transaction has ended, too. Raises `JobLockedError` at once.
        """
        key = {"key": self.location.key("job", self._found.schema)}
        with translated(self.location):
            driver = self._writing().raw_connection()
        connection = cast(psycopg.Connection, driver.driver_connection)
        try:
            with translated(self.location):
                row = connection.execute("SELECT pg_try_advisory_lock(%(key)s)", key).fetchone()
                connection.commit()
            if row != (True,):
                raise JobLockedError(
                    "another job works on this target",
                    where=Where(store=self.url),
                    remedy="wait for it (`eventmig status` shows it) or stop that process; the "
                    "lock ends with its connection",
                )
        finally:
            if connection.closed:
                driver.invalidate()  # else it is rolled back in vain, and that is logged
            driver.close()  # back to the pool of one: `begin` uses the same connection
        self._locked_by = connection.info.backend_pid
        self._cache.clear()
        try:
            yield
        finally:
            self._locked_by = None
            self._unlock(connection, key)

    def held(self) -> bool:
        """Whether a process holds this target now; changes nothing."""
        key = self.location.key("job", self._found.schema)
        return bool(self._rows(_HELD, {"key": key})[0][0])

    # --- waiting (`Waiting`)

    def held_up(self, *, open_for_s: float = 0) -> HeldUp | None:
        """The transaction that has announced the lowest positions, if stored events wait for it."""
        found = self._found
        if found.replica:
            return None
        with self._guard, translated(self.location), self._cursor() as cursor:
            holder = tail.holder(cursor, table=found.events, sequence=found.positions)
            if holder is None:
                return None
            settled, pid, virtual = holder

            def ask(statement: str, bound: Mapping[str, Any]) -> Sequence[Any] | None:
                return cursor.execute(statement.encode(), bound).fetchone()

            by = transaction_of(ask, pid, virtual, open_for_s=open_for_s)
        if by is None:
            return None
        bound = {"after": settled, "release": self.location.release}
        events = int(self._rows(self._sql.count_after, bound)[0][0])
        return HeldUp(events=events, by=by) if events else None

    # --- crossings (`Fencing`, `Exchanging`, `Dropping`)

    def set_fence(self, *, closed: bool, job_id: str, epoch: int, wait_s: float) -> None:
        """Close or open the fence; transactions that append are waited out, `wait_s` at most."""
        with translated(self.location), self._transaction() as connection:
            fence.set_fence(
                connection,
                self._place(),
                closed=closed,
                job_id=job_id,
                epoch=epoch,
                wait_s=wait_s,
            )

    def fence(self) -> Fence | None:
        """The fence as it is now; None where there never was one."""
        with self.reading() as connection:
            return fence.read_fence(connection, self._place())

    def check_fence(self, tx: TargetTransaction, *, job_id: str, epoch: int) -> None:
        """Raise `JobLostError` unless this holder closed the fence last."""
        fence.check_fence(tx.connection, self._place(), job_id=job_id, epoch=epoch)

    def pass_fence(self, tx: TargetTransaction) -> None:
        """Let this transaction append though the fence is closed."""
        fences.let_through(tx.connection)

    def last_position(self) -> int:
        """The last global position there is; not the safe head, which an idle writer holds back."""
        return self._anew(lambda: self._head(_LAST))

    @property
    def schema(self) -> str:
        """The schema that the tables are in, and the ledger beside them."""
        return self._found.schema

    def can_exchange(self, other: EventReader) -> bool:
        """Whether `other` is another set of tables in the same database."""
        return (
            isinstance(other, PostgresStore)
            and other._found.database == self._found.database
            and other.id_scope() != self.id_scope()
            and other.location.release is None
            and self.location.release is None
        )

    def check_exchange(self, other: EventReader) -> None:
        """Raise `CrossingError` for what would not follow the names; reads only."""
        theirs = cast(PostgresStore, other)
        for store in (self, theirs):
            if store.holds_releases():
                raise CrossingError(
                    "these tables hold streams of several releases, which would all go along",
                    where=Where(store=store.url),
                    remedy="cross by a route",
                )
            other_type = {self._found.data, theirs._found.data} - {store.location.data}
            if store.location.data is not None and other_type:
                raise CrossingError(
                    f"the URL says data={store.location.data}, and tables whose data is "
                    f"{other_type.pop()} are to get these names",
                    where=Where(store=store.url),
                    remedy="leave ?data= out of the URLs, the application's too: a store keeps "
                    "the type it was made with",
                )
        with self._guard, translated(self.location), self._cursor() as cursor:
            check_nothing_left(cursor, self._place(), theirs._place())

    def exchange(self, tx: TargetTransaction, other: EventReader, *, wait_s: float) -> None:
        """Give each set of tables the other's names, in this transaction."""
        theirs = cast(PostgresStore, other)
        switch.exchange_tables(tx.connection, self._place(), theirs._place(), wait_s=wait_s)
        self._exchanged = (self, theirs)

    def drop_all(self, tx: TargetTransaction) -> int:
        """Drop this store's tables (or its streams in shared ones); returns how many events."""
        return fence.drop_events(tx.connection, self._place())

    def discard(self) -> None:
        """Take back what opening with "create" made, if it holds no event; closes the store."""
        if self._created_tables and not self.count():
            with self.begin() as transaction:
                self._tables.metadata.drop_all(transaction.connection)
                if self._created_schema:
                    schema = sql.Identifier(self._found.schema).as_string()
                    transaction.connection.exec_driver_sql(f"DROP SCHEMA {schema}")
        self.close()

    def close(self) -> None:
        """Close every connection; harmless twice."""
        super().close()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- below

    def _ground(self) -> Ground:
        return Ground(
            location=self.location,
            found=self._found,
            tables=self._tables,
            sql=self._sql,
            cache=self._cache,
            ask=self._rows,
            pairing=self._pairing,
        )

    def _place(self) -> Place:
        return self.location, self._tables

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing().connect() as connection:
            transaction = connection.begin()
            try:
                yield connection
                transaction.commit()
            except BaseException:
                if not connection.invalidated and _driver(connection).closed:
                    connection.invalidate()  # nothing is left that could be rolled back
                transaction.rollback()
                raise

    def _writing(self) -> Engine:
        if self._engine is None:
            # One connection, kept: the lock is its.
            self._engine = create_engine(
                "postgresql+psycopg://",
                creator=self._connect_writer,
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=0,
                hide_parameters=True,
            )
        return self._engine

    def _connect_writer(self) -> psycopg.Connection:
        connection = connect(self.location, patience_s=_BUSY_SECONDS)
        connection.autocommit = False
        return connection

    def _check_lock(self, connection: Connection) -> None:
        if self._locked_by not in (None, _driver(connection).info.backend_pid):
            raise StoreUnavailableError(
                "the connection that held this target was lost, and the hold with it",
                where=Where(store=self.url),
                remedy="run the same command again: it resumes",
            )

    def _unlock(self, connection: psycopg.Connection, key: dict[str, int]) -> None:
        with suppress(psycopg.Error):  # a connection that is lost holds nothing any more
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%(key)s)", key)
            connection.commit()

    def _create(self) -> None:
        location = self.location
        with translated(location), self._cursor() as cursor:
            try:
                schema = current_schema(cursor, location)
            except NotAStoreError:
                if location.schema is None:
                    raise
                schema, self._created_schema = location.schema, True
        tables = define_tables(schema, location.tables, location.data or "jsonb")
        with translated(location), self._transaction() as connection:
            # Two that create at once do so one after the other.
            _driver(connection).execute(
                "SELECT pg_advisory_xact_lock(%(key)s)", {"key": location.key("create", schema)}
            )
            if self._created_schema:
                connection.execute(CreateSchema(schema, if_not_exists=True))
            if not connection.dialect.has_table(connection, tables.mark.name, schema=schema):
                tables.metadata.create_all(connection)
                connection.execute(insert(tables.mark).values(format=FORMAT))
                self._created_tables = True

    def _expect(self, stream: str, head: int, expected: Expected) -> None:
        if isinstance(expected, int):
            met = head == expected
        else:
            met = expected is not None or head < FIRST_POSITION
        if met:
            return
        actual = f"at position {head}" if head >= FIRST_POSITION else "not there"
        wanted = "no such stream" if expected is None else f"position {expected}"
        raise ConflictError(
            f"the stream {stream!r} is {actual}; the writer expected {wanted}",
            where=Where(store=self.url, stream=stream, stream_position=head),
            remedy="read the stream again, decide again, append again",
        )


def _driver(connection: Connection) -> psycopg.Connection:
    return cast(psycopg.Connection, connection.connection.driver_connection)
