"""The fold of narrow rows: what a read model needs where its handlers take data alone.

Stands in for reading, upcasting and folding whole events (`replay`), and gives the same
rows and the same errors at less than half the cost. It ends, for `replay` to go on, at
the first event that needs to be whole: one that is split, or whose steps read metadata.

A batch's data is upcast and decoded first, that of one chain together, and as lines, one call
for many; then the handlers are called in order. Where anything is wrong with that, the batch
is taken event by event, which also makes the errors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from eventmig import codec
from eventmig.rebuild.handlers import Call, Handler, OnData, call_with_data
from eventmig.rebuild.progress import DataUpcaster, NewData, NewLines
from eventmig.rebuild.rows import Rows
from eventmig.stores.base import DataRow

_POSITION: Final = itemgetter(0)
_VERSION: Final = itemgetter(1, 2)


class Plan(NamedTuple):
    """How the data of one stored type and version is upcast, and how it is handled."""

    new_data: NewData | None
    new_lines: NewLines | None
    handle: OnData | None

    def decoded(self, data: Sequence[bytes]) -> Sequence[object]:
        """What the handler takes of up to `codec.AT_ONCE` events' data; raises anything."""
        lines = _as_lines(data) if self.new_lines is None else self.new_lines(data)
        handle = self.handle
        if handle is not None and handle.decode_lines is not None and lines is not None:
            return handle.decode_lines(lines)
        if self.new_data is not None:
            data = [*map(self.new_data, data)] if lines is None else lines.split(b"\n")[:-1]
        return data if handle is None else [*map(handle.decode, data)]


class HandlerFailedError(Exception):
    """A handler raised (the cause) at the event of this global position."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def data_handlers(handlers: Mapping[str, Handler]) -> dict[str, OnData] | None:
    """Every handler as what it does with data and rows; None where one takes the event."""
    found = {type_: call_with_data(handler, "rows") for type_, handler in handlers.items()}
    made = {type_: handle for type_, handle in found.items() if handle is not None}
    return made if len(made) == len(found) else None


class NarrowFold:
    """Upcasts the data of narrow rows, and calls the handlers on it."""

    def __init__(self, handlers: Mapping[str, OnData], upcaster: DataUpcaster, rows: Rows) -> None:
        self._plans = _Plans(handlers, upcaster)
        self._rows = rows

    def fold(self, batch: Sequence[DataRow]) -> tuple[int, int]:
        """Fold a batch in order: how many rows are done, and how many had a handler.

        Fewer are done than there are where the next needs to be a whole event, also to
        say why it cannot be upcast. Raises `HandlerFailedError`.
        """
        rows = self._rows
        rows.type = None  # found out for an error alone
        try:
            calls, values = self._decoded(batch)
        except Exception:  # noqa: BLE001 - event by event it is found out
            return self._one_by_one(batch)
        position = 0
        try:
            for position, call, value in zip(map(_POSITION, batch), calls, values, strict=True):
                if call is not None:
                    rows.position = position
                    call(value, rows)
        except Exception as error:
            raise HandlerFailedError(position) from error
        return len(batch), len(batch) - calls.count(None)

    def _decoded(self, batch: Sequence[DataRow]) -> tuple[list[Call | None], list[object]]:
        """Per row the handler's function, if there is one, and its data; raises anything."""
        places: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for at, version in enumerate(map(_VERSION, batch)):
            places[version].append(at)
        calls: list[Call | None] = [None] * len(batch)
        values: list[object] = [None] * len(batch)
        for version, ats in places.items():
            plan = self._plans[version]
            call = None if plan.handle is None else plan.handle.call
            for start in range(0, len(ats), codec.AT_ONCE):
                some = ats[start : start + codec.AT_ONCE]
                for at, value in zip(
                    some, plan.decoded([batch[at][3] for at in some]), strict=True
                ):
                    calls[at] = call
                    values[at] = value
        return calls, values

    def _one_by_one(self, batch: Sequence[DataRow]) -> tuple[int, int]:
        folded = 0
        for done, (position, type_, version, data) in enumerate(batch):
            try:
                new_data, _, handle = self._plans[type_, version]
                if new_data is not None:
                    data = new_data(data)
            except Exception:  # noqa: BLE001 - the whole event says it
                return done, folded
            if handle is not None:
                self._rows.position = position
                try:
                    handle.call(handle.decode(data), self._rows)
                except Exception as error:
                    raise HandlerFailedError(position) from error
                folded += 1
        return len(batch), folded


def _as_lines(data: Sequence[bytes]) -> bytes | None:
    """Several events' data, each ended by a newline; None where one holds a newline."""
    lines = b"\n".join((*data, b""))
    return lines if lines.count(b"\n") == len(data) else None


class _Plans(dict[tuple[str, int], Plan]):
    """Plans by stored type and version, each made when it is first needed."""

    def __init__(self, handlers: Mapping[str, OnData], upcaster: DataUpcaster) -> None:
        self._handlers = handlers
        self._upcaster = upcaster

    def __missing__(self, version: tuple[str, int]) -> Plan:
        chain = self._upcaster(*version)
        if chain is None:
            raise _NeedsEventError
        type_, new_data, new_lines = chain
        plan = self[version] = Plan(new_data, new_lines, self._handlers.get(type_))
        return plan


class _NeedsEventError(Exception):
    """The next event must be whole."""
