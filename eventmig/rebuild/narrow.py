"""The fold of narrow rows: what a read model needs where its handlers take data alone.

Stands in for reading, upcasting and folding whole events (`replay`), and gives the same
rows and the same errors at less than half the cost. It ends, for `replay` to go on, at
the first event that needs to be whole: one that is split, or whose steps read metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from eventmig.rebuild.handlers import Handler, OnData, call_with_data
from eventmig.rebuild.progress import DataUpcaster
from eventmig.rebuild.rows import Rows
from eventmig.stores.base import DataRow

NewData: TypeAlias = Callable[[bytes], bytes]
Plan: TypeAlias = tuple[NewData | None, OnData | None]
"""How the data of one stored type and version is upcast, and how it is handled."""


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
        plans, rows = self._plans, self._rows
        folded = position = 0
        rows.type = None  # found out for an error alone
        try:
            for position, type_, version, data in batch:
                new_data, handle = plans[type_, version]
                if new_data is not None:
                    try:
                        data = new_data(data)
                    except Exception as error:
                        raise _NeedsEventError from error
                if handle is not None:
                    decode, call = handle
                    rows.position = position
                    call(decode(data), rows)
                    folded += 1
        except _NeedsEventError:
            return next(n for n, row in enumerate(batch) if row[0] == position), folded
        except Exception as error:
            raise HandlerFailedError(position) from error
        return len(batch), folded


class _NeedsEventError(Exception):
    pass


class _Plans(dict[tuple[str, int], Plan]):
    """Plans by stored type and version, each made when it is first needed."""

    def __init__(self, handlers: Mapping[str, OnData], upcaster: DataUpcaster) -> None:
        self._handlers = handlers
        self._upcaster = upcaster

    def __missing__(self, version: tuple[str, int]) -> Plan:
        chain = self._upcaster(*version)
        if chain is None:
            raise _NeedsEventError
        type_, new_data = chain
        plan = self[version] = (new_data, self._handlers.get(type_))
        return plan
