"""The tables that a batch of events is written to, in order: joined ones, then the events' own.

A destination says which of the columns that `encode` makes go where. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from eventmig.stores.layouts.description import Layout

Made: TypeAlias = Mapping[str, Sequence[Any]]
"""Columns of many rows, by the names that the layout gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A table that gets a row for each event.

    `columns` has its columns, each with the name under which its values were made.
    """

    table: str
    columns: Mapping[str, str]

    def named(self, column: str, layout: Layout) -> str:
        """How the layout names one of its columns."""
        return column if self.table == layout.table else f"{self.table}.{column}"


def destinations(layout: Layout) -> list[Destination]:
    """Where the rows of an event go, those that others refer to first.

    The number of an event's stream is made under the name of the column that holds it.
    """
    names = layout.columns()
    own = {name: name for name in names if not _in_join(name, layout)}
    out = []
    for join in layout.joins:
        for its, column in join.on.items():
            full = f"{join.table}.{its}"
            own[column] = full if full in names else column
    for join in layout.of_events():
        prefix = f"{join.table}."
        columns = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
        columns |= {its: own[column] for its, column in join.on.items()}
        out.append(Destination(table=join.table, columns=columns))
    out.append(Destination(table=layout.table, columns=own))
    if layout.second:
        second = own | {name: own[other] for name, other in layout.second.items()}
        out.append(Destination(table=layout.table, columns=second))
    return out


def _in_join(name: str, layout: Layout) -> bool:
    return any(name.startswith(f"{join.table}.") for join in layout.joins)
