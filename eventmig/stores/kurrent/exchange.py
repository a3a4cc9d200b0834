"""One gRPC call whose requests and answers the calling thread carries both.

grpc's own iterators take two threads beside the caller's, and hand each message from one
to the other: 60 µs for a request and its answer, whatever is in them. In `CoreExchange`
the caller begins to send, and takes what comes: 15 µs. It is the way grpc itself takes for
reads (`SingleThreadedUnaryStream`), with the same calls of its core, and requests that
follow each other at once share a write to the socket.

These calls are grpc's own business. Where its version, or a channel that something wrapped,
has them not, a call goes through its public ones (`PublicExchange`), slower and the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

import grpc

from eventmig.stores.kurrent.gather import Gather

try:
    from grpc._cython import cygrpc
except ImportError:
    cygrpc = None

_PARTS: Final = (
    "PropagationConstants",
    "SendInitialMetadataOperation",
    "ReceiveInitialMetadataOperation",
    "SendMessageOperation",
    "ReceiveMessageOperation",
    "ReceiveStatusOnClientOperation",
)
"""What is needed of grpc's core."""
_HELD_BACK: Final = 1
"""grpc's write flag: more follows at once, the message need not go out alone."""
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_SENT: Final = "sent"
_ANSWERED: Final = "answered"
_ENDED: Final = "ended"
_BEGUN: Final = "begun"


class CallError(grpc.RpcError):  # type: ignore[misc]
    """A call ended otherwise than well; it has what the errors of grpc's own calls have."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details
        self._trailing = trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


class CoreExchange:
    """A call under way, through grpc's core. Close it.

    `answers`: those that came, and were not asked for yet.
    """

    def __init__(
        self, core: Any, method: str, *, metadata: Any, credentials: Any, timeout: float
    ) -> None:
        """Begin it; it lasts `timeout` seconds at most.

        Raises `ValueError` where the channel is closed, as grpc's own calls do.
        """
        self.answers: deque[bytes] = deque()
        self._due = {_BEGUN, _ENDED, _ANSWERED}
        self._gather = Gather()
        self._call = core.segregated_call(
            cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
            method.encode(),
            None,
            time.time() + timeout,
            metadata,
            None if credentials is None else credentials._credentials,
            (
                (
                    (
                        cygrpc.SendInitialMetadataOperation(metadata, 0),
                        cygrpc.ReceiveInitialMetadataOperation(0),
                    ),
                    _BEGUN,
                ),
                ((cygrpc.ReceiveStatusOnClientOperation(0),), _ENDED),
                ((cygrpc.ReceiveMessageOperation(0),), _ANSWERED),
            ),
            None,
        )

    def send(self, request: bytes, *, more: bool) -> None:
        """Send a request; `more`: another one follows, whatever the answers say.

        Nothing where the server ended the call, and well; raises `grpc.RpcError` where it ended
        otherwise.
        """
        if _ENDED not in self._due:
            return
        self._due.add(_SENT)
        flags = _HELD_BACK if more else 0
        self._call.operate((cygrpc.SendMessageOperation(request, flags),), _SENT)
        while _SENT in self._due:
            self._take()

    def next(self, *, many: bool) -> bytes | None:
        """Wait for an answer; None where the server ended the call, and well.

        `many` answers are to come: they may gather. Raises `grpc.RpcError` where it ended
        otherwise than well.
        """
        while not self.answers and _ENDED in self._due:
            if many:
                self._gather.rest()
            self._take()
            if many:
                self._gather.took()
        return self.answers.popleft() if self.answers else None

    def close(self) -> None:
        """End the call, and wait until nothing of it is left; harmless twice."""
        if _ENDED in self._due:
            self._call.cancel(grpc.StatusCode.CANCELLED.value[0], "closed here")
        while self._due:
            self._due.discard(self._call.next_event().tag)

    def _take(self) -> None:
        """Wait for what comes next."""
        event = self._call.next_event()
        self._due.discard(event.tag)
        if event.tag is _ANSWERED:
            answer: bytes | None = event.batch_operations[0].message()
            if answer is not None:
                self._due.add(_ANSWERED)
                self._call.operate((cygrpc.ReceiveMessageOperation(0),), _ANSWERED)
                self.answers.append(answer)
        elif event.tag is _ENDED:
            status = event.batch_operations[0]
            code = _CODES.get(status.code(), grpc.StatusCode.UNKNOWN)
            if code is not grpc.StatusCode.OK:
                raise CallError(code, status.details() or "", status.trailing_metadata())


class PublicExchange:
    """The same through grpc's public calls, with their threads."""

    def __init__(
        self, channel: grpc.Channel, method: str, *, metadata: Any, credentials: Any, timeout: float
    ) -> None:
        self.answers: deque[bytes] = deque()
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        begin = channel.stream_stream(method)
        self._call = begin(
            self._to_send(), timeout=timeout, metadata=metadata, credentials=credentials
        )

    def send(self, request: bytes, *, more: bool) -> None:
        self._requests.put(request)

    def next(self, *, many: bool) -> bytes | None:
        answer: bytes | None = next(self._call, None)
        return answer

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()

    def _to_send(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            yield request


Exchange: TypeAlias = CoreExchange | PublicExchange


def begun(
    channel: grpc.Channel, method: str, *, metadata: Any, credentials: Any, timeout: float
) -> Exchange:
    """Begin a call of many requests and answers; it lasts `timeout` seconds at most. Close it.

    Raises `ValueError` where the channel is closed.
    """
    how = {"metadata": metadata, "credentials": credentials, "timeout": timeout}
    core = _core(channel)
    if core is not None:
        try:
            return CoreExchange(core, method, **how)
        except (AttributeError, TypeError):
            pass  # this version's calls want something else; nothing was sent yet
    return PublicExchange(channel, method, **how)


def _core(channel: grpc.Channel) -> Any:
    """What carries a channel's calls in grpc's core, or None where that is out of reach."""
    if not all(hasattr(cygrpc, part) for part in _PARTS):
        return None
    core = getattr(channel, "_channel", None)
    return core if hasattr(core, "segregated_call") else None
