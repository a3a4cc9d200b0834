"""A catch-up subscription: how far a location's log is, told by the server as it grows.

A thread takes the server's answers: events of the location's streams move the position,
checkpoints move the place from which a subscription that drops goes on, so that what the
filter leaves out is not searched again. Events are not handed over from here: who follows
reads them with the reader, up to the position, and so has them once.
"""

from __future__ import annotations

from threading import Condition, Thread
from typing import Final

import grpc

from eventmig.stores.kurrent.client import Connection, Message, Patience
from eventmig.stores.kurrent.log import is_system, name_of, subscription_to
from eventmig.stores.kurrent.url import Location

_CALL_SECONDS: Final = 120.0
"""A subscription is begun anew after it: a connection that swallows everything is found out."""


class KurrentSubscription:
    """A subscription after a global position (exclusive) (`Subscription`); close it.

    A connection that drops is made anew, as long as the connection's patience lasts.
    """

    def __init__(self, location: Location, connection: Connection, *, after: int) -> None:
        self._location = location
        self._connection = connection
        self._position = self._goes_on_after = after
        self._error: Exception | None = None
        self._closed = False
        self._call: grpc.Future | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="eventmig-subscription", daemon=True)
        self._thread.start()

    def position(self) -> int:
        """The last event's global position, as far as the server told.

        Raises `StoreUnavailableError` where the server stayed away, `StoreError` where it
        refuses.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            return self._position

    def wait(self, *, after: int, timeout_s: float) -> None:
        """Return once there is an event after a position, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._position > after or self._error is not None, timeout_s
            )

    def close(self) -> None:
        """End the subscription; harmless twice."""
        with self._changed:
            self._closed = True
            if self._call is not None:
                self._call.cancel()
        self._thread.join()

    # --- the thread

    def _run(self) -> None:
        patience = Patience(self._connection)
        try:
            while not self._closed:
                self._take_answers(patience)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _take_answers(self, patience: Patience) -> None:
        """Subscribe, and take what comes until it ends; raises where it cannot go on."""
        told = False
        try:
            for answer in self._subscribed():
                told = True
                patience.progress()
                self._take(answer)
        except grpc.RpcError as error:
            renewed = told and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if not self._closed and not renewed:
                patience.wait(error)
            return
        if not self._closed:
            patience.pause("it ended a subscription")

    def _subscribed(self) -> grpc.CallIterator[Message]:
        options = subscription_to(self._location, after=self._goes_on_after)
        call = self._connection.subscribe(options, timeout=_CALL_SECONDS)
        with self._changed:
            self._call = call
            if self._closed:
                call.cancel()
        return call

    def _take(self, answer: Message) -> None:
        kind = answer.WhichOneof("content")
        if kind == "checkpoint":
            at = answer.checkpoint.commit_position
            self._goes_on_after = max(self._goes_on_after, at)
        elif kind == "event":
            stored = answer.event.event
            at = stored.commit_position
            self._goes_on_after = max(self._goes_on_after, at)
            if self._location.holds(name_of(stored)) and not is_system(stored):
                with self._changed:
                    self._position = max(self._position, at)
                    self._changed.notify_all()
