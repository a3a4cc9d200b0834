"""The fence of somebody else's tables: triggers that refuse inserts while they are there.

Only where the table's events are all of one side (`open_layout`): streams of a release beside
others in one table cannot be told apart from a new stream of the application's. Rows that are
no events of the layout (`where`, `stream.left_out`) pass: consumers go on writing their
positions. The owner's library gets the database's error, and nothing of its append is kept.

On PostgreSQL the events' table is locked in SHARE ROW EXCLUSIVE mode first, as CREATE TRIGGER
does, which waits for all who have inserted: once it is committed, no append is under way.
SQLite has one writer at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import URL, Connection, String, and_, inspect, literal, true
from sqlalchemy.sql.util import ClauseAdapter

from eventmig.errors import CrossingError
from eventmig.stores import fences
from eventmig.stores.base import TargetTransaction
from eventmig.stores.crossing import Fence
from eventmig.stores.held_up import asking, locking
from eventmig.stores.layouts.checks import lost_rows
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.place import locate
from eventmig.stores.layouts.store import LayoutStore
from eventmig.stores.layouts.tables import Tables
from eventmig.stores.layouts.waiting import NotGivenError, waiting
from eventmig.stores.layouts.write import LayoutTransaction


class FencedLayoutStore(LayoutStore):
    """A described store whose applications can be shut out (`Fencing`)."""

    _lifted = False

    @contextmanager
    def begin(self) -> Iterator[LayoutTransaction]:
        """Open a write transaction: commit at the end, else roll back. One at a time."""
        self._lifted = False
        with super().begin() as tx:
            yield tx
            if self._lifted:
                fences.lift(tx.connection, self.namespace, closed=True)

    def reads_a_view(self) -> bool:
        """Whether the events' table is a view, which takes no such trigger. Reads only."""
        with self.reading() as connection:
            return self.layout.table in inspect(connection).get_view_names()

    def set_fence(self, *, closed: bool, job_id: str, epoch: int, wait_s: float) -> None:
        """Close or open the fence; transactions that append are waited out, `wait_s` at most."""
        tables = self._access.tables
        with self._database.begin() as connection:
            if not tables.sqlite:
                self._wait_out(connection, wait_s)
            for lost in lost_rows(connection, self.layout, self.url) if closed else ():
                raise CrossingError(lost.what, where=lost.where, remedy=lost.remedy)
            fences.note(
                connection,
                self.namespace,
                url=self.url,
                closed=closed,
                job_id=job_id,
                epoch=epoch,
            )
            for statement in _statements(connection, tables, self.namespace, closed=closed):
                connection.exec_driver_sql(statement)

    def fence(self) -> Fence | None:
        """The fence as it is now; None where there never was one."""
        with self.reading() as connection:
            return fences.read(connection, self.namespace)

    def last_position(self) -> int:
        """The last global position of an event; not the safe head, which waits for writers."""
        tables, late = self._access.tables, self._access.late
        with self._access.reading() as (connection, rows):
            if late is not None:
                return late.last(connection, rows)
            found = tables.order.last(tables.source).where(*rows.ours())
            return int(connection.execute(found).scalar() or 0)

    def settled(self) -> bool:
        """Whether no transaction is open that could still append before the last event."""
        return self.layout.transaction is None or self.head_position() >= self.last_position()

    def check_fence(self, tx: TargetTransaction, *, job_id: str, epoch: int) -> None:
        """Raise `JobLostError` unless this holder closed the fence last."""
        fences.check(tx.connection, self.namespace, url=self.url, job_id=job_id, epoch=epoch)

    def pass_fence(self, tx: TargetTransaction) -> None:
        """Let this transaction append though the fence is closed."""
        if not self._access.tables.sqlite:
            fences.let_through(tx.connection)
            return
        fence = fences.read(tx.connection, self.namespace)
        if fence is not None and fence.closed:
            fences.lift(tx.connection, self.namespace, closed=False)
            self._lifted = True

    def _wait_out(self, connection: Connection, wait_s: float) -> None:
        quoted = list(map(connection.dialect.identifier_preparer.quote, _fenced(self.layout)))
        names = ", ".join(quoted)
        patience = f"{max(1, round(wait_s * 1e3))}ms"
        connection.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (patience,))
        try:
            with waiting(connection):
                connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
        except NotGivenError as error:
            by = locking(asking(connection), quoted)
            raise fences.still_open(self.url, wait_s, by) from error


def open_layout(url: URL, *, mode: Literal["read", "write", "create"]) -> LayoutStore:
    """Open the store of a URL with the option `layout`. Raises as `LayoutStore` does.

    It has a fence where a job can write it, its table is no view, and holds no streams of a
    release beside others.
    """
    place = locate(url)
    if place.release is None and not place.layout.read_only:
        store = FencedLayoutStore(place, mode=mode)
        if not store.reads_a_view():
            return store
        store.close()
    return LayoutStore(place, mode=mode)


def _statements(
    connection: Connection, tables: Tables, namespace: str, *, closed: bool
) -> Iterator[str]:
    """What puts the trigger, or takes it away; neither minds that it is so already."""
    quote = connection.dialect.identifier_preparer.quote
    if closed and not tables.sqlite:
        yield (
            "CREATE OR REPLACE FUNCTION eventmig_layout_fence() RETURNS trigger "
            "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING "
            f"MESSAGE = '{fences.REFUSAL}', ERRCODE = '{fences.SQLSTATE}'; END $$"
        )
    for name in _fenced(tables.layout):
        table = quote(name)
        # A row of a joined table is an event's, whatever it says itself.
        which = _is_event(connection, tables) if name == tables.layout.table else "(1 = 1)"
        if tables.sqlite:
            trigger = quote(f"eventmig_fence_{name}")
            yield f"DROP TRIGGER IF EXISTS {trigger}"
            if closed:
                ours = f"namespace = {_text(connection, namespace)}"
                yield (
                    f"CREATE TRIGGER {trigger} BEFORE INSERT ON {table} "
                    f"WHEN (SELECT closed FROM eventmig_fences WHERE {ours}) AND {which} "
                    f"BEGIN SELECT RAISE(ABORT, {_text(connection, fences.REFUSAL)}); END"
                )
            continue
        yield f"DROP TRIGGER IF EXISTS eventmig_fence ON {table}"
        if closed:
            yield (
                f"CREATE TRIGGER eventmig_fence BEFORE INSERT ON {table} FOR EACH ROW "
                "WHEN (current_setting('eventmig.passes', true) IS DISTINCT FROM 'on' "
                f"AND {which}) EXECUTE FUNCTION eventmig_layout_fence()"
            )


def _fenced(layout: Layout) -> list[str]:
    """The tables that get a row for each event, in the order in which an owner writes them."""
    return [*(join.table for join in layout.of_events()), layout.table]


def _is_event(connection: Connection, tables: Tables) -> str:
    """Whether the row NEW is an event of the layout; a trigger takes no bound values."""
    condition = and_(true(), *tables.seen_in_row())
    new = ClauseAdapter(tables.events.alias("new")).traverse(condition)
    options = {"literal_binds": True}
    return f"({new.compile(dialect=connection.dialect, compile_kwargs=options)})"


def _text(connection: Connection, value: str) -> str:
    made = literal(value, String)
    return str(made.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
