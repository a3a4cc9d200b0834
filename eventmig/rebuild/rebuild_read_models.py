"""Rebuild read models beside the live ones, and swap them in.

    build each (`building`) ─▶ catch up with the live store, round by round
        ─▶ lock, last increment, swap of all tables of all models: one transaction

Killed anywhere, the same call goes on from the last checkpoint. Live tables are
read by nobody here and changed by the swap alone. Guarantees against two
rebuilds at once are in `hold`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import IntegrityError

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, swap
from eventmig.rebuild.bookkeeping import Generation, Hold, KeptTable, Kind, State
from eventmig.rebuild.building import ModelBuilding
from eventmig.rebuild.carrying import carried, carry
from eventmig.rebuild.hold import held
from eventmig.rebuild.locking import lock_tables, retried
from eventmig.rebuild.progress import (
    DataUpcaster,
    Phase,
    Progress,
    RebuildResult,
    SourceTypes,
    Upcast,
)
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.shadow import parked_name
from eventmig.rebuild.side_by_side import FoldHelpers
from eventmig.stores.base import EventReader

MAX_ROWS = 100_000
"""Changed rows kept in memory before they are written."""

_SMALL = 500
"""A last increment of about so many events may run while the live tables are locked."""

_ROUNDS = 20  # of catching up with a store that is written faster than that

_KIND = Kind.READ_MODEL


def rebuild_read_models(
    models: Sequence[ReadModel],
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    release: str,
    source_types: SourceTypes | None = None,
    data_upcaster: DataUpcaster | None = None,
    upto: int | None = None,
    batch_size: int = 500_000,
    max_rows: int = MAX_ROWS,
    helpers: FoldHelpers | None = None,
    progress: Progress | None = None,
) -> list[RebuildResult]:
    """Build these read models anew from the source's events, and swap them in together.

    Reads `source` in global order up to the global position `upto` (inclusive; None: its
    head, and all that is appended until the swap); writes tables in `engine`'s database
    (SQLite or PostgreSQL). `release` names what `upcast` leads to: another value, another
    source or a changed model begins a half-built generation anew. `source_types` says which
    stored types can become the handled ones (None: every stored event is read).
    `data_upcaster` says what `upcast` does to data alone; with it, a model whose handlers
    take no event is rebuilt twice as fast.

    Rows are written every `batch_size` stored events, or sooner when more than
    `max_rows` rows have changed: that bounds memory. `helpers` fold beside this process
    where there are many events, and no handler reads rows. `progress` is told after every
    commit; what it raises stops the rebuild, which the same call resumes.

    Raises `RebuildError` (a handler, a row, a check; the live tables are as before),
    `JobLockedError` when a rebuild of one of them is running, `JobLostError` when
    another process took over, and what the source and the database raise.
    """
    _distinct(models)
    tell = progress or (lambda _: None)
    limit = source.head_position() if upto is None else upto
    with _writing(engine, [model.name for model in models]) as connection:
        built: list[ModelBuilding] = []
        for model in models:
            types = None if source_types is None else frozenset(source_types(model.types))
            plan = Replay(
                source=source,
                upcast=upcast,
                types=types,
                upto=limit,
                batch_size=batch_size,
                max_rows=max_rows,
                data_upcaster=data_upcaster,
            )
            one = ModelBuilding(model, connection, plan, release, tell)
            one.run(helpers)
            one.build_indexes()
            built.append(one)
        if upto is None:
            _catch_up(source, built)
        results = _swap(connection, built, source if upto is None else None)
        for one in built:
            one.tell(Phase.SWAPPED)
        return results


def rollback_read_models(names: Sequence[str], *, engine: Engine) -> dict[str, int]:
    """Bring back the generation before, of all these read models in one transaction.

    The generation that was live is kept in its turn: a second rollback brings it back.
    Returns each name's live generation. Raises `RebuildError` when one has no earlier
    generation, `JobLockedError` when one is being rebuilt. Writes `engine`'s database.
    """
    with _writing(engine, names) as connection:
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


def _roll_back(connection: Connection, hold: Hold) -> int:
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    kept = bookkeeping.generation(connection, _KIND, hold.name, State.KEPT)
    if live is None or kept is None:
        raise RebuildError(
            f"the read model {hold.name} has no earlier generation to bring back",
            where=Where(path=hold.name),
            remedy="only the generation before the live one is kept; rebuild it",
        )
    parked = [swap.park(connection, table, live.number) for table in live.tables]
    for table in kept.tables:
        swap.unpark(connection, table, kept.number)
    bookkeeping.become(connection, hold, live.number, State.KEPT, parked)
    bookkeeping.become(connection, hold, kept.number, State.LIVE)
    return kept.number


@contextmanager
def _writing(engine: Engine, names: Sequence[str]) -> Iterator[Connection]:
    with ExitStack() as stack:
        stack.enter_context(held(engine, _KIND, names))
        connection = stack.enter_context(engine.connect())
        stack.enter_context(swap.foreign_keys_off(connection))
        yield connection


def _catch_up(source: EventReader, built: Sequence[ModelBuilding]) -> None:
    """Replay what was appended meanwhile, until little is left for the swap itself."""
    for _ in range(_ROUNDS):
        head = source.head_position()
        if max(one.catch_up(head) for one in built) <= _SMALL:
            return


def _swap(
    connection: Connection, built: Sequence[ModelBuilding], source: EventReader | None
) -> list[RebuildResult]:
    """Swap all in one transaction, after the last events of `source` (None: they are in)."""
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
                return [_swap_in(connection, one) for one in built]

    try:
        return retried(connection, attempt, live)
    except IntegrityError as error:
        raise RebuildError(
            f"the rebuilt rows break a constraint or a unique index: {error.orig}",
            remedy="see which handler makes these rows; the live tables are as before",
        ) from error


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


def _swap_in(connection: Connection, one: ModelBuilding) -> RebuildResult:
    """One model's part of the swap."""
    hold, new, rows = one.hold, one.at, one.count_rows()
    oldest = bookkeeping.generation(connection, _KIND, hold.name, State.KEPT)
    if oldest is not None:
        swap.drop(connection, oldest.tables, oldest.number)
        bookkeeping.remove(connection, hold, oldest.number)
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    before = _live_tables(connection, one.model.tables, hold)
    number = 0 if live is None else live.number
    parked = [swap.park(connection, table, number) for table in before]
    if parked and live is None:  # tables that were there before eventmig
        found = Generation(number=0, state=State.KEPT, fingerprint="", release="", source="")
        bookkeeping.add(connection, hold, found)
    if parked:
        bookkeeping.become(connection, hold, number, State.KEPT, parked)
    elif live is not None:
        bookkeeping.remove(connection, hold, number)
    swap.publish(connection, one.shadow, new.number)
    bookkeeping.become(connection, hold, new.number, State.LIVE)
    return one.result(number if parked else None, rows)


def _live_tables(connection: Connection, declared: Sequence[Table], hold: Hold) -> list[KeptTable]:
    """The tables that lose their live names: the live generation's, and any others so named."""
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    tables = [] if live is None else [KeptTable(name=t.name, schema=t.schema) for t in live.tables]
    for table in declared:
        named = KeptTable(name=table.name, schema=table.schema)
        if named not in tables:
            tables.append(named)
    return [table for table in tables if swap.exists(connection, table)]


def _distinct(models: Sequence[ReadModel]) -> None:
    names = [model.name for model in models]
    tables = [(table.schema, table.name) for model in models for table in model.tables]
    for what, found in (("read model", names), ("table", tables)):
        twice = sorted({str(one) for one in found if found.count(one) > 1})  # type: ignore[arg-type]
        if twice:
            raise RebuildError(
                f"the {what} {', '.join(twice)} is named twice",
                remedy="every read model and every table has its own name",
            )
    for model in models:
        if not model.types:
            raise RebuildError(
                f"the read model {model.name} handles no event type",
                remedy=f"declare handlers with @{model.name}.on(…)",
            )
