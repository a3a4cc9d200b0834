"""The client's library behind one seam: its messages, its connection, its errors.

`esdbclient` and its successor `kurrentdbclient` carry the same messages and connect the
same way; whichever is installed is used. What eventmig takes from them is the
connection (discovery of the leader, TLS, credentials) and the stub of the service
`Streams`: the clients' own methods wait for each append, make a costly value of each
event read, and retry in silence.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else its core prints each lost connection

import grpc

from eventmig.errors import ConfigError, StoreError, StoreUnavailableError, Where
from eventmig.stores.kurrent.exchange import Exchange, begun
from eventmig.stores.kurrent.gather import Gather
from eventmig.stores.kurrent.url import OPTIONS, Location

Message: TypeAlias = Any
"""A protobuf message; the generated classes have no types that both clients share."""

PATIENCE: Final = 60.0
"""Seconds without any progress after which a server that does not answer is given up."""

_TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
    }
)
_NO_LEADER: Final = "No leader info available"
"""What a server says, as an unknown error, while its cluster elects a leader."""
_CLOSED_HERE: Final = "Channel closed!"
"""What grpc says of a call whose channel was closed on this side."""
_LIBRARIES: Final = (
    ("kurrentdbclient", "KurrentDBClient", "KurrentDBClientError", "kurrentdbclient.protos.v1"),
    ("esdbclient", "EventStoreDBClient", "EventStoreDBClientException", "esdbclient.protos.Grpc"),
)


class _Library(NamedTuple):
    name: str
    client: type
    error: type[Exception]
    streams: ModuleType
    shared: ModuleType


def _library() -> _Library:
    for package, client, error, protos in _LIBRARIES:
        try:
            found = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        exceptions = importlib.import_module(f"{package}.exceptions")
        streams, shared = (
            importlib.import_module(f"{protos}.{name}_pb2") for name in ("streams", "shared")
        )
        return _Library(
            package, getattr(found, client), getattr(exceptions, error), streams, shared
        )
    raise ConfigError(
        "no client for KurrentDB is installed",
        remedy="pip install 'eventmig[kurrent]' (or kurrentdbclient)",
    )


_LIBRARY: Final = _library()
streams_pb2: Final = _LIBRARY.streams
shared_pb2: Final = _LIBRARY.shared
Options: Final = streams_pb2.ReadReq.Options
BatchAppendResp: Final = streams_pb2.BatchAppendResp
_AS_THEY_COME: Final = 64  # answers of a read, before it lets the next ones gather
_BATCH_APPEND: Final = "/event_store.client.streams.Streams/BatchAppend"


class Connection:
    """A connection to the servers of one location, made anew when it breaks."""

    def __init__(self, location: Location, *, patience: float = PATIENCE) -> None:
        self.location = location
        self.patience = patience
        self._guard = threading.Lock()
        try:
            self._client: Any = _with_fast_reads(_LIBRARY.client)(_uri(location))
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"the client cannot use this URL: {_without_secrets(str(error), location)}",
                where=Where(store=location.url),
                remedy="write it as the client takes it: esdb://user:password@host:2113, with "
                "?Tls=false for a server without certificates; eventmig adds the options "
                f"{', '.join(OPTIONS)}",
            ) from None
        except _LIBRARY.error as error:
            raise unreachable(location, str(error)) from error

    # --- calls

    def read(self, options: Message) -> Generator[Message, None, None]:
        """The answers to one read; ends the call when it is closed. Raises `grpc.RpcError`."""
        request = streams_pb2.ReadReq(options=options)
        call = self._begun(lambda stub: stub.Read(request, **self._call(write=False)))
        gather = Gather(_AS_THEY_COME)
        try:
            while True:
                gather.rest()
                answer = next(call, None)
                gather.took()
                if answer is None:
                    return
                yield answer
        finally:
            call.cancel()

    def subscribe(self, options: Message, *, timeout: float) -> Any:
        """The call of one subscription, for at most `timeout` seconds: its answers, as they come.

        Cancel it. Iterating raises `grpc.RpcError`.
        """
        request = streams_pb2.ReadReq(options=options)
        how = {"timeout": timeout, **self._call(write=False)}
        return self._begun(lambda stub: stub.Read(request, **how))

    def batch_append(self, *, timeout: float) -> Exchange:
        """A call for append requests and their answers, for at most `timeout` seconds; close it."""
        how = {"timeout": timeout, **self._call(write=True)}
        try:
            return begun(self._client._connection._grpc_channel, _BATCH_APPEND, **how)
        except ValueError:  # as in `_begun`
            return begun(self._client._connection._grpc_channel, _BATCH_APPEND, **how)

    def reconnect(self, error: grpc.RpcError) -> None:
        """Connect anew: to the leader that the error names, or to what can be found.

        Not where another thread has done so, and the call ended for that.
        """
        if details(error) == _CLOSED_HERE:
            return
        with self._guard:
            try:
                self._client.reconnect(_leader(error))
            except _LIBRARY.error as second:
                raise unreachable(self.location, str(second)) from second

    def close(self) -> None:
        """Close the connection; harmless twice."""
        self._client.close()

    # --- below

    def _begun(self, call: Callable[[Any], Any]) -> Any:
        """Begin a call, over the new channel where another thread closed the old one just then."""
        try:
            return call(self._stub())
        except ValueError:  # what grpc raises on a closed channel
            return call(self._stub())

    def _stub(self) -> Any:
        return self._client.streams._stub

    def _call(self, *, write: bool) -> dict[str, Any]:
        metadata = self._client.streams._metadata(
            self._client._call_metadata, requires_leader=write
        )
        return {"metadata": metadata, "credentials": self._client._call_credentials}


class Patience:
    """Decides after an error whether to try again: yes, while something moves on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._since = time.monotonic()
        self._pause = 0.05

    def progress(self) -> None:
        """Something came: the waiting begins anew."""
        self._since, self._pause = time.monotonic(), 0.05

    def pause(self, said: str) -> None:
        """Wait a little, longer each time; raises `StoreUnavailableError` when it was too long."""
        if time.monotonic() - self._since > self._connection.patience:
            raise unreachable(self._connection.location, said)
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, 2.0)

    def wait(self, error: grpc.RpcError) -> None:
        """Wait a little and connect anew; raises what the error means where that is useless."""
        if not transient(error) and _leader(error) is None:
            raise meaning(error, self._connection.location) from error
        self.pause(details(error))
        with contextlib.suppress(StoreUnavailableError):  # not yet: the next call will tell
            self._connection.reconnect(error)


def transient(error: grpc.RpcError) -> bool:
    """Whether the same call may succeed a little later."""
    return error.code() in _TRANSIENT or _NO_LEADER in details(error)


def is_gone(error: grpc.RpcError) -> bool:
    """Whether the stream that was asked for is tombstoned."""
    return "is deleted" in details(error)


def details(error: grpc.RpcError) -> str:
    """What the server (or the library) said."""
    return str(error.details() or error.code().name)


def meaning(error: grpc.RpcError, location: Location) -> StoreError:
    """A gRPC error as one of the store's."""
    where, said = Where(store=location.url), details(error)
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return StoreError(
                "the server does not accept this user name and password",
                where=where,
                remedy="correct them in the URL; the clients take them as they stand there, so a "
                "password can hold no @, : / ? # or %",
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            return StoreError(
                "the server does not let this user read $all, or read or write one of the streams",
                where=where,
                remedy="name a user in $admins, or give this one the right: for $all with the "
                "$acl of $settings ($userStreamAcl, $systemStreamAcl)",
            )
        case code if code in _TRANSIENT:
            return unreachable(location, said)
    return StoreError(f"the server refused a call: {said}", where=where)


def unreachable(location: Location, said: str) -> StoreUnavailableError:
    """No server answers."""
    return StoreUnavailableError(
        f"the server cannot be reached ({_without_secrets(said, location)})",
        where=Where(store=location.url),
        remedy="check that it runs and that host, port and Tls are right; then the same command "
        "goes on where it stopped",
    )


def _with_fast_reads(client: Any) -> Any:
    """The client, with channels whose reads need no second thread.

    Measured: 12 µs an event instead of 26 (an experimental option of grpc, which one that
    does not know it ignores).
    """

    class Client(client):  # type: ignore[misc]
        def _construct_grpc_channel(self, grpc_target: str, grpc_options: Any = ()) -> Any:
            options = (*grpc_options, ("SingleThreadedUnaryStream", 1))
            return super()._construct_grpc_channel(grpc_target, options)

    return Client


def _uri(location: Location) -> str:
    """The URL for the client; the older one knows only the older schemes."""
    scheme, rest = location.uri.split("://", 1)
    if _LIBRARY.name == "esdbclient":
        scheme = scheme.replace("kurrentdb", "esdb").replace("kdb", "esdb")
    return f"{scheme}://{rest}"


def _leader(error: grpc.RpcError) -> str | None:
    trailing = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    found = {str(key): value for key, value in trailing or ()}
    host, port = found.get("leader-endpoint-host"), found.get("leader-endpoint-port")
    return f"{host}:{port}" if host and port else None


def _without_secrets(text: str, location: Location) -> str:
    return text.replace(location.uri, location.url)
