"""Stands between eventmig and a PostgreSQL server, and cuts connections at their COMMITs.

    with Proxy(url) as proxy:
        job(proxy.near(url))                 # through it; `proxy.commits` counts its COMMITs
        proxy.cut(3, Cut.AFTER)              # from now on: at the third COMMIT
        job(proxy.near(url))

It listens on 127.0.0.1 alone, and reads as much of the protocol (postgresql.org/docs, message
formats) as tells one message from the next: what it cuts at is a COMMIT, wherever its bytes lie
in what a socket delivers, and what it waits for is the server's answer to that very COMMIT.

One thread passes everything on. A server's URL may name a socket's folder or a host.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from typing import Final

from sqlalchemy import make_url

_PORT: Final = 5432
_SIZE: Final = struct.Struct("!I")
_AT_ONCE: Final = 1 << 16
_HEAD: Final = 5
_COMMIT: Final = b"Q\0\0\0\x0bCOMMIT\0"
_BEGIN: Final = b"BEGIN"
_READ_ONLY: Final = b"READ ONLY"


class Cut(StrEnum):
    """When a connection is cut: before its COMMIT reaches the server; after the server
    committed, before its answer reaches the client; or while the COMMIT is still under way, and
    reaches the server when the client has long gone (`deliver`)."""

    BEFORE = "before"
    AFTER = "after"
    LATE = "late"


class Proxy:
    """A proxy before the server of a URL, for the length of a `with` block."""

    def __init__(self, server_url: str) -> None:
        self._server = _address(server_url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._pairs: set[_Pair] = set()
        self._late: list[socket.socket] = []
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._lock = threading.Lock()
        self._at, self._when, self._down = 0, Cut.BEFORE, False
        self.commits = 0
        self.cuts = 0

    def near(self, url: str) -> str:
        """The URL of a database of this server, by way of the proxy."""
        here = make_url(url).difference_update_query(["host", "port"])
        here = here.set(host="127.0.0.1", port=self._listening.getsockname()[1])
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        return here.update_query_dict(plain).render_as_string(hide_password=False)

    def cut(self, at: int, when: Cut, *, down: bool = False) -> None:
        """Count COMMITs from 1 again, over all connections, and cut at this one (0: at none).

        Those of transactions that only read do not count.

        With `down` every other connection is cut with it, and no new one comes through
        until the next call.
        """
        with self._lock:
            self._at, self._when, self._down = at, when, down
            self.commits = self.cuts = 0

    def deliver(self) -> None:
        """Let the COMMITs that are under way arrive; returns when they are carried out."""
        with self._lock:
            for server in self._late:
                server.sendall(_COMMIT)
                answers = _Messages()
                while not any(kind == b"Z" for kind, _ in answers.messages(server.recv(_AT_ONCE))):
                    pass
                server.close()
            self._late.clear()

    def cut_all(self) -> None:
        """Cut every connection there is, now; new ones come through."""
        with self._lock:
            for pair in list(self._pairs):
                self._close(pair)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._wake.close()
        self._thread.join()
        for pair in list(self._pairs):
            self._close(pair)
        self._selector.close()
        for one in (self._listening, self._woken, *self._late):
            one.close()

    # the thread -----------------------------------------------------------------------------

    def _pass_on(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                with self._lock:
                    if key.fileobj is self._listening:
                        self._accept()
                    elif key.data in self._pairs:
                        self._moved(key.data, key.fileobj is key.data.client)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        if self._down and self.cuts:
            client.close()
            return
        family, address = self._server
        server = socket.socket(family)
        try:
            server.connect(address)
        except OSError:  # the server is not there: the client is to see that
            client.close()
            server.close()
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        for one in (client, server):
            self._selector.register(one, selectors.EVENT_READ, pair)

    def _moved(self, pair: _Pair, by_client: bool) -> None:
        came = b""
        with suppress(ConnectionError):
            came = (pair.client if by_client else pair.server).recv(_AT_ONCE)
        if not came:
            self._close(pair)
        elif by_client:
            self._from_client(pair, came)
        elif pair.awaits_answer:
            if any(kind == b"Z" for kind, _ in pair.answers.messages(came)):
                self._close(pair)
        else:
            with suppress(ConnectionError):
                pair.client.sendall(came)

    def _from_client(self, pair: _Pair, came: bytes) -> None:
        for _, message in pair.asked.messages(came):
            if message == _COMMIT:
                self.commits += not pair.reads_only
                if not pair.reads_only and self.commits == self._at:
                    self._cut(pair)
                    return
            elif message.startswith(_BEGIN, _HEAD):
                pair.reads_only = _READ_ONLY in message
            with suppress(ConnectionError):
                pair.server.sendall(message)

    def _cut(self, pair: _Pair) -> None:
        self.cuts += 1
        if self._down:
            for other in self._pairs - {pair}:
                self._close(other)
        if self._when is Cut.BEFORE:
            self._close(pair)
        elif self._when is Cut.LATE:
            self._late.append(pair.server.dup())
            self._close(pair)
        else:  # the client is cut off once the server has answered
            pair.awaits_answer = True
            pair.server.sendall(_COMMIT)

    def _close(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for one in (pair.client, pair.server):
            self._selector.unregister(one)
            one.close()


class _Pair:
    """A client's connection and the one to the server that was made for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.asked = _Messages(opening=True)
        self.answers = _Messages()
        self.awaits_answer = self.reads_only = False


class _Messages:
    """Cuts what arrives into whole messages, whatever the network made of them.

    A client's first message has no kind.
    """

    def __init__(self, *, opening: bool = False) -> None:
        self._opening = opening
        self._left = b""

    def messages(self, came: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Kind and bytes (kind and length included) of every message that is complete now."""
        self._left += came
        while True:
            kind = 0 if self._opening else 1
            if len(self._left) < kind + _SIZE.size:
                return
            size = kind + _SIZE.unpack_from(self._left, kind)[0]
            if len(self._left) < size:
                return
            message, self._left = self._left[:size], self._left[size:]
            self._opening = False
            yield message[:kind], message


def _address(url: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    parsed = make_url(url)
    host = str(parsed.query.get("host") or parsed.host or "localhost")
    port = parsed.port or _PORT
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host}/.s.PGSQL.{port}"
    return socket.AF_INET, (host, port)
