"""A job's writing to KurrentDB: events into streams of their own, and the ledger after them.

There is no transaction over both. So the events of a block are appended first, each at
its exact revision under its own id; then the ledger commits, with the position up to
which events are accounted for. What lies beyond that position, and a job wrote, is a
batch whose commit never came: the next transaction does not count it among the heads,
and finds it there, event by event, when it is written again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, delete, insert, inspect, select
from sqlalchemy import Connection as SqlConnection

from eventmig.errors import ConflictError, DataError, Where
from eventmig.events import Columns, Event, NewEvent
from eventmig.stores.kurrent.append import Appender, overtaken
from eventmig.stores.kurrent.client import Message
from eventmig.stores.kurrent.envelope import Envelope, is_json, seal, unseal
from eventmig.stores.kurrent.fence import FenceStream
from eventmig.stores.kurrent.rules import MOVED
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Location, Order
from eventmig.stores.kurrent.wire import proposed

_BINARY: Final = "application/octet-stream"
_JSON: Final = "application/json"
_CANONICAL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS: Final = uuid.UUID("2d6f0f6a-5d5e-5b7e-9a52-4c6a8f3e1b90")
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


def copied_items(location: Location, columns: Columns, positions: Sequence[int]) -> Iterator[Item]:
    """A job's events as an append takes them; their names and ids were checked.

    In their order, or with `order=stream` each stream's together, streams in the order of
    their first events.
    """
    prefix = location.prefix
    rows = [*zip(*columns[:-1], positions, strict=True)]
    order = range(len(rows)) if location.order is Order.GLOBAL else _by_stream(columns.streams)
    for n in order:
        (
            stream, given, type_, version, data, metadata, recorded_at,
            origin_stream, origin_position, ordinal, origin_global, position,
        ) = rows[n]  # fmt: skip
        id_ = _uuid(given)
        merged = columns.merged.get(n)
        envelope = Envelope(
            format=1,
            stream=None if origin_position is None else origin_stream,
            stream_position=origin_position,
            ordinal=ordinal,
            merged=[(o.stream, o.stream_position, o.ordinal) for o in merged] if merged else None,
            global_position=origin_global or None,
            recorded_at=recorded_at,
            schema_version=version,
            id=None if id_ == given else given,
        )
        metadata, content_type = _content(data, metadata)
        stored = seal(metadata, envelope)
        yield _item(prefix + stream, position, id_, type_, content_type, data, stored)


def new_item(location: Location, stream: str, revision: int, new: NewEvent) -> Item:
    """An application's event as an append takes it, with an envelope only where it needs one."""
    given = str(uuid.uuid4()) if new.id is None else new.id
    id_ = _uuid(given)
    envelope = Envelope(
        format=1,
        recorded_at=new.recorded_at,
        schema_version=new.schema_version,
        id=None if id_ == given else given,
    )
    metadata, content_type = _content(new.data, new.metadata)
    plain = envelope == Envelope(format=1) and metadata != b""
    stored = metadata or b"" if plain else seal(metadata, envelope)
    name = location.prefix + stream
    return _item(name, revision, id_, new.type, content_type, new.data, stored)


def check_new(stream: str, new: NewEvent, location: Location) -> None:
    """Raise `DataError` for an event of an application that cannot be stored."""
    check_names(location, stream, new.type, "-" if new.id is None else new.id)
    if new.schema_version < 1:
        raise DataError(
            f"the schema version {new.schema_version} is below 1",
            where=Where(store=location.url, stream=stream, type=new.type),
            remedy="count schema versions from 1",
        )


def check_ids(location: Location, columns: Columns) -> None:
    """Raise `DataError` for an event whose id KurrentDB cannot carry."""
    for n, id_ in enumerate(columns.ids):
        if not _CANONICAL.fullmatch(id_):
            check_names(location, columns.streams[n], columns.types[n], id_)


def check_names(location: Location, stream: str, type_: str, id_: str) -> None:
    """Raise `DataError` for a stream's name, a type or an id that KurrentDB cannot carry."""
    what = ""
    for part, text in (("stream", stream), ("type", type_), ("id", id_)):
        if not text or "\0" in text:
            what = f"{part} is empty or holds a NUL"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"{part} is not UTF-8 ({error.reason})"
    if not what and (type_.startswith("$") or type_ == MOVED):
        what = "type begins with $, as only the server's own do, or is eventmig's own"
    if not what and not location.holds(location.prefix + stream):
        what = "stream is none of this store's: it begins with $, or is of another category"
    if what:
        raise DataError(
            f"an event's {what}",
            where=Where(store=location.url, stream=ascii(stream)[1:-1], event_id=ascii(id_)[1:-1]),
            remedy="give it another name, by a step or a route, or choose another target",
        )


def written_by_job(stored: Message) -> bool:
    """Whether a stored event names its origin."""
    envelope = unseal(stored.custom_metadata)[1]
    return envelope is not None and (envelope.stream is not None or envelope.merged is not None)


def _item(
    stream: str,
    revision: int,
    id_: str,
    type_: str,
    content_type: str,
    data: bytes,
    metadata: bytes,
) -> Item:
    message = proposed(id_, type_, content_type, data, metadata)
    size = len(data) + len(metadata) + len(type_)
    return Item(stream, revision, id_, message, size)


def _content(data: bytes, metadata: bytes | None) -> tuple[bytes | None, str]:
    """The metadata to store, and the content type: what the reader told, else what shows."""
    told = unseal(metadata)[1] if metadata else None
    if told is not None and told == Envelope(format=1, content_type=told.content_type):
        return unseal(metadata or b"")[0], told.content_type or _BINARY
    return metadata, _JSON if is_json(data) else _BINARY


def _uuid(id_: str) -> str:
    """The id, or where it is no UUID in its canonical form, a UUIDv5 of it."""
    return id_ if _CANONICAL.fullmatch(id_) else str(uuid.uuid5(_IDS, id_))


def _by_stream(streams: Sequence[str]) -> list[int]:
    """The indexes of these, each stream's together, streams in the order of their first ones."""
    indexes: dict[str, list[int]] = {}
    for n, stream in enumerate(streams):
        indexes.setdefault(stream, []).append(n)
    return [n for run in indexes.values() for n in run]
