"""Append requests under way on one call: what was sent and answered, what may follow. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from eventmig.errors import ConflictError, Where
from eventmig.stores.kurrent import wire
from eventmig.stores.kurrent.client import Message

_UNDER_WAY: Final = 512  # requests, and
_BYTES_UNDER_WAY: Final = 16 * 1024 * 1024
_MANY: Final = 64  # answers that are to come


class Item(NamedTuple):
    """One event to append: `stream` as KurrentDB calls it, and the revision it must get.

    `message` is what `wire.proposed` makes of it, `size` what it weighs by itself, in bytes.
    """

    stream: str
    revision: int
    id: str
    message: bytes
    size: int


class Request(NamedTuple):
    """A run of events of one stream, and what they weigh together, in bytes."""

    items: Sequence[Item]
    size: int


class UnderWay:
    """Requests under way on one call; those that may follow are made when there is room.

    `requests`: those that were made so far. `positions`: the commit positions of those that
    are done. `unplaced`: one was there before, and the server did not say where.
    """

    def __init__(self, requests: Iterator[Request]) -> None:
        self.requests: list[Request] = []
        self.positions: dict[int, int] = {}
        self.unplaced = False
        self._to_come = requests
        self._begun = self._bytes_begun = 0
        self._ended = self._bytes_ended = 0
        self._stopped = self._full = self._promised = False

    def next(self) -> bytes | None:
        """The next request, if there is one and room for it, or `more` promised it."""
        if not (self._promised or self._may_go_on()):
            return None
        number, request = self._begun, self.requests[self._begun]
        self._begun += 1
        self._bytes_begun += request.size
        first = request.items[0]
        events = [item.message for item in request.items]
        return wire.request(number, first.stream, first.revision, events)

    def more(self) -> bool:
        """Promise another request at once, or not: those that share a write to the socket.

        The promise holds though a refusal comes in between: what was held back must go out.
        """
        self._promised = self._may_go_on()
        return self._promised

    def _may_go_on(self) -> bool:
        """Whether a request may be sent now.

        Once as many are under way as may be, half of them must be answered first: so the
        next ones go out together.
        """
        if self._stopped or not self._another():
            return False
        under_way = self._begun - self._ended
        size = self._bytes_begun - self._bytes_ended
        most = 0.5 if self._full else 1.0
        self._full = under_way > 0 and (
            under_way >= most * _UNDER_WAY or size >= most * _BYTES_UNDER_WAY
        )
        return not self._full

    def succeeded(self, number: int, success: Message) -> None:
        """Take a request for done; raises `ConflictError` where the server numbered otherwise."""
        last = self.requests[number].items[-1]
        if success.current_revision != last.revision:
            raise ConflictError(
                f"the stream {last.stream!r} was deleted, and goes on counting where it ended "
                f"({success.current_revision}, not {last.revision})",
                where=Where(stream=last.stream, stream_position=success.current_revision),
                remedy="name the new streams differently (prefix=… in the URL, or --naming)",
            )
        if success.HasField("position"):
            self.positions[number] = success.position.commit_position
        else:
            self.unplaced = True
        self._end(number)

    def refused(self, number: int) -> None:
        """Take a request for answered, and send nothing more but what was promised."""
        self._end(number)
        self._stopped = True

    def answered(self) -> bool:
        """Whether no answer is to come."""
        return self._ended == self._begun and (self._stopped or not self._another())

    def many(self) -> bool:
        """Whether so many answers are to come that nothing waits for the next one."""
        return self._begun - self._ended >= _MANY

    def begun(self) -> Sequence[Request]:
        """The requests that were sent, or may have been."""
        return self.requests[: self._begun]

    def _another(self) -> bool:
        """Whether there is a request to send; makes it where it was not made yet."""
        if self._begun == len(self.requests):
            self.requests.extend(islice(self._to_come, 1))
        return self._begun < len(self.requests)

    def _end(self, number: int) -> None:
        self._ended += 1
        self._bytes_ended += self.requests[number].size
