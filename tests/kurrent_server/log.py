"""The log: what a KurrentDB holds, and the rules by which it takes and shows events.

Pure but for its lock and the clock it is given. Positions grow by the size of what is
written, as those of a real log do; an event's commit position is its prepare position.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

END = 2**63 - 1  # the `$tb` of a soft-deleted stream; the revision of a tombstone


class State(Enum):
    """What a writer may expect of a stream but a revision."""

    ANY = "any"
    NO_STREAM = "no_stream"
    EXISTS = "stream_exists"


Expected = int | State


class Proposal(NamedTuple):
    """An event a client wants to append."""

    id: str
    type: str
    data: bytes
    metadata: bytes = b""
    content_type: str = "application/json"

    @property
    def size(self) -> int:
        return len(self.data) + len(self.metadata) + len(self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event in the log. `created` is in 100 ns since 1970."""

    position: int
    stream: str
    revision: int
    created: int
    event: Proposal


class WrongExpectedError(Exception):
    """The stream is not where the writer expected it; `current` is None where there is none."""

    def __init__(self, current: int | None) -> None:
        super().__init__(f"Actual version: {-1 if current is None else current}")
        self.current = current


class DeletedError(Exception):
    """The stream is tombstoned (or soft-deleted, where the writer wants it to exist)."""


class TooLargeError(Exception):
    """An append is larger than the server takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(str(limit))
        self.limit = limit


@dataclass(slots=True)
class _Stream:
    records: list[Record] = field(default_factory=list)
    tombstoned: bool = False

    @property
    def last(self) -> int:
        return self.records[-1].revision if self.records else -1


class Log:
    """All streams of one database, in the order of their commits."""

    def __init__(self, *, clock: Callable[[], int], max_append: int) -> None:
        self.max_append = max_append
        self.max_event = END  # as older servers: none but that of an append
        self.records: list[Record] = []
        self.grown = threading.Condition()
        self._clock = clock
        self._streams: dict[str, _Stream] = {}
        self._end = 512  # a real log begins with an epoch record

    # --- writing

    def append(
        self, stream: str, expected: Expected, proposals: Sequence[Proposal]
    ) -> tuple[int, int]:
        """Append all or none; returns the last one's revision and position.

        A repetition of what the stream holds already at these revisions is answered as the
        first time; one that only overlaps it is refused.
        """
        if sum([p.size for p in proposals]) > self.max_append:
            raise TooLargeError(self.max_append)
        with self.grown:
            held = self._streams.get(stream) or self._streams.setdefault(stream, _Stream())
            try:
                if held.tombstoned:
                    raise DeletedError
                repeated = self._check(stream, held, expected, proposals)
                if repeated is not None:
                    return repeated.revision, repeated.position
                if held.records and self._soft_deleted(stream):
                    self._undelete(stream, held.last + 1)
                for proposal in proposals:
                    self._write(stream, held, held.last + 1, proposal)
                last = held.records[-1]
                return last.revision, last.position
            finally:
                self.grown.notify_all()
                if not held.records:
                    self._streams.pop(stream, None)

    def delete(self, stream: str, expected: Expected) -> int:
        """Soft-delete: truncate before the end of time; the numbering goes on."""
        with self.grown:
            held = self._streams.get(stream)
            if held is not None and held.tombstoned:
                raise DeletedError
            if held is None or not held.records:
                raise WrongExpectedError(None)
            if self._soft_deleted(stream):
                raise DeletedError if expected is State.EXISTS else WrongExpectedError(held.last)
            if isinstance(expected, int) and expected != held.last:
                raise WrongExpectedError(held.last)
            self._set_metadata(stream, {**self.metadata(stream), "$tb": END})
            self.grown.notify_all()
            return self.records[-1].position

    def tombstone(self, stream: str, expected: Expected) -> int:
        """Delete for good: the name can never be used again."""
        with self.grown:
            held = self._streams.setdefault(stream, _Stream())
            if held.tombstoned:
                raise DeletedError
            if isinstance(expected, int) and expected != held.last:
                raise WrongExpectedError(held.last if held.records else None)
            gone = Proposal(id=str(uuid.uuid4()), type="$streamDeleted", data=b"")
            record = self._write(stream, held, END, gone)
            held.tombstoned = True
            self.grown.notify_all()
            return record.position

    def scavenge(self) -> None:
        """Drop from the log what no reader of a stream can see any more."""
        with self.grown:
            kept = {id(r) for name in self._streams for r in self.visible(name, tombstones=True)}
            self.records = [r for r in self.records if id(r) in kept]

    # --- reading

    def visible(self, stream: str, *, tombstones: bool = False) -> list[Record]:
        """What a reader of the stream sees; raises `DeletedError` for a tombstoned one."""
        held = self._streams.get(stream)
        if held is None:
            return []
        if held.tombstoned:
            if tombstones:
                return held.records[-1:]
            raise DeletedError
        rules = self.metadata(stream)
        first = max(rules.get("$tb", 0), held.last + 1 - rules.get("$maxCount", END))
        oldest = self._clock() - rules.get("$maxAge", 10**11) * 10_000_000
        return [r for r in held.records if r.revision >= first and r.created >= oldest]

    def shows(self, stream: str) -> bool:
        """Whether a reader finds the stream at all; raises as `visible` does."""
        held = self._streams.get(stream)
        if held is not None and held.tombstoned:
            raise DeletedError
        return held is not None and bool(held.records) and not self._soft_deleted(stream)

    def forwards(self, position: int) -> Iterator[Record]:
        """Every record at or after a position, as the log is now."""
        with self.grown:
            records = self.records[self._index(position) :]
        yield from records

    def backwards(self, position: int) -> Iterator[Record]:
        """Every record before a position, the latest first."""
        with self.grown:
            records = self.records[: self._index(position)]
        yield from reversed(records)

    def metadata(self, stream: str) -> dict[str, Any]:
        """The stream's metadata, from the last event of `$$stream`."""
        held = self._streams.get(f"$${stream}")
        if held is None or not held.records:
            return {}
        loaded: dict[str, Any] = json.loads(held.records[-1].event.data or b"{}")
        return loaded

    # --- below

    def _check(
        self, stream: str, held: _Stream, expected: Expected, proposals: Sequence[Proposal]
    ) -> Record | None:
        """None: to be written; a record: the last of what is there already."""
        deleted = bool(held.records) and self._soft_deleted(stream)
        if expected is State.EXISTS and deleted:
            raise DeletedError
        if expected is State.EXISTS and not held.records:
            raise WrongExpectedError(None)
        if expected in (State.ANY, State.EXISTS):
            ids = {r.event.id: r for r in held.records}
            first = ids.get(proposals[0].id) if proposals else None
            return None if first is None else self._repeated(held, first.revision, proposals)
        after = -1 if expected is State.NO_STREAM else expected
        assert isinstance(after, int)
        if after == held.last or (deleted and expected is State.NO_STREAM):
            return None
        if after > held.last:
            raise WrongExpectedError(held.last if held.records else None)
        return self._repeated(held, after + 1, proposals)

    def _repeated(self, held: _Stream, first: int, proposals: Sequence[Proposal]) -> Record:
        there = held.records[first : first + len(proposals)]
        same = len(there) == len(proposals) and all(
            record.event.id == proposal.id
            for record, proposal in zip(there, proposals, strict=True)
        )
        if not same or not there:
            raise WrongExpectedError(held.last)
        return there[-1]

    def _write(self, stream: str, held: _Stream, revision: int, event: Proposal) -> Record:
        self._end += event.size + 96
        record = Record(
            position=self._end,
            stream=stream,
            revision=revision,
            created=self._clock(),
            event=event,
        )
        held.records.append(record)
        self.records.append(record)
        return record

    def _set_metadata(self, stream: str, rules: dict[str, Any]) -> None:
        name = f"$${stream}"
        event = Proposal(id=str(uuid.uuid4()), type="$metadata", data=json.dumps(rules).encode())
        held = self._streams.setdefault(name, _Stream())
        self._write(name, held, held.last + 1, event)

    def _soft_deleted(self, stream: str) -> bool:
        return bool(self.metadata(stream).get("$tb") == END)

    def _undelete(self, stream: str, first: int) -> None:
        self._set_metadata(stream, {**self.metadata(stream), "$tb": first})

    def _index(self, position: int) -> int:
        low, high = 0, len(self.records)
        while low < high:
            middle = (low + high) // 2
            if self.records[middle].position < position:
                low = middle + 1
            else:
                high = middle
        return low
