"""The SQL reading of ops: a chain as one expression over an event's stored data.

It means what `Op.up` means, or says nothing: the expression is NULL for data that an op
refuses, and for data of which the database would make something else than Python does
(long numbers, text that is not ASCII in `lower`, a key that stands twice, …). Whoever runs
it takes the Python way for what comes out as NULL, which then also makes the errors. Ops,
conditions and conversions that SQL cannot say raise `NoSql` when the chain is read.

The tests compare this reading with `Op.up`, value by value, on random chains and data, in
both databases. Pure: text in, text out; nothing here runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventmig.ops import sql_members as members
from eventmig.ops import sql_values as values
from eventmig.ops.base import Op
from eventmig.ops.control import Apply, Each, When
from eventmig.ops.members import Add, Default, Drop, Keep, Move, Nest, Put, Rename, Unnest
from eventmig.ops.sql_conditions import condition
from eventmig.ops.sql_dialect import Dialect, NoSql, case
from eventmig.ops.sql_fused import changed_members, runs
from eventmig.ops.sql_postgres import Postgres
from eventmig.ops.sql_sqlite import Sqlite
from eventmig.ops.values import (
    AddLine,
    Append,
    Combine,
    Convert,
    MapValues,
    Remove,
    Split,
    Unwrap,
    Wrap,
)

DIALECTS: Mapping[str, Callable[[], Dialect]] = {d.name: d for d in (Postgres, Sqlite)}
"""The databases that ops can be read for, by the name SQLAlchemy gives them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A chain in SQL: an expression, and the values of its parameters `:v0`, `:v1`, …

    It is NULL where the event has to go the Python way.
    """

    text: str
    values: Mapping[str, str | int]


def read(ops: Sequence[Op], dialect: str, *, data: str) -> Reading:
    """Ops as one expression over a column; raises `NoSql` naming the op that has none."""
    sql = DIALECTS[dialect]()
    text = expression(ops, data, sql)
    return Reading(text, sql.values)


def expression(ops: Sequence[Op], data: str, sql: Dialect) -> str:
    """Ops as one expression over stored data, with their parameters bound in `sql`."""
    return sql.document(data, lambda d: _program(tuple(ops), d, sql))


def _program(ops: tuple[Op, ...], data: str, sql: Dialect) -> str:
    for run in runs(ops):
        data = _run(run, data, sql)
    return data


def _run(ops: tuple[Op, ...], data: str, sql: Dialect) -> str:
    """Ops at once where the data is as they expect it; else, or alone, one by one."""

    def read_both(d: str) -> str:
        changes = changed_members(ops, d, sql, _one) if sql.fuses else None
        one_by_one = d
        for op in ops:
            one_by_one = _one(op, one_by_one, sql)
        return f"coalesce({sql.members(d, changes)}, {one_by_one})" if changes else one_by_one

    return sql.let(data, read_both)


def _one(op: Op, data: str, sql: Dialect) -> str:
    reading = _READINGS.get(type(op))
    try:
        if reading is None:
            raise NoSql("it is none of eventmig's own ops")
        return sql.let(data, lambda d: reading(op, d, sql))
    except NoSql as error:
        if error.args[1:]:
            raise
        raise NoSql(f"{op}: {error}", True) from None


def _keep(op: Keep, d: str, sql: Dialect) -> str:
    return d


def _each(op: Each, d: str, sql: Dialect) -> str:
    def every(found: str) -> str:
        made = sql.map(found, lambda item: _program(op.ops, item, sql))
        return case((sql.is_kind(found, "array"), made))

    return values.changed(op.path, d, sql, every)


def _when(op: When, d: str, sql: Dialect) -> str:
    then, other = _program(op.ops, d, sql), _program(op.otherwise, d, sql)
    asked = condition(op.condition, d, sql)
    return sql.let(asked, lambda holds: case((holds, then), (f"NOT {holds}", other)))


def _apply(op: Apply, d: str, sql: Dialect) -> str:
    raise NoSql("it is a function of yours")


_READINGS: Mapping[type, Callable[[Any, str, Dialect], str]] = {
    Add: members.add,
    Default: members.add,
    Put: members.put,
    Keep: _keep,
    Drop: members.drop,
    Rename: members.rename,
    Move: members.move,
    Nest: members.nest,
    Unnest: members.unnest,
    Wrap: values.wrap,
    Unwrap: values.unwrap,
    Convert: values.convert,
    MapValues: values.map_values,
    Split: values.split,
    Combine: values.combine,
    Append: values.append,
    Remove: values.remove,
    AddLine: values.add_line,
    Each: _each,
    When: _when,
    Apply: _apply,
}
