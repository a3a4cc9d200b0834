"""Where the ledger of a KurrentDB target lives: in a stream beside it, or in a database.

The ledger's code works on a SQL connection. For a stream, that connection is to a SQLite
database in memory, filled from the stream; a commit appends the rows it changed as one
entry, at the exact revision this process has read up to. Whoever read less than is there
cannot write: that is the optimistic concurrency, and it ends a job that lost its hold.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Final, Protocol

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy import event as sa_event
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from eventmig.errors import (
    ConfigError,
    ConflictError,
    JobLostError,
    NewerLedgerError,
    StoreError,
    Where,
)
from eventmig.stores.kurrent.append import Appender, Item
from eventmig.stores.kurrent.client import Connection
from eventmig.stores.kurrent.log import Log
from eventmig.stores.kurrent.url import Location
from eventmig.stores.kurrent.wire import proposed

FORMAT: Final = 1
ENTRY: Final = "LedgerEntry"
_PART_BYTES: Final = 256 * 1024
_TYPE: Final = re.compile(r"[A-Z ]*(\(\d+\))?")
_CHANGES: Final = "_changes"

_Row = list[Any]
"""A change: table, rowid, and the row's values; without values, the row is gone."""


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
        self._engine = _in_memory()
        with self._engine.begin() as sql:
            sql.exec_driver_sql("PRAGMA recursive_triggers = ON")
            sql.exec_driver_sql(f"CREATE TABLE {_CHANGES} (name TEXT, row INTEGER)")

    @contextmanager
    def begin(self) -> Iterator[SqlConnection]:
        self._refresh()
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
        with closing(self._log.of_stream(name, self._revision + 1)) as entries:
            for stored in entries:
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
            self._unfinished = []  # the writer of what was there died over it
        self._unfinished.append(part)
        if part["part"] == part["parts"]:
            whole, self._unfinished = self._unfinished, []
            with self._engine.begin() as sql:
                for part in whole:
                    _apply(sql, part)
                self._known.update(_tables(sql))
                sql.exec_driver_sql(f"DELETE FROM {_CHANGES}")

    # --- to the stream

    def _record(self, sql: SqlConnection) -> None:
        """Append what the transaction changed; raises `JobLostError` where others were faster."""
        _watch(sql)
        parts = list(_entry(sql, self._known))
        items = []
        for number, part in enumerate(parts, 1):
            data = json.dumps({"format": FORMAT, "part": number, "parts": len(parts), **part})
            id_, encoded = str(uuid.uuid4()), data.encode()
            message = proposed(id_, ENTRY, "application/json", encoded, b"")
            revision = self._revision + number
            items.append(Item(self._location.ledger_stream, revision, id_, message, len(encoded)))
        try:
            self._appender.append(items)
        except ConflictError as error:
            raise JobLostError(
                "another process wrote the ledger of this target meanwhile",
                where=Where(store=self._location.url, stream=self._location.ledger_stream),
                remedy="let that one finish; what this one appended is what that one would, and "
                "is found there",
            ) from error
        self._revision += len(items)
        self._known.update(_tables(sql))
        sql.exec_driver_sql(f"DELETE FROM {_CHANGES}")


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
            _watch(connection)

    sa_event.listen(engine, "connect", on_connect)
    sa_event.listen(engine, "begin", on_begin)
    if engine.url.database is None:
        sa_event.listen(engine, "after_cursor_execute", on_execute)


def _tables(sql: SqlConnection) -> list[str]:
    found = sql.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
        "ESCAPE '\\' AND name <> ? ORDER BY name",
        (_CHANGES,),
    )
    return [row[0] for row in found]


def _watch(sql: SqlConnection) -> None:
    """Note from now on which rows of which tables change."""
    if not sql.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = ?", (_CHANGES,)).first():
        return
    for table in _tables(sql):
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            trigger = _quoted(f"{_CHANGES}_{event}_{table}")
            text = "'" + table.replace("'", "''") + "'"
            sql.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {trigger} AFTER {event} ON {_quoted(table)} BEGIN "
                f"INSERT INTO {_CHANGES} VALUES ({text}, {row}.rowid); END"
            )


def _entry(sql: SqlConnection, known: Collection[str]) -> Iterator[dict[str, Any]]:
    """The changed rows as they are now, and tables that are new, in parts of a bounded size."""
    found = sql.exec_driver_sql(f"SELECT DISTINCT name, row FROM {_CHANGES} ORDER BY name, row")
    changed = [(str(table), int(rowid)) for table, rowid in found]
    columns = {table: _columns(sql, table) for table in _tables(sql)}
    tables = {table: columns[table] for table in columns.keys() - set(known)}
    rows: list[_Row] = []
    size = 0
    for table, rowid in changed:
        kept = sql.exec_driver_sql(
            f"SELECT * FROM {_quoted(table)} WHERE rowid = ?", (rowid,)
        ).first()
        row = [table, rowid] if kept is None else [table, rowid, [_plain(v) for v in kept]]
        weight = len(json.dumps(row))
        if rows and size + weight > _PART_BYTES:
            yield {"tables": tables, "rows": rows}
            tables, rows, size = {}, [], 0
        tables[table] = columns[table]
        rows.append(row)
        size += weight
    if rows or tables:
        yield {"tables": tables, "rows": rows}


def _apply(sql: SqlConnection, part: dict[str, Any]) -> None:
    there = set(_tables(sql))
    for table, columns in part["tables"].items():
        if table not in there:
            sql.exec_driver_sql(_create(table, columns))
    for table, rowid, *_ in part["rows"]:
        sql.exec_driver_sql(f"DELETE FROM {_quoted(table)} WHERE rowid = ?", (rowid,))
    for table, rowid, *values in part["rows"]:
        if values:
            names = ", ".join(["rowid", *(_quoted(c[0]) for c in part["tables"][table])])
            marks = ", ".join("?" * (1 + len(values[0])))
            sql.exec_driver_sql(
                f"INSERT INTO {_quoted(table)} ({names}) VALUES ({marks})",
                (rowid, *map(_stored, values[0])),
            )


def _columns(sql: SqlConnection, table: str) -> list[_Row]:
    """Name, type, whether it may be null, and its place in the primary key (0: none)."""
    found = sql.exec_driver_sql(f"PRAGMA table_info({_quoted(table)})")
    return [[row.name, row.type, not row.notnull, row.pk] for row in found]


def _create(table: str, columns: list[_Row]) -> str:
    for _, type_, *_ in columns:
        if not _TYPE.fullmatch(type_):
            raise ValueError(f"no type of a column: {type_!r}")
    described = [
        f"{_quoted(name)} {type_}{'' if nullable else ' NOT NULL'}"
        for name, type_, nullable, _ in columns
    ]
    key = [c[0] for c in sorted(columns, key=lambda c: c[3]) if c[3]]
    if key:
        described.append(f"PRIMARY KEY ({', '.join(map(_quoted, key))})")
    return f"CREATE TABLE {_quoted(table)} ({', '.join(described)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _stored(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value
