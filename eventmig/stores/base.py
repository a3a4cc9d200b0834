"""What the engine asks of a store: narrow Protocols, one per use.

A store adapter (`stores.sqlite`, …) implements those it can; what it cannot do
is a missing `Capability`, never an `if` on the kind of store. What only some offer is beside:
`faster`, `crossing`, `owned`, `pushing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

from sqlalchemy import Connection

from eventmig.errors import StoreDamagedError
from eventmig.events import (
    CategoryCount,
    Columns,
    Event,
    NewEvent,
    Page,
    StreamHead,
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
