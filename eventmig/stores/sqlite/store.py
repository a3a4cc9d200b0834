"""The SQLite store: one file, no server (`EventReader`, `EventAppender`, `JobTarget`).

Writes go over one SQLAlchemy connection, `BEGIN IMMEDIATE` to COMMIT; reads over
a connection that cannot write (`read`). The tables are in `schema`,
the write transaction in `write`, what a URL names in `file`.

One store object may be read in one thread while another thread writes with it;
a process that forks or spawns opens its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, insert
from sqlalchemy import event as sa_event
from sqlalchemy.pool import QueuePool

from eventmig.errors import (
    ConflictError,
    DataError,
    JobLockedError,
    NotAStoreError,
    ReadOnlyError,
    StoreError,
    Where,
)
from eventmig.events import Event, NewEvent
from eventmig.stores import fences
from eventmig.stores.base import EventReader, Expected, Mode, TargetTransaction
from eventmig.stores.crossing import Fence
from eventmig.stores.engines import create_engine
from eventmig.stores.sqlite.errors import translated
from eventmig.stores.sqlite.fence import set_fence
from eventmig.stores.sqlite.file import (
    FileId,
    Location,
    check_file,
    connect_writer,
    make_file,
    opened_file,
)
from eventmig.stores.sqlite.indexes import build_indexes
from eventmig.stores.sqlite.keep import Keeper
from eventmig.stores.sqlite.read import SqliteReader
from eventmig.stores.sqlite.schema import FIRST_POSITION, FORMAT
from eventmig.stores.sqlite.switch import check_nothing_left, drop_events, exchange_tables
from eventmig.stores.sqlite.write import SqliteTransaction
from eventmig.stores.stream_cache import StreamCache


class SqliteStore(SqliteReader):
    """An event store in a SQLite file. Open it with `open_store`; close it.

    `first_position` is 1. Raises `NotAStoreError`, `StoreDamagedError` or
    `StoreError` (a newer format) when it is opened; "create" makes the file and
    the tables where they are missing, the other modes never do.
    """

    dialect = "sqlite"
    pushes_faster = False  # docs/performance.md
    checks_text = False

    def __init__(self, location: Location, *, mode: Mode) -> None:
        super().__init__(location)
        self.mode: Mode = mode
        self._cache = StreamCache()
        self._engine: Engine | None = None
        self._keeper: Keeper | None = None
        self._created_file = self._created_tables = False
        self._file: FileId | None = None
        try:
            if mode == "create":
                self._create()
            check_file(location)
            self._check_tables()
        except BaseException:
            self.close()
            if self._created_file and not self.held():
                self._remove_files()
            raise

    # --- writing

    def append(self, stream: str, events: Sequence[NewEvent], *, expected: Expected) -> list[Event]:
        """Append in one transaction; return the events as stored.

        Ids default to UUIDv4, times to now. Raises `ConflictError` when the
        stream is not at `expected`, `DuplicateIdError` when an id is there
        already, `DataError` for what cannot be stored; then nothing was written.
        """
        with self.begin() as transaction:
            if transaction.deferred:
                raise StoreError(
                    "a job is filling this store",
                    where=Where(store=self.url, stream=stream),
                    remedy="let the job end (`eventmig upcast` resumes it), then append",
                )
            head = transaction.heads([stream])[stream]
            self._expect(stream, head, expected)
            first_global = transaction.append_copied([]) + 1
            now = time.time_ns() // 1_000
            stored = [
                Event(
                    first_global + n,
                    stream,
                    head + 1 + n,
                    str(uuid.uuid4()) if new.id is None else new.id,
                    new.type,
                    self._version(stream, new),
                    new.data,
                    new.metadata,
                    now if new.recorded_at is None else new.recorded_at,
                )
                for n, new in enumerate(events)
            ]
            transaction.append_copied(stored)
        return stored

    @contextmanager
    def begin(self) -> Iterator[SqliteTransaction]:
        """Open a write transaction (`BEGIN IMMEDIATE`): commit at the end, else roll back.

        Raises the store's errors in place of the driver's, also for statements
        the block runs on `connection`. One at a time per store object.
        """
        if self.mode == "read":
            raise ReadOnlyError(
                "the store was opened for reading only",
                where=Where(store=self.url),
                remedy='open it with mode="write"',
            )
        try:
            with (
                translated(self.url),
                self._writing().connect() as connection,
                connection.begin(),
            ):
                yield SqliteTransaction(
                    connection,
                    location=self.location,
                    tables=self.tables,
                    sql=self._sql,
                    cache=self._cache,
                    keeper=self._keeper,
                )
        except BaseException:
            self._cache.clear()
            raise

    def keeps(self, source: EventReader) -> bool:
        """Whether `append_kept` works with this source: other SQLite tables, all names free."""
        if not isinstance(source, SqliteReader) or self.location.release:
            return False
        if self._keeper is not None:
            return self._keeper.location == source.location
        if source.id_scope() == self.id_scope() or not self.is_alone():
            return False
        with self._writing().connect() as connection:
            driver = cast(sqlite3.Connection, connection.connection.driver_connection)
            with contextlib.suppress(sqlite3.OperationalError):  # then they go through Python
                self._keeper = Keeper(driver, source.location, source.tables, self.tables)
        return self._keeper is not None

    def why_not_pushed(self, source: EventReader) -> str:
        """Why this source's events cannot be copied inside SQLite; "" where they can."""
        if not isinstance(source, SqliteReader):
            return "source and target are different kinds of store"
        if source.location.release or not source.is_alone():
            return "the source's tables hold streams of several releases"
        if not self.keeps(source):
            return "the target's tables hold other streams, or the source's file is out of reach"
        return ""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this target (file, tables, release) for one job.

        A lock of the operating system on a file beside the store: it ends with
        the process, however that dies. Raises `JobLockedError` at once.
        """
        path = self.location.lock_path()
        held = FileLock(path)
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            raise JobLockedError(
                "another job works on this target",
                where=Where(store=self.url, file=str(path)),
                remedy="wait for it (`eventmig status` shows it) or stop that process; "
                "the lock ends with it, there is no file to delete",
            ) from error
        except OSError as error:
            raise ReadOnlyError(
                f"the lock file cannot be made: {error.strerror}",
                where=Where(store=self.url, file=str(path)),
                remedy="give this user write permission on the folder of the store",
            ) from error
        try:
            self._check_file_is_there()
            self._cache.clear()
            yield
        finally:
            held.release()

    def held(self) -> bool:
        """Whether a process holds this target now; changes nothing."""
        path = self.location.lock_path()
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    # --- crossings (`Fencing`, `Exchanging`, `Dropping`)

    def set_fence(self, *, closed: bool, job_id: str, epoch: int, wait_s: float) -> None:
        """Close or open the fence; `wait_s` has no use here, the write lock waits at its own."""
        with self.begin() as tx:
            set_fence(
                tx.connection,
                self.location,
                self.tables,
                closed=closed,
                job_id=job_id,
                epoch=epoch,
            )

    def fence(self) -> Fence | None:
        """The fence as it is now; None where there never was one."""
        with self.reading() as connection:
            return fences.read(connection, self.namespace)

    def check_fence(self, tx: TargetTransaction, *, job_id: str, epoch: int) -> None:
        """Raise `JobLostError` unless this holder closed the fence last."""
        fences.check(tx.connection, self.namespace, url=self.url, job_id=job_id, epoch=epoch)

    def pass_fence(self, tx: TargetTransaction) -> None:
        """Let this transaction append though the fence is closed."""
        fence = fences.read(tx.connection, self.namespace)
        cast(SqliteTransaction, tx).passes_fence = fence is not None and fence.closed

    def last_position(self) -> int:
        """The last global position there is: with one writer at a time, the head."""
        return self.head_position()

    def can_exchange(self, other: EventReader) -> bool:
        """Whether `other` is another set of tables in the same file."""
        return (
            isinstance(other, SqliteStore)
            and os.path.realpath(other.location.path) == os.path.realpath(self.location.path)
            and other.location.tables != self.location.tables
            and other.location.release is None
            and self.location.release is None
        )

    @property
    def schema(self) -> None:
        """A file has one."""
        return

    def check_exchange(self, other: EventReader) -> None:
        """Raise `CrossingError` for what would not follow the names. Reads only."""
        theirs = cast(SqliteStore, other)
        with self._guard, translated(self.url):
            places = (self.location, self.tables), (theirs.location, theirs.tables)
            check_nothing_left(self._connected(), *places)

    def exchange(self, tx: TargetTransaction, other: EventReader, *, wait_s: float) -> None:
        """Give each set of tables the other's names; `wait_s` has no use, all others wait."""
        theirs = cast(SqliteStore, other)
        exchange_tables(
            tx.connection, (self.location, self.tables), (theirs.location, theirs.tables)
        )
        self.forget()
        theirs.forget()

    def forget(self) -> None:
        """Forget what was learned of these tables: others stand under their names now."""
        self._cache.clear()
        self._names.clear()
        self._alone, self._seen_stream = True, 0

    def drop_all(self, tx: TargetTransaction) -> int:
        """Drop this store's tables (or its streams in shared ones); returns how many events."""
        return drop_events(tx.connection, (self.location, self.tables), self._sql)

    def discard(self) -> None:
        """Take back what opening with "create" made, if it holds no event; closes the store."""
        unused = self._created_tables and self.head_position() == 0
        if unused and not self._created_file:
            with self.begin() as transaction:
                self.tables.metadata.drop_all(transaction.connection)
        self.close()
        if unused and self._created_file:
            self._remove_files()

    def close(self) -> None:
        """Close every connection; harmless twice."""
        super().close()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = self._keeper = None

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- below

    def _writing(self) -> Engine:
        if self._engine is None:
            # One connection, kept: its page cache and `data_version` are the job's.
            self._engine = create_engine(
                "sqlite://",
                creator=lambda: connect_writer(self.location, create=self.mode == "create"),
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=0,
            )
            sa_event.listen(self._engine, "begin", _begin_immediate)
        return self._engine

    def _create(self) -> None:
        path = self.location.path
        if path.exists() and path.stat().st_size:
            check_file(self.location)
        if not path.parent.is_dir():
            raise NotAStoreError(
                f"there is no folder {path.parent}",
                where=Where(store=self.url),
                remedy="make the folder first, or name another path",
            )
        self._created_file = make_file(path)
        with translated(self.url), self._writing().connect() as connection, connection.begin():
            have = connection.dialect.has_table(connection, self.tables.mark.name)
            if not have:
                self.tables.metadata.create_all(connection)
                driver = cast(sqlite3.Connection, connection.connection.driver_connection)
                build_indexes(driver, self.tables)
                connection.execute(insert(self.tables.mark).values(format=FORMAT))
                self._created_tables = True
        self._file = opened_file(path)

    def _check_file_is_there(self) -> None:
        """Whoever made a new file may take it back under one that opened it, but did not lock."""
        if self.mode != "create" or os.name == "nt":  # there, what is open stays
            return
        if self._file is None or self._file != opened_file(self.location.path):
            raise StoreError(
                "another process took the new file back that this one had opened",
                where=Where(store=self.url, file=str(self.location.path)),
                remedy="run the same command again; nothing was written",
            )

    def _remove_files(self) -> None:
        path = self.location.path
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

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

    def _version(self, stream: str, new: NewEvent) -> int:
        if new.schema_version < 1:
            raise DataError(
                f"the schema version {new.schema_version} is below 1",
                where=Where(store=self.url, stream=stream, type=new.type),
                remedy="count schema versions from 1",
            )
        return new.schema_version


# The recipe of SQLAlchemy's page on SQLite, "Using SQLAlchemy to emit BEGIN in
# lieu of SQLite's transaction control".
def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
