"""Requests and answers of one call, without handing each from one thread to another.

grpc's own server gives a request from its serving thread to the handler's, and the answer
back: 100 µs for each in Python, which a real server does not have. Here the serving thread
answers, and begins to send the answer and to receive the next request in one go; the handler
waits for the end. It answers itself, in its own thread, what may take a while or abort the
call. It rests on private parts of grpc's server, of the version in constraints.txt.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

import grpc
from grpc import _server as grpc_server
from grpc._cython import cygrpc

_DUE: Final = "exchange"


class Exchange:
    """One call's requests, each answered before the next one is taken.

    `answer` makes of a request's bytes the answer's, or None where more of it is to come;
    `quick`: whether the serving thread may call it now.
    """

    def __init__(
        self,
        requests: Any,
        context: grpc.ServicerContext,
        answer: Callable[[bytes], bytes | None],
        quick: Callable[[], bool],
    ) -> None:
        self._call = requests._call
        self._state = context._state
        self._answer = answer
        self._quick = quick
        self._handed: SimpleQueue[bytes | Exception | None] = SimpleQueue()

    def run(self) -> None:
        """Answer until the client has no more, or is gone. Raises what `answer` raises."""
        self._go_on(None)
        while (request := self._handed.get()) is not None:
            if isinstance(request, Exception):
                raise request
            self._go_on(self._answer(request))

    def _go_on(self, answer: bytes | None) -> None:
        """Begin to send the answer, and to receive the next request."""
        state = self._state
        operations: list[Any] = []
        with state.condition:
            if not grpc_server._is_rpc_state_active(state):
                self._handed.put(None)
                return
            if answer is not None:
                if state.initial_metadata_allowed:
                    state.initial_metadata_allowed = False
                    operations.append(cygrpc.SendInitialMetadataOperation(None, 0))
                operations.append(cygrpc.SendMessageOperation(answer, 0))
            operations.append(cygrpc.ReceiveMessageOperation(0))
            self._call.start_server_batch(operations, self._received)
            state.due.add(_DUE)

    def _received(self, event: Any) -> Any:
        """In the serving thread: a request came, or (None) there is none to come."""
        request = event.batch_operations[-1].message()
        with self._state.condition:
            done = grpc_server._possibly_finish_call(self._state, _DUE)
        if request is None or not self._quick():
            self._handed.put(request)
            return done
        try:
            self._go_on(self._answer(request))
        except Exception as error:  # noqa: BLE001 - the handler raises it
            self._handed.put(error)
        return done
