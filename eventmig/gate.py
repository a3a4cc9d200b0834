"""The gate: an application asks whether it may serve writers now; WSGI and ASGI answer 503.

For applications that must not even try while a crossing keeps writers out. It asks the
job's state in the ledger, and keeps the answer for a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from eventmig.live import look_up
from eventmig.migrate.crossing import CROSSINGS
from eventmig.stores.open import open_store

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
WsgiApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Requests that the middleware lets through in any case."""

_CROSSING = frozenset(crossing.during for crossing in CROSSINGS)
_BODY = b"writers are kept out for a moment; try again\n"


class Gate:
    """Tells whether writers are kept out by a crossing of the job with this target.

    `kept_s` is how long an answer is kept, `retry_after_s` what clients are told, both in
    seconds. Several threads may ask one gate.
    """

    def __init__(self, target: str, *, kept_s: float = 0.1, retry_after_s: int = 1) -> None:
        self._target = target
        self._kept_s = kept_s
        self._asked_at = float("-inf")
        self._closed = False
        self._guard = threading.Lock()
        self.retry_after_s = retry_after_s

    def closed(self) -> bool:
        """Whether writers are kept out now. Reads only."""
        with self._guard:
            if time.monotonic() - self._asked_at > self._kept_s:
                store = open_store(self._target)
                try:
                    self._closed = look_up(store).state in _CROSSING
                finally:
                    store.close()
                self._asked_at = time.monotonic()
            return self._closed

    def wsgi(self, app: WsgiApp) -> WsgiApp:
        """An application that answers 503 with Retry-After to writers while they are kept out."""

        def gated(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] in READING or not self.closed():
                return app(environ, start_response)
            headers = [(name.decode(), value.decode()) for name, value in self._headers()]
            start_response("503 Service Unavailable", headers)
            return [_BODY]

        return gated

    def asgi(self, app: AsgiApp) -> AsgiApp:
        """The same for ASGI; what is no HTTP request passes."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            writes = scope["type"] == "http" and scope["method"] not in READING
            if not writes or not self.closed():
                await app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 503, "headers": self._headers()})
            await send({"type": "http.response.body", "body": _BODY})

        return gated

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(_BODY)).encode()),
            (b"retry-after", str(self.retry_after_s).encode()),
        ]
