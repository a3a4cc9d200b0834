"""Row operations, folded in memory: many operations on one row become one effect.

Stands between the handlers and the bulk write. Operations on one key are taken
in event order, and what they come to is kept as one `Effect`: what the row must
have been before (`needs`), and what becomes of it (`outcome`). Reads the
database only for `get`; writes nothing.

    operation      on a row not touched yet         on a row touched in this batch
    insert         needs ABSENT, outcome ROW        after a delete: ROW; else an error
    upsert         outcome MERGE (set)              set
    increment      outcome MERGE (add)              add
    patch          needs PRESENT, outcome MERGE     set; after a delete an error
    delete         outcome DELETED                  DELETED (`needs` stays)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from enum import IntEnum
from typing import Any, TypeAlias

from sqlalchemy import Table

from eventmig.errors import RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild.faults import missing, present
from eventmig.rebuild.shape import Number, Shape

Key: TypeAlias = object
"""A row's key: a mapping {column: value}, the value alone where one column is the
key, or a tuple in the order of the primary key."""

Row: TypeAlias = Mapping[str, Any]
"""A row's columns; Any, because what a column holds is known to its SQL type alone."""


class Needs(IntEnum):
    """What an effect asks of the row as it was before the batch."""

    NOTHING = 0
    ABSENT = 1
    PRESENT = 2


class Outcome(IntEnum):
    """What becomes of the row: some columns change, the whole row is known, or it is gone."""

    MERGE = 0
    ROW = 1
    DELETED = 2


_MERGE, _ROW, _DELETED = Outcome
_NOTHING, _ABSENT, _PRESENT = Needs


class Effect:
    """What a batch does to one row.

    `values`: the columns set (MERGE) or the whole row without its key, in the
    shape's order (ROW). `adds`: what is added to columns (MERGE only). `event`: the
    first event that touched the row in this batch.
    """

    __slots__ = ("adds", "event", "needs", "outcome", "values")

    def __init__(
        self,
        needs: Needs,
        outcome: Outcome,
        values: dict[str, Any],
        adds: dict[str, Any],
        event: Event | None,
    ) -> None:
        self.needs = needs
        self.outcome = outcome
        self.values = values
        self.adds = adds
        self.event = event


class TableFold:
    """One table's effects of the current batch, by key.

    `known` are rows (None: absent) as the database holds them, from earlier reads;
    `fetch` reads one; `stored` gives a value as it would come back from the database.
    """

    __slots__ = ("effects", "fetch", "known", "pick", "reads", "shape", "stored")

    def __init__(
        self,
        shape: Shape,
        fetch: Callable[[object], dict[str, Any] | None],
        stored: Mapping[str, Callable[[Any], Any]],
    ) -> None:
        self.shape = shape
        self.pick = shape.pick
        self.effects: dict[object, Effect] = {}
        self.known: dict[object, dict[str, Any] | None] = {}
        self.fetch = fetch
        self.stored = stored
        self.reads = False

    def before(self, key: object) -> dict[str, Any] | None:
        """The row as it was before this batch, or None; reads the database once."""
        if key in self.known:
            return self.known[key]
        self.reads = True
        row = self.known[key] = self.fetch(key)
        return row

    def now(self, key: object) -> dict[str, Any] | None:
        """The row as it is after the operations so far, or None."""
        effect = self.effects.get(key)
        if effect is None:
            return self.before(key)
        if effect.outcome is _DELETED:
            return None
        shape = self.shape
        names = dict(zip(shape.key, shape.key_values(key), strict=True))
        if effect.outcome is _ROW:
            row = names | effect.values
        else:
            before = self.before(key)
            if before is None and effect.needs is _PRESENT:
                raise missing(shape, key, effect.event)
            row = (names | shape.defaults if before is None else before) | effect.values
            for name, amount in effect.adds.items():
                row[name] = amount if row[name] is None else row[name] + amount
        for name, stored in self.stored.items():
            if row[name] is not None:
                row[name] = stored(row[name])
        return row

    def settle(self, limit: int) -> None:
        """The batch is written: forget its effects; keep at most `limit` rows that were read."""
        if len(self.known) > limit:
            self.known.clear()
        else:
            for key, effect in self.effects.items() if self.reads else ():
                if key in self.known or effect.outcome is _ROW:
                    self.known[key] = self.now(key)
        self.effects.clear()


class Rows:
    """The rows of one read model, as its handlers change them.

    Columns go by their SQLAlchemy `key` (its name, unless the column says otherwise).
    A `key` is a mapping, or the value alone where one column is the primary key, or
    a tuple. Every operation raises `RebuildError` for a table that is not the
    model's, a column the table has not, and a key of the wrong type. Handlers have no
    connection: nothing but rows can be changed in a rebuild.
    """

    __slots__ = ("_folds", "event")

    def __init__(self, folds: Mapping[Table, TableFold]) -> None:
        self._folds = folds
        self.event: Event | None = None

    def increment(self, table: Table, /, key: Key, **amounts: Number) -> None:
        """Add to columns; a row that is missing starts from the columns' defaults (0 without).

        NULL counts as 0. Where another column is neither nullable nor has a default,
        the row must be there. Exact for integers and decimals; the last digits of a
        float sum depend on where batches are cut.
        """
        try:
            fold = self._folds[table]
            at = fold.pick(key) if key.__class__ is dict else key
        except KeyError:
            raise self._unfit(table, key) from None
        effect = fold.effects.get(at)
        if effect is None:
            self._check(fold, at, key, amounts)
            for name, amount in amounts.items():
                self._number(fold, at, name, amount)
            needs = _NOTHING if fold.shape.required <= amounts.keys() else _PRESENT
            fold.effects[at] = Effect(needs, _MERGE, {}, amounts, self.event)
            return
        adds = effect.adds
        for name, amount in amounts.items():
            if name in adds:
                adds[name] += amount
            else:
                self._add(fold, at, effect, name, amount, amounts)

    def insert(self, table: Table, /, key: Key, **values: object) -> None:
        """A new row; columns not named get their default, else NULL.

        The row must not be there: when it is, the rebuild stops and names this event.
        """
        fold, at, effect = self._find(table, key, values)
        row = self._whole(fold, at, values)
        if effect is None:
            fold.effects[at] = Effect(_ABSENT, _ROW, row, {}, self.event)
        elif effect.outcome is _DELETED:
            effect.outcome, effect.values = _ROW, row
        else:
            raise present(fold.shape, at, self.event)

    def upsert(self, table: Table, /, key: Key, **values: object) -> None:
        """Set columns; a row that is missing is made, the other columns from their defaults.

        Where another column is neither nullable nor has a default, the row must be there.
        """
        fold, at, effect = self._find(table, key, values)
        if effect is None:
            needs = _NOTHING if fold.shape.required <= values.keys() else _PRESENT
            fold.effects[at] = Effect(needs, _MERGE, values, {}, self.event)
        elif effect.outcome is _DELETED:
            effect.outcome, effect.values = _ROW, self._whole(fold, at, values)
        else:
            self._set(effect, values)

    def patch(self, table: Table, /, key: Key, **values: object) -> None:
        """Set columns of a row that is there.

        When it is missing, the rebuild stops and names this event.
        """
        fold, at, effect = self._find(table, key, values)
        if effect is None:
            fold.effects[at] = Effect(_PRESENT, _MERGE, values, {}, self.event)
        elif effect.outcome is _DELETED:
            raise missing(fold.shape, at, self.event)
        else:
            self._set(effect, values)

    def delete(self, table: Table, /, key: Key) -> None:
        """Delete a row; a row that is missing stays missing."""
        fold, at, effect = self._find(table, key, {})
        if effect is None:
            fold.effects[at] = Effect(_NOTHING, _DELETED, {}, {}, self.event)
        else:
            effect.outcome, effect.values, effect.adds = _DELETED, {}, {}

    def get(self, table: Table, /, key: Key) -> Row | None:
        """The row with all its columns as it is now, or None; a copy.

        Sees every earlier operation. Reads the database for a row that this batch has
        not touched: the one operation that does.
        """
        fold, at, _ = self._find(table, key, {})
        row = fold.now(at)
        return None if row is None else dict(row)

    def _find(
        self, table: Table, key: Key, values: Mapping[str, object]
    ) -> tuple[TableFold, object, Effect | None]:
        try:
            fold = self._folds[table]
            at = fold.pick(key) if key.__class__ is dict else key
        except KeyError:
            raise self._unfit(table, key) from None
        effect = fold.effects.get(at)
        if effect is None or not values.keys() <= fold.shape.defaults.keys():
            self._check(fold, at, key, values)
        return fold, at, effect

    def _check(self, fold: TableFold, at: object, key: Key, names: Collection[str]) -> None:
        shape = fold.shape
        fault = shape.key_fault(at)
        if fault is not None or (isinstance(key, dict) and len(key) != len(shape.key)):
            raise self._error(fold, at, fault or _key_of(shape, key), _LOOK)
        for name in names:
            if name not in shape.defaults:
                what = "in its key; a key cannot change" if name in shape.key else "not there"
                raise self._error(
                    fold, at, f"the column {shape.table.name}.{name} is {what}", _LOOK
                )

    def _whole(self, fold: TableFold, at: object, values: dict[str, Any]) -> dict[str, Any]:
        absent = fold.shape.required - values.keys()
        if absent:
            raise self._error(
                fold,
                at,
                f"a new row of {fold.shape.table.name} needs {', '.join(sorted(absent))}",
                "give the values, or let the columns be nullable or have a default "
                "(default=, not server_default=: a fold must know the whole row)",
            )
        return fold.shape.defaults | values

    def _set(self, effect: Effect, values: dict[str, Any]) -> None:
        effect.values |= values
        if effect.adds:
            for name in values:
                effect.adds.pop(name, None)

    def _add(
        self,
        fold: TableFold,
        at: object,
        effect: Effect,
        name: str,
        amount: Number,
        amounts: dict[str, Number],
    ) -> None:
        if name not in fold.shape.defaults:
            self._check(fold, at, at, amounts)
        self._number(fold, at, name, amount)
        if effect.outcome is _DELETED:
            self._whole(fold, at, amounts)
            effect.outcome, effect.values = _ROW, dict(fold.shape.defaults)
        if effect.outcome is _ROW or name in effect.values:
            before = effect.values[name]
            effect.values[name] = amount if before is None else before + amount
        else:
            effect.adds[name] = amount

    def _number(self, fold: TableFold, at: object, name: str, amount: object) -> None:
        if isinstance(amount, bool) or not isinstance(amount, int | float | Decimal):
            what = f"increment of {fold.shape.table.name}.{name} by {amount!r}"
            raise self._error(fold, at, what, "an amount is a number")

    def _error(self, fold: TableFold, key: object, what: str, remedy: str) -> RebuildError:
        return RebuildError(what, where=Where(key=fold.shape.key_text(key)), remedy=remedy)

    def _unfit(self, table: Table, key: Key) -> RebuildError:
        fold = self._folds.get(table)
        if fold is not None:
            return RebuildError(_key_of(fold.shape, key), remedy=_LOOK)
        return RebuildError(
            f"the table {getattr(table, 'name', table)} is not one of this read model",
            remedy="name it in ReadModel(…, tables=[…])",
        )


def _key_of(shape: Shape, key: object) -> str:
    given = ", ".join(map(str, key)) if isinstance(key, dict) else repr(key)
    return f"the key of {shape.table.name} is ({', '.join(shape.key)}), not ({given})"


_LOOK = "look at the table's columns and at the handler"
