"""The KurrentDB (EventStoreDB) store, over gRPC (`EventReader`, `EventAppender`, `JobTarget`).

What a URL names is in `url`; reading in `read`; how events get into the log in
`append`, what a job makes of that in `write`, and where its ledger lives in `ledger`;
how writers are kept out in `fence`, and told where to go in `route`. Opening a store
writes nothing: streams come into being with their first events.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout
from sqlalchemy import Connection as SqlConnection

from eventmig.errors import (
    CapabilityError,
    ConflictError,
    CrossingError,
    JobLockedError,
    ReadOnlyError,
    Where,
)
from eventmig.events import Event, NewEvent
from eventmig.stores.base import ANY, EventReader, Expected, Mode, TargetTransaction
from eventmig.stores.crossing import Fence, PublishedRoute
from eventmig.stores.kurrent.append import Appender
from eventmig.stores.kurrent.client import PATIENCE, Connection
from eventmig.stores.kurrent.fence import FenceStream, is_shut, opened, shut
from eventmig.stores.kurrent.items import check_new, new_item
from eventmig.stores.kurrent.ledger import Ledger, ledger_of
from eventmig.stores.kurrent.log import END, name_of
from eventmig.stores.kurrent.read import KurrentReader
from eventmig.stores.kurrent.route import RouteStream
from eventmig.stores.kurrent.rules import METADATA, MOVED
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Door, Location, lock_name
from eventmig.stores.kurrent.wire import proposed
from eventmig.stores.kurrent.write import (
    Heads,
    KurrentTransaction,
    Unaccounted,
    written_by_job,
)


class KurrentStore(KurrentReader):
    """Streams of a KurrentDB. Open it with `open_store`; close it. `first_position` is 0.

    Raises `ConfigError` for a URL the client cannot use, `StoreUnavailableError` where no
    server answers, `StoreError` where it does not let this user read `$all`. `patience` is how
    long, in seconds, a server may be away before a read or a write is given up.
    """

    def __init__(self, location: Location, *, mode: Mode, patience: float = PATIENCE) -> None:
        super().__init__(location, Connection(location, patience=patience))
        self.mode: Mode = mode
        self._appender = Appender(self._connection)
        self._heads: Heads | None = None
        self._fence = FenceStream(location, self._log, self._appender)
        self._route = RouteStream(location, self._log, self._appender)
        self._ledger: Ledger | None = None
        try:
            self._probe()
            self._ledger = ledger_of(location, self._connection, self._appender)
        except BaseException:
            self.close()
            raise

    # --- writing

    def append(self, stream: str, events: Sequence[NewEvent], *, expected: Expected) -> list[Event]:
        """Append in one request; return the events as stored.

        Ids default to UUIDv4; times are the server's, unless given. Raises `ConflictError`
        when the stream is not at `expected`, `DataError` for what cannot be stored; then
        nothing was written. An event of the same id elsewhere is no conflict.
        """
        self._check_writable()
        for new in events:
            check_new(stream, new, self.location)
        while True:
            self._fence.check_open()
            head, last = self._head(stream)
            met = head == expected if isinstance(expected, int) else expected is ANY or head < 0
            if not met:
                raise self._conflict(stream, head, expected)
            items = [
                new_item(self.location, stream, last + 1 + number, new)
                for number, new in enumerate(events)
            ]
            try:
                self._appender.append(items)
            except ConflictError:
                if self._head(stream) != (head, last):
                    continue  # somebody was faster: decide anew
                raise
            return list(self.read_stream(stream, first=last + 1, last=last + len(items)))

    @contextmanager
    def begin(self) -> Iterator[KurrentTransaction]:
        """A write transaction: events go out at once, the ledger commits at the end.

        After an error the ledger is as before; events that went out stay, and are found
        by the next transaction (see `write`). Raises `JobLostError` where another
        process wrote the ledger meanwhile.
        """
        self._check_writable()
        heads, self._heads = self._heads, None
        assert self._ledger is not None
        with self._ledger.begin() as connection:
            transaction = KurrentTransaction(self, connection, self._appender, heads, self._fence)
            yield transaction
        self._heads = transaction.heads_known

    @contextmanager
    def reading(self) -> Iterator[SqlConnection]:
        """A read-only SQL connection to the ledger: one snapshot for the block."""
        assert self._ledger is not None
        with self._ledger.reading() as connection:
            yield connection

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this target for one job, against other processes of this machine.

        A lock of the operating system on a file: it ends with the process. A process
        elsewhere is held off by the ledger, which takes nothing from one that has not
        read the last entry. Raises `JobLockedError` at once.
        """
        held = FileLock(self._lock_path(), mode=0o666)
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            raise JobLockedError(
                "another job works on this target",
                where=Where(store=self.url, file=str(self._lock_path())),
                remedy="wait for it (`eventmig status` shows it) or stop that process; "
                "the lock ends with it, there is no file to delete",
            ) from error
        try:
            self._heads = None
            yield
        finally:
            held.release()

    def held(self) -> bool:
        """Whether a process of this machine holds this target now; changes nothing."""
        if not self._lock_path().exists():
            return False
        try:
            with FileLock(self._lock_path(), timeout=0, mode=0o666):
                return False
        except Timeout:
            return True

    def discard(self) -> None:
        """Close the store: opening it made nothing."""
        self.close()

    def close(self) -> None:
        """Close the connections; harmless twice."""
        if self._ledger is not None:
            self._ledger.close()
        self._connection.close()

    def __enter__(self) -> KurrentStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def shares_streams(self, source: EventReader) -> bool:
        """Whether a stream can belong to this store and to the source."""
        return isinstance(source, KurrentReader) and self.location.overlaps(source.location)

    # --- crossings (`Fencing`, `Publishing`, `Dropping`)

    def set_fence(self, *, closed: bool, job_id: str, epoch: int, wait_s: float) -> None:
        """Close or open the fence, and the streams by a mark at the end or by their `$acl`.

        Raises `CrossingError` where writers were faster for `wait_s` seconds, or another
        job closed it; `JobLostError` where a later holder of this job set it.
        """
        self._check_writable()
        self._fence.set(closed=closed, job_id=job_id, epoch=epoch)
        self._heads = None
        if self.location.fence is Door.ACL:
            self._shut(closed)
            return
        deadline = time.monotonic() + wait_s
        while closed and (unmarked := self._unmarked()):
            if not self._fence.mark(unmarked, job_id=job_id) and time.monotonic() > deadline:
                raise CrossingError(
                    f"writers went on appending for {wait_s:g} s",
                    where=Where(store=self.url, stream=min(unmarked)),
                    remedy="stop those that append without an expected revision, then try again",
                )

    def fence(self) -> Fence | None:
        """The fence as it is now; None where there never was one."""
        return self._fence.read()

    def last_position(self) -> int:
        """The last global position there is; 0 for an empty store."""
        return self.head_position()

    def check_fence(self, tx: TargetTransaction, *, job_id: str, epoch: int) -> None:
        """Raise `JobLostError` unless this holder closed the fence last."""
        self._fence.check_holder(job_id=job_id, epoch=epoch)

    def pass_fence(self, tx: TargetTransaction) -> None:
        """Let this transaction append though the fence is closed."""
        cast(KurrentTransaction, tx).passes_fence = True

    def publish(self, route: PublishedRoute) -> None:
        """Append the route to the stream `eventmig-route-…`, unless it is said there already."""
        self._check_writable()
        self._route.publish(route)

    def stored_name(self, stream: str) -> str:
        """The stream's name in KurrentDB."""
        return self.location.prefix + stream

    def drop_all(self, tx: TargetTransaction) -> int:
        """Truncate every stream of this store behind its last event; returns how many events
        that hides. A scavenge frees their room; the names' numbering goes on.
        """
        return tx.truncate_after(0)

    def _shut(self, closed: bool) -> None:
        """Take the right to write every stream from all but `$admins`, or give it back."""
        streams = {self.location.prefix + head.stream for head in self.heads()}
        for name in sorted(streams | self.rules_of_streams()):
            metadata, last = self.metadata_of(name)
            if is_shut(metadata) is not closed:
                self._set_metadata(name, shut(metadata) if closed else opened(metadata), last)

    def _unmarked(self) -> dict[str, int]:
        """The last revision of every stream that does not end with a mark, by its full name."""
        found: dict[str, int] = {}
        rules = self._rules()
        with closing(self._log.of_location(self.location)) as stored_events:
            for stored in stored_events:
                name = name_of(stored)
                found.pop(name, None)
                if stored.metadata["type"] != MOVED and rules.next_revision(name) < END:
                    found[name] = stored.stream_revision
        return found

    # --- what a transaction needs

    def learn_heads(self, accounted: int) -> Heads:
        """Every stream's head, and the events a job wrote after a position.

        One pass over the log of the target's streams.
        """
        heads, rules = Heads(), self._rules()
        begin = len(self.location.prefix)
        for name, (first, _) in rules.visible.items():
            if self.location.holds(name) and 0 < first < END:
                heads.last[name[begin:]] = first - 1
        with closing(self._log.of_location(self.location)) as stored_events:
            for stored in stored_events:
                name = name_of(stored)
                stream, revision = name[begin:], stored.stream_revision
                visible = revision >= rules.next_revision(name)
                if visible and stored.commit_position > accounted and written_by_job(stored):
                    heads.unaccounted[stream, revision] = Unaccounted(
                        stored.id.string, stored.commit_position
                    )
                else:
                    heads.last[stream] = revision
        return heads

    def truncate(self, after: int) -> int:
        """Make invisible the streams whose events lie after a position; returns how many
        events that were. Raises `CapabilityError` where a stream has some before it too.
        """
        before: Counter[str] = Counter()
        behind: Counter[str] = Counter()
        with closing(self._events()) as events:
            for event in events:
                (behind if event.global_position > after else before)[event.stream] += 1
        if both := sorted(before.keys() & behind.keys()):
            raise CapabilityError(
                f"the end of the stream {both[0]!r} cannot be taken back: KurrentDB "
                "truncates only beginnings",
                where=Where(store=self.url, stream=both[0]),
                remedy="end the job with `eventmig cancel` and run it anew",
            )
        for stream in behind:
            self._truncate_before(self.location.prefix + stream)
        return behind.total()

    # --- below

    def carry_metadata(self, source: EventReader, named: Callable[[str], str]) -> int:
        """Give this store's streams the metadata that the source's streams have.

        All but `$tb`, which counts the source's revisions. After the events, and not before:
        a `$maxCount` trims at once. What a stream has here already stays.
        """
        if not isinstance(source, KurrentReader):
            return 0
        carried = 0
        begin = len(source.location.prefix)
        for name in sorted(source.rules_of_streams()):
            into = self.location.prefix + named(name[begin:])
            found = opened(source.metadata_of(name)[0])
            theirs = {k: v for k, v in found.items() if k != "$tb"}
            ours, last = self.metadata_of(into)
            if theirs.items() <= ours.items() or self._log.last_revision(into) < 0:
                continue
            self._set_metadata(into, {**theirs, **ours}, last)
            carried += 1
        return carried

    def _truncate_before(self, name: str) -> None:
        """Set a stream's `$tb` behind its last event; other metadata stays."""
        kept, last = self.metadata_of(name)
        self._set_metadata(name, {**kept, "$tb": self._log.last_revision(name) + 1}, last)

    def _set_metadata(self, name: str, metadata: Mapping[str, object], last: int) -> None:
        metadata_stream = f"$${name}"
        data = json.dumps(metadata, ensure_ascii=False).encode()
        id_ = str(uuid.uuid4())
        message = proposed(id_, METADATA, "application/json", data, b"")
        self._appender.append([Item(metadata_stream, last + 1, id_, message, len(data))])

    def _head(self, stream: str) -> tuple[int, int]:
        """The revision of the stream's last event, and its last one, which may be a mark.

        -1 where it is not there.
        """
        name = self.location.prefix + stream
        last = -1
        with closing(self._log.of_stream_backwards(name)) as stored_events:
            for stored in stored_events:
                last = max(last, stored.stream_revision)
                if stored.metadata["type"] != MOVED:
                    return stored.stream_revision, last
        if last < 0 and (following := self._rules().next_revision(name)) < END:
            return following - 1, following - 1
        return -1, last

    def _probe(self) -> None:
        """Find out at once whether there is a server, and whether it lets us read."""
        patience, self._connection.patience = self._connection.patience, 0.0
        try:
            self._log.head()
        finally:
            self._connection.patience = patience

    def _check_writable(self) -> None:
        if self.mode == "read":
            raise ReadOnlyError(
                "the store was opened for reading only",
                where=Where(store=self.url),
                remedy='open it with mode="write"',
            )

    def _conflict(self, stream: str, head: int, expected: Expected) -> ConflictError:
        actual = f"at position {head}" if head >= 0 else "not there"
        wanted = "no such stream" if expected is None else f"position {expected}"
        return ConflictError(
            f"the stream {stream!r} is {actual}; the writer expected {wanted}",
            where=Where(store=self.url, stream=stream, stream_position=head),
            remedy="read the stream again, decide again, append again",
        )

    def _lock_path(self) -> Path:
        return Path(tempfile.gettempdir()) / lock_name(self.location)
