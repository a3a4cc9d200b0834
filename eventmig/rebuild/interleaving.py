"""Whether a read model's claim about order is true: the same events in other orders.

What may be handled side by side comes out in any order. So the events are dealt into the
partitions that the model declares, and handled again with the partitions interleaved
otherwise: one after the other, backwards, and at random. Works on a database in memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.pool import StaticPool

from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild.careful import OneAtATime
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.shadow import Shadow

Contents: TypeAlias = dict[tuple[str, tuple[Any, ...]], tuple[Any, ...]]
"""A row's other columns by its table's name and its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row that another order makes otherwise; None: it is not there, or there is no row.

    `error` is what a handler raised in that order, if anything.
    """

    row: str
    in_order: tuple[Any, ...] | None
    otherwise: tuple[Any, ...] | None
    order: str
    error: str | None = None


def difference(
    model: ReadModel, events: Sequence[Event], *, shuffles: int, seed: int
) -> Difference | None:
    """The first row that depends on more order than the model declares, or None.

    `events` are of the release, in global order. Raises `RebuildError` where they cannot be
    handled in that order.
    """
    wanted = contents(model, events)
    for name, other in _orders(model, events, shuffles, seed):
        try:
            got = contents(model, other)
        except RebuildError as error:
            return Difference(
                row=error.where.key or model.name,
                in_order=None,
                otherwise=None,
                order=name,
                error=error.what,
            )
        for table, key in sorted(wanted.keys() | got.keys(), key=repr):
            before, after = wanted.get((table, key)), got.get((table, key))
            if before is None or after is None or not all(map(_same, before, after)):
                row = f"{table} {key[0] if len(key) == 1 else key!r}"
                return Difference(row=row, in_order=before, otherwise=after, order=name)
    return None


def contents(model: ReadModel, events: Sequence[Event]) -> Contents:
    """The rows that these events make, one transaction per event: the slow, obvious way."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        shadow = _made(model, engine)
        with engine.connect() as connection:
            one = OneAtATime(model, shadow.tables, connection, list)
            for event in events:
                one.apply(event)
            return _contents(shadow, connection)
    finally:
        engine.dispose()


def _made(model: ReadModel, engine: Engine) -> Shadow:
    shadow = Shadow(model.tables, 1, engine.dialect.name)
    with engine.begin() as connection:
        for schema in sorted({table.schema for table in model.tables if table.schema}):
            quoted = engine.dialect.identifier_preparer.quote_schema(schema)
            connection.exec_driver_sql(f"ATTACH ':memory:' AS {quoted}")
        shadow.create(connection)
    return shadow


def _contents(shadow: Shadow, connection: Any) -> Contents:
    found: Contents = {}
    for declared, table in zip(shadow.declared, shadow.tables, strict=True):
        keys = list(table.primary_key.columns)
        others = [column for column in table.columns if not column.primary_key]
        for row in connection.execute(select(*keys, *others)):
            found[declared.fullname, tuple(row[: len(keys)])] = tuple(row[len(keys) :])
    return found


def _orders(
    model: ReadModel, events: Sequence[Event], shuffles: int, seed: int
) -> Iterator[tuple[str, list[Event]]]:
    dealt: dict[Hashable, list[Event]] = {}
    for event in events:
        dealt.setdefault(model.partition_of(event), []).append(event)
    if len(dealt) < 2:
        return
    yield "one partition after the other", [*chain(*dealt.values())]
    yield "the last partition first", [*chain(*reversed(dealt.values()))]
    turns = [part for part, of_part in dealt.items() for _ in of_part]
    rng = random.Random(seed)
    for number in range(shuffles):
        rng.shuffle(turns)
        yield f"shuffled (seed {seed}, number {number})", _interleaved(dealt, turns)


def _interleaved(
    dealt: Mapping[Hashable, Sequence[Event]], turns: Sequence[Hashable]
) -> list[Event]:
    left = {part: iter(events) for part, events in dealt.items()}
    return [next(left[part]) for part in turns]


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)  # sums of floats depend on their order
    return one == other
