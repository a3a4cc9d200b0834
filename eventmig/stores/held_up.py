"""What keeps stored events from being read, or a lock from being given: an open transaction.

Only PostgreSQL tells. The statements stand here once, for its two adapters; who asks runs them on
a connection of its own, in a transaction that did not fail. Reads only, as any user may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, runtime_checkable

from sqlalchemy import Connection

Ask = Callable[[str, Mapping[str, Any]], Sequence[Any] | None]
"""Runs a statement with its values; returns the first row, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """A transaction that others wait for.

    `pid` is its session's; None: it is prepared, under the name `prepared`. `since` is when it
    began (UTC); None where this user may not see that.
    """

    pid: int | None
    prepared: str
    database: str
    application: str
    since: datetime | None

    def __str__(self) -> str:
        """Whose it is, in words."""
        who = f"session {self.pid}" if self.pid else f"the prepared transaction {self.prepared!r}"
        who += f" ({self.application})" if self.application else ""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"{who} in the database {self.database},{since or ' since when is not shown'}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.pid is None:
            name = self.prepared.replace("'", "''")
            return f"finish it there: COMMIT PREPARED '{name}', or ROLLBACK PREPARED '{name}'"
        return f"end it if nobody needs it any more: SELECT pg_terminate_backend({self.pid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldUp:
    """So many stored events wait until this transaction has ended. None of them is lost."""

    events: int
    by: OpenTransaction

    def __str__(self) -> str:
        """How many wait, and for whom, in words."""
        some = f"{self.events:,} events wait" if self.events > 1 else "1 event waits"
        return f"{some} for a transaction that is open on the server: {self.by}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self.by.remedy


@runtime_checkable
class Waiting(Protocol):
    """A store whose readers wait for transactions that are open."""

    def held_up(self, *, open_for_s: float = 0) -> HeldUp | None:
        """What keeps events that are stored from being read; None: nothing does.

        A transaction that has been open for less than `open_for_s` seconds does not count.
        Reads only.
        """
        ...


LONG_S: Final = 1.0
"""From when on a job speaks of an open transaction, in seconds: shorter ones are everyday."""


def held_up(store: object) -> HeldUp | None:
    """What has kept events of a store from being read for a while; None: nothing, or it has no
    such readers.
    """
    return store.held_up(open_for_s=LONG_S) if isinstance(store, Waiting) else None


_OPEN: Final = """SELECT a.pid, '', a.datname, a.application_name, a.xact_start
    FROM pg_catalog.pg_stat_activity a WHERE a.pid = %(pid)s::int
      AND coalesce(a.xact_start <= clock_timestamp() - %(open_for_s)s::float8 * interval '1 s',
          true)
    UNION ALL SELECT NULL, p.gid, p.database, '', p.prepared
    FROM pg_catalog.pg_prepared_xacts p WHERE p.transaction IN (
        SELECT l.transactionid FROM pg_catalog.pg_locks l WHERE l.locktype = 'transactionid'
          AND l.pid IS NULL AND l.virtualtransaction = %(virtual)s::text)
      AND p.prepared <= clock_timestamp() - %(open_for_s)s::float8 * interval '1 s'"""

# Modes that neither SHARE nor SHARE ROW EXCLUSIVE goes with: those of who writes.
_LOCKING: Final = """SELECT l.pid, l.virtualtransaction
    FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND l.relation IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS t (name))
    ORDER BY a.xact_start LIMIT 1"""

_OLDEST: Final = """SELECT l.pid, l.virtualtransaction FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock'
      AND l.transactionid::text::bigint =
          mod(pg_snapshot_xmin(pg_current_snapshot())::text::bigint, 1::bigint << 32)"""


def asking(connection: Connection) -> Ask:
    """What asks over this connection."""
    return lambda statement, bound: connection.exec_driver_sql(statement, dict(bound)).first()


def transaction_of(
    ask: Ask, pid: int | None, virtual: str, *, open_for_s: float = 0
) -> OpenTransaction | None:
    """That of a row of `pg_locks`; None where it has ended, or is open for less than that."""
    found = ask(_OPEN, {"pid": pid, "virtual": virtual, "open_for_s": open_for_s})
    if found is None:
        return None
    session, prepared, database, application, since = found
    return OpenTransaction(
        pid=session,
        prepared=prepared,
        database=database or "",
        application=application or "",
        since=None if since is None else since.astimezone(UTC),
    )


def oldest(ask: Ask, *, open_for_s: float = 0) -> OpenTransaction | None:
    """The one with the lowest number of those that are open anywhere on the server, or None."""
    found = ask(_OLDEST, {})
    return None if found is None else transaction_of(ask, *found, open_for_s=open_for_s)


def locking(ask: Ask, tables: Sequence[str]) -> OpenTransaction | None:
    """The one that has written to these tables (quoted names) for the longest, or None."""
    found = ask(_LOCKING, {"tables": list(tables)})
    return None if found is None else transaction_of(ask, *found)
