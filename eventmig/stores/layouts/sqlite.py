"""A SQLite file with somebody else's tables in it.

A look never creates the file and never switches its journal mode; a job writes in the
mode that it finds, and makes a new file in the owner's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy import event as sa_event
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.pool import QueuePool

from eventmig.errors import ConfigError, JobLockedError, NotAStoreError, ReadOnlyError, Where
from eventmig.stores.engines import create_engine
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Tail
from eventmig.stores.layouts.place import Address
from eventmig.stores.layouts.tables import Tables
from eventmig.stores.sqlite.errors import translated
from eventmig.stores.sqlite.file import Location, check_file, connect_reader, connect_writer


class SqliteDatabase:
    """The file of an address. Raises `ConfigError` where the URL names none."""

    def __init__(self, address: Address) -> None:
        name = address.connect.database
        if not name or name == ":memory:":
            raise ConfigError(
                f"a SQLite store is a file: {address.url}", remedy="write sqlite:///history.db"
            )
        self._address = address
        self._location = Location(url=address.url, path=Path(name))
        self._made_file = False
        self._wal = False
        self._reader = self._engine(lambda: connect_reader(self._location), "BEGIN")
        self._writer = self._engine(
            lambda: connect_writer(self._location, create=self._made_file, wal=self._wal),
            "BEGIN IMMEDIATE",
        )

    def check(self) -> None:
        check_file(self._location)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with translated(self._address.url), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with translated(self._address.url), self._writer.begin() as connection:
            yield connection

    def safe_position(self, tables: Tables, tail: Tail) -> int:
        with self.reading() as connection:
            return int(connection.execute(select(tables.highest())).scalar_one())

    def reserve(self, connection: Connection, tables: Tables, count: int) -> list[int]:
        # The write transaction is open: nobody else adds rows before it ends.
        last = int(connection.execute(select(tables.highest())).scalar_one())
        return list(range(last + 1, last + 1 + count))

    def create(self, layout: Layout) -> bool:
        path = self._location.path
        if path.exists() and path.stat().st_size:
            check_file(self._location)
            with self.reading() as connection:
                if inspect(connection).has_table(layout.table):
                    return False
        if not layout.create:
            raise NotAStoreError(
                f"the layout {layout.name!r} does not say how its tables are made",
                where=Where(store=self._address.url),
                remedy="make them with the library that owns them, then run this again",
            )
        if not path.parent.is_dir():
            raise NotAStoreError(
                f"there is no folder {path.parent}",
                where=Where(store=self._address.url),
                remedy="make the folder first, or name another path",
            )
        self._made_file = not path.exists()
        self._wal = self._made_file and layout.wal
        quote = dialect().identifier_preparer.quote
        with self.begin() as connection:
            for statement in layout.statements(quote):
                connection.exec_driver_sql(statement)
        return True

    def discard(self) -> None:
        self.close()
        if self._made_file:
            for suffix in ("", "-journal", "-wal", "-shm"):
                Path(f"{self._location.path}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def lock(self, namespace: str) -> Iterator[None]:
        held = FileLock(self._lock_path(namespace))
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            raise JobLockedError(
                "another job works on this target",
                where=Where(store=self._address.url),
                remedy="wait for it (`eventmig status` shows it) or stop that process; "
                "the lock ends with it, there is no file to delete",
            ) from error
        except OSError as error:
            raise ReadOnlyError(
                f"the lock file cannot be made: {error.strerror}",
                where=Where(store=self._address.url),
                remedy="give this user write permission on the folder of the store",
            ) from error
        try:
            yield
        finally:
            held.release()

    def held(self, namespace: str) -> bool:
        path = self._lock_path(namespace)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    def scope(self) -> str:
        return f"sqlite:{os.path.realpath(self._location.path)}"

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def _lock_path(self, namespace: str) -> Path:
        return Path(f"{os.path.realpath(self._location.path)}.{namespace}.lock")

    def _engine(self, connect: object, begin: str) -> Engine:
        engine = create_engine(
            "sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=4
        )

        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        sa_event.listen(engine, "begin", start)
        return engine
