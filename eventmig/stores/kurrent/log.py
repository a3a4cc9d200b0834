"""Reading what a KurrentDB's log holds, as it holds it: reads that break off go on.

The server's messages come out of here; what they mean to eventmig is in `read`.
Each generator ends its call when it is closed, and waits for a server that is away as
long as the connection's patience lasts. Raises the store's errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from typing import Final, TypeVar

import grpc

from eventmig.stores.kurrent.client import (
    Connection,
    Message,
    Options,
    Patience,
    is_gone,
    shared_pb2,
)
from eventmig.stores.kurrent.url import Location

T = TypeVar("T")

END: Final = 2**63 - 1
"""A position and a revision after all others."""
_EVERYTHING: Final = 2**62


class Log:
    """The log behind a connection. Several threads may share one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of_location(
        self,
        location: Location,
        *,
        after: int = 0,
        until: int = END,
        types: Collection[str] | None = None,
        backwards: bool = False,
    ) -> Generator[Message, None, None]:
        """The events of a location's streams: `after` exclusive, `until` inclusive.

        Without those whose types begin with `$`: links, metadata and tombstones. Of `types`
        the server may let through others that only begin like these. `backwards` begins at
        the end.
        """
        patience = Patience(self._connection)
        seen = (END, END) if backwards else (after, END)
        while True:
            options = _of_all(seen[0], backwards=backwards)
            _let_through(options, location, types)
            try:
                with closing(self._connection.read(options)) as answers:
                    for answer in answers:
                        if answer.WhichOneof("content") != "event":
                            continue
                        stored = answer.event.event
                        at = (stored.commit_position, stored.prepare_position)
                        if at >= seen if backwards else at <= seen:
                            continue
                        if at[0] > until:
                            return
                        patience.progress()
                        seen = at
                        if location.holds(name_of(stored)) and not is_system(stored):
                            yield stored
                return
            except grpc.RpcError as error:
                patience.wait(error)

    def of_types(self, *types: str, after: int) -> Generator[Message, None, None]:
        """Every event whose type begins like one of these, after a position (exclusive)."""
        patience = Patience(self._connection)
        while True:
            options = _of_all(after)
            options.filter.event_type.prefix.extend(types)
            _windowed(options)
            try:
                with closing(self._connection.read(options)) as answers:
                    for answer in answers:
                        if answer.WhichOneof("content") == "event":
                            stored = answer.event.event
                            if stored.commit_position > after:
                                after = stored.commit_position
                                yield stored
                return
            except grpc.RpcError as error:
                patience.wait(error)

    def of_stream(self, name: str, first: int = 0) -> Generator[Message, None, None]:
        """One stream's events from a revision on (inclusive), whatever they are.

        `name` is the one in KurrentDB. Nothing where it is not there, or deleted.
        """
        patience = Patience(self._connection)
        while True:
            options = _of_stream(name)
            options.stream.revision = first
            try:
                with closing(self._connection.read(options)) as answers:
                    for answer in answers:
                        if answer.WhichOneof("content") == "event":
                            first = answer.event.event.stream_revision + 1
                            patience.progress()
                            yield answer.event.event
                return
            except grpc.RpcError as error:
                if is_gone(error):
                    return
                patience.wait(error)

    def of_stream_backwards(self, name: str) -> Generator[Message, None, None]:
        """One stream's events, the last one first."""
        patience = Patience(self._connection)
        before = END
        while True:
            options = _of_stream(name, backwards=True)
            if before < END:
                options.stream.revision = before - 1
            try:
                with closing(self._connection.read(options)) as answers:
                    for answer in answers:
                        if answer.WhichOneof("content") == "event":
                            before = answer.event.event.stream_revision
                            patience.progress()
                            yield answer.event.event
                return
            except grpc.RpcError as error:
                if is_gone(error) or before == 0:
                    return
                patience.wait(error)

    def last_revision(self, name: str) -> int:
        """The last revision that a stream shows; -1 where it shows none."""
        options = _of_stream(name, backwards=True)
        return self._first(options, lambda stored: int(stored.stream_revision), -1)

    def head(self) -> int:
        """The position of the log's last event, whatever that is; 0 for an empty log."""
        options = _of_all(END, backwards=True)
        options.no_filter.SetInParent()
        return self._first(options, lambda stored: int(stored.commit_position), 0)

    def _first(self, options: Message, part: Callable[[Message], T], otherwise: T) -> T:
        """A part of the first event that a read answers; `otherwise` where there is none."""
        options.count = 1
        patience = Patience(self._connection)
        while True:
            try:
                with closing(self._connection.read(options)) as answers:
                    for answer in answers:
                        if answer.WhichOneof("content") == "event":
                            return part(answer.event.event)
                return otherwise
            except grpc.RpcError as error:
                if is_gone(error):
                    return otherwise
                patience.wait(error)


def subscription_to(location: Location, *, after: int) -> Message:
    """The request for a location's events after a position (exclusive), and all that come."""
    options = _of_all(after)
    options.subscription.SetInParent()
    _let_through(options, location, None)
    return options


def name_of(stored: Message) -> str:
    """The name of an event's stream in KurrentDB."""
    return str(stored.stream_identifier.stream_name.decode())


def is_system(stored: Message) -> bool:
    """Whether an event is the server's own: a link, metadata, a tombstone."""
    return bool(stored.metadata["type"].startswith("$"))


def created(stored: Message) -> int:
    """When the server wrote an event, in microseconds since 1970; the server counts 100 ns."""
    return int(stored.metadata["created"]) // 10


def _let_through(options: Message, location: Location, types: Collection[str] | None) -> None:
    """Filter on the server: by stream where the location names some, else by type."""
    if location.beginnings:
        options.filter.stream_identifier.prefix.extend(location.beginnings)
    elif types is not None:
        options.filter.event_type.prefix.extend(types)
    else:
        left_out = "|".join(map(re.escape, location.left_out))
        options.filter.stream_identifier.regex = f"^(?!{left_out})"
    _windowed(options)


def _windowed(options: Message) -> None:
    """Give a filter the window it must have, and which only a subscription uses."""
    options.filter.max = 32
    options.filter.checkpointIntervalMultiplier = 1


def _of_all(position: int, *, backwards: bool = False) -> Message:
    options = _options(backwards=backwards)
    if position in (0, END):
        getattr(options.all, "end" if backwards else "start").SetInParent()
    else:
        options.all.position.commit_position = position
        options.all.position.prepare_position = position
    return options


def _of_stream(name: str, *, backwards: bool = False) -> Message:
    options = _options(backwards=backwards)
    options.no_filter.SetInParent()
    options.stream.stream_identifier.stream_name = name.encode()
    getattr(options.stream, "end" if backwards else "start").SetInParent()
    return options


def _options(*, backwards: bool) -> Message:
    options = Options(count=_EVERYTHING)
    options.uuid_option.string.CopyFrom(shared_pb2.Empty())
    if backwards:
        options.read_direction = Options.Backwards
    return options
