"""What the engine asks of a store: narrow Protocols, one per use.

A store adapter (`stores.sqlite`, …) implements those it can; what it cannot do
is a missing `Capability`, never an `if` on the kind of store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from sqlalchemy import Connection

from eventmig.errors import StoreDamagedError
from eventmig.events import (
    CategoryCount,
    Columns,
    Event,
    Held,
    Kept,
    NewEvent,
    Page,
    StreamHead,
    Stretch,
    TypeCount,
)

Mode: TypeAlias = Literal["read", "write", "create"]
"""Read only; write to what exists; create what is missing and write."""


class Capability(StrEnum):
    """Something a store may or may not be able to do."""

    APPEND = "append"  # an application can append with an expected position
    TARGET = "target"  # a job can write into it, with a ledger
    UNDO = "undo"  # what a transaction wrote can be taken back: when it fails, and later
    GLOBAL_ORDER = "global_order"  # it keeps the order it is given over streams
    CONTIGUOUS = "contiguous"  # its streams count from the first position without a hole
    UNIQUE_IDS = "unique_ids"  # an event id stands once in the whole store
    CHECKS_TEXT = "checks_text"  # it refuses data and metadata that are no text
    LARGE = "large"  # it holds events of many megabytes
    SERVER = "server"  # another process does its work: this one need not wait for it
    LINEAGE = "lineage"  # it keeps each event's origins itself
    SQL = "sql"  # read models and ledger can live beside it, in SQL


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
"""Append whatever the stream's position is."""
NONE: Final = None
"""Append only if the stream does not exist yet."""

Expected = int | None | _Any
"""A stream position (the last one the writer saw), `NONE`, or `ANY`."""

DataRow: TypeAlias = tuple[int, str, int, bytes]
"""The parts of an event a fold over data needs: global position, type, schema version, data."""

Members: TypeAlias = Mapping[tuple[str, int], Collection[str]]
"""Of the data of a type and schema version, the top-level members that somebody looks at."""


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
class EventReader(Protocol):
    """Reads a store; never writes. `first_position` is 0 or 1: where streams start."""

    url: str
    first_position: int
    capabilities: frozenset[Capability]

    def read_all(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[Event]]:
        """Batches in global order: `after` exclusive, `until` inclusive (None: the head).

        `types` filters by event type in the database. Each batch is one short read;
        no transaction stays open between batches.
        """
        ...

    def read_pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[Page]:
        """The batches of `read_all`, column by column and without the events' own origins."""
        ...

    def read_data(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[DataRow]]:
        """The events that `read_all` reads, in the same order, without their other parts.

        For those who fold data alone: less than half the cost of whole events. Batches
        need not be cut where `read_all` cuts them.
        """
        ...

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        """One stream's events in order; `first` and `last` are inclusive."""
        ...

    def read_streams(self, streams: Collection[str]) -> Iterator[list[Event]]:
        """Batches of the events of these streams: stream after stream, each in order.

        Which stream comes first is the store's affair, and where a batch ends, too.
        """
        ...

    def event(self, event_id: str) -> Event | None:
        """The event with this id, or None."""
        ...

    def examples(self, type: str, schema_version: int, limit: int) -> list[Event]:
        """The first events of this type and schema version, at most `limit`."""
        ...

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        """The extent of every stream (or of those named), ordered by stream name."""
        ...

    def categories(self) -> list[CategoryCount]:
        """Categories with their counts, ordered by name."""
        ...

    def type_counts(self, *, until: int | None = None) -> list[TypeCount]:
        """Events per type and schema version up to a global position, ordered."""
        ...

    def head_position(self) -> int:
        """The last global position; 0 for an empty store."""
        ...

    def count(self, *, until: int | None = None, types: Collection[str] | None = None) -> int:
        """How many events (of these types; None: all) lie at or before a global position."""
        ...

    def identity(self) -> str:
        """Equal for two URLs exactly when they name the same events."""
        ...

    def id_scope(self) -> str:
        """Equal for two stores in which one event id may stand only once together."""
        ...

    def preflight(self) -> Iterator[StoreDamagedError]:
        """What is damaged: unreadable pages, holes and repeated positions in streams."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """A read-only SQL connection to the store's database, one snapshot for the block."""
        ...

    def close(self) -> None:
        """Let go of the store; harmless twice."""
        ...


@runtime_checkable
class HeldReader(Protocol):
    """A store that hands out whole events column by column, without making them."""

    def read_held(self, *, after: int, until: int, batch_size: int = 5_000) -> Iterator[Held]:
        """The batches of `read_all`, by the same statements: all of each event, its origins too.

        The columns' `origin_globals` are 0.
        """
        ...


@runtime_checkable
class EventAppender(Protocol):
    """What an application needs to append."""

    def append(self, stream: str, events: Sequence[NewEvent], *, expected: Expected) -> list[Event]:
        """Append in one transaction; return them as stored.

        Raises `ConflictError` when the stream is not at `expected`,
        `DuplicateIdError` when an id is there already; then nothing was written.
        """
        ...


class TargetTransaction(Protocol):
    """One open write transaction on a target: events and ledger commit together."""

    connection: Connection

    def heads(self, streams: Collection[str]) -> dict[str, int]:
        """Last stream position of each named stream; `first_position - 1` where it is new."""
        ...

    def append_copied(self, events: Sequence[Event]) -> int:
        """Write events as they are (stream positions, ids, times, origins included).

        Global positions are assigned in the order given. Returns the last one.
        """
        ...

    def append_columns(self, columns: Columns, positions: Sequence[int]) -> int:
        """`append_copied` for events column by column, at these stream positions."""
        ...

    def truncate_after(self, global_position: int) -> int:
        """Delete events after a global position (only a job's own, before cut-over).

        Returns how many.
        """
        ...

    def defer_indexes(self) -> bool:
        """Leave the unique indexes off until `build_indexes`, if the target is empty.

        True if they are off. Safe to repeat and to be killed in.
        """
        ...

    def build_indexes(self) -> None:
        """Build what `defer_indexes` left off; harmless otherwise.

        Raises `DuplicateIdError` or `ConflictError` naming the first offender.
        """
        ...


@runtime_checkable
class JobTarget(EventReader, Protocol):
    """A store a job can write to. `namespace` tells its tables and streams from others
    in the same database.
    """

    namespace: str

    def discard(self) -> None:
        """Take back what opening it made, if it holds no event; closes the store."""
        ...

    def begin(self) -> AbstractContextManager[TargetTransaction]:
        """Open a write transaction; commits at the end of the block, rolls back on an error."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Hold the target for one job; released by the system when the process dies.

        Raises `JobLockedError` at once when another process holds it.
        """
        ...

    def held(self) -> bool:
        """Whether a process holds this target now; changes nothing."""
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


class Fence(NamedTuple):
    """What a store's fence says: whether applications are shut out, by which job, since when.

    `epoch` is that of the job's last holder who opened or closed it; `at` is in
    microseconds since the Unix epoch (UTC).
    """

    closed: bool
    job_id: str
    epoch: int
    at: int


@runtime_checkable
class Fencing(Protocol):
    """A store that can shut its applications out.

    The fence lasts until it is opened, whatever dies. It is the store's own: also who
    appends by SQL of their own stands before it.
    """

    def set_fence(self, *, closed: bool, job_id: str, epoch: int, wait_s: float) -> None:
        """Close or open the fence, in one transaction; harmless where it is so already.

        Once it is closed no append is under way: open transactions are waited out, at most
        `wait_s` seconds. Raises `JobLostError` where a later holder of this job has set it,
        `CrossingError` where another job closed it or the wait was too long.
        """
        ...

    def fence(self) -> Fence | None:
        """The fence as it is now; None where there never was one. Reads only."""
        ...

    def last_position(self) -> int:
        """The last global position there is; 0 for an empty store. Reads only.

        Exact where nobody appends but the caller; elsewhere a lower one may still appear.
        """
        ...

    def check_fence(self, tx: TargetTransaction, *, job_id: str, epoch: int) -> None:
        """Raise `JobLostError` unless this holder closed the fence last; within `tx`."""
        ...

    def pass_fence(self, tx: TargetTransaction) -> None:
        """Let this transaction append though the fence is closed: it is a job's own."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A store where somebody may still append before its last event when its fence is closed, or
    opened again: a transaction that is open, and has not appended yet.
    """

    def settled(self) -> bool:
        """Whether nobody can append before the last event any more. Reads only."""
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
class Subscribing(Protocol):
    """A store that tells who follows it of its new events."""

    def subscribed(self, *, after: int) -> AbstractContextManager[Subscription]:
        """A subscription to the events after a global position (exclusive). Reads only."""
        ...


class PublishedRoute(NamedTuple):
    """Where the applications of a job belong, for those that do not ask the ledger.

    `epoch` is the number of crossings so far, `final` whether there can be no other. `side`
    is `old` or `new`; `release` the job's. `naming` has the place `{stream}` for a stream's
    name in the application, and is what clients of the live store itself call it; `store` is
    that store's identity.
    """

    job_id: str
    epoch: int
    final: bool
    side: str
    release: str
    naming: str
    store: str


@runtime_checkable
class Publishing(Protocol):
    """A store with a place for the route that applications can read and subscribe to."""

    def publish(self, route: PublishedRoute) -> None:
        """Publish a route, once: not where it, or a later one of its job, was published."""
        ...

    def stored_name(self, stream: str) -> str:
        """What clients of the store itself call a stream (or a template of names). Pure."""
        ...


@runtime_checkable
class Exchanging(Protocol):
    """A store whose tables can change names with others of the same database.

    Who has either of them open finds the other's events from then on, without opening it anew.
    """

    @property
    def schema(self) -> str | None:
        """Where in the database the tables are, and the ledger beside them; None: there is one."""
        ...

    def can_exchange(self, other: EventReader) -> bool:
        """Whether `other` is another set of tables in the same database."""
        ...

    def check_exchange(self, other: EventReader) -> None:
        """Raise `CrossingError` for what would not follow the names. Reads only."""
        ...

    def exchange(self, tx: TargetTransaction, other: EventReader, *, wait_s: float) -> None:
        """Give each set of tables the other's names, fences included, within `tx`.

        Nothing is copied or rebuilt. Who uses the tables is waited for, at most `wait_s`
        seconds; then `CrossingError` is raised, and nothing was changed.
        """
        ...


@runtime_checkable
class Carrying(Protocol):
    """A store whose streams have metadata of their own, which a copy of events leaves behind."""

    def carry_metadata(self, source: EventReader, named: Callable[[str], str]) -> int:
        """Give this store's streams the metadata of the source's; returns how many got some.

        `named` is a stream's name here. What a stream has here already stays.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """Something of the owner's that stands beside the events, and that a job does not copy.

    So many snapshots in a `table`, or events of `streams` that are left out (a LIKE pattern).
    """

    number: int
    table: str = ""
    streams: str = ""

    def __str__(self) -> str:
        if self.table:
            return f"{self.number:,} snapshots in {self.table}"
        return f"{self.number:,} events of streams like {self.streams}"


class OwnerSnapshot(NamedTuple):
    """A snapshot for the library that owns a store's tables.

    It stands at the event `event_id`. `topic` and `class_version` are those of the aggregate's
    class, `kind` the topic of the snapshot's own class. `state`: what the class holds, by
    attribute; Decimals, UUIDs and times are written as the library does, `msgspec.Raw` is
    JSON already.
    """

    stream: str
    stream_position: int
    event_id: str
    topic: str
    class_version: int
    kind: str
    state: Mapping[str, object]


@runtime_checkable
class OwnerSnapshots(Protocol):
    """A store beside whose events their owner keeps snapshots.

    `snapshot_form` is the library whose snapshots can be written; empty where none can.
    """

    snapshot_form: str

    def left_behind(self) -> list[LeftBehind]:
        """What a copy of the events leaves behind, where there is some. Reads only."""
        ...

    def replace_snapshots(
        self, streams: Collection[str], snapshots: Sequence[OwnerSnapshot]
    ) -> tuple[str, int]:
        """Give these streams these snapshots and no others, in one transaction.

        Returns the table, and how many older ones went. Raises `StoreDamagedError` where a
        snapshot's event is not where it was folded, `DataError` for a state that the owner's
        form cannot hold.
        """
        ...

    def snapshot_places(self, streams: Collection[str]) -> list[tuple[str, int]]:
        """Stream and position of each of the owner's snapshots of these streams. Reads only."""
        ...

    def unlike_snapshots(self, snapshots: Sequence[OwnerSnapshot]) -> list[tuple[str, int, str]]:
        """Stream, position and what is wrong, of those that are not stored so. Reads only."""
        ...

    def drop_astray(self) -> int:
        """Delete snapshots that stand where no event is; returns how many."""
        ...


@runtime_checkable
class Dropping(Protocol):
    """A store that can be dropped."""

    def drop_all(self, tx: TargetTransaction) -> int:
        """Drop what belongs to this store alone, within `tx`; returns how many events it held.

        Streams of a release in shared tables go; the tables stay.
        """
        ...


def one_by_one(
    read_stream: Callable[[str], Iterator[Event]], streams: Collection[str]
) -> Iterator[list[Event]]:
    """`read_streams`, for a store that can be asked for one stream only."""
    for stream in streams:
        batch: list[Event] = []
        size = 0
        for event in read_stream(stream):
            batch.append(event)
            size += len(event.data)
            if len(batch) >= _BATCH or size > _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


_BATCH = 1_000
_BATCH_BYTES = 16 * 1024 * 1024


def all_events(batches: Iterable[list[Event]]) -> Iterator[Event]:
    """Batches, one event at a time."""
    for batch in batches:
        yield from batch
