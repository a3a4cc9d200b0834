"""What a transaction owes the owner's writers and subscribers: its locks, and a notification.

Locks are taken before positions are drawn, and held until the transaction ends; the server
sends a notification when it commits. Who has a lock is waited for as long as the connection's
`lock_timeout` says, and then named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection

from eventmig.errors import StoreError, Where
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Guard
from eventmig.stores.layouts.waiting import NotGivenError, waiting

_CATEGORY: Final = "{category}"
_STREAM: Final = "{stream}"
_HOLDER: Final = """SELECT a.pid, a.application_name,
        date_trunc('second', clock_timestamp() - a.xact_start)::text, left(a.query, 80)
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.granted AND l.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
      AND (l.locktype = 'advisory' OR l.relation = to_regclass(quote_ident(%s)))
    ORDER BY a.xact_start LIMIT 1"""


class Guarding:
    """The locks of one transaction, each taken once."""

    def __init__(self, connection: Connection, layout: Layout, url: str) -> None:
        self._connection = connection
        self._layout = layout
        self._url = url
        self._locked: set[str] = set()
        self._notified = False

    def lock(self, streams: Collection[str]) -> None:
        """Take what the owner takes to append to these streams; waits for who has it.

        Raises `StoreError` where that takes too long; the transaction must be rolled back then.
        """
        if not streams:
            return
        match self._layout.guard:
            case Guard.EXCLUSIVE if not self._locked:
                quoted = self._connection.dialect.identifier_preparer.quote(self._layout.table)
                with self._waiting(f"the table {self._layout.table}"):
                    self._connection.exec_driver_sql(f"LOCK TABLE {quoted} IN EXCLUSIVE MODE")
                self._locked.add("")
            case Guard.CALL:
                self._call(streams)

    def _call(self, streams: Collection[str]) -> None:
        expression = self._layout.lock
        if _CATEGORY in expression:
            names = set(map(self._layout.category, streams))
        else:
            names = set(streams) if _STREAM in expression else {""}
        new = sorted(names - self._locked)  # in one order, whoever takes them
        if not new:
            return
        for mark, value in ((_CATEGORY, "given.name"), (_STREAM, "given.name"), ("%", "%%")):
            expression = expression.replace(mark, value)
        with self._waiting(self._layout.lock):
            self._connection.exec_driver_sql(
                f"SELECT {expression} FROM unnest(%s::text[]) AS given (name)", (new,)
            )
        self._locked.update(new)

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Name a lock that is not given in time, and who has it."""
        try:
            with waiting(self._connection):
                yield
        except NotGivenError as error:
            (waited,) = self._connection.exec_driver_sql("SHOW lock_timeout").one()
            raise StoreError(
                f"the lock that the owner takes to append ({what}) was not given within "
                f"{waited}{self._holder()}",
                where=Where(store=self._url),
                remedy="end what holds it, then run the same command again: it goes on from the "
                "last commit; `?options=-c lock_timeout=…` changes the limit",
            ) from error

    def _holder(self) -> str:
        found = self._connection.exec_driver_sql(_HOLDER, (self._layout.table,)).first()
        if found is None:
            return ""
        pid, name, since, query = found
        return f": session {pid} ({name or 'unnamed'}) has it for {since}, last with {query}"

    def notify(self) -> None:
        """Have the owner's subscribers woken when the transaction commits."""
        if self._layout.notify and not self._notified:
            channel = self._layout.notify.replace("{table}", self._layout.table)
            self._connection.exec_driver_sql("SELECT pg_notify(%s, '')", (channel,))
            self._notified = True
