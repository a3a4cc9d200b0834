"""Folds of ranges of events, made apart from each other and put together in order.

What a range does to a row does not depend on what was before, as long as no handler reads
rows: it is an `Effect`. So ranges can be folded in any order and by several processes,
and their effects composed in the order of the events. The result is that of one fold over
all of them. Pure, but for the reading of the source.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from eventmig.errors import EventmigError
from eventmig.rebuild.batching import BATCH_SIZE, Batch
from eventmig.rebuild.faults import missing, present
from eventmig.rebuild.fold import Effect, Needs, Outcome, TableFold
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, reads
from eventmig.rebuild.rows import Rows
from eventmig.rebuild.shape import Shape

_PLAIN: Final = frozenset({int, str, float, bool, bytes, dict, list})
_WIRE: Final[Mapping[type, tuple[str, Callable[[Any], str], Callable[[str], object]]]] = {
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    date: ("date", date.isoformat, date.fromisoformat),
    time: ("time", time.isoformat, time.fromisoformat),
    Decimal: ("Decimal", str, Decimal),
    UUID: ("UUID", str, UUID),
}
_BACK: Final = {name: back for name, _, back in _WIRE.values()}


class NeedsRowsError(Exception):
    """A handler reads rows: its events cannot be folded apart from those before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedRange:
    """What the events of a range come to: counts, and a fold per table of the model.

    `until` is the range's last global position (inclusive).
    """

    until: int
    events_read: int
    events_folded: int
    tables: Sequence[TableFold]


class FoldApart(TableFold):
    """A fold without the rows before it."""

    __slots__ = ("asked",)

    def __init__(self, shape: Shape) -> None:
        # No method of its own: that would be a cycle, and the collector is paused meanwhile.
        super().__init__(shape, _nothing, {})
        self.asked = False

    def before(self, key: object) -> dict[str, Any] | None:
        return self._refuse(key)

    def now(self, key: object) -> dict[str, Any] | None:
        return self._refuse(key)

    def _refuse(self, key: object) -> dict[str, Any] | None:
        self.asked = True  # also where a handler takes the error for something else
        raise NeedsRowsError


def _nothing(key: object) -> None:
    raise NeedsRowsError


def fold_range(
    model: ReadModel,
    plan: Replay,
    after: int,
    until: int,
    each: Callable[[int], None] = lambda events: None,
) -> FoldedRange:
    """Fold the events after one global position and up to another (reads the source).

    It ends earlier when half the rows that the plan lets be kept in memory have changed, or
    when it has taken as long as a batch may. `each` is told of every page how many events it
    had. Raises `RebuildError` or `NeedsRowsError`: these events must be folded in order.
    """
    folds = [FoldApart(shape) for shape in model.shapes]
    rows = Rows({fold.shape.table: fold for fold in folds})
    names = {type_: handler.name for type_, handler in model.handlers.items()}
    events_read = events_folded = 0
    batch = Batch(BATCH_SIZE, plan.max_rows // 2)
    try:
        for count, position, folded in reads(model, rows, names, after, replace(plan, upto=until)):
            events_read += count
            events_folded += folded
            if batch.add(count, sum(map(len, folds))):
                until = position
                break
            each(count)
    except EventmigError as error:
        if any(fold.asked for fold in folds):
            raise NeedsRowsError from error
        raise
    if any(fold.asked for fold in folds):
        raise NeedsRowsError
    return FoldedRange(
        until=until, events_read=events_read, events_folded=events_folded, tables=folds
    )


def add_fold(fold: TableFold, later: TableFold) -> None:
    """Make `fold` the fold of its own events and of the later ones after them.

    `later` is used up. Raises `RebuildError` where the later events cannot come after the
    earlier ones (an insert of a row that is there); `fold` is then no use any more.
    """
    if not fold:
        fold.sums, fold.effects, fold.signatures = later.sums, later.effects, later.signatures
        return
    if len(fold.signatures | later.signatures) == 1 and not fold.effects:
        _add_sums(fold.sums, later.sums)
        later.sums = {}
    for key, adds in later.sums.items():
        sums = fold.sums.get(key)
        if sums is not None:
            if sums.keys() != adds.keys():
                fold.signatures.add(tuple(sums | adds))
            for name, amount in adds.items():
                sums[name] = sums[name] + amount if name in sums else amount
        elif key in fold.effects:
            _compose(fold, key, Effect(Needs.NOTHING, Outcome.MERGE, {}, adds, (0, None)))
        else:
            fold.sums[key] = adds
            fold.signatures.add(tuple(adds))
    for key, effect in later.effects.items():
        if fold.effect(key, effect.cause) is None:
            fold.effects[key] = effect
        else:
            _compose(fold, key, effect)


def _add_sums(sums: dict[object, dict[str, Any]], later: dict[object, dict[str, Any]]) -> None:
    """`add_fold` in its most frequent case, in half the time: rows of the same columns."""
    for key, adds in later.items():
        before = sums.get(key)
        if before is None:
            sums[key] = adds
        else:
            for name, amount in adds.items():
                before[name] += amount


def _compose(fold: TableFold, key: object, later: Effect) -> None:
    shape, effect = fold.shape, fold.effects[key]
    there = effect.outcome is not Outcome.DELETED
    if later.needs is Needs.ABSENT and there:
        raise present(shape, key, later.cause)
    if later.needs is Needs.PRESENT and not there:
        raise missing(shape, key, later.cause)
    if later.outcome is not Outcome.MERGE:
        effect.outcome, effect.values, effect.adds = later.outcome, later.values, later.adds
        return
    if not there:
        effect.outcome, effect.values, effect.adds = Outcome.ROW, dict(shape.defaults), {}
    values, adds = effect.values, effect.adds
    values |= later.values
    for name in later.values:
        adds.pop(name, None)
    for name, amount in later.adds.items():
        if effect.outcome is Outcome.ROW or name in values:
            before = values[name]
            values[name] = amount if before is None else before + amount
        else:
            adds[name] = adds[name] + amount if name in adds else amount


# between processes ---------------------------------------------------------------------------


def packed(found: FoldedRange) -> bytes:
    """A folded range as bytes; raises `ValueError` for values that cannot be carried exactly."""
    tables = []
    for fold in found.tables:
        out = None if _is_plain(fold.shape) else _outgoing
        sums = fold.sums if out is None else {out(k): _each(a, out) for k, a in fold.sums.items()}
        effects = [
            (
                key if out is None else out(key),
                int(effect.needs),
                int(effect.outcome),
                effect.values if out is None else _each(effect.values, out),
                effect.adds if out is None else _each(effect.adds, out),
                effect.cause,
            )
            for key, effect in fold.effects.items()
        ]
        tables.append((sums, list(fold.signatures), effects))
    return marshal.dumps((found.until, found.events_read, found.events_folded, tables))


def unpacked(model: ReadModel, message: bytes) -> FoldedRange:
    """What `packed` made bytes of, for the same read model."""
    until, events_read, events_folded, tables = marshal.loads(message)
    folds: list[TableFold] = []
    for shape, (sums, signatures, effects) in zip(model.shapes, tables, strict=True):
        fold = FoldApart(shape)
        back = None if _is_plain(shape) else _incoming
        fold.sums = sums if back is None else {back(k): _each(a, back) for k, a in sums.items()}
        fold.signatures.update(signatures)
        for key, needs, outcome, values, adds, cause in effects:
            if back is not None:
                key, values, adds = back(key), _each(values, back), _each(adds, back)
            fold.effects[key] = Effect(Needs(needs), Outcome(outcome), values, adds, cause)
        folds.append(fold)
    return FoldedRange(
        until=until, events_read=events_read, events_folded=events_folded, tables=folds
    )


def _is_plain(shape: Shape) -> bool:
    return all(kind in _PLAIN for kind in shape.types.values())


def _each(values: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: change(value) for name, value in values.items()}


def _outgoing(value: Any) -> Any:
    """A value as `marshal` carries it: what it does not know is a tuple that begins with None."""
    kind = type(value)
    if kind is tuple:  # a key of several columns
        return tuple(map(_outgoing, value))
    found = _WIRE.get(kind)
    if found is not None:
        return (None, found[0], found[1](value))
    return value


def _incoming(value: Any) -> Any:
    if type(value) is not tuple:
        return value
    if len(value) == 3 and value[0] is None:  # no part of a key is None
        return _BACK[value[1]](value[2])
    return tuple(map(_incoming, value))
