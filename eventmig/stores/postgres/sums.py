"""Sums over events as one statement: a row per key, and what the events add to it. Pure.

The text is for a statement with parameters: each % of a value is doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from psycopg import sql

from eventmig.stores.faster import Addend, Member, NotSummedError, Part
from eventmig.stores.postgres.json_fit import storable
from eventmig.stores.postgres.members import Kinds

Addends: TypeAlias = Mapping[tuple[str, int], Addend]
"""What events add, by type and schema version; all of them to the same columns by the same key."""

_LEAST_BEYOND: Final = 2**63
"""What `bigint` does not hold, nor its negative."""


def summed(events: str, addends: Addends, others: Kinds, counted: int) -> str:
    """The statement over `events` (what follows a FROM, with its WHERE).

    Columns: the key's parts, per column of the sum what is added (NULL where nothing is), whether
    all is as it should be, and how many events are of the first `counted` types and versions.
    Those of `others` are left out; one that is neither spoils the sum, and so does one without
    a member. It fails, by one of SQL's data exceptions, where an amount is no number.

    Raises `NotSummedError` for values that the server cannot hold.
    """
    of_each = [*addends.values()]
    keys = [_chosen(map(_key, parts)) for parts in zip(*(one.key for one in of_each), strict=True)]
    inner = [f"{expression} AS k{number}" for number, expression in enumerate(keys)]
    columns = [f"k{number}" for number in range(len(keys))]
    sound = [f"{column} IS NOT NULL" for column in columns]
    for number, amounts in enumerate(zip(*(one.amounts for one in of_each), strict=True)):
        if len(set(amounts)) == 1 and isinstance(amounts[0], int):
            columns.append(f"{_constant(amounts[0])} * count(*)")
            continue
        inner.append(f"{_chosen(map(_amount, amounts))} AS a{number}")
        columns.append(f"sum(a{number})::bigint")
        sound.append(f"coalesce(scale(sum(a{number})) = 0, TRUE) AND {_each_has(number, amounts)}")
    if any(one.also for one in of_each):
        inner.append(f"{_chosen(_all_there(one.also) for one in of_each)} AS also")
        sound.append("bool_and(also)")
    without = "WHERE n IS DISTINCT FROM -1" if others else ""
    count = "count(*)" if counted == len(of_each) else f"count(*) FILTER (WHERE n < {counted})"
    # OFFSET 0 keeps each step apart: what is grouped, and perhaps sorted, is no whole event.
    return f"""SELECT {", ".join(columns)}, {" AND ".join(sound)}, {count}
        FROM (SELECT n, {", ".join(inner)}
            FROM (SELECT e.data, {_number(addends, others)} AS n FROM {events} OFFSET 0) e
            {without} OFFSET 0) e
        GROUP BY {", ".join(columns[: len(keys)])}"""


def _number(kinds: Kinds, others: Kinds) -> str:
    numbers = [*enumerate(kinds), *((-1, kind) for kind in others)]
    found = (
        f"WHEN e.schema_version = {version:d} AND e.type = {_literal(type_)} THEN {number}"
        for number, (type_, version) in numbers
    )
    return f"CASE {' '.join(found)} END"


def _chosen(expressions: Iterable[str]) -> str:
    """The expression for the type and version that an event has; NULL where it is another."""
    each = [*expressions]
    if len(set(each)) == 1:
        return f"CASE WHEN n IS NOT NULL THEN {each[0]} END"
    branches = (f"WHEN {number} THEN {one}" for number, one in enumerate(each))
    return f"CASE n {' '.join(branches)} END"


def _each_has(number: int, amounts: Sequence[Part | None]) -> str:
    """Whether there is an amount from every event that is to have one."""
    if not any(isinstance(amount, Member) for amount in amounts):
        return "TRUE"
    adding = [str(kind) for kind, amount in enumerate(amounts) if amount is not None]
    some = f" FILTER (WHERE n IN ({', '.join(adding)}))" if len(adding) < len(amounts) else ""
    return f"count(a{number}) = count(*){some}"


def _all_there(members: Sequence[Member]) -> str:
    return " AND ".join(["TRUE", *(f"{_key(member)} IS NOT NULL" for member in members)])


def _key(part: Part) -> str:
    if isinstance(part, str):
        return f'{_literal(part)}::text COLLATE "C"'
    if isinstance(part, int):
        return _constant(part)
    if part.type is str:
        return f"""{_of_kind(part, "string", "->>", lambda text: text)} COLLATE "C" """
    return _of_kind(
        part,
        "number",
        "->",
        lambda value: (
            f"""CASE WHEN scale(({value})::numeric) = 0
            AND abs(({value})::numeric) < {_LEAST_BEYOND} THEN ({value})::bigint END"""
        ),
    )


def _amount(part: Part | None) -> str:
    if isinstance(part, Member):
        return f"({' -> '.join(['e.data', *map(_literal, part.path)])})::numeric"
    return "NULL::bigint" if part is None else _constant(int(part))


def _of_kind(member: Member, kind: str, arrow: str, made: Callable[[str], str]) -> str:
    """What is made of a member of this kind; NULL where it is another, or not there."""
    *parents, name = map(_literal, member.path)
    parent = " -> ".join(["e.data", *parents])
    return f"""CASE jsonb_typeof({parent} -> {name}) WHEN '{kind}'
        THEN {made(f"{parent} {arrow} {name}")} END"""


def _constant(value: int) -> str:
    if not -_LEAST_BEYOND < value < _LEAST_BEYOND:
        raise NotSummedError
    return f"({value})::bigint"


def _literal(text: str) -> str:
    if not storable(text):
        raise NotSummedError
    return sql.Literal(text).as_string().replace("%", "%%")
