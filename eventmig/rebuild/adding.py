"""What handlers only add, added for many events at once: no handler is called.

Means what `Rows.increment` means for what `additions` reads from handlers. Changes folds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, TypeAlias

from sqlalchemy import Table

from eventmig.rebuild.additions import Addition, Field, Given
from eventmig.rebuild.fold import TableFold
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.rows import Rows, folds_behind

Add: TypeAlias = Callable[[Sequence[object]], None]
"""Add what these events' data adds: instances of the struct that the handler takes."""

Values: TypeAlias = Callable[[Sequence[object]], Iterable[Any]]
"""A value of each of these events."""


def adders(model: ReadModel, rows: Rows) -> Mapping[str, Sequence[Add]] | None:
    """What is to be done in place of calling a model's handlers, by type; None: they are called."""
    if not model.only_adds:
        return None
    folds = folds_behind(rows)
    columns: dict[Table, set[tuple[str, ...]]] = {}
    for each in model.additions.values():
        for one in each:
            columns.setdefault(one.table, set()).add(one.columns)
    return {
        type_: [_adder(one, folds[one.table], alike=len(columns[one.table]) == 1) for one in each]
        for type_, each in model.additions.items()
    }


def _adder(addition: Addition, fold: TableFold, *, alike: bool) -> Add:
    """Adds to a fold; `alike`: all that is added to its rows is added to the same columns."""
    columns = addition.columns
    keys_of = _values(addition.key)
    amounts_of = [*zip(columns, map(_value, addition.amounts), strict=True)]

    def add(data: Sequence[object]) -> None:
        sums = fold.sums
        get = sums.get

        def new(key: object) -> dict[str, Any]:
            row = sums[key] = dict.fromkeys(columns, 0)
            fold.signatures.add(columns)
            return row

        # Column after column: two short loops are faster than one that does both.
        rows = [get(key) or new(key) for key in keys_of(data)]
        for name, amounts in amounts_of:
            if alike:
                for row, amount in zip(rows, amounts(data), strict=True):
                    row[name] += amount
            else:
                for row, amount in zip(rows, amounts(data), strict=True):
                    row[name] = row.get(name, 0) + amount
        if not alike:
            fold.signatures.update(map(tuple, rows))

    return add


def _value(given: Given) -> Values:
    """What is given by each event."""
    if isinstance(given, Field):
        get = attrgetter(given.attribute)
        return lambda data: map(get, data)
    return lambda data: repeat(given, len(data))


def _values(givens: Sequence[Given]) -> Values:
    """Several of each event, as tuples; one as it is."""
    each = [*map(_value, givens)]
    return each[0] if len(each) == 1 else lambda data: zip(*(of(data) for of in each), strict=True)
