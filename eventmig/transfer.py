"""Histories in: JSON Lines to a store (and, from `export`, a store to JSON Lines).

One record per line; `mapping` says what of it is which part of the event. An
import is one transaction: all of it or nothing. It streams: memory does not grow
with the file. It imports what `export_jsonl` writes by default.
"""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from eventmig.errors import (
    DataError,
    DuplicateIdError,
    ImportLineError,
    Where,
)
from eventmig.events import Event
from eventmig.export import export_jsonl
from eventmig.mapping import BadRecordError, Mapping, Parts, derived_id
from eventmig.stores.base import JobTarget, TargetTransaction

__all__ = ["ImportResult", "Mapping", "export_jsonl", "import_jsonl"]

_BATCH_LINES: Final = 5_000
_BATCH_BYTES: Final = 16 * 1024 * 1024
_BAD_LINES: Final = 20
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """How many events came in, into how many streams."""

    events: int
    streams: int


def import_jsonl(
    path: str,
    store: JobTarget,
    mapping: Mapping | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Append the events of a JSON Lines file (plain, `.gz`, or `-`: standard input).

    All or nothing, in one transaction; on a failure a store that was made for
    this import is taken away again. Streams continue where the store has them.
    `progress` is called with the number of events so far, after each batch.

    Raises `ImportLineError` naming up to 20 bad lines (1-based) and why,
    `DataError` for a file that cannot be read, and the store's errors.
    """
    run = _Import(path=path, store=store, mapping=mapping or Mapping(), progress=progress)
    try:
        return run.into_store()
    except BaseException:
        store.discard()
        raise


class _Import:
    """One import: its place in the file, its counts, the bad lines found so far."""

    def __init__(
        self,
        *,
        path: str,
        store: JobTarget,
        mapping: Mapping,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._path = path
        self._store = store
        self._mapping = mapping
        self._progress = progress
        self._now = time.time_ns() // 1_000
        self._bad: list[tuple[int, str]] = []
        self._store_was_empty = store.head_position() == 0
        self._before: dict[str, int] = {}  # heads of streams the store had before
        self._events = self._streams = 0

    def into_store(self) -> ImportResult:
        with self._store.begin() as transaction:
            transaction.defer_indexes()
            try:
                for batch in _batches(self._lines()):
                    self._append(transaction, batch)
                    if len(self._bad) >= _BAD_LINES:
                        break
                if self._bad:
                    raise self._refusal()
                transaction.build_indexes()
            except DuplicateIdError as error:
                raise self._duplicate(error) from error
        return ImportResult(events=self._events, streams=self._streams)

    def _append(self, transaction: TargetTransaction, lines: list[tuple[int, bytes]]) -> None:
        read: list[tuple[int, bytes, Parts]] = []
        for number, line in lines:
            try:
                read.append((number, line, self._mapping.parts(line)))
            except BadRecordError as error:
                self._bad.append((number, str(error)))
        if self._bad:  # only look for more bad lines: what follows a gap means nothing
            return
        streams = {parts.stream for _, _, parts in read}
        heads = transaction.heads(streams)
        if not self._store_was_empty:  # other connections see the store without this import
            self._before.update((head.stream, head.last) for head in self._store.heads(streams))
        events = [self._event(heads, *one) for one in read]
        if not self._bad:
            transaction.append_copied([event for event in events if event is not None])
            self._events += len(events)
            if self._progress is not None:
                self._progress(self._events)

    def _event(self, heads: dict[str, int], number: int, line: bytes, parts: Parts) -> Event | None:
        stream = parts.stream
        head = heads[stream]
        position = head + 1 if parts.stream_position is None else parts.stream_position
        if position != head + 1:
            self._bad.append((number, self._misplaced(stream, position, head)))
            heads[stream] = max(position, head)
            return None
        ordinal = position - self._before.get(stream, self._store.first_position - 1)
        self._streams += ordinal == 1
        heads[stream] = position
        return Event(
            0,
            stream,
            position,
            parts.id or derived_id(stream, ordinal, line),
            parts.type,
            parts.schema_version,
            parts.data,
            parts.metadata,
            self._now if parts.recorded_at is None else parts.recorded_at,
            parts.origins,
        )

    def _misplaced(self, stream: str, position: int, head: int) -> str:
        if position < self._store.first_position:
            first = self._store.first_position
            return (
                f"position {position} of the stream {stream!r} is below {first}, where this "
                "store begins (leave stream_position out to have the events numbered anew)"
            )
        if position <= head:
            return f"the stream {stream!r} has position {position} already (its last is {head})"
        return f"a hole in the stream {stream!r}: position {position} follows {head}"

    # --- the file

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Number (1-based) and bytes of every line that is not blank."""
        number = 0
        try:
            with _opened(self._path) as file:
                for number, line in enumerate(file, 1):
                    text = line.rstrip(b"\r\n")
                    if number == 1:
                        text = text.removeprefix(_BOM)
                    if text.strip():
                        yield number, text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ImportLineError(
                f"the file ends or breaks after line {number}: {error}",
                where=Where(file=self._path, line=number + 1),
                remedy="get the whole file again; nothing was imported",
            ) from error
        except OSError as error:
            raise DataError(
                f"{self._path} cannot be read: {error.strerror or error}",
                where=Where(file=self._path),
                remedy="check the path and its permissions",
            ) from error

    # --- what went wrong

    def _refusal(self) -> ImportLineError:
        shown = sorted(self._bad)[:_BAD_LINES]
        more = "the first " if len(self._bad) >= _BAD_LINES else ""
        listed = "".join(f"\n  line {number}: {why}" for number, why in shown)
        plural = "line that is no event" if len(shown) == 1 else "lines that are no events"
        return ImportLineError(
            f"{self._path}: {more}{len(shown)} {plural}:{listed}",
            where=Where(file=self._path, line=shown[0][0]),
            remedy="mend these lines, or the mapping; nothing was imported",
        )

    def _duplicate(self, error: DuplicateIdError) -> ImportLineError:
        """The lines that hold an id twice, found by reading the file once more."""
        event_id = error.where.event_id
        found = [] if self._path == "-" else self._lines_with(cast(str, event_id))
        if len(found) > 1:
            what = f"the id {event_id} stands in line {found[0]} and in line {found[1]}"
        elif found:
            what = f"the id {event_id} of line {found[0]} is in the store already"
        else:
            what = error.what
        return ImportLineError(
            f"{self._path}: {what}",
            where=Where(
                store=self._store.url,
                file=self._path,
                line=found[-1] if found else None,
                event_id=event_id,
            ),
            remedy="an event can be imported once; nothing was imported",
        )

    def _lines_with(self, event_id: str) -> list[int]:
        found: list[int] = []
        ordinals: dict[str, int] = {}
        for number, line in self._lines():
            try:
                parts = self._mapping.parts(line)
            except BadRecordError:
                continue
            ordinals[parts.stream] = ordinal = ordinals.get(parts.stream, 0) + 1
            if (parts.id or derived_id(parts.stream, ordinal, line)) == event_id:
                found.append(number)
                if len(found) == 2:
                    break
        return found


def _batches(lines: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for numbered in lines:
        batch.append(numbered)
        size += len(numbered[1])
        if len(batch) >= _BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
    elif path.endswith(".gz"):
        with gzip.open(path, "rb") as file:
            yield cast(BinaryIO, file)
    else:
        with open(path, "rb") as file:
            yield file
