"""What a transaction owes the owner's writers and subscribers: its locks, and a notification.

Locks are taken before positions are drawn, and held until the transaction ends; the server
sends a notification when it commits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection

from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Guard

_CATEGORY: Final = "{category}"
_STREAM: Final = "{stream}"


class Guarding:
    """The locks of one transaction, each taken once."""

    def __init__(self, connection: Connection, layout: Layout) -> None:
        self._connection = connection
        self._layout = layout
        self._locked: set[str] = set()
        self._notified = False

    def lock(self, streams: Collection[str]) -> None:
        """Take what the owner takes to append to these streams; waits for who has it."""
        if not streams:
            return
        match self._layout.guard:
            case Guard.EXCLUSIVE if not self._locked:
                quoted = self._connection.dialect.identifier_preparer.quote(self._layout.table)
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
        self._connection.exec_driver_sql(
            f"SELECT {expression} FROM unnest(%s::text[]) AS given (name)", (new,)
        )
        self._locked.update(new)

    def notify(self) -> None:
        """Have the owner's subscribers woken when the transaction commits."""
        if self._layout.notify and not self._notified:
            channel = self._layout.notify.replace("{table}", self._layout.table)
            self._connection.exec_driver_sql("SELECT pg_notify(%s, '')", (channel,))
            self._notified = True
