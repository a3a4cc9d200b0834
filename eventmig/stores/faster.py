"""What some stores offer besides: the same, faster, and what others have no word for.

Whoever uses one of these asks first (`isinstance`), and has another way where it is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from eventmig.events import Event, Held, Kept, Stretch
from eventmig.stores.base import EventReader, TargetTransaction

Members: TypeAlias = Mapping[tuple[str, int], Collection[str]]
"""Of the data of a type and schema version, the top-level members that somebody looks at."""


class Member(NamedTuple):
    """A member of an event's data, by its keys from the top: a JSON string (str), or integer (int).

    An integer is written without a fraction.
    """

    path: tuple[str, ...]
    type: type


Part: TypeAlias = Member | str | int
"""What stands for a value: a member of each event's data, or the same for all."""


class Addend(NamedTuple):
    """What an event adds to a row: the row's key, and the amounts, each for a column of its own.

    None: to that column nothing. `also` must be there besides.
    """

    key: tuple[Part, ...]
    amounts: tuple[Member | int | None, ...]
    also: tuple[Member, ...] = ()


class Summed(NamedTuple):
    """The events of a range, summed: how many, and the range's last global position (inclusive).

    `sums` holds for each of them its columns, with a value per key: the key's parts, then what is
    added to each column, None where no event does. Without events there are no columns.
    """

    until: int
    events: int
    sums: Sequence[Sequence[Sequence[Any]]]


class NotSummedError(Exception):
    """An event is of another kind, or does not have what is to be summed; or a sum is too large."""


class DataLines(NamedTuple):
    """The data of events of one type and schema version, a line each, ended by a newline.

    `global_positions` are theirs, line by line. Where data holds newlines of its own there are
    more lines than positions. `sound`: it is JSON in UTF-8, with no newlines and with no key
    twice in an object; there may be spaces between its tokens.
    """

    type: str
    schema_version: int
    global_positions: Sequence[int]
    lines: bytes
    sound: bool = False


@runtime_checkable
class HeldReader(Protocol):
    """A store that hands out whole events column by column, without making them."""

    def read_held(self, *, after: int, until: int, batch_size: int = 5_000) -> Iterator[Held]:
        """The batches of `read_all`, by the same statements: all of each event, its origins too.

        The columns' `origin_globals` are 0.
        """
        ...


class KeepingTransaction(TargetTransaction, Protocol):
    """A write transaction of a `KeepingTarget`."""

    def append_kept(self, kept: Kept) -> int:
        """`append_columns` for events that keep their places; returns the last global position.

        What does not change of them is copied from the source inside the database.
        """
        ...


@runtime_checkable
class KeepingTarget(Protocol):
    """A target that can look into some sources while it writes."""

    def keeps(self, source: EventReader) -> bool:
        """Whether `append_kept` works with this source from now on. Changes nothing stored.

        Call it between transactions.
        """
        ...


@runtime_checkable
class GroupingReader(Protocol):
    """A store that hands out data by type and version, grouped where it is stored."""

    def read_grouped(
        self,
        *,
        after: int,
        until: int,
        batch_size: int,
        without: Collection[tuple[str, int]],
    ) -> Iterator[Stretch]:
        """The events that `read_data` reads, batch by batch, those of one type together.

        Of the types and versions in `without`, looked at anew for each batch, events are only
        counted. For a source that a `KeepingTarget` keeps from.
        """
        ...


@runtime_checkable
class SharingTarget(Protocol):
    """A target whose URL may name streams that another URL names as well."""

    def shares_streams(self, source: EventReader) -> bool:
        """Whether a stream can belong to both. Reads nothing."""
        ...


@runtime_checkable
class SpellingTarget(Protocol):
    """A target whose tables hold the same values in another spelling.

    The schema version may be inside of data or metadata, and a `jsonb` column writes JSON
    its own way.
    """

    def as_held(self, events: Sequence[Event]) -> list[Event]:
        """What the target hands back for these events. Reads only.

        Where that would be another value, the event stays as it is: a verification finds it.
        """
        ...


@runtime_checkable
class TracingTarget(Protocol):
    """A target whose events name where in the source's global order they came from."""

    def read_traced(self, *, after: int, until: int) -> Iterator[tuple[Event, int]]:
        """The events of `read_all`, one by one, each with its last origin's global position.

        `after` exclusive, `until` inclusive; 0 where an event names none.
        """
        ...


class Subscription(Protocol):
    """How far a store's events are, told by the store instead of asked for."""

    def position(self) -> int:
        """The last event's global position, as far as it was told; at first where it began.

        Raises the store's errors once it cannot go on.
        """
        ...

    def wait(self, *, after: int, timeout_s: float) -> None:
        """Return once there is an event after a position, or after so many seconds."""
        ...


class Count(Protocol):
    """How many events there are, while a server counts them."""

    def there(self) -> bool:
        """Whether it is known already; does not wait."""
        ...

    def wait(self) -> int:
        """How many; waits until it is known. Raises the store's errors."""
        ...


@runtime_checkable
class CountingAhead(Protocol):
    """A store that counts its events while it is read."""

    def counting(
        self, *, until: int, types: Collection[str] | None
    ) -> AbstractContextManager[Count]:
        """What `count` counts, begun now; given up at the end of the block."""
        ...


@runtime_checkable
class ReadingLines(Protocol):
    """A store that can hand out the data of many events at once, put together where it lies."""

    def read_lines(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        members: Members,
        batch_size: int,
    ) -> Iterator[list[DataLines]]:
        """What `read_data` reads, a batch's events of one type and version together.

        The batches follow each other in global order; within one, positions of types and
        versions lie between each other's, in any order. Where data is an object, and `members`
        has its type and version, the store may leave the other members out of it. `members`
        may grow while it is read.
        """
        ...

    def shares_cores(self) -> bool:
        """Whether what puts data together runs on this machine, in a process of its own."""
        ...


@runtime_checkable
class Summing(Protocol):
    """A store that can sum members of its events' data by other members."""

    def kinds_to_sum(
        self, *, after: int, until: int, types: Collection[str] | None
    ) -> Mapping[tuple[str, int], int] | None:
        """The types and schema versions of events in a range, each with its last global position.

        `after` exclusive, `until` inclusive. None where these events cannot be summed.
        """
        ...

    def read_sums(
        self,
        *,
        after: int,
        until: int,
        types: Collection[str] | None,
        sums: Sequence[Mapping[tuple[str, int], Addend]],
        at_once: int,
    ) -> Iterator[Summed]:
        """Each of the sums, range by range in global order.

        The store may work on `at_once` ranges at a time.

        A sum names the types and versions that add to it. Every event is to be of one that is in
        one of the sums. Raises `NotSummedError` where Python has to look at a range.
        """
        ...


@runtime_checkable
class Subscribing(Protocol):
    """A store that tells who follows it of its new events."""

    def subscribed(self, *, after: int) -> AbstractContextManager[Subscription]:
        """A subscription to the events after a global position (exclusive). Reads only."""
        ...
