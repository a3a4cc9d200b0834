"""The service `event_store.client.streams.Streams` over the log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Any

import grpc
from esdbclient.protos.Grpc import (
    code_pb2,
    shared_pb2,
    status_pb2,
    streams_pb2,
    streams_pb2_grpc,
)
from google.protobuf import any_pb2, empty_pb2
from google.protobuf.message import Message

from tests.kurrent_server.access import Access
from tests.kurrent_server.exchange import Exchange
from tests.kurrent_server.faults import Fault, Faults
from tests.kurrent_server.filters import passes
from tests.kurrent_server.log import (
    END,
    DeletedError,
    Expected,
    Log,
    Proposal,
    Record,
    State,
    TooLargeError,
    WrongExpectedError,
)
from tests.kurrent_server.requests import expected_of, proposal, stream_of

_Resp = streams_pb2.ReadResp
_EVENT_TOO_LARGE = any_pb2.Any(  # the client has no class for it
    type_url="type.googleapis.com/event_store.client.MaximumAppendEventSizeExceeded"
)


class Streams(streams_pb2_grpc.StreamsServicer):
    """Streams of one node. `leader` is the address of another one that is the leader, if any.

    `forgetful`: it does not say where an event stands that was there already.
    """

    def __init__(self, log: Log, faults: Faults, access: Access) -> None:
        self.log = log
        self.faults = faults
        self.access = access
        self.leader: tuple[str, int] | None = None
        self.open = True
        self.forgetful = False
        self.calls = 0  # of Read
        self.subscribed_after: list[int] = []

    # --- reading

    def Read(  # noqa: N802
        self, request: streams_pb2.ReadReq, context: grpc.ServicerContext
    ) -> Iterator[_Resp]:
        options = request.options
        self.calls += 1
        self._check_leader(context)
        user = self.access.user(context)
        of_stream = options.WhichOneof("stream_option") == "stream"
        allowed = (
            self.access.may(user, "$r", stream_of(options.stream), self.log)
            if of_stream
            else self.access.may_read_all(user)
        )
        if not allowed:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Access Denied")
        fault = self.faults.next_read
        if options.WhichOneof("count_option") == "subscription":
            fault = self.faults.next_told
            responses = self._subscription(options, context)
        elif of_stream:
            responses = self._stream(options, context)
        else:
            responses = self._all(options)
        for response in responses:
            met = fault()
            if met is Fault.NO_LEADER:
                context.abort(grpc.StatusCode.UNKNOWN, "No leader info available in response")
            if met is not None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
            yield response

    def _stream(self, options: Any, context: grpc.ServicerContext) -> Iterator[_Resp]:
        name = stream_of(options.stream)
        try:
            shown = self.log.shows(name)
            records = self.log.visible(name)
        except DeletedError:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Event stream '{name}' is deleted.")
        if not shown:
            missing = _Resp.StreamNotFound(stream_identifier=options.stream.stream_identifier)
            yield _Resp(stream_not_found=missing)
            return
        at = options.stream.WhichOneof("revision_option")
        back = options.read_direction == streams_pb2.ReadReq.Options.Backwards
        if at == "revision":
            limit = options.stream.revision
            records = [r for r in records if (r.revision <= limit if back else r.revision >= limit)]
        elif (at == "end") is not back:
            records = []
        ordered = reversed(records) if back else iter(records)
        for record in islice(ordered, options.count):
            yield self._event(record, resolve=options.resolve_links)

    def _all(self, options: Any) -> Iterator[_Resp]:
        at = options.all.WhichOneof("all_option")
        back = options.read_direction == streams_pb2.ReadReq.Options.Backwards
        position = {"start": 0, "end": END}.get(at, options.all.position.commit_position)
        records = self.log.backwards(position) if back else self.log.forwards(position)
        for record in islice(filter(passes(options), records), options.count):
            yield self._event(record, resolve=options.resolve_links)

    def _subscription(self, options: Any, context: grpc.ServicerContext) -> Iterator[_Resp]:
        """Everything after a position, then a caught-up mark, then what comes; with filters,
        a checkpoint where nothing of what was read passed."""
        of_stream = options.WhichOneof("stream_option") == "stream"
        name = stream_of(options.stream) if of_stream else ""
        yield _Resp(confirmation=_Resp.SubscriptionConfirmation(subscription_id=str(uuid.uuid4())))
        let_through = passes(options)
        after = self._subscribed_after(options, of_stream)
        self.subscribed_after.append(after)
        caught_up = False
        while context.is_active() and self.open:
            fresh = [
                r
                for r in self.log.forwards(0)
                if (r.revision > after and r.stream == name if of_stream else r.position > after)
            ]
            passed = False
            for record in fresh:
                after = record.revision if of_stream else record.position
                if let_through(record):
                    passed = True
                    yield self._event(record, resolve=options.resolve_links)
            if fresh and not passed and not of_stream:
                yield _Resp(
                    checkpoint=_Resp.Checkpoint(commit_position=after, prepare_position=after)
                )
            if not caught_up:
                caught_up = True
                yield _Resp(caught_up=_Resp.CaughtUp())
            with self.log.grown:
                self.log.grown.wait(timeout=0.1)

    def _subscribed_after(self, options: Any, of_stream: bool) -> int:
        if of_stream:
            at = options.stream.WhichOneof("revision_option")
            records = self.log.visible(stream_of(options.stream))
            last = records[-1].revision if records else -1
            return {"start": -1, "end": last}.get(at, options.stream.revision)
        at = options.all.WhichOneof("all_option")
        last = self.log.records[-1].position if self.log.records else 0
        return {"start": 0, "end": last}.get(at, options.all.position.commit_position)

    def _event(self, record: Record, *, resolve: bool) -> _Resp:
        read = _Resp.ReadEvent(commit_position=record.position)
        target = self._linked(record) if resolve and record.event.type == "$>" else None
        if target is not None:
            read.link.CopyFrom(_recorded(record))
        read.event.CopyFrom(_recorded(target or record))
        return _Resp(event=read)

    def _linked(self, link: Record) -> Record | None:
        revision, _, name = link.event.data.decode().partition("@")
        try:
            records = self.log.visible(name)
        except DeletedError:
            return None
        return next((r for r in records if r.revision == int(revision)), None)

    # --- writing

    def Append(  # noqa: N802
        self, requests: Iterator[streams_pb2.AppendReq], context: grpc.ServicerContext
    ) -> streams_pb2.AppendResp:
        options = next(requests).options
        name, expected = stream_of(options), expected_of(options, "expected_stream_revision")
        proposals = [proposal(request.proposed_message) for request in requests]
        self._check_writer(context, "$w", name)
        fault = self._before(name, context)
        try:
            revision, position = self.log.append(name, expected, proposals)
        except WrongExpectedError as error:
            wrong = streams_pb2.AppendResp.WrongExpectedVersion()
            if error.current is None:
                wrong.current_no_stream.SetInParent()
            else:
                wrong.current_revision = error.current
            return streams_pb2.AppendResp(wrong_expected_version=wrong)
        except DeletedError:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Event stream '{name}' is deleted.")
        except TooLargeError as error:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"Maximum Append Size of {error.limit} Exceeded."
            )
        if fault is Fault.ANSWER_LOST:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        if fault is Fault.TIMEOUT:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Operation timed out")
        at = streams_pb2.AppendResp.Position(commit_position=position, prepare_position=position)
        success = streams_pb2.AppendResp.Success(current_revision=revision, position=at)
        return streams_pb2.AppendResp(success=success)

    def BatchAppend(  # noqa: N802
        self, requests: Iterator[streams_pb2.BatchAppendReq], context: grpc.ServicerContext
    ) -> Iterator[streams_pb2.BatchAppendResp]:
        self._check_leader(context)
        user = self.access.user(context)
        waiting: dict[bytes, tuple[Any, list[Proposal]]] = {}

        def answer(packed: bytes) -> bytes | None:
            request = streams_pb2.BatchAppendReq.FromString(packed)
            id_ = request.correlation_id.SerializeToString()
            options, proposals = waiting.pop(id_, None) or (request.options, [])
            proposals += map(proposal, request.proposed_messages)
            if not request.is_final:
                waiting[id_] = options, proposals
                return None
            response = self._batch(user, options, proposals, context)
            response.correlation_id.CopyFrom(request.correlation_id)
            response.stream_identifier.CopyFrom(options.stream_identifier)
            return response.SerializeToString()

        Exchange(requests, context, answer, lambda: not self.faults.appends).run()
        yield from ()

    def _batch(
        self, user: str, options: Any, proposals: list[Proposal], context: grpc.ServicerContext
    ) -> streams_pb2.BatchAppendResp:
        name = stream_of(options)
        fault = self._before(name, context)
        if not self.access.may(user, "$w", name, self.log):
            return _failed(code_pb2.PERMISSION_DENIED, shared_pb2.AccessDenied())
        if fault is Fault.BUSY:
            return _failed(0, empty_pb2.Empty(), "Server Is Busy")
        if self.log.max_event < END and any(p.size > self.log.max_event for p in proposals):
            return _failed(code_pb2.INVALID_ARGUMENT, _EVENT_TOO_LARGE)
        before = len(self.log.records)
        try:
            expected = expected_of(options, "expected_stream_position")
            revision, position = self.log.append(name, expected, proposals)
        except WrongExpectedError as error:
            return _failed(code_pb2.FAILED_PRECONDITION, _wrong(error, expected))
        except DeletedError:
            deleted = shared_pb2.StreamDeleted(stream_identifier=options.stream_identifier)
            return _failed(code_pb2.FAILED_PRECONDITION, deleted)
        except TooLargeError as error:
            large = shared_pb2.MaximumAppendSizeExceeded(maxAppendSize=error.limit)
            return _failed(code_pb2.INVALID_ARGUMENT, large)
        if fault is Fault.ANSWER_LOST:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        if fault is Fault.TIMEOUT:
            return _failed(code_pb2.DEADLINE_EXCEEDED, shared_pb2.Timeout())
        if fault is Fault.SILENT:
            while context.is_active():
                time.sleep(0.02)
        response = streams_pb2.BatchAppendResp()
        success = response.success
        success.current_revision = revision
        if self.forgetful and len(self.log.records) == before:
            success.no_position.SetInParent()
        else:
            at = success.position
            at.commit_position = at.prepare_position = position
        return response

    def Delete(  # noqa: N802
        self, request: streams_pb2.DeleteReq, context: grpc.ServicerContext
    ) -> streams_pb2.DeleteResp:
        position = self._remove(self.log.delete, request.options, context)
        at = streams_pb2.DeleteResp.Position(commit_position=position, prepare_position=position)
        return streams_pb2.DeleteResp(position=at)

    def Tombstone(  # noqa: N802
        self, request: streams_pb2.TombstoneReq, context: grpc.ServicerContext
    ) -> streams_pb2.TombstoneResp:
        position = self._remove(self.log.tombstone, request.options, context)
        at = streams_pb2.TombstoneResp.Position(commit_position=position, prepare_position=position)
        return streams_pb2.TombstoneResp(position=at)

    def _remove(self, remove: Any, options: Any, context: grpc.ServicerContext) -> int:
        name, expected = stream_of(options), expected_of(options, "expected_stream_revision")
        self._check_writer(context, "$d", name)
        try:
            return int(remove(name, expected))
        except DeletedError:
            details = f"Event stream '{name}' is deleted."
        except WrongExpectedError as error:
            details = f"Append failed due to WrongExpectedVersion. Stream: {name}, {error}"
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, details)
        raise AssertionError

    # --- below

    def _check_writer(self, context: grpc.ServicerContext, right: str, name: str) -> None:
        self._check_leader(context)
        if not self.access.may(self.access.user(context), right, name, self.log):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Access Denied")

    def _check_leader(self, context: grpc.ServicerContext) -> None:
        needed = dict(context.invocation_metadata()).get("requires-leader") == "true"
        if needed and self.leader is not None:
            self._name_leader(context)

    def _name_leader(self, context: grpc.ServicerContext) -> None:
        assert self.leader is not None
        host, port = self.leader
        context.set_trailing_metadata(
            (
                ("exception", "not-leader"),
                ("leader-endpoint-host", host),
                ("leader-endpoint-port", str(port)),
            )
        )
        context.abort(grpc.StatusCode.NOT_FOUND, "Leader info available")

    def _before(self, name: str, context: grpc.ServicerContext) -> Fault | None:
        """Meet the faults that come before a write takes effect; return the others."""
        fault = self.faults.next_append()
        if fault is Fault.DROPPED:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        if fault is Fault.NOT_LEADER:
            self._name_leader(context)
        if fault is Fault.DELETED:
            self.log.delete(name, State.ANY)
        return fault


def _recorded(record: Record) -> _Resp.ReadEvent.RecordedEvent:
    event = record.event
    return _Resp.ReadEvent.RecordedEvent(
        id=shared_pb2.UUID(string=event.id),
        stream_identifier=shared_pb2.StreamIdentifier(stream_name=record.stream.encode()),
        stream_revision=record.revision,
        prepare_position=record.position,
        commit_position=record.position,
        metadata={
            "type": event.type,
            "content-type": event.content_type,
            "created": str(record.created),
        },
        custom_metadata=event.metadata,
        data=event.data,
    )


def _failed(code: int, details: Message, said: str = "") -> streams_pb2.BatchAppendResp:
    packed = details
    if not isinstance(packed, any_pb2.Any):
        packed = any_pb2.Any()
        packed.Pack(details)
    message = said or packed.TypeName().rpartition(".")[2]
    error = status_pb2.Status(code=code, message=message, details=packed)  # type: ignore[arg-type]
    return streams_pb2.BatchAppendResp(error=error)


def _wrong(error: WrongExpectedError, expected: Expected) -> shared_pb2.WrongExpectedVersion:
    wrong = shared_pb2.WrongExpectedVersion()
    if error.current is None:
        wrong.current_no_stream.CopyFrom(empty_pb2.Empty())
    else:
        wrong.current_stream_revision = error.current
    if isinstance(expected, int):
        wrong.expected_stream_position = expected
    else:
        getattr(wrong, f"expected_{expected.value}").CopyFrom(empty_pb2.Empty())
    return wrong
