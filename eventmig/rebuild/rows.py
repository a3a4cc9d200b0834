"""Row operations, as handlers state them.

Stands between the handlers and the fold: checks what an operation names, and
takes it into its table's effects in event order. Reads the database only for
`get`; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from sqlalchemy import Table

from eventmig.errors import RebuildError, Where
from eventmig.rebuild.faults import Cause, missing, present
from eventmig.rebuild.fold import Effect, Needs, Outcome, TableFold
from eventmig.rebuild.shape import Number, Shape
from eventmig.rebuild.sql import Sql

Key: TypeAlias = object
"""A row's key: a dict {column: value}, the value alone where one column is the
key, or a tuple in the order of the primary key."""

Row: TypeAlias = Mapping[str, Any]
"""A row's columns; Any, because what a column holds is known to its SQL type alone."""

_ROW, _DELETED, _MERGE = Outcome.ROW, Outcome.DELETED, Outcome.MERGE
_NOTHING, _ABSENT, _PRESENT = Needs


class Rows:
    """The rows of one read model, as its handlers change them.

    Columns go by their SQLAlchemy `key` (its name, unless the column says otherwise).
    A `key` is a mapping, or the value alone where one column is the primary key, or
    a tuple. Every operation raises `RebuildError` for a table that is not the
    model's, a column the table has not, and a key of the wrong type. Handlers have no
    connection: nothing but rows can be changed in a rebuild.

    `position` and `type` are of the event that is handled: 0 and None where unknown. `sql`
    is for handlers that take it.
    """

    __slots__ = ("_folds", "position", "sql", "type")

    def __init__(self, folds: Mapping[Table, TableFold], sql: Sql | None = None) -> None:
        self._folds = folds
        self.sql = sql
        self.position: int = 0
        self.type: str | None = None

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
        sums = fold.sums.get(at)
        if sums is not None:
            for name, amount in amounts.items():
                try:
                    sums[name] += amount
                except KeyError:
                    self._widen(fold, at, sums, name, amount)
            return
        if at.__class__ is not fold.key_type or fold.width > 1 or key.__class__ is dict:
            self._check_key(fold, at, key)
        names = tuple(amounts)
        needs = fold.names.get(names)
        if needs is None:
            needs = self._needs(fold, at, names)
        for name, amount in amounts.items():
            if amount.__class__ is not int:
                self._number(fold, at, name, amount)
        effect = fold.effects.get(at) if fold.effects else None
        if effect is not None:
            self._add(fold, at, effect, amounts)
        elif needs is _NOTHING:
            fold.sums[at] = amounts
            fold.signatures.add(names)
        else:
            fold.effects[at] = Effect(_PRESENT, _MERGE, {}, amounts, self._cause())

    def insert(self, table: Table, /, key: Key, **values: object) -> None:
        """A new row; columns not named get their default, else NULL.

        The row must not be there: when it is, the rebuild stops and names this event.
        """
        fold, at, effect = self._find(table, key, values)
        row = self._whole(fold, at, values)
        if effect is None:
            fold.effects[at] = Effect(_ABSENT, _ROW, row, {}, self._cause())
        elif effect.outcome is _DELETED:
            effect.outcome, effect.values = _ROW, row
        else:
            raise present(fold.shape, at, self._cause())

    def upsert(self, table: Table, /, key: Key, **values: object) -> None:
        """Set columns; a row that is missing is made, the other columns from their defaults.

        Where another column is neither nullable nor has a default, the row must be there.
        """
        fold, at, effect = self._find(table, key, values)
        if effect is None:
            needs = self._needs(fold, at, tuple(values))
            fold.effects[at] = Effect(needs, _MERGE, values, {}, self._cause())
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
            fold.effects[at] = Effect(_PRESENT, _MERGE, values, {}, self._cause())
        elif effect.outcome is _DELETED:
            raise missing(fold.shape, at, self._cause())
        else:
            self._set(effect, values)

    def delete(self, table: Table, /, key: Key) -> None:
        """Delete a row; a row that is missing stays missing."""
        fold, at, effect = self._find(table, key, {})
        if effect is None:
            fold.effects[at] = Effect(_NOTHING, _DELETED, {}, {}, self._cause())
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
        if at.__class__ is not fold.key_type or fold.width > 1 or key.__class__ is dict:
            self._check_key(fold, at, key)
        if not values.keys() <= fold.shape.defaults.keys():
            self._needs(fold, at, tuple(values))
        return fold, at, fold.effect(at, self._cause())

    def _cause(self) -> Cause:
        return (self.position, self.type)

    def _check_key(self, fold: TableFold, at: object, key: Key) -> None:
        shape = fold.shape
        if isinstance(key, dict) and len(key) != fold.width:
            raise self._error(fold, at, _key_of(shape, key), _LOOK)
        if fold.width == 1 and at.__class__ is fold.key_type:
            return
        fault = shape.key_fault(at)
        if fault is not None:
            raise self._error(fold, at, fault, _LOOK)

    def _needs(self, fold: TableFold, at: object, names: tuple[str, ...]) -> Needs:
        """What a change of these columns needs of the row; looks at the names but once."""
        found = fold.names.get(names)
        if found is not None:
            return found
        shape = fold.shape
        for name in names:
            if name not in shape.defaults:
                what = "in its key; a key cannot change" if name in shape.key else "not there"
                what = f"the column {shape.table.name}.{name} is {what}"
                raise self._error(fold, at, what, _LOOK)
        fold.names[names] = _NOTHING if shape.required <= set(names) else _PRESENT
        return fold.names[names]

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

    def _add(self, fold: TableFold, at: object, effect: Effect, amounts: dict[str, Number]) -> None:
        if effect.outcome is _DELETED:
            self._whole(fold, at, amounts)
            effect.outcome, effect.values = _ROW, dict(fold.shape.defaults)
        values, adds = effect.values, effect.adds
        for name, amount in amounts.items():
            if effect.outcome is _ROW or name in values:
                before = values[name]
                values[name] = amount if before is None else before + amount
            else:
                adds[name] = adds[name] + amount if name in adds else amount

    def _widen(
        self, fold: TableFold, at: object, sums: dict[str, Any], name: str, amount: Number
    ) -> None:
        self._needs(fold, at, (name,))
        self._number(fold, at, name, amount)
        sums[name] = amount
        fold.signatures.add(tuple(sums))

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


def folds_behind(rows: Rows) -> Mapping[Table, TableFold]:
    """The folds that take what is done to rows; not for handlers."""
    return rows._folds


def _key_of(shape: Shape, key: object) -> str:
    given = ", ".join(map(str, key)) if isinstance(key, dict) else repr(key)
    return f"the key of {shape.table.name} is ({', '.join(shape.key)}), not ({given})"


_LOOK = "look at the table's columns and at the handler"
