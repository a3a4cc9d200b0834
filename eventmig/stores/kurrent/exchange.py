"""One gRPC call whose requests and answers the calling thread carries both.

grpc's own iterators take two threads beside the caller's, and hand each message from one
to the other: 60 µs for a request and its answer, whatever is in them. Here the caller
begins to send, and takes what comes: 20 µs. It is the way grpc itself takes for reads
(`SingleThreadedUnaryStream`), with the same calls of its core.

Requests that follow each other at once share a write to the socket.
"""

from __future__ import annotations

import time
from typing import Any, Final

import grpc
from grpc._cython import cygrpc

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


class Exchange:
    """A call under way. Close it.

    `ready`: whether the next request may be sent. `ended`: the server ended the call, and well.
    """

    def __init__(
        self, channel: Any, method: str, *, metadata: Any, credentials: Any, timeout: float
    ) -> None:
        """Begin it; it lasts `timeout` seconds at most.

        Raises `ValueError` where the channel is closed, as grpc's own calls do.
        """
        self.ready = True
        self.ended = False
        self._due = {_BEGUN, _ENDED, _ANSWERED}
        self._call = channel._channel.segregated_call(
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
        """Begin to send a request; `more`: another one follows, whatever the answers say."""
        self.ready = False
        self._due.add(_SENT)
        flags = _HELD_BACK if more else 0
        self._call.operate((cygrpc.SendMessageOperation(request, flags),), _SENT)

    def next(self) -> bytes | None:
        """Wait for something: an answer; or None, and the call is `ready` again, or it ended.

        Raises `CallError` where it ended otherwise than well.
        """
        while True:
            event = self._call.next_event()
            self._due.discard(event.tag)
            if event.tag is _SENT:
                self.ready = event.success
                return None
            if event.tag is _ANSWERED:
                answer: bytes | None = event.batch_operations[0].message()
                if answer is not None:
                    self._due.add(_ANSWERED)
                    self._call.operate((cygrpc.ReceiveMessageOperation(0),), _ANSWERED)
                    return answer
            elif event.tag is _ENDED:
                self._end(event.batch_operations[0])
                return None

    def close(self) -> None:
        """End the call, and wait until nothing of it is left; harmless twice."""
        if _ENDED in self._due:
            self._call.cancel(grpc.StatusCode.CANCELLED.value[0], "closed here")
        while self._due:
            self._due.discard(self._call.next_event().tag)

    def _end(self, status: Any) -> None:
        code = _CODES.get(status.code(), grpc.StatusCode.UNKNOWN)
        if code is not grpc.StatusCode.OK:
            raise CallError(code, status.details() or "", status.trailing_metadata())
        self.ended = True
