"""A declared table as a fold sees it: its key, its columns, and what a new row starts from.

Read once from the SQLAlchemy table; refuses what a fold could not repeat
exactly (defaults that are computed, keys compared by a collation). Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter

from sqlalchemy import Column, Computed, Table
from sqlalchemy.types import String

from eventmig.errors import RebuildError, Where

Number = int | float | Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a fold needs to know of one table; columns go by their SQLAlchemy `key`.

    `types` are the Python types of all columns (None: unknown). `defaults` holds every
    column that is not in the key, in the table's order,
    with its scalar default or None. `required` are those that are neither nullable
    nor have a default. `pick` takes a row's key from a mapping: the value itself
    where one column is the key, else a tuple in the key's order.
    """

    table: Table
    key: tuple[str, ...]
    key_types: tuple[type | None, ...]
    types: dict[str, type | None]
    defaults: dict[str, object]
    required: frozenset[str]
    pick: Callable[[dict[str, object]], object]

    @property
    def columns(self) -> tuple[str, ...]:
        """Key columns first, then the others, each in the table's order."""
        return (*self.key, *self.defaults)

    def key_values(self, key: object) -> tuple[object, ...]:
        """A row's key as a tuple in the key's order."""
        return key if len(self.key) > 1 and isinstance(key, tuple) else (key,)

    def key_text(self, key: object) -> str:
        """A row's key for people: `sales_per_day day='2026-01-01'`."""
        parts = zip(self.key, self.key_values(key), strict=False)
        return f"{self.table.name} " + ", ".join(f"{name}={value!r}" for name, value in parts)

    def key_fault(self, key: object) -> str | None:
        """What is wrong with a key, or None."""
        values = self.key_values(key)
        if len(values) != len(self.key):
            return f"the key of {self.table.name} is ({', '.join(self.key)}), not {key!r}"
        for name, wanted, value in zip(self.key, self.key_types, values, strict=True):
            if wanted is not None and not _fits(value, wanted):
                return (
                    f"{self.table.name}.{name} in the key is {wanted.__name__}, "
                    f"not {type(value).__name__} {value!r}"
                )
        return None


def shape_of(table: Table) -> Shape:
    """Read a table; raises `RebuildError` naming the column that a fold could not repeat."""
    key = tuple(column.key for column in table.primary_key.columns)
    if not key:
        raise _refuse(table, None, "has no primary key", "give it one: rows are folded by key")
    types: list[type | None] = []
    for column in table.primary_key.columns:
        if isinstance(column.type, String) and column.type.collation:
            raise _refuse(
                table,
                column,
                "is a key compared by a collation",
                "keys are folded in memory byte by byte; fold the case in the handler instead",
            )
        types.append(_python_type(column))
    defaults: dict[str, object] = {}
    required: set[str] = set()
    for column in table.columns:
        _check(table, column)
        if column.key in key:
            continue
        default = column.default
        defaults[column.key] = None if default is None else getattr(default, "arg", None)
        if default is None and (not column.nullable or column.server_default is not None):
            required.add(column.key)
    return Shape(
        table=table,
        key=key,
        key_types=tuple(types),
        types={column.key: _python_type(column) for column in table.columns},
        defaults=defaults,
        required=frozenset(required),
        pick=itemgetter(*key),
    )


def _check(table: Table, column: Column[object]) -> None:
    if column.default is not None and not column.default.is_scalar:
        raise _refuse(
            table,
            column,
            "has a default that is computed",
            "a rebuild must give the same rows each time: set the value in the handler",
        )
    if column.onupdate is not None:
        raise _refuse(
            table, column, "has an onupdate", "set the value in the handler, from the event"
        )
    if isinstance(column.computed, Computed) or column.identity is not None:
        raise _refuse(
            table,
            column,
            "is made by the database",
            "a rebuild writes whole rows: set the value in the handler",
        )


def _python_type(column: Column[object]) -> type | None:
    try:
        return column.type.python_type
    except NotImplementedError:
        return None


def _fits(value: object, wanted: type) -> bool:
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _refuse(table: Table, column: Column[object] | None, what: str, remedy: str) -> RebuildError:
    name = f"{table.name}.{column.key}" if column is not None else table.name
    return RebuildError(f"{name} {what}", where=Where(path=name), remedy=remedy)
