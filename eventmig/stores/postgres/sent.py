"""A statement that the server works on while this process does something else.

Sent at once, its rows taken later: between the two no thread has to wait, and nobody for
Python's lock. On a connection one can be under way at a time (`session` sees to that).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import generators, pq
from psycopg.adapt import Transformer

_ASKED: Final = 100  # times to stop, with a pause after each
_PAUSE_S: Final = 0.02


class Sent:
    """One statement that reads, under way on a connection in autocommit."""

    def __init__(self, connection: psycopg.Connection, sql: str, bound: Mapping[str, object]):
        """Send it; what it is given stands in its text, quoted by the driver.

        Raises `psycopg.Error` where the connection is lost.
        """
        text = psycopg.ClientCursor(connection).mogrify(sql.encode(), bound)
        self._connection = connection
        self._results: Sequence[pq.abc.PGresult] | None = None
        connection.pgconn.send_query_params(text.encode(), None, result_format=pq.Format.BINARY)
        connection.wait(generators.send(connection.pgconn))

    def there(self) -> bool:
        """Whether it has ended; does not wait."""
        if self._results is None:
            self._connection.pgconn.consume_input()
        return self._results is not None or not self._connection.pgconn.is_busy()

    def give_up(self) -> None:
        """Have the server stop working on it; waits until it has, but not for long.

        Raises `psycopg.Error` where the connection is lost.
        """
        for _ in range(_ASKED):  # a server that has not begun with it yet takes no notice
            if self.there():
                return
            self._connection.cancel_safe()
            time.sleep(_PAUSE_S)

    def receive(self) -> None:
        """Wait for its end, so that the connection is free for others; harmless twice.

        Raises `psycopg.Error` where the connection is lost, nothing where the statement failed.
        """
        if self._results is None:
            self._results = ()  # nothing more will come where this is interrupted
            self._results = self._connection.wait(generators.fetch_many(self._connection.pgconn))

    def rows(self) -> list[tuple[Any, ...]]:
        """Its rows; waits for them. Raises `psycopg.Error` where it failed."""
        self.receive()
        if not self._results:
            raise psycopg.OperationalError("the connection is lost")
        (result,) = self._results
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result)
        loader = Transformer(self._connection)
        loader.set_pgresult(result)
        return loader.load_rows(0, result.ntuples, tuple)
