"""A replay by sums: what handlers only add, the store adds up where the events lie.

    which types and versions there are ─▶ from where on all of them can be summed
        ─▶ sums per range of events, put together ─▶ written (rows + checkpoint together)

Sums do not depend on the order of events, so they give the rows of a fold. It ends before a
range with an event that Python has to look at, with all before it written; `replay` then goes
on from there, and its errors are the ones that name event, handler and row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Connection, Table

from eventmig.errors import EventmigError, JobLostError
from eventmig.rebuild.additions import Addition
from eventmig.rebuild.bookkeeping import Generation, Writing
from eventmig.rebuild.progress import DataUpcaster
from eventmig.rebuild.ranges import FoldApart, add_fold
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Reads, Replay, replay
from eventmig.rebuild.rows import Rows, folds_behind
from eventmig.rebuild.shape import Shape
from eventmig.rebuild.sharing import is_little
from eventmig.stores.faster import Addend, NotSummedError, Summing

Version: TypeAlias = tuple[str, int]

_FIRST: Final = 10_000  # global positions that are looked at before anything is summed
_LAST: Final = 1_000  # those at the end, which tell whether it is worth while to look at all


class TableSum(NamedTuple):
    """A sum over events: what they add to these columns of a table, by type and version."""

    shape: Shape
    columns: tuple[str, ...]
    addends: Mapping[Version, Addend]


class Sums(NamedTuple):
    """What the events after a global position come to, as sums.

    `sure`: all types and versions that there are were looked at, not only those of the first
    events.
    """

    after: int
    tables: Sequence[TableSum]
    sure: bool


def sums_of(model: ReadModel, plan: Replay, after: int, *, surely: bool = False) -> Sums | None:
    """What of a replay the source can sum; None where that is nothing, or little (reads).

    Where the first events can be summed, all after them are taken to be of their kinds, unless
    `surely` is asked for.
    """
    source = plan.source
    if not isinstance(source, Summing) or plan.data_upcaster is None:
        return None
    if not model.only_adds or is_little(after, plan.upto) or is_little(0, plan.batch_size):
        return None
    look = partial(_kinds, source, plan, plan.data_upcaster, model.additions)
    if not surely:
        summable, last_other = look(after, after + _FIRST)
        if summable and not last_other:
            return Sums(after, _by_table(model, summable), sure=False)
    if look(plan.upto - _LAST, plan.upto)[1]:
        return None
    summable, last_other = look(after, plan.upto)
    after = max(after, last_other)
    if not summable or is_little(after, plan.upto):
        return None
    return Sums(after, _by_table(model, summable), sure=True)


def _kinds(
    source: Summing,
    plan: Replay,
    chain_of: DataUpcaster,
    additions: Mapping[str, Sequence[Addition]],
    after: int,
    until: int,
) -> tuple[Mapping[Version, Sequence[Addition]], int]:
    """What events of a range add, by type and version; and the last position of others, or 0."""
    found = source.kinds_to_sum(after=after, until=until, types=plan.types)
    if found is None:
        return {}, until
    summable: dict[Version, Sequence[Addition]] = {}
    last_other = 0
    for kind, last in found.items():
        chain = chain_of(*kind)
        if chain is not None and chain.new_data is None and chain.type in additions:
            summable[kind] = additions[chain.type]
        else:
            last_other = max(last_other, last)
    return summable, last_other


def _by_table(
    model: ReadModel, additions: Mapping[Version, Sequence[Addition]]
) -> Sequence[TableSum]:
    """A sum per table, and one more where an event adds to several rows of it."""
    found: list[TableSum] = []
    for shape in model.shapes:
        left = {
            kind: [one for one in each if one.table is shape.table]
            for kind, each in additions.items()
        }
        while some := {kind: each.pop() for kind, each in left.items() if each}:
            added = {name for one in some.values() for name in one.columns}
            columns = tuple(sorted(added, key=[*shape.defaults].index))
            addends = {kind: one.addend(columns) for kind, one in some.items()}
            found.append(TableSum(shape, columns, addends))
    return found


def replay_sums(
    model: ReadModel,
    targets: Sequence[Table],
    connection: Connection,
    hold: Writing,
    start: Generation,
    plan: Replay,
    sums: Sums,
    at_once: int,
) -> Iterator[Generation]:
    """Write the sums of events after the checkpoint into `targets`; yields after each commit.

    The source works on `at_once` ranges at a time, where it can. What is left when it ends is for
    `replay`. Raises `JobLostError` when another process took
    over, and what the database raises.
    """
    try:
        reading = partial(_reads, sums, at_once)
        yield from replay(model, targets, connection, hold, start, plan, reading)
    except JobLostError:
        raise
    except EventmigError:
        connection.rollback()


def _reads(
    sums: Sums,
    at_once: int,
    model: ReadModel,
    rows: Rows,
    names: Mapping[str, str],
    after: int,
    plan: Replay,
) -> Reads:
    """`replay.reads` by sums; it ends where the source cannot go on, and another way tells why."""
    assert isinstance(plan.source, Summing)
    folds = folds_behind(rows)
    ranges = plan.source.read_sums(
        after=after,
        until=plan.upto,
        types=plan.types,
        sums=[one.addends for one in sums.tables],
        at_once=at_once,
    )
    with suppress(NotSummedError, EventmigError):
        for found in ranges:
            for one, columns in zip(sums.tables, found.sums, strict=True):
                add_fold(folds[one.shape.table], _folded(one, columns))
            yield found.events, found.until, found.events


def _folded(one: TableSum, columns: Sequence[Sequence[Any]]) -> FoldApart:
    """A sum's columns (the key's parts, then what is added to each) as a fold."""
    fold = FoldApart(one.shape)
    if not columns:
        return fold
    width, names = len(one.shape.key), one.columns
    keys = columns[0] if width == 1 else zip(*columns[:width], strict=True)
    amounts = zip(*columns[width:], strict=True)
    if any(None in column for column in columns[width:]):
        for key, some in zip(keys, amounts, strict=True):
            added = {n: a for n, a in zip(names, some, strict=True) if a is not None}
            fold.sums[key] = added
            fold.signatures.add(tuple(added))
    else:
        fold.sums = {k: dict(zip(names, some)) for k, some in zip(keys, amounts)}  # noqa: B905
        fold.signatures.add(names)
    return fold
