"""What a batch comes to in a table that holds no rows yet: whole rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eventmig.rebuild.fold import Effect, Needs, Outcome, TableFold
from eventmig.rebuild.shape import Shape


def first_rows(fold: TableFold) -> list[tuple[Any, ...]] | None:
    """The rows that a fold's effects make where there is none: the columns of its shape.

    None where an effect needs a row that is there.
    """
    if any(effect.needs is Needs.PRESENT for effect in fold.effects.values()):
        return None
    shape = fold.shape
    rows = [
        (*shape.key_values(key), *_row(shape, effect))
        for key, effect in fold.effects.items()
        if effect.outcome is not Outcome.DELETED
    ]
    rows += _sums(fold)
    return rows


def _sums(fold: TableFold) -> Iterator[tuple[Any, ...]]:
    defaults = fold.shape.defaults
    keys: Any = fold.sums if len(fold.shape.key) > 1 else zip(fold.sums, strict=True)
    pairs = zip(keys, fold.sums.values(), strict=True)
    if fold.signatures == {tuple(defaults)} and not any(defaults.values()):
        return ((*at, *adds.values()) for at, adds in pairs)  # the usual case
    return ((*at, *(defaults | _added(defaults, adds)).values()) for at, adds in pairs)


def _row(shape: Shape, effect: Effect) -> Iterator[object]:
    values = effect.values
    if effect.outcome is Outcome.MERGE:
        values = shape.defaults | values
        values |= _added(values, effect.adds)
    return iter(values.values())


def _added(before: dict[str, Any], adds: dict[str, Any]) -> dict[str, Any]:
    return {
        name: amount if before[name] is None else before[name] + amount
        for name, amount in adds.items()
    }
