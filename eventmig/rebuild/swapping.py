"""The swap: one transaction that gives the live names to other generations.

    fence ─▶ last increment ─▶ lock ─▶ what hangs on the tables aside
        ─▶ park the live generation, publish the new one ─▶ what hangs on them back

Readers see the old tables or the new ones. A table that is in use is waited for, a little at
a time (`locking`); nothing is changed by an attempt that fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Table
from sqlalchemy.exc import IntegrityError

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, swap
from eventmig.rebuild.bookkeeping import Generation, Hold, KeptTable, Kind, State
from eventmig.rebuild.building import ModelBuilding
from eventmig.rebuild.carrying import carried, carry
from eventmig.rebuild.locking import lock_tables, retried
from eventmig.rebuild.progress import RebuildResult
from eventmig.rebuild.shadow import parked_name
from eventmig.rebuild.undeclared import as_made, refuse_undeclared
from eventmig.stores.base import EventReader

_KIND = Kind.READ_MODEL


def swap_in(
    connection: Connection, built: Sequence[ModelBuilding], source: EventReader | None
) -> list[RebuildResult]:
    """Swap all in one transaction, after the last events of `source` (None: they are in).

    Raises `RebuildError` where the new rows break a constraint, what hangs on the live
    tables cannot be kept, or they stay in use; all is as before then.
    """
    before = [one.at for one in built]
    live = [
        table for one in built for table in _live_tables(connection, one.model.tables, one.hold)
    ]
    connection.rollback()

    def attempt() -> list[RebuildResult]:
        for one, at in zip(built, before, strict=True):
            one.at = at
        with connection.begin():
            for one in built:
                one.hold.fence(connection)
                bookkeeping.lock_live(connection, one.hold)
            for one in built:
                if source is not None:
                    one.last_increment(source.head_position())
                swap.add_foreign_keys(connection, one.shadow)
            lock_tables(connection, live)
            with _carrying(connection, live), swap.names_alone(connection):
                return [_swap_one(connection, one) for one in built]

    try:
        return retried(connection, attempt, live)
    except IntegrityError as error:
        raise RebuildError(
            f"the rebuilt rows break a constraint or a unique index: {error.orig}",
            remedy="see which handler makes these rows; the live tables are as before",
        ) from error


def roll_back(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Bring back the kept generations of these read models, in one transaction.

    Returns each name's live generation. Raises `RebuildError` when one has none.
    """
    with connection.begin():
        holds = [bookkeeping.take(connection, _KIND, name) for name in names]
        live = [t for hold in holds for t in _live_tables(connection, (), hold)]

    def attempt() -> dict[str, int]:
        with connection.begin():
            for hold in holds:
                hold.fence(connection)
                bookkeeping.lock_live(connection, hold)
            lock_tables(connection, live)
            with _carrying(connection, live), swap.names_alone(connection):
                return {hold.name: _roll_back(connection, hold) for hold in holds}

    return retried(connection, attempt, live)


@contextmanager
def _carrying(connection: Connection, live: Sequence[KeptTable]) -> Iterator[None]:
    """What hangs on the live tables is on those that have their names at the end of the block."""
    hanging = carried(connection, live, _parked(connection))
    carry(connection, hanging.before)
    yield
    carry(connection, hanging.after)


def _parked(connection: Connection) -> list[KeptTable]:
    """Every kept table, by the name it has now."""
    return [
        KeptTable(schema=table.schema, name=parked_name(table.name, made.number))
        for _, made in bookkeeping.all_generations(connection, _KIND)
        if made.state is State.KEPT
        for table in made.tables
    ]


def _swap_one(connection: Connection, one: ModelBuilding) -> RebuildResult:
    """One model's part of the swap."""
    hold, new, rows = one.hold, one.at, one.count_rows()
    oldest = bookkeeping.generation(connection, _KIND, hold.name, State.KEPT)
    if oldest is not None:
        swap.drop(connection, oldest.tables, oldest.number)
        bookkeeping.remove(connection, hold, oldest.number)
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    refuse_undeclared(connection, live, one.model.tables)
    before = _live_tables(connection, one.model.tables, hold)
    number = 0 if live is None else live.number
    parked = _park(connection, before, number)
    if parked and live is None:  # tables that were there before eventmig
        found = Generation(number=0, state=State.KEPT, fingerprint="", release="", source="")
        bookkeeping.add(connection, hold, found)
    if parked:
        bookkeeping.become(connection, hold, number, State.KEPT, parked)
    elif live is not None:
        bookkeeping.remove(connection, hold, number)
    bookkeeping.checkpoint(connection, hold, new)
    swap.publish(connection, one.shadow, new.number)
    made = [as_made(connection, table) for table in new.tables]
    bookkeeping.become(connection, hold, new.number, State.LIVE, made)
    return one.result(number if parked else None, rows, swapped=True)


def _park(connection: Connection, tables: Sequence[KeptTable], number: int) -> list[KeptTable]:
    return [replace(table, restore=swap.park(connection, table, number)) for table in tables]


def _live_tables(connection: Connection, declared: Sequence[Table], hold: Hold) -> list[KeptTable]:
    """The tables that lose their live names: the live generation's, and any others so named."""
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    tables = [] if live is None else [*live.tables]
    known = {(table.schema, table.name) for table in tables}
    tables += [
        KeptTable(name=table.name, schema=table.schema)
        for table in declared
        if (table.schema, table.name) not in known
    ]
    return [table for table in tables if swap.exists(connection, table)]


def _roll_back(connection: Connection, hold: Hold) -> int:
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    kept = bookkeeping.generation(connection, _KIND, hold.name, State.KEPT)
    if live is None or kept is None:
        raise RebuildError(
            f"the read model {hold.name} has no earlier generation to bring back",
            where=Where(path=hold.name),
            remedy="only the generation before the live one is kept; rebuild it",
        )
    parked = _park(connection, live.tables, live.number)
    for table in kept.tables:
        swap.unpark(connection, table, kept.number)
    bookkeeping.become(connection, hold, live.number, State.KEPT, parked)
    bookkeeping.become(connection, hold, kept.number, State.LIVE)
    return kept.number
