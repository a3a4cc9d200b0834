"""What copying events inside the database asks of a store, and what its adapters share of it.

A target that stands in one database with a source can take a run of events over with one
statement: new data by SQL expressions, everything else as it is. The job decides which
runs; what it cannot say in SQL goes the Python way. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from eventmig.stores.base import EventReader, TargetTransaction

Version: TypeAlias = tuple[str, int]
"""An event type and a schema version of it."""


class Extent(NamedTuple):
    """A run of source events: the last one's global position, and how many there are by version.

    `until` is where the run begins if there are none.
    """

    until: int
    counts: dict[Version, int]


class Change(NamedTuple):
    """What a copy inside the database makes of the events of one type and version.

    `data` is an SQL expression over the column `e.data`, with named parameters (`:v0`),
    that is NULL where the event has to go another way; None: the data stays as it is.
    """

    source: Version
    target: Version
    data: str | None


Values: TypeAlias = Mapping[str, str | int]
"""Parameters by name."""


class NotPushedError(Exception):
    """A run of events cannot be copied inside the database; the message says why.

    The job catches it and takes the other way: it never reaches a user.
    """


class PushingTransaction(TargetTransaction, Protocol):
    """A write transaction of a `PushingTarget`."""

    def extent(self, *, after: int, until: int, limit: int) -> Extent:
        """The next source events: `after` exclusive, `until` inclusive, at most `limit`."""
        ...

    def take_positions(self, after: int, extent: Extent) -> int:
        """Take the global positions of the run after `after`; returns the one before its first.

        From then on other transactions take those that follow. Raises `NotPushedError` where
        they do not follow each other.
        """
        ...

    def append_pushed(
        self, after: int, extent: Extent, before: int, changes: Sequence[Change], values: Values
    ) -> None:
        """Copy a run of source events, each to its own place, ids and times as they are.

        `before` is what `take_positions` returned; `changes` has one entry for each version
        in the run, `values` the parameters of their expressions. Raises `NotPushedError`
        where an event's new data is NULL or the database refuses a row; the transaction has
        to be rolled back then.
        """
        ...

    def pushed_data(
        self, after: int, until: int, versions: Collection[Version]
    ) -> Iterator[tuple[str, int, Sequence[bytes]]]:
        """Data of the target's events: `after` exclusive, `until` inclusive, by type and version.

        Of these versions only, as the target holds them now; some at a time, in any order.
        """
        ...


@runtime_checkable
class PushingTarget(Protocol):
    """A target that can rewrite events of some sources inside the database.

    `dialect` names the SQL it takes. `pushes_faster` says whether that way, over two
    connections, is faster than the one through Python (measured), `checks_text` whether the
    database itself refuses what is not UTF-8.
    """

    dialect: str
    pushes_faster: bool
    checks_text: bool

    def why_not_pushed(self, source: EventReader) -> str:
        """Why this source's events cannot be copied inside; "" where `append_pushed` works.

        Changes nothing stored. Call it between transactions.
        """
        ...


def cases(changes: Sequence[Change], *, otherwise: str = "NULL") -> tuple[str, str, str, Values]:
    """New type, version and data of an event `e` as SQL, and the parameters.

    The data is `otherwise` for an event of a version that `changes` does not name.
    """
    values: dict[str, str | int] = {}
    types, versions, data = [], [], []
    for number, (source, target, expression) in enumerate(changes):
        values |= {f"s{number}": source[0], f"n{number}": source[1]}
        found = f"WHEN e.type = :s{number} AND e.schema_version = :n{number} THEN"
        if source != target:
            values |= {f"t{number}": target[0], f"m{number}": target[1]}
            types.append(f"{found} CAST(:t{number} AS text)")
            versions.append(f"{found} CAST(:m{number} AS integer)")
        data.append(f"{found} {expression or 'e.data'}")
    return (
        f"CASE {' '.join(types)} ELSE e.type END" if types else "e.type",
        f"CASE {' '.join(versions)} ELSE e.schema_version END" if versions else "e.schema_version",
        f"CASE {' '.join(data)} ELSE {otherwise} END" if data else otherwise,
        values,
    )
