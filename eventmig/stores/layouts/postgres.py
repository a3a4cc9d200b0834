"""A PostgreSQL database (one schema of it) with somebody else's tables in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy import event as sa_event
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema, DropSchema

from eventmig.errors import (
    ConfigError,
    DataError,
    FencedError,
    JobLockedError,
    NotAStoreError,
    ReadOnlyError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    Where,
)
from eventmig.stores import fences
from eventmig.stores.engines import create_engine
from eventmig.stores.held_up import asking, locking
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Tail
from eventmig.stores.layouts.place import Address
from eventmig.stores.layouts.tables import Tables
from eventmig.stores.layouts.waiting import NOT_GIVEN, NotGivenError, waiting

_LOCK_WAIT: Final = "5s"
_DRAWN: Final = 1_000  # positions at a time, once some were too low
_WRITER_WAITS: Final = "30s"  # for a lock of others, as SQLite's writers do
# By SQLSTATE (PostgreSQL manual, appendix A): the whole code, or its class.
_RULES: Final[dict[str, tuple[type[StoreError | DataError], str, str]]] = {
    fences.SQLSTATE: (
        FencedError,
        fences.WHAT,
        "look which side is live (`eventmig status`), and write there",
    ),
    "22": (
        DataError,
        "PostgreSQL cannot hold a value of an event in the owner's column",
        "mend the value in an upcaster, or choose another target; nothing of the batch was kept",
    ),
    "42501": (
        ReadOnlyError,
        "this database user may not do that",
        "grant the user the privilege that the message names",
    ),
    "42883": (
        NotAStoreError,
        "the database lacks a function that the layout calls",
        "make it with the library that owns the tables, or mend `lock` in the description",
    ),
    "P0001": (
        StoreError,
        "a trigger or function of the owner's refuses that",
        "look at what it says; nothing of the batch was kept",
    ),
    "0A000": (
        StoreError,
        "the owner's tables do not allow that",
        "look at what the message says; nothing of the batch was kept",
    ),
    "25006": (
        ReadOnlyError,
        "the database takes no writes",
        "name the primary server, not a replica",
    ),
    NOT_GIVEN: (
        StoreError,
        "a lock on the events' table was not given in time",
        "look for a long transaction on that table (`pg_stat_activity`, `pg_blocking_pids`), then "
        "run it again; `?options=-c lock_timeout=…` changes the limit",
    ),
    "55": (
        StoreError,
        "the server cannot do that in its present state",
        "a replica cannot lock tables: name the primary server",
    ),
    "40": (
        StoreError,
        "the server ended the transaction in favour of another",
        "run the same command again: it goes on from the last commit",
    ),
    "53": (
        StoreFullError,
        "the server has run out of room",
        "free some space (nothing of the batch was kept), then run it again",
    ),
    "57": (
        StoreUnavailableError,
        "the server ended the statement",
        "the same command goes on from the last commit when the server is back",
    ),
    "08": (
        StoreUnavailableError,
        "the connection to the server was lost",
        "the same command goes on from the last commit when the server is back",
    ),
    "28": (
        StoreError,
        "the server refuses this user",
        "mend user and password in the URL",
    ),
    "3D": (
        NotAStoreError,
        "there is no such database",
        "mend the database's name in the URL",
    ),
}


class PostgresDatabase:
    """The database and schema of an address. Connects when it is first asked.

    Raises `ConfigError` where the driver is not installed.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._made_schema = False
        self._made: list[str] = []
        self._scope: str | None = None
        self._reader = self._engine(read_only=True)
        self._writer = self._engine(read_only=False)

    def check(self) -> None:
        with self.reading() as connection:
            if connection.execute(select(func.current_schema())).scalar() is None:
                raise NotAStoreError(
                    f"there is no schema {self._address.schema!r}",
                    where=Where(store=self._address.url),
                    remedy="mend the schema in the URL (?schema=…)",
                )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._translated(), self._writer.begin() as connection:
            yield connection

    def safe_position(self, tables: Tables, tail: Tail) -> int:
        with self._translated(), self._barrier.begin() as connection:
            if tail is Tail.BARRIER:
                # Waits for open appends, and holds new ones up for as long as max() takes. The
                # owner draws a position inside of its INSERT, under the table's own lock: so
                # whoever draws one later than this gets a higher one.
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                heads = tables.layout.heads
                names = [tables.layout.table, *([heads.table] if heads else [])]
                quoted = list(map(_quoted, names))
                try:
                    with waiting(connection):
                        connection.exec_driver_sql(f"LOCK TABLE {', '.join(quoted)} IN SHARE MODE")
                except NotGivenError as error:
                    by = locking(asking(connection), quoted)
                    raise StoreError(
                        f"a lock on the events' table was not given within {_LOCK_WAIT}"
                        + ("" if by is None else f": it waits for {by}"),
                        where=Where(store=self._address.url),
                        remedy=("" if by is None else f"{by.remedy}; then ")
                        + "run the same command again",
                    ) from error
            return int(connection.execute(select(tables.highest())).scalar_one())

    def reserve(self, connection: Connection, tables: Tables, count: int) -> list[int]:
        sequence, step, cached = self._sequence(connection, tables.layout)
        last = -1
        if step != 1 or cached > 1:
            last = int(connection.execute(select(tables.highest())).scalar_one())
        if step != 1:  # none, or one that the owner draws blocks from
            if sequence is not None:
                bound = {"name": sequence, "last": last + count}
                connection.execute(text("SELECT setval(CAST(:name AS regclass), :last)"), bound)
            return list(range(last + 1, last + 1 + count))
        # From the owner's own sequence: it needs no setval afterwards, and nobody who appends
        # beside this job can draw the same positions.
        drawn = text("SELECT nextval(CAST(:name AS regclass)) FROM generate_series(1, :count)")
        found: list[int] = []
        at_once = count
        while len(found) < count:  # this session may have cached some before others were used
            drew = connection.execute(drawn, {"name": sequence, "count": at_once}).scalars()
            found += [position for position in drew if position > last]
            at_once = _DRAWN
        return sorted(found)[:count]

    def _sequence(self, connection: Connection, layout: Layout) -> tuple[str | None, int, int]:
        """The sequence that counts positions, its step and how many values a session caches.

        None and zeros where there is none.
        """
        own = select(func.pg_get_serial_sequence(_quoted(layout.table), layout.position))
        candidates = [connection.execute(own).scalar(), *map(_quoted, layout.sequences)]
        for name in candidates:
            if name is None:
                continue
            found = connection.execute(
                text(
                    "SELECT seqincrement, seqcache FROM pg_sequence"
                    " WHERE seqrelid = to_regclass(:name)"
                ),
                {"name": name},
            ).first()
            if found is not None:
                return str(name), *found
        return None, 0, 0

    def create(self, layout: Layout) -> bool:
        with self.begin() as connection:
            if self._address.schema and not inspect(connection).has_schema(self._address.schema):
                connection.execute(CreateSchema(self._address.schema))
                self._made_schema = True
        try:
            with self.begin() as connection:
                if inspect(connection).has_table(layout.table):
                    return False
                if not layout.create:
                    raise NotAStoreError(
                        f"the layout {layout.name!r} does not say how its tables are made",
                        where=Where(store=self._address.url),
                        remedy="make them with the library that owns them, then run this again",
                    )
                schema = str(connection.execute(select(func.current_schema())).scalar())
                for statement in layout.statements(_quoted, schema):
                    connection.exec_driver_sql(statement.replace("%", "%%"))
        except BaseException:
            self.discard()
            raise
        return True

    def discard(self) -> None:
        if self._made_schema and self._address.schema:
            with self.begin() as connection:
                connection.execute(DropSchema(self._address.schema, cascade=True))
            self._made_schema = False
        self.close()

    @contextmanager
    def lock(self, namespace: str) -> Iterator[None]:
        with self._translated(), self._writer.connect() as connection:
            key = {"key": self._lock_key(namespace)}
            got = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar()
            connection.commit()
            if not got:
                raise JobLockedError(
                    "another job works on this target",
                    where=Where(store=self._address.url),
                    remedy="wait for it (`eventmig status` shows it) or stop that process; "
                    "the lock ends with its connection",
                )
            try:
                yield
            finally:
                with suppress(DBAPIError):  # a session that is gone has let go already
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                    connection.commit()
                connection.invalidate()

    def held(self, namespace: str) -> bool:
        key = self._lock_key(namespace) & (2**64 - 1)
        with self.reading() as connection:
            found = connection.execute(
                text(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 "
                    "AND classid::bigint = :high AND objid::bigint = :low AND granted"
                ),
                {"high": key >> 32, "low": key & (2**32 - 1)},
            )
            return bool(found.scalar())

    def scope(self) -> str:
        if self._scope is None:
            with self.reading() as connection:
                server, database, schema = connection.execute(
                    text(
                        "SELECT (SELECT system_identifier FROM pg_control_system()), "
                        "current_database(), current_schema()"
                    )
                ).one()
            self._scope = f"postgresql:{server}/{database}/{schema}"
        return self._scope

    def close(self) -> None:
        for engine in (self._reader, self._writer):
            engine.dispose()

    # --- below

    def _lock_key(self, namespace: str) -> int:
        digest = hashlib.sha256(f"{self.scope()}\x1f{namespace}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    @property
    def _barrier(self) -> Engine:
        return self._reader.execution_options(isolation_level="READ COMMITTED")

    def _engine(self, *, read_only: bool) -> Engine:
        url = self._address.connect.set(drivername="postgresql+psycopg")
        try:
            engine = create_engine(
                url,
                pool_size=1,
                max_overflow=4,
                isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
                connect_args={"application_name": "eventmig"},
            )
        except ImportError as error:
            raise ConfigError(
                "the PostgreSQL driver is not installed",
                where=Where(store=self._address.url),
                remedy="install it: pip install 'eventmig[postgres]'",
            ) from error

        def settle(connection: Any, record: object) -> None:
            with connection.cursor() as cursor:
                # Nobody knows the owner's indexes: a plan without values can be the worst there
                # is (of one stream in joined tables, a hundred times as slow).
                cursor.execute("SET plan_cache_mode = force_custom_plan")
                if self._address.schema:
                    path = (_quoted(self._address.schema),)
                    cursor.execute("SELECT set_config('search_path', %s, false)", path)
                if read_only:
                    cursor.execute("SET default_transaction_read_only = on")
                elif "lock_timeout=" not in str(url.query.get("options", "")):
                    cursor.execute(f"SET lock_timeout = '{_WRITER_WAITS}'")
            connection.commit()

        sa_event.listen(engine, "connect", settle)
        return engine

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise the store's errors in place of the driver's, by SQLSTATE."""
        try:
            yield
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None) or ("08" if _unreached(error) else "")
            rule = _RULES.get(state) or _RULES.get(state[:2])
            if rule is None:
                raise
            kind, what, remedy = rule
            said = str(error.orig).splitlines()[0]
            where = Where(store=self._address.url)
            raise kind(f"{what} ({said})", where=where, remedy=remedy) from error


def _unreached(error: DBAPIError) -> bool:
    return type(error.orig).__name__ in ("OperationalError", "ConnectionTimeout")


def _quoted(name: str) -> str:
    # For the driver, to which a lone % would begin a parameter.
    return str(dialect().identifier_preparer.quote_identifier(name))  # type: ignore[no-untyped-call]
