"""Where the ledger of a KurrentDB target lives: in a stream beside it, or in a database.

The ledger's code works on a SQL connection. For a stream, that connection is to a SQLite
database in memory, filled from the stream; a commit appends the rows it changed as one
entry, at the exact revision this process has read up to. Whoever read less than is there
cannot write: that is the optimistic concurrency, and it ends a job that lost its hold.

The stream does not grow for ever: where its entries weigh several times what the tables
hold, an entry with all of it is appended, and what stands before that is truncated (`$tb`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Final, Protocol

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, make_url
from sqlalchemy import event as sa_event
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from eventmig.errors import (
    ConfigError,
    ConflictError,
    JobLostError,
    NewerLedgerError,
    StoreError,
    StoreUnavailableError,
    Where,
)
from eventmig.stores.engines import create_engine
from eventmig.stores.kurrent import entries
from eventmig.stores.kurrent.append import Appender
from eventmig.stores.kurrent.client import Connection
from eventmig.stores.kurrent.log import Log
from eventmig.stores.kurrent.rules import METADATA
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Location
from eventmig.stores.kurrent.wire import proposed

FORMAT: Final = 1
ENTRY: Final = "LedgerEntry"
_JSON: Final = "application/json"
_TIDY_BYTES: Final = 1024 * 1024
_TIDY_TIMES: Final = 4
"""Entries that weigh so much, and so many times what the last whole one does, are replaced."""


class Ledger(Protocol):
    """A place for the ledger."""

    def begin(self) -> AbstractContextManager[SqlConnection]:
        """A connection for one transaction: commits at the end of the block."""
        ...

    def reading(self) -> AbstractContextManager[SqlConnection]:
        """A connection to read from: one snapshot for the block."""
        ...

    def close(self) -> None:
        """Let go of it; harmless twice."""
        ...


class DatabaseLedger:
    """The ledger in the SQL database that the target's URL names (`ledger=…`)."""

    def __init__(self, location: Location) -> None:
        try:
            url = make_url(location.ledger or "")
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername="postgresql+psycopg")
            self._engine = create_engine(url, poolclass=NullPool)
        except (ArgumentError, ImportError) as error:
            raise ConfigError(
                "the ledger's database cannot be used",
                where=Where(store=location.url),
                remedy="write ledger=sqlite:///ledger.db, or install the database's driver",
            ) from error
        self._location = location
        if self._engine.dialect.name == "sqlite":
            _begin_explicitly(self._engine, "BEGIN IMMEDIATE")

    @contextmanager
    def begin(self) -> Iterator[SqlConnection]:
        with self._reachable(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[SqlConnection]:
        with self._reachable(), self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(
                f"the ledger's database failed: {str(error.orig).strip()}",
                where=Where(store=self._location.url),
                remedy="mend the database that ledger=… names; nothing of the batch is recorded, "
                "and the same command resumes",
            ) from error


class StreamLedger:
    """The ledger in a stream of the target."""

    def __init__(self, location: Location, connection: Connection, appender: Appender) -> None:
        self._location = location
        self._log = Log(connection)
        self._appender = appender
        self._revision = -1
        self._known: set[str] = set()
        self._unfinished: list[dict[str, Any]] = []
        self._weight = self._whole_weight = self._pending = 0  # bytes
        self._engine = _in_memory()
        with self._engine.begin() as sql:
            entries.prepare(sql)

    @contextmanager
    def begin(self) -> Iterator[SqlConnection]:
        self._refresh()
        if self._weight > max(_TIDY_BYTES, _TIDY_TIMES * self._whole_weight):
            self._tidy()
        with self._engine.connect() as sql, sql.begin():
            yield sql
            self._record(sql)

    @contextmanager
    def reading(self) -> Iterator[SqlConnection]:
        self._refresh()
        copy = _in_memory()
        try:
            with self._engine.connect() as sql, copy.connect() as target:
                into = target.connection.driver_connection
                source: Any = sql.connection.driver_connection
                source.backup(into)
            with copy.connect() as sql:
                sql.exec_driver_sql("PRAGMA query_only = ON")
                yield sql
        finally:
            copy.dispose()

    def close(self) -> None:
        self._engine.dispose()

    # --- from the stream

    def _refresh(self) -> None:
        """Take in what the stream holds beyond what was read."""
        name = self._location.ledger_stream
        with closing(self._log.of_stream(name, self._revision + 1)) as stored_entries:
            for stored in stored_entries:
                self._take(stored.data)
                self._revision = stored.stream_revision

    def _take(self, data: bytes) -> None:
        part = json.loads(data)
        if part.get("format") != FORMAT:
            raise NewerLedgerError(
                f"the ledger's stream has format {part.get('format')}, and this eventmig knows "
                f"{FORMAT}",
                where=Where(store=self._location.url, stream=self._location.ledger_stream),
                remedy="upgrade eventmig to the version that wrote it; nothing was changed",
            )
        if part["part"] == 1:
            self._unfinished, self._pending = [], 0  # the writer of what was there died over it
        self._unfinished.append(part)
        self._pending += len(data)
        if part["part"] < part["parts"]:
            return
        parts, self._unfinished = self._unfinished, []
        with self._engine.begin() as sql:
            if part.get("whole"):
                entries.cleared(sql)
            for one in parts:
                entries.apply(sql, one)
            self._known.update(entries.tables_of(sql))
            entries.settled(sql)
        if part.get("whole"):
            self._weight = self._whole_weight = self._pending
        else:
            self._weight += self._pending

    # --- to the stream

    def _record(self, sql: SqlConnection) -> None:
        """Append what the transaction changed; raises `JobLostError` where others were faster."""
        try:
            self._weight += self._append(list(entries.changed(sql, self._known)))
        except ConflictError as error:
            raise JobLostError(
                "another process wrote the ledger of this target meanwhile",
                where=Where(store=self._location.url, stream=self._location.ledger_stream),
                remedy="let that one finish; what this one appended is what that one would, and "
                "is found there",
            ) from error
        self._known.update(entries.tables_of(sql))
        entries.settled(sql)

    def _append(self, parts: list[dict[str, Any]]) -> int:
        """Append an entry; returns what it weighs. Raises `ConflictError`."""
        items = []
        for number, part in enumerate(parts, 1):
            data = json.dumps({"format": FORMAT, "part": number, "parts": len(parts), **part})
            revision = self._revision + number
            items.append(_item(self._location.ledger_stream, revision, ENTRY, data.encode()))
        self._appender.append(items)
        self._revision += len(items)
        return sum(item.size for item in items)

    # --- keeping it short

    def _tidy(self) -> None:
        """Append all that the tables hold, and truncate what stands before that.

        Killed in between, the stream is only longer: what it says is the same. Where others
        write meanwhile, or this user may not truncate, it stays as it is.
        """
        first = self._revision + 1
        with self._engine.connect() as sql:
            parts = list(entries.whole(sql))
        try:
            self._weight = self._whole_weight = self._append(parts)
        except ConflictError:
            self._refresh()
            return
        try:
            self._truncate(first)
        except StoreUnavailableError:
            raise
        except StoreError:  # another holder was faster, or this user may not
            return

    def _truncate(self, before: int) -> None:
        """Set the stream's `$tb`; what other metadata it has stays."""
        name = f"$${self._location.ledger_stream}"
        metadata: dict[str, Any] = {}
        last = -1
        with closing(self._log.of_stream_backwards(name)) as versions:
            for stored in versions:
                metadata, last = json.loads(stored.data or b"{}"), stored.stream_revision
                break
        data = json.dumps({**metadata, "$tb": before}).encode()
        self._appender.append([_item(name, last + 1, METADATA, data)])


def _item(stream: str, revision: int, type_: str, data: bytes) -> Item:
    id_ = str(uuid.uuid4())
    return Item(stream, revision, id_, proposed(id_, type_, _JSON, data, b""), len(data))


def ledger_of(location: Location, connection: Connection, appender: Appender) -> Ledger:
    """The ledger's place that a location names."""
    if location.ledger is not None:
        return DatabaseLedger(location)
    return StreamLedger(location, connection, appender)


def _in_memory() -> Engine:
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    _begin_explicitly(engine, "BEGIN")
    return engine


def _begin_explicitly(engine: Engine, statement: str) -> None:
    """Transactions begin with this statement, and hold DDL too.

    The recipe of SQLAlchemy's page on SQLite.
    """

    def on_connect(driver: Any, record: object) -> None:
        driver.isolation_level = None

    def on_begin(connection: SqlConnection) -> None:
        connection.exec_driver_sql(statement)

    def on_execute(connection: SqlConnection, cursor: object, sql: str, *rest: object) -> None:
        if sql.lstrip().upper().startswith("CREATE TABLE"):
            entries.watch(connection)

    sa_event.listen(engine, "connect", on_connect)
    sa_event.listen(engine, "begin", on_begin)
    if engine.url.database is None:
        sa_event.listen(engine, "after_cursor_execute", on_execute)
