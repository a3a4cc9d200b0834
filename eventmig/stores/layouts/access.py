"""The way to a layout's rows: its tables, looked at once, and a connection for each read.

Which rows are the store's, and where each stands, may change while it is open: a job makes the
side tables, and transactions commit late. So each read looks anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, inspect

from eventmig.stores.layouts import lineage
from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.late import Late
from eventmig.stores.layouts.place import Database, Place
from eventmig.stores.layouts.rows import Rows
from eventmig.stores.layouts.tables import Tables


class Access:
    """The tables of a place in its database, and what its rows are at each look.

    `beside`: whether the side tables (`lineage`) were there at the last look. Raises
    `NotAStoreError` where the tables are not as described.
    """

    def __init__(self, place: Place, database: Database) -> None:
        self.place = place
        self.beside = False
        self._database = database
        self._tables: Tables | None = None
        self._late: Late | None = None

    @property
    def tables(self) -> Tables:
        """The tables as they were found."""
        if self._tables is None:
            with self._database.reading() as connection:
                self._tables = Tables(connection, self.place.layout, self.place.url)
            if self.place.layout.transaction is not None:
                self._late = Late(self._tables, self.place.url)
        return self._tables

    @property
    def late(self) -> Late | None:
        """The late events; None where the order over streams is not one by transactions."""
        _ = self.tables
        return self._late

    @contextmanager
    def reading(self) -> Iterator[tuple[Connection, Rows]]:
        """A connection that cannot write, one snapshot for the block, and what its rows are."""
        _ = self.tables
        with self._database.reading() as connection:
            yield connection, self.rows(connection)

    def rows(self, connection: Connection) -> Rows:
        """What the rows are at this moment of a connection. Reads only."""
        if not self.beside:  # a job may have made them since the last look
            self.beside = inspect(connection).has_table(lineage.streams.name)
        late = self.late
        return Rows(
            self.tables,
            url=self.place.url,
            namespace=self.place.namespace,
            release=self.place.release,
            beside=self.beside,
            late={} if late is None else late.places,
        )

    def upto(self, connection: Connection, rows: Rows, until: int) -> Expression:
        """The condition that a row stands at this global position, or before it. Reads only."""
        late = self.late
        if late is None:
            return self.tables.order.upto(until)
        late.look(connection, rows, until)
        return late.upto(until)
