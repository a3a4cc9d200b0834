"""Rebuild read models beside the live ones, and swap them in.

    build each (`building`) ─▶ catch up with the live store, round by round
        ─▶ lock, last increment, swap of all tables of all models (`swapping`)

Killed anywhere, the same call goes on from the last checkpoint. Live tables are
read by nobody here and changed by the swap alone. Guarantees against two
rebuilds at once are in `hold`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection, Engine

from eventmig.errors import RebuildError
from eventmig.rebuild import bookkeeping, swap
from eventmig.rebuild.batching import BATCH_SIZE
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.building import ModelBuilding
from eventmig.rebuild.comparing import ModelDifference, compare_with_live
from eventmig.rebuild.hold import held
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
from eventmig.rebuild.sharing import FoldHelpers
from eventmig.rebuild.swapping import roll_back, swap_in
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
    batch_size: int = BATCH_SIZE,
    max_rows: int = MAX_ROWS,
    helpers: FoldHelpers | None = None,
    quarantine: bool = False,
    accept_quarantined: bool = False,
    read_ahead: bool = False,
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

    Rows are written every `batch_size` stored events, and sooner after five seconds, or when
    more than `max_rows` rows have changed: that bounds memory. `helpers` fold beside this process
    where there are many events, and no handler reads rows. With `quarantine`, an event that
    cannot be upcast or handled is set aside instead of stopping; nothing is swapped then
    unless `accept_quarantined`. `read_ahead` fetches events while others are folded: for a
    store behind a server. `progress` is told after every
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
                read_ahead=read_ahead,
            )
            one = ModelBuilding(model, connection, plan, release, tell, quarantine=quarantine)
            one.run(helpers)
            one.build_indexes()
            built.append(one)
        if upto is None:
            _catch_up(source, built)
        if not accept_quarantined and any(one.set_aside() for one in built):
            return [one.result(None, one.count_rows(), swapped=False) for one in built]
        connection.rollback()
        results = swap_in(connection, built, source if upto is None else None)
        for one in built:
            one.tell(Phase.SWAPPED)
        return results


def compare_read_models(
    models: Sequence[ReadModel],
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    release: str,
    source_types: SourceTypes | None = None,
    data_upcaster: DataUpcaster | None = None,
    helpers: FoldHelpers | None = None,
    progress: Progress | None = None,
) -> list[ModelDifference]:
    """What a rebuild of these read models would change, row by row; see `rebuild_read_models`.

    Builds the rows beside the live ones, up to where those are, and compares. Writes
    nothing but that generation, with which a rebuild goes on. Raises as a rebuild does.
    """
    _distinct(models)
    found: list[ModelDifference] = []
    with _writing(engine, [model.name for model in models]) as connection:
        for model in models:
            with connection.begin():
                known = bookkeeping.is_there(connection)
                live = known and bookkeeping.generation(connection, _KIND, model.name, State.LIVE)
            comparable = live and live.source == source.identity()
            types = None if source_types is None else frozenset(source_types(model.types))
            plan = Replay(
                source=source,
                upcast=upcast,
                types=types,
                upto=live.position if live and comparable else source.head_position(),
                batch_size=BATCH_SIZE,
                max_rows=MAX_ROWS,
                data_upcaster=data_upcaster,
            )
            one = ModelBuilding(model, connection, plan, release, progress or (lambda _: None))
            found.append(compare_with_live(one, helpers))
    return found


def rollback_read_models(names: Sequence[str], *, engine: Engine) -> dict[str, int]:
    """Bring back the generation before, of all these read models in one transaction.

    The generation that was live is kept in its turn: a second rollback brings it back.
    Returns each name's live generation. Raises `RebuildError` when one has no earlier
    generation, `JobLockedError` when one is being rebuilt. Writes `engine`'s database.
    """
    with _writing(engine, names) as connection:
        return roll_back(connection, names)


def drop_kept_read_models(names: Sequence[str], *, engine: Engine) -> list[str]:
    """Drop the generations before the live ones: there is no way back then.

    Returns the names of those that had one. Raises `JobLockedError` when one is being
    rebuilt. Writes `engine`'s database.
    """
    dropped: list[str] = []
    with _writing(engine, names) as connection:
        for name in names:
            with connection.begin():
                hold = bookkeeping.take(connection, _KIND, name)
                kept = bookkeeping.generation(connection, _KIND, name, State.KEPT)
                if kept is not None:
                    swap.drop(connection, kept.tables, kept.number)
                    bookkeeping.remove(connection, hold, kept.number)
                    dropped.append(name)
    return dropped


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
