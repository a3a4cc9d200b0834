"""Appending to KurrentDB: many appends under way at once, each at its exact revision.

One call carries the requests, one per run of events of one stream; the server takes
them in the order they are sent, so the log gets the events in the order given. Nothing
is trusted that was not answered: after any fault the streams are read, what they hold
already (by id, at its revision) is done, and the rest is sent again. So a repeated, a
shifted or a cut batch changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Final, NamedTuple

import grpc

from eventmig.errors import ConflictError, DataError, StoreError, Where
from eventmig.stores.kurrent.client import (
    Connection,
    Message,
    Patience,
    shared_pb2,
    streams_pb2,
)
from eventmig.stores.kurrent.log import Log

_NO_DEADLINE: Final = 315_576_000_000  # seconds: the most a protobuf duration holds
_CALL_SECONDS: Final = 120.0  # a connection that swallows everything is given up after it
_UNDER_WAY: Final = 512  # requests, and
_BYTES_UNDER_WAY: Final = 16 * 1024 * 1024
_REQUEST_BYTES: Final = 512 * 1024
_REQUEST_EVENTS: Final = 1_000
_OVERHEAD: Final = 128  # what an event weighs besides its own bytes, at most
# Larger requests are tried one by one until the server took one of that size: a refusal in
# the middle of many would leave what follows it in the log before it.
_SURELY_TAKEN: Final = 64 * 1024

_WRONG_REVISION: Final = shared_pb2.WrongExpectedVersion.DESCRIPTOR


class Item(NamedTuple):
    """One event to append: `stream` as KurrentDB calls it, and the revision it must get."""

    stream: str
    revision: int
    id: str
    message: Message
    size: int


class _Request(NamedTuple):
    items: Sequence[Item]
    size: int


class _Refusal(NamedTuple):
    number: int
    details: Message


def proposed(id: str, type: str, content_type: str, data: bytes, metadata: bytes) -> Message:
    """An event as an append carries it."""
    return streams_pb2.BatchAppendReq.ProposedMessage(
        id=shared_pb2.UUID(string=id),
        metadata={"type": type, "content-type": content_type},
        custom_metadata=metadata,
        data=data,
    )


class Appender:
    """Appends to the streams of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._log = Log(connection)
        self._most = _REQUEST_BYTES
        self._taken = _SURELY_TAKEN

    def append(self, items: Sequence[Item]) -> int:
        """Append all, in order; returns the commit position of the last.

        Raises `ConflictError` where a stream holds other events at these revisions,
        `DataError` for an event above the server's limit, `StoreError` where the server
        refuses or cannot be reached; what was appended before stays.
        """
        patience = Patience(self._connection)
        last, left = 0, list(items)
        while left:
            sent = _Sent(self._next(left))
            try:
                refusal = self._send(sent)
                failure: grpc.RpcError | None = None
            except grpc.RpcError as error:
                refusal, failure = None, error
            if sent.positions:
                patience.progress()
                last = max(last, *sent.positions.values())
                self._taken = max(
                    self._taken, *(sent.requests[number].size for number in sent.positions)
                )
            done = {id(item) for n in sent.positions for item in sent.requests[n].items}
            left = [item for item in left if id(item) not in done]
            if failure is not None:
                patience.wait(failure)
            elif refusal is None and not sent.positions:
                patience.pause("it ended a call without an answer")
            elif refusal is not None:
                self._refused(sent.requests[refusal.number], refusal.details, patience)
            if failure is not None or refusal is not None:
                there = self._there([item for r in sent.begun() for item in r.items])
                last = max(last, *there.values(), 0)
                left = [item for item in left if (item.stream, item.revision) not in there]
            if refusal is not None and refusal.details.Is(_WRONG_REVISION):
                first = sent.requests[refusal.number].items[0]
                if (first.stream, first.revision) not in there:
                    raise self._elsewhere(first, refusal.details)
        return last

    # --- requests

    def _next(self, items: Sequence[Item]) -> list[_Request]:
        """The requests to send next: those that are surely taken, or else one larger one."""
        sure: list[_Request] = []
        for request in self._packed(items):
            if request.size > self._taken:
                return sure or [request]
            sure.append(request)
        return sure

    def _packed(self, items: Sequence[Item]) -> Iterator[_Request]:
        for _, run in groupby(items, key=lambda item: item.stream):
            packed: list[Item] = []
            size = 0
            for item in run:
                weight = item.size + _OVERHEAD
                if packed and (size + weight > self._most or len(packed) >= _REQUEST_EVENTS):
                    yield _Request(packed, size)
                    packed, size = [], 0
                packed.append(item)
                size += weight
            yield _Request(packed, size)

    def _send(self, sent: _Sent) -> _Refusal | None:
        """Send the requests and take the answers; returns the first refusal, if there is one."""
        refusal: _Refusal | None = None
        try:
            with self._connection.batch_append(sent.messages(), timeout=_CALL_SECONDS) as answers:
                for answer in answers:
                    number = answer.correlation_id.structured.least_significant_bits
                    if answer.WhichOneof("result") == "success":
                        sent.succeeded(number, answer.success)
                    else:
                        sent.refused(number)
                        if refusal is None or number < refusal.number:
                            refusal = _Refusal(number, answer.error.details)
                    if sent.answered():
                        break
        finally:
            sent.stop()
        return refusal

    # --- faults

    def _refused(self, request: _Request, details: Message, patience: Patience) -> None:
        """Make of a refusal what it means; returns where the rest is to be sent again."""
        first = request.items[0]
        where = Where(
            store=self._connection.location.url,
            stream=first.stream,
            stream_position=first.revision,
            event_id=first.id,
        )
        if details.Is(shared_pb2.MaximumAppendSizeExceeded.DESCRIPTOR):
            exceeded = shared_pb2.MaximumAppendSizeExceeded()
            details.Unpack(exceeded)
            if len(request.items) == 1:
                raise DataError(
                    f"an event of {first.size:,} bytes is larger than the server takes "
                    f"({exceeded.maxAppendSize:,} bytes)",
                    where=where,
                    remedy="raise the server's MaxAppendSize, or keep such data outside of the "
                    "event (a store step may do that) and resume",
                )
            self._most = min(exceeded.maxAppendSize, request.size // 2)
        elif details.Is(shared_pb2.AccessDenied.DESCRIPTOR):
            raise StoreError(
                f"the server does not let this user write the stream {first.stream!r}",
                where=where,
                remedy="give the user the right ($w in the $acl of the stream, or of "
                "$userStreamAcl), or name another user in the URL",
            )
        elif details.Is(shared_pb2.StreamDeleted.DESCRIPTOR):
            raise ConflictError(
                f"the stream {first.stream!r} is tombstoned: its name can never be used again",
                where=where,
                remedy="name the new streams differently (prefix=… in the URL, or --naming)",
            )
        elif details.Is(shared_pb2.BadRequest.DESCRIPTOR):
            bad = shared_pb2.BadRequest()
            details.Unpack(bad)
            raise StoreError(f"the server refused an append: {bad.message}", where=where)
        elif details.Is(shared_pb2.Timeout.DESCRIPTOR):
            patience.pause("the server did not know in time whether an append took effect")
        elif not details.Is(_WRONG_REVISION):
            raise StoreError(
                f"the server refused an append: {details.TypeName() or 'for no known reason'}",
                where=where,
            )

    def _elsewhere(self, item: Item, details: Message) -> ConflictError:
        """A stream is shorter than it was when it was last looked at, or not there any more."""
        wrong = shared_pb2.WrongExpectedVersion()
        details.Unpack(wrong)
        there = wrong.WhichOneof("current_stream_revision_option") == "current_stream_revision"
        at = f"at revision {wrong.current_stream_revision}" if there else "not there"
        return ConflictError(
            f"the stream {item.stream!r} is {at}; the next event is for revision {item.revision}",
            where=Where(
                store=self._connection.location.url,
                stream=item.stream,
                stream_position=item.revision,
            ),
            remedy="who else writes it, or deleted it? A job's streams are its own until the "
            "cut-over; end the job with `eventmig cancel`",
        )

    def _there(self, items: Sequence[Item]) -> dict[tuple[str, int], int]:
        """Which of these the streams hold already, with their commit positions.

        Raises `ConflictError` where another event stands in the place of one.
        """
        wanted: dict[str, dict[int, str]] = {}
        for item in items:
            wanted.setdefault(item.stream, {})[item.revision] = item.id
        found: dict[tuple[str, int], int] = {}
        for stream, ids in wanted.items():
            with closing(self._log.of_stream(stream, min(ids))) as there:
                for stored in there:
                    revision = stored.stream_revision
                    if revision > max(ids):
                        break
                    if stored.id.string != ids[revision]:
                        raise self._occupied(stream, revision, stored.id.string)
                    found[stream, revision] = stored.commit_position
        return found

    def _occupied(self, stream: str, revision: int, event_id: str) -> ConflictError:
        """Another event stands where one was to be written."""
        return ConflictError(
            f"the stream {stream!r} holds another event at revision {revision}",
            where=Where(
                store=self._connection.location.url,
                stream=stream,
                stream_position=revision,
                event_id=event_id,
            ),
            remedy="who wrote it? A job's streams are its own until the cut-over: end the job "
            "with `eventmig cancel` and name the new streams differently",
        )


class _Sent:
    """Requests under way on one call: the sender's thread takes them, the answers end them."""

    def __init__(self, requests: Sequence[_Request]) -> None:
        self.requests = requests
        self.positions: dict[int, int] = {}
        # Each number has one thread that changes it; a lock is taken only to wait.
        self._begun = self._bytes_begun = 0
        self._ended = self._bytes_ended = 0
        self._stopped = self._full = False
        self._changed = threading.Condition()

    def messages(self) -> Iterator[Message]:
        """The requests, as there is room for them."""
        for number, request in enumerate(self.requests):
            if self._under_way() >= 1.0:
                with self._changed:
                    self._full = True
                    self._changed.wait_for(self._may_go_on)
                    self._full = False
            if self._stopped:
                return
            self._begun += 1
            self._bytes_begun += request.size
            yield _message(number, request.items)

    def succeeded(self, number: int, success: Message) -> None:
        """Take a request for done; raises `ConflictError` where the server numbered otherwise."""
        last = self.requests[number].items[-1]
        if success.current_revision != last.revision:
            raise ConflictError(
                f"the stream {last.stream!r} was deleted, and goes on counting where it ended "
                f"({success.current_revision}, not {last.revision})",
                where=Where(stream=last.stream, stream_position=success.current_revision),
                remedy="name the new streams differently (prefix=… in the URL, or --naming)",
            )
        self.positions[number] = success.position.commit_position
        self._end(number)

    def refused(self, number: int) -> None:
        """Take a request for answered, and send nothing more."""
        self._end(number)
        self.stop()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        with self._changed:
            self._changed.notify_all()

    def answered(self) -> bool:
        """Whether no answer is to come."""
        whole = self._stopped or self._begun == len(self.requests)
        return whole and self._ended == self._begun

    def begun(self) -> Sequence[_Request]:
        """The requests that were sent, or may have been."""
        return self.requests[: self._begun]

    def _end(self, number: int) -> None:
        self._ended += 1
        self._bytes_ended += self.requests[number].size
        if self._full and self._may_go_on():
            with self._changed:
                self._changed.notify_all()

    def _under_way(self) -> float:
        """How much is under way, of what may be."""
        requests = self._begun - self._ended
        size = self._bytes_begun - self._bytes_ended
        return max(requests / _UNDER_WAY, size / _BYTES_UNDER_WAY if requests else 0.0)

    def _may_go_on(self) -> bool:
        """Woken at half: each wake costs a change of threads."""
        return self._stopped or self._under_way() <= 0.5


def _message(number: int, items: Sequence[Item]) -> Message:
    first = items[0]
    message = streams_pb2.BatchAppendReq(
        proposed_messages=[item.message for item in items], is_final=True
    )
    message.correlation_id.structured.least_significant_bits = number
    options = message.options
    options.stream_identifier.stream_name = first.stream.encode()
    options.deadline.seconds = _NO_DEADLINE
    if first.revision:
        options.stream_position = first.revision - 1
    else:
        options.no_stream.SetInParent()
    return message
