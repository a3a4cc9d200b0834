"""Rebuild read models beside the live ones, and swap them in.

    plan a generation ─▶ shadow tables ─▶ replay (rows + checkpoint together)
        ─▶ indexes, checks ─▶ swap of all tables of all models in one transaction

Killed anywhere, the same call goes on from the last checkpoint. Live tables are
read by nobody here and changed by the swap alone. Guarantees against two
rebuilds at once are in `hold`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, Table, func, select
from sqlalchemy.exc import IntegrityError

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, swap
from eventmig.rebuild.bookkeeping import Generation, Hold, KeptTable, Kind, State
from eventmig.rebuild.hold import held
from eventmig.rebuild.planning import Planned, plan_generation
from eventmig.rebuild.progress import (
    DataUpcaster,
    Phase,
    Progress,
    RebuildProgress,
    RebuildResult,
    SourceTypes,
    Upcast,
)
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, replay
from eventmig.rebuild.shadow import Shadow
from eventmig.rebuild.side_by_side import FoldHelpers, replay_side_by_side
from eventmig.stores.base import EventReader

MAX_ROWS = 100_000
"""Changed rows kept in memory before they are written."""

_KIND = Kind.READ_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    model: ReadModel
    hold: Hold
    planned: Planned
    shadow: Shadow
    made: Generation
    expected: int
    rows: dict[str, int]


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

    Reads `source` up to the global position `upto` (inclusive; None: its head now) in
    global order; writes tables in `engine`'s database (SQLite or PostgreSQL).
    `release` names what `upcast` leads to: another value, another source or a changed
    model begins a half-built generation anew. `source_types` says which stored types
    can become the handled ones (None: every stored event is read). `data_upcaster` says
    what `upcast` does to data alone; with it, a model whose handlers take no event is
    rebuilt twice as fast.

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
        built: list[_Built] = []
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
            built.append(_build(model, connection, plan, release, helpers, tell))
        kept = _swap(connection, built)
        for one in built:
            tell(_progress(one, Phase.SWAPPED, limit))
        return [_result(one, number) for one, number in zip(built, kept, strict=True)]


def rollback_read_models(names: Sequence[str], *, engine: Engine) -> dict[str, int]:
    """Bring back the generation before, of all these read models in one transaction.

    The generation that was live is kept in its turn: a second rollback brings it back.
    Returns each name's live generation. Raises `RebuildError` when one has no earlier
    generation, `JobLockedError` when one is being rebuilt. Writes `engine`'s database.
    """
    result: dict[str, int] = {}
    with _writing(engine, names) as connection:
        with connection.begin():
            holds = [bookkeeping.take(connection, _KIND, name) for name in names]
        with connection.begin():
            for hold in holds:
                hold.fence(connection)
            with swap.names_alone(connection):
                for hold in holds:
                    result[hold.name] = _roll_back(connection, hold)
    return result


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


def _build(
    model: ReadModel,
    connection: Connection,
    plan: Replay,
    release: str,
    helpers: FoldHelpers | None,
    tell: Progress,
) -> _Built:
    tables = tuple(KeptTable(name=table.name, schema=table.schema) for table in model.tables)

    def discard(old: Generation) -> None:
        for table in old.tables:
            swap.drop(connection, table, old.number)

    with connection.begin():
        hold = bookkeeping.take(connection, _KIND, model.name)
        _refuse_foreign_tables(connection, model)
        planned = plan_generation(
            connection,
            hold,
            fingerprint=model.fingerprint,
            release=release,
            source=plan.source.identity(),
            upto=plan.upto,
            tables=tables,
            discard=discard,
        )
        shadow = Shadow(model.tables, planned.generation.number, connection.dialect.name)
        if not planned.resumed:
            for table in tables:  # left behind by hand, or by an older copy of the database
                swap.drop(connection, table, planned.generation.number)
            shadow.create(connection)
    one = _Built(
        model=model,
        hold=hold,
        planned=planned,
        shadow=shadow,
        made=planned.generation,
        expected=plan.expected(),
        rows={},
    )
    tell(_progress(one, Phase.REPLAYING, plan.upto))
    if helpers is not None:
        for made in replay_side_by_side(model, shadow, connection, hold, one.made, plan, helpers):
            one = replace(one, made=made)
            tell(_progress(one, Phase.REPLAYING, plan.upto))
    for made in replay(model, shadow, connection, hold, one.made, plan):
        one = replace(one, made=made)
        tell(_progress(one, Phase.REPLAYING, plan.upto))
    tell(_progress(one, Phase.CHECKING, plan.upto))
    if one.made.events_read != one.expected:
        raise RebuildError(
            f"{model.name} was built from {one.made.events_read} events, and the source holds "
            f"{one.expected} of these types up to position {plan.upto}",
            remedy="the source was changed while it was read, or since the rebuild began; verify "
            "it, then rebuild with a release of another name, which begins anew",
        )
    with connection.begin():
        return replace(one, rows=_counts(connection, shadow))


def _counts(connection: Connection, shadow: Shadow) -> dict[str, int]:
    return {
        table.name: connection.execute(select(func.count()).select_from(target)).scalar_one()
        for table, target in zip(shadow.declared, shadow.tables, strict=True)
    }


def _swap(connection: Connection, built: Sequence[_Built]) -> list[int | None]:
    try:
        with connection.begin():
            for one in built:
                one.hold.fence(connection)
            for one in built:
                swap.finish_loading(connection, one.shadow)
            with swap.names_alone(connection):
                return [_swap_in(connection, one) for one in built]
    except IntegrityError as error:
        raise RebuildError(
            f"the rebuilt rows break a constraint or a unique index: {error.orig}",
            remedy="see which handler makes these rows; the live tables are as before",
        ) from error


def _swap_in(connection: Connection, one: _Built) -> int | None:
    """One model's part of the swap; returns the generation now kept, if there is one."""
    hold, new = one.hold, one.made
    oldest = bookkeeping.generation(connection, _KIND, hold.name, State.KEPT)
    if oldest is not None:
        for table in oldest.tables:
            swap.drop(connection, table, oldest.number)
        bookkeeping.remove(connection, hold, oldest.number)
    live = bookkeeping.generation(connection, _KIND, hold.name, State.LIVE)
    before = _live_tables(connection, one.model, live)
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
    return number if parked else None


def _live_tables(
    connection: Connection, model: ReadModel, live: Generation | None
) -> list[KeptTable]:
    """The tables that lose their live names: the live generation's, and any others so named."""
    tables = [] if live is None else [KeptTable(name=t.name, schema=t.schema) for t in live.tables]
    for table in model.tables:
        named = KeptTable(name=table.name, schema=table.schema)
        if named not in tables:
            tables.append(named)
    return [table for table in tables if swap.exists(connection, table)]


def _refuse_foreign_tables(connection: Connection, model: ReadModel) -> None:
    """Refuse to take the name of a table of another model, or of something else altogether."""
    owners: dict[tuple[str | None, str], str] = {}
    for name, made in bookkeeping.all_generations(connection, _KIND):
        for kept in made.tables:
            owners[kept.schema, kept.name] = name
    for table in model.tables:
        owner = owners.get((table.schema, table.name))
        if owner not in (None, model.name):
            raise RebuildError(
                f"the table {table.name} belongs to the read model {owner}",
                where=Where(path=table.name),
                remedy=f"give the table of {model.name} another name",
            )
        if owner is None and swap.exists(connection, table):
            _refuse_another_key(connection, table)


def _refuse_another_key(connection: Connection, table: Table) -> None:
    stored = swap.key_columns(connection, table)
    declared = [column.name for column in table.primary_key.columns]
    if stored != declared:
        raise RebuildError(
            f"a table {table.name} is there that eventmig did not make, with the key "
            f"({', '.join(stored)}) and not ({', '.join(declared)})",
            where=Where(path=table.name),
            remedy="it may hold something else: give the read model's table another name, or "
            "rename the old table yourself",
        )


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


def _progress(one: _Built, phase: Phase, upto: int) -> RebuildProgress:
    return RebuildProgress(
        name=one.model.name,
        phase=phase,
        generation=one.made.number,
        position=one.made.position,
        upto=upto,
        events_read=one.made.events_read,
        events_expected=one.expected,
        resumed=one.planned.resumed,
    )


def _result(one: _Built, kept: int | None) -> RebuildResult:
    return RebuildResult(
        name=one.model.name,
        generation=one.made.number,
        kept=kept,
        position=one.made.position,
        events_read=one.made.events_read,
        events_folded=one.made.events_folded,
        rows=one.rows,
        resumed=one.planned.resumed,
        restarted=one.planned.restarted,
    )
