"""Appending to KurrentDB: many appends under way at once, each at its exact revision.

One call carries the requests, one per run of events of one stream; the server takes
them in the order they are sent, so the log gets the events in the order given. Nothing
is trusted that was not answered: after any fault the streams are read, what they hold
already (by id, at its revision) is done, and the rest is sent again. So a repeated, a
shifted or a cut batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Final, NamedTuple

import grpc

from eventmig.errors import ConflictError, DataError, StoreError, Where
from eventmig.stores.kurrent import wire
from eventmig.stores.kurrent.client import (
    BatchAppendResp,
    Connection,
    Message,
    Patience,
    shared_pb2,
)
from eventmig.stores.kurrent.log import Log

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
    """One event to append: `stream` as KurrentDB calls it, and the revision it must get.

    `message` is what `wire.proposed` makes of it, `size` what it weighs by itself, in bytes.
    """

    stream: str
    revision: int
    id: str
    message: bytes
    size: int


class _Request(NamedTuple):
    items: Sequence[Item]
    size: int


class _Refusal(NamedTuple):
    number: int
    details: Message


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
        with closing(self._connection.batch_append(timeout=_CALL_SECONDS)) as call:
            while not sent.answered():
                if call.ready:
                    if (request := sent.next()) is not None:
                        call.send(request, more=sent.more())
                    elif sent.stopped:
                        call.finish()
                answer = call.next()
                if call.ended:
                    break
                if answer is None:
                    continue
                told = BatchAppendResp.FromString(answer)
                number = told.correlation_id.structured.least_significant_bits
                if told.WhichOneof("result") == "success":
                    sent.succeeded(number, told.success)
                else:
                    sent.refused(number)
                    if refusal is None or number < refusal.number:
                        refusal = _Refusal(number, told.error.details)
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
    """Requests under way on one call."""

    def __init__(self, requests: Sequence[_Request]) -> None:
        self.requests = requests
        self.positions: dict[int, int] = {}
        self._begun = self._bytes_begun = 0
        self._ended = self._bytes_ended = 0
        self.stopped = self._full = False

    def next(self) -> bytes | None:
        """The next request, if there is one and room for it."""
        if not self.more():
            return None
        number, request = self._begun, self.requests[self._begun]
        self._begun += 1
        self._bytes_begun += request.size
        first = request.items[0]
        events = [item.message for item in request.items]
        return wire.request(number, first.stream, first.revision, events)

    def more(self) -> bool:
        """Whether a request may be sent now.

        Once as many are under way as may be, half of them must be answered first: so the
        next ones go out together.
        """
        if self.stopped or self._begun == len(self.requests):
            return False
        under_way = self._begun - self._ended
        size = self._bytes_begun - self._bytes_ended
        most = 0.5 if self._full else 1.0
        self._full = under_way > 0 and (
            under_way >= most * _UNDER_WAY or size >= most * _BYTES_UNDER_WAY
        )
        return not self._full

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
        self.stopped = True

    def answered(self) -> bool:
        """Whether no answer is to come."""
        whole = self.stopped or self._begun == len(self.requests)
        return whole and self._ended == self._begun

    def begun(self) -> Sequence[_Request]:
        """The requests that were sent, or may have been."""
        return self.requests[: self._begun]

    def _end(self, number: int) -> None:
        self._ended += 1
        self._bytes_ended += self.requests[number].size
