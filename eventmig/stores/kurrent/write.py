"""A job's writing to KurrentDB: events into streams of their own, and the ledger after them.

There is no transaction over both. So the events of a block are appended first, each at
its exact revision under its own id; then the ledger commits, with the position up to
which events are accounted for. What lies beyond that position, and a job wrote, is a
batch whose commit never came: the next transaction does not count it among the heads,
and finds it there, event by event, when it is written again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, delete, insert, inspect, select
from sqlalchemy import Connection as SqlConnection

from eventmig.errors import ConflictError, Where
from eventmig.events import Columns, Event
from eventmig.stores.kurrent.append import Appender, overtaken
from eventmig.stores.kurrent.client import Message
from eventmig.stores.kurrent.envelope import unseal
from eventmig.stores.kurrent.fence import FenceStream
from eventmig.stores.kurrent.items import check_ids, check_names, copied_items
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Location, Order

_tables = MetaData()
_accounted = Table(
    "eventmig_kurrent_accounted",
    _tables,
    Column("namespace", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)


class Unaccounted(NamedTuple):
    """An event that a job wrote and no commit accounts for."""

    id: str
    position: int


class Heads:
    """What is known of a target's streams, kept from one transaction to the next.

    `last` has the revision of each stream's last event; what is in `unaccounted` does
    not count. A stream that is not in it is not there.
    """

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.unaccounted: dict[tuple[str, int], Unaccounted] = {}


class Target(Protocol):
    """What a transaction needs of its store."""

    location: Location

    def learn_heads(self, accounted: int) -> Heads:
        """Every stream's head, and the events a job wrote after a position."""
        ...

    def head_position(self) -> int: ...

    def truncate(self, after: int) -> int:
        """Make invisible the streams whose events lie after a position; returns how many."""
        ...


class KurrentTransaction:
    """One write transaction on a KurrentDB target (`TargetTransaction`)."""

    connection: SqlConnection

    def __init__(
        self,
        store: Target,
        connection: SqlConnection,
        appender: Appender,
        heads: Heads | None,
        fence: FenceStream,
    ) -> None:
        self.connection = connection
        self._store = store
        self._appender = appender
        self._accounted = self._read_accounted()
        self._fence = fence
        self.passes_fence = False
        self.heads_known = heads or store.learn_heads(self._accounted)

    # --- heads

    def heads(self, streams: Collection[str]) -> dict[str, int]:
        """Last revision of each named stream; -1 where it has no events."""
        last = self.heads_known.last
        return {stream: last.get(stream, -1) for stream in streams}

    # --- events

    def append_copied(self, events: Sequence[Event]) -> int:
        """Append events as they are; returns the last one's commit position.

        Raises `ConflictError` where other events stand at their positions, `DataError`
        for what KurrentDB cannot hold, `FencedError` while applications are shut out and
        this transaction may not pass. What is there already is not written again.
        """
        return self.append_columns(Columns.of(events), [e.stream_position for e in events])

    def append_columns(self, columns: Columns, positions: Sequence[int]) -> int:
        """`append_copied`, column by column."""
        if not columns.ids:
            return max(self._accounted, self._store.head_position())
        if not self.passes_fence:
            self._fence.check_open()
        known, location = self.heads_known, self._store.location
        for stream, type_ in set(zip(columns.streams, columns.types, strict=True)):
            check_names(location, stream, type_, "-")
        check_ids(location, columns)
        last, ordered = 0, location.order is Order.GLOBAL
        items: Iterable[Item] = copied_items(location, columns, positions)
        if known.unaccounted:
            last, items = self._missing(items, ordered=ordered)
        last = max(last, self._appender.append(items, ordered=ordered))
        known.last.update(zip(columns.streams, positions, strict=True))
        self._account(last)
        return last

    def truncate_after(self, global_position: int) -> int:
        """Take back the events after a position, stream by whole stream; returns how many.

        A stream loses them by its `$tb`: its numbering goes on. Raises `CapabilityError`
        where a stream holds events before the position as well.
        """
        deleted = self._store.truncate(global_position)
        self._account(self._store.head_position(), whole=True)
        return deleted

    def defer_indexes(self) -> bool:
        """False: the server has no index that could wait."""
        return False

    def build_indexes(self) -> None:
        """Nothing to build."""

    # --- below

    def _missing(self, items: Iterable[Item], *, ordered: bool) -> tuple[int, list[Item]]:
        """The items that no batch without a commit has written already.

        Before them the commit position of the last one that is there; 0 where none is.
        """
        last, missing = 0, list[Item]()
        begin = len(self._store.location.prefix)
        for item in items:
            place = item.stream[begin:], item.revision
            there = self.heads_known.unaccounted.pop(place, None)
            if there is None:
                missing.append(item)
                continue
            if there.id != item.id:
                raise self._other(item, there)
            if missing and ordered:
                raise overtaken(missing[0], self._store.location.url)
            last = max(last, there.position)
        return last, missing

    def _other(self, item: Item, there: Unaccounted) -> ConflictError:
        return ConflictError(
            f"the stream {item.stream!r} holds, from a batch that was cut off, another event "
            f"at revision {item.revision} than this job makes",
            where=Where(
                store=self._store.location.url,
                stream=item.stream,
                stream_position=item.revision,
                event_id=there.id,
            ),
            remedy="the steps changed since: put them back and resume, or end the job with "
            "`eventmig cancel` and run it anew",
        )

    def _read_accounted(self) -> int:
        """Up to where events are accounted for; at the very first, that is all there are."""
        if not inspect(self.connection).has_table(_accounted.name):
            _tables.create_all(self.connection)
        namespace = self._store.location.namespace
        mine = _accounted.c.namespace == namespace
        found = self.connection.execute(select(_accounted.c.position).where(mine)).scalar()
        if found is None:
            found = self._store.head_position()
            values = {"namespace": namespace, "position": found}
            self.connection.execute(insert(_accounted).values(**values))
        return int(found)

    def _account(self, position: int, *, whole: bool = False) -> None:
        """Record that events up to here are accounted for, once the ledger commits."""
        if position <= self._accounted and not whole:
            return
        self._accounted = position
        namespace = self._store.location.namespace
        self.connection.execute(delete(_accounted).where(_accounted.c.namespace == namespace))
        self.connection.execute(insert(_accounted).values(namespace=namespace, position=position))


def written_by_job(stored: Message) -> bool:
    """Whether a stored event names its origin."""
    envelope = unseal(stored.custom_metadata)[1]
    return envelope is not None and (envelope.stream is not None or envelope.merged is not None)
