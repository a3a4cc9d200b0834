"""The fold of narrow rows: what a read model needs where its handlers take data alone.

Stands in for reading, upcasting and folding whole events (`replay`), and gives the same
rows and the same errors at less than half the cost. It ends, for `replay` to go on, at
the first event that needs to be whole: one that is split, or whose steps read metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from eventmig.rebuild.handlers import Handler, OnData, call_with_data
from eventmig.rebuild.progress import DataUpcaster, NewData, NewDataOfMany
from eventmig.rebuild.rows import Rows
from eventmig.stores.base import DataRow

Plan: TypeAlias = tuple[NewData | None, NewDataOfMany | None, OnData | None]
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
        many: Sequence[bytes] | None = None
        with suppress(_OneByOneError):  # then those before the one that fails are folded, too
            many = self._upcast(batch)
        try:
            for at, (position, type_, version, data) in enumerate(batch):
                new_data, _, handle = plans[type_, version]
                if many is not None:
                    data = many[at]
                elif new_data is not None:
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

    def _upcast(self, batch: Sequence[DataRow]) -> Sequence[bytes]:
        """The data of all, upcast, those of one chain together."""
        made = [row[3] for row in batch]
        places: dict[tuple[str, int], list[int]] = {}
        for at, (_, type_, version, _) in enumerate(batch):
            places.setdefault((type_, version), []).append(at)
        try:
            for chain, ats in places.items():
                of_many = self._plans[chain][1]
                if of_many is not None:
                    for at, data in zip(ats, of_many([made[at] for at in ats]), strict=True):
                        made[at] = data
        except Exception as error:
            raise _OneByOneError from error
        return made


class _NeedsEventError(Exception):
    """The next event must be whole."""


class _OneByOneError(Exception):
    """Some event of many cannot be upcast from its data."""


class _Plans(dict[tuple[str, int], Plan]):
    """Plans by stored type and version, each made when it is first needed."""

    def __init__(self, handlers: Mapping[str, OnData], upcaster: DataUpcaster) -> None:
        self._handlers = handlers
        self._upcaster = upcaster

    def __missing__(self, version: tuple[str, int]) -> Plan:
        chain = self._upcaster(*version)
        if chain is None:
            raise _NeedsEventError
        type_, new_data, of_many = chain
        plan = self[version] = (new_data, of_many, self._handlers.get(type_))
        return plan
