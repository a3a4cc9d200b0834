"""Comparison: what a batch must have become, beside what the target holds. Pure but for places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from eventmig import codec
from eventmig.errors import CodecError
from eventmig.events import Columns, Event
from eventmig.migrate.ledger import Batch
from eventmig.migrate.verify.findings import Mismatch, mismatch_at, short
from eventmig.stores.base import JobTarget


def by_stream(
    expected: Columns, exact: Sequence[bool], held: Columns
) -> tuple[Columns, list[bool], Columns]:
    """The same stream by stream, for a target that keeps no order over streams."""
    order = sorted(range(len(expected.ids)), key=expected.streams.__getitem__)
    there = sorted(range(len(held.ids)), key=held.streams.__getitem__)
    return expected.taken(order), [exact[n] for n in order], held.taken(there)


def equal(expected: Columns, held: Columns, exact: Sequence[bool]) -> bool:
    """Everything but the positions, which the heads and the hashes prove.

    Column by column, and the data as they are spelled; only what is spelled otherwise, and
    was not to stay byte for byte, is compared by its values.
    """
    if any(expected[n] != held[n] for n in _PARTS):
        return False
    return expected.data == held.data or all(
        one == other or (not same and _canonical(one) == _canonical(other))
        for one, other, same in zip(expected.data, held.data, exact, strict=True)
    )


_PARTS = [n for n, name in enumerate(Columns._fields) if name not in ("data", "origin_globals")]


def misplaced(held: list[tuple[Event, int]], wanted: dict[str, int]) -> Iterator[Mismatch]:
    """The events that do not name the place in the source that they came from."""
    for event, at in held:
        right = wanted.get(event.id, at)  # one that must not be there is found otherwise
        if at != right:
            yield mismatch_at(
                event,
                kind="differs",
                field="origin_global_position",
                expected=str(right),
                found=str(at),
            )


def _canonical(data: bytes) -> bytes:
    try:
        return codec.canonical(codec.decode_strict(data))
    except CodecError:
        return data


_FIELDS = ("stream", "type", "schema_version", "data", "metadata", "recorded_at", "origins")


class Places:
    """The stream positions that a batch's events must have, counted when first asked for."""

    def __init__(self, target: JobTarget, mark: Batch) -> None:
        self._target = target
        self._mark = mark
        self._before: dict[str, int] = {}

    def first(self, stream: str) -> int:
        """The position of the batch's first event in this stream."""
        if stream not in self._before:
            last = self._target.first_position - 1
            for event in self._target.read_stream(stream):
                if event.global_position > self._mark.target_after:
                    break
                last = event.stream_position
            self._before[stream] = last
        return self._before[stream] + 1


def differences(
    expected: list[Event], held: list[Event], exact: set[str], places: Places
) -> Iterator[Mismatch]:
    """Every difference between two lists of events, matched by id.

    The data of those in `exact` must be equal byte for byte.
    """
    at: dict[str, int] = {}
    wanted = {event.id for event in expected}
    for number, event in enumerate(held):
        if event.id not in wanted or event.id in at:
            yield mismatch_at(event, kind="unexpected", found=_name(event))
        at.setdefault(event.id, number)
    last = -1
    counted: Counter[str] = Counter()
    for event in expected:
        index = counted[event.stream]
        counted[event.stream] += 1
        n = at.get(event.id)
        if n is None:
            yield Mismatch(
                kind="missing",
                stream=event.stream,
                stream_position=places.first(event.stream) + index,
                expected=_name(event),
            )
            continue
        found = held[n]
        if n < last:
            yield mismatch_at(
                found, kind="moved", found=f"place {n}", expected=f"a place after {last}"
            )
        last = max(last, n)
        for name in _FIELDS:
            ours, theirs = getattr(event, name), getattr(found, name)
            if name == "data" and ours != theirs and event.id not in exact:
                ours, theirs = _canonical(ours), _canonical(theirs)
            if ours != theirs:
                yield mismatch_at(
                    found, kind="differs", field=name, expected=short(ours), found=short(theirs)
                )


def _name(event: Event) -> str:
    origin = event.origins[0] if event.origins else None
    source = f", from {origin.stream} at {origin.stream_position}" if origin else ""
    return f"{event.type} v{event.schema_version}{source}"
