"""Appending to KurrentDB: many appends under way at once, each at its exact revision.

One call carries the requests, one per run of events of one stream; the server takes
them in the order they are sent, so the log gets the events in the order given. Nothing
is trusted that was not answered: after any fault the streams are read, what they hold
already (by id, at its revision) is done, and the rest is sent again. So a repeated, a
shifted or a cut batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Final, NamedTuple

import grpc
from google.protobuf.empty_pb2 import Empty

from eventmig.errors import ConflictError, DataError, StoreError, Where
from eventmig.stores.kurrent.client import (
    BatchAppendResp,
    Connection,
    Message,
    Patience,
    shared_pb2,
)
from eventmig.stores.kurrent.log import Log
from eventmig.stores.kurrent.under_way import Item, Request, UnderWay

_CALL_SECONDS: Final = 120.0  # a connection that swallows everything is given up after it
_REQUEST_BYTES: Final = 512 * 1024
_REQUEST_EVENTS: Final = 1_000
_OVERHEAD: Final = 128  # what an event weighs besides its own bytes, at most
# Larger requests are tried one by one until the server took one of that size: a refusal in
# the middle of many would leave what follows it in the log before it.
_SURELY_TAKEN: Final = 64 * 1024

_WRONG_REVISION: Final = shared_pb2.WrongExpectedVersion.DESCRIPTOR
_NOT_HANDLED: Final = Empty.DESCRIPTOR
"""What a server gives for details that is busy, not ready, or waits for a leader."""
_EVENT_TOO_LARGE: Final = "event_store.client.MaximumAppendEventSizeExceeded"
"""Of newer servers; the clients have no class for it."""


class _Refusal(NamedTuple):
    number: int
    message: str
    details: Message


class Appender:
    """Appends to the streams of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._log = Log(connection)
        self._most = _REQUEST_BYTES
        self._taken = _SURELY_TAKEN

    def append(self, items: Iterable[Item], *, ordered: bool = False) -> int:
        """Append all, in order; returns the commit position of the last.

        They are taken as there is room for them: while the server has enough to do.
        `ordered`: the order over streams matters, too. Within a stream it always holds.

        Raises `ConflictError` where a stream holds other events at these revisions,
        `DataError` for an event above the server's limit, `StoreError` where the server
        refuses, cannot be reached or broke the order; what was appended before stays.
        """
        patience = Patience(self._connection)
        last, coming = 0, iter(items)
        left: list[Item] = []
        while left or (left := list(islice(coming, 1))):
            taken: list[Item] = []
            sent = UnderWay(self._next(_noted(chain(left, coming), taken)))
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
            left = [item for item in taken if id(item) not in done] + left[len(taken) :]
            if failure is not None:
                patience.wait(failure)
            elif refusal is None and not sent.positions and not sent.unplaced:
                patience.pause("it ended a call without an answer")
            elif refusal is not None:
                self._refused(sent.requests[refusal.number], refusal, patience)
            if failure is not None or refusal is not None or sent.unplaced:
                there = self._there([item for r in sent.begun() for item in r.items])
                last = max(last, *there.values(), 0)
                left = [item for item in left if (item.stream, item.revision) not in there]
                if ordered:
                    self._check_order(sent, left)
            if refusal is not None and refusal.details.Is(_WRONG_REVISION):
                first = sent.requests[refusal.number].items[0]
                if (first.stream, first.revision) not in there:
                    raise self._elsewhere(first, refusal.details)
        return last

    # --- requests

    def _next(self, items: Iterable[Item]) -> Iterator[Request]:
        """The requests to send next: those that are surely taken, or else one larger one."""
        for number, request in enumerate(self._packed(items)):
            sure = request.size <= self._taken
            if sure or number == 0:
                yield request
            if not sure:
                return

    def _packed(self, items: Iterable[Item]) -> Iterator[Request]:
        """Runs of events of one stream, each as large as one request may be."""
        packed: list[Item] = []
        size = 0
        for item in items:
            weight = item.size + _OVERHEAD
            if packed and (
                item.stream != packed[0].stream
                or size + weight > self._most
                or len(packed) >= _REQUEST_EVENTS
            ):
                yield Request(packed, size)
                packed, size = [], 0
            packed.append(item)
            size += weight
        if packed:
            yield Request(packed, size)

    def _send(self, sent: UnderWay) -> _Refusal | None:
        """Send the requests and take the answers; returns the first refusal, if there is one."""
        refusal: _Refusal | None = None
        with closing(self._connection.batch_append(timeout=_CALL_SECONDS)) as call:
            while not sent.answered():
                request = sent.next()
                if request is not None:
                    call.send(request, more=sent.more())
                    if not call.answers:
                        continue
                answer = call.next(many=sent.many())
                if answer is None:
                    break
                told = BatchAppendResp.FromString(answer)
                number = told.correlation_id.structured.least_significant_bits
                if told.WhichOneof("result") == "success":
                    sent.succeeded(number, told.success)
                else:
                    sent.refused(number)
                    if refusal is None or number < refusal.number:
                        refusal = _Refusal(number, told.error.message, told.error.details)
        return refusal

    # --- faults

    def _check_order(self, sent: UnderWay, left: Sequence[Item]) -> None:
        """Raise `StoreError` where a request was taken, and one before it was not."""
        missing = {id(item) for item in left}
        first: Item | None = None
        for item in (item for request in sent.begun() for item in request.items):
            if id(item) in missing:
                first = first or item
            elif first is not None:
                raise overtaken(first, self._connection.location.url)

    def _refused(self, request: Request, refusal: _Refusal, patience: Patience) -> None:
        """Make of a refusal what it means; returns where the rest is to be sent again."""
        first, details = request.items[0], refusal.details
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
                raise _too_large(first, "MaxAppendSize", exceeded.maxAppendSize, where)
            self._most = min(exceeded.maxAppendSize, request.size // 2)
        elif details.TypeName() == _EVENT_TOO_LARGE:
            if len(request.items) == 1:
                raise _too_large(first, "MaxAppendEventSize", None, where)
            self._most = request.size // 2  # until the one that it means is alone
        elif details.Is(_NOT_HANDLED):
            patience.pause(f"it said: {refusal.message}")
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
            said = refusal.message or details.TypeName() or "for no known reason"
            raise StoreError(f"the server refused an append: {said}", where=where)

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


def _noted(items: Iterable[Item], taken: list[Item]) -> Iterator[Item]:
    """The items, each noted once it was taken."""
    for item in items:
        taken.append(item)
        yield item


def overtaken(item: Item, url: str) -> StoreError:
    """An event is not there, and one that must come after it is."""
    return StoreError(
        "the server took later events and refused this one: the order over streams is not the "
        "source's any more",
        where=Where(store=url, stream=item.stream, stream_position=item.revision, event_id=item.id),
        remedy="end the job with `eventmig cancel` and run it anew, or with order=stream in the "
        "URL, where that order does not matter",
    )


def _too_large(item: Item, option: str, limit: int | None, where: Where) -> DataError:
    """An event that the server does not take however it is sent."""
    most = option if limit is None else f"{limit:,} bytes"
    return DataError(
        f"an event of {item.size:,} bytes is larger than the server takes ({most})",
        where=where,
        remedy=f"raise the server's {option}, or keep such data outside of the event (a store "
        "step may do that) and resume",
    )
