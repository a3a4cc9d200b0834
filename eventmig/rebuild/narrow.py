"""The fold of narrow rows: what a read model needs where its handlers take data alone.

Stands in for reading, upcasting and folding whole events (`replay`), and gives the same
rows and the same errors at less than half the cost. It ends, for `replay` to go on, at
the first event that needs to be whole: one that is split, or whose steps read metadata.

A batch's data is upcast and decoded first, that of one chain together, and as lines, one call
for many; a handler of the current model is given what validation made. Then handlers are called
in order, or what they add is added. Where anything is wrong with that, the batch is taken event
by event, which also makes the errors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from eventmig import codec
from eventmig.chains import DataChain
from eventmig.rebuild.adding import Add
from eventmig.rebuild.handlers import Call, Handler, OnData, call_with_data
from eventmig.rebuild.progress import DataUpcaster
from eventmig.rebuild.rows import Rows
from eventmig.stores.base import DataRow
from eventmig.stores.faster import DataLines, Members

Handled: TypeAlias = tuple[int, Call, object]
"""An event's global position, its handler's function, and what that takes of its data."""

_POSITION: Final = itemgetter(0)


class Plan(NamedTuple):
    """How the data of one stored type and version is upcast, and how it is handled."""

    chain: DataChain
    handle: OnData | None

    def upcast(self, data: Sequence[bytes]) -> tuple[list[bytes], bool]:
        """These events' data of the release: as lines of up to `codec.AT_ONCE` events, if True.

        One by one, else. Raises anything.
        """
        many: list[bytes] = []
        for start in range(0, len(data), codec.AT_ONCE):
            some = data[start : start + codec.AT_ONCE]
            lines = _as_lines(some) if self.chain.new_lines is None else self.chain.new_lines(some)
            if lines is None or lines.count(b"\n") != len(some):
                new_data = self.chain.new_data
                return ([*data] if new_data is None else [*map(new_data, data)]), False
            many.append(lines)
        return many, True

    def decoded(self, data: Sequence[bytes], *, sound: bool = False) -> list[object]:
        """What the handler takes of these events' data; raises anything."""
        values: list[object] = []
        for start in range(0, len(data), codec.AT_ONCE):
            values += self._few(data[start : start + codec.AT_ONCE], sound)
        return values

    def decoded_lines(self, found: DataLines) -> list[object]:
        """The same of data in lines; raises anything."""
        if found.lines.count(b"\n") != len(found.global_positions):
            raise ValueError("data with newlines of its own")
        decode = None if self.handle is None else self.handle.decode_lines
        if decode is not None and self.chain.new_data is None:
            return decode(found.lines)
        data = found.lines.split(b"\n")[:-1]
        if found.sound and decode is None:
            return self.decoded([*map(codec.compact, data)])
        return self.decoded(data, sound=found.sound)

    def _few(self, data: Sequence[bytes], sound: bool) -> Sequence[object]:
        handle, chain = self.handle, self.chain
        new_models = chain.sound_models if sound else chain.new_models
        if new_models is not None and handle is not None and handle.takes is chain.model:
            models = new_models(data)
            if models is not None:
                return models
        new_lines = chain.sound_lines if sound else chain.new_lines
        lines = _as_lines(data) if new_lines is None else new_lines(data)
        if handle is not None and handle.decode_lines is not None and lines is not None:
            return handle.decode_lines(lines)
        if chain.new_data is not None:
            data = [*map(chain.new_data, data)] if lines is None else lines.split(b"\n")[:-1]
        return data if handle is None else [*map(handle.decode, data)]


class _Decoded(NamedTuple):
    """Events with one plan: their global positions, and what their handler takes of each."""

    plan: Plan
    global_positions: Sequence[int]
    values: Sequence[object]

    @classmethod
    def of(cls, plan: Plan, positions: Sequence[int], values: Sequence[object]) -> _Decoded:
        """Raises `ValueError` where values are missing."""
        if len(values) != len(positions):
            raise ValueError(f"{len(values)} values of {len(positions)} events")
        return cls(plan, positions, values)


class HandlerFailedError(Exception):
    """A handler raised (the cause) at the event of this global position."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def data_handlers(handlers: Mapping[str, Handler], extra: str) -> dict[str, OnData] | None:
    """Every handler as what it does with data and the `extra` role; None where one takes more."""
    found = {type_: call_with_data(handler, extra) for type_, handler in handlers.items()}
    made = {type_: handle for type_, handle in found.items() if handle is not None}
    return made if len(made) == len(found) else None


class NarrowFold:
    """Upcasts the data of narrow rows, and calls the handlers on it."""

    def __init__(
        self,
        handlers: Mapping[str, OnData],
        upcaster: DataUpcaster,
        rows: Rows,
        adders: Mapping[str, Sequence[Add]] | None = None,
    ) -> None:
        self._plans = Plans(handlers, upcaster)
        self._rows = rows
        self._adders = adders

    @property
    def members(self) -> Members:
        """The members that are looked at, by the types and versions that need no upcast.

        It grows while more of them are met.
        """
        return self._plans.members

    def fold(self, batch: Sequence[DataRow]) -> tuple[int, int]:
        """Fold a batch in order: how many rows are done, and how many had a handler.

        Fewer are done than there are where the next needs to be a whole event, also to
        say why it cannot be upcast. Raises `HandlerFailedError`.
        """
        groups: dict[tuple[str, int], tuple[list[int], list[bytes]]] = {}
        for position, type_, version, data in batch:
            try:
                positions, some = groups[type_, version]
            except KeyError:
                positions, some = groups[type_, version] = [], []
            positions.append(position)
            some.append(data)
        decoded: list[_Decoded] = []
        try:
            for kind, (positions, some) in groups.items():
                plan = self._plans[kind]
                decoded.append(_Decoded.of(plan, positions, plan.decoded(some)))
        except Exception:  # noqa: BLE001 - event by event it is found out
            return self._one_by_one(batch)
        return len(batch), self._handle(decoded)

    def fold_lines(self, batch: Sequence[DataLines]) -> tuple[int, int] | None:
        """Fold a batch in order: how many events it has, and how many had a handler.

        None, and nothing is folded, where they have to be taken row by row, also to say what
        is wrong with one. Raises `HandlerFailedError`.
        """
        decoded: list[_Decoded] = []
        try:
            for found in batch:
                plan = self._plans[found.type, found.schema_version]
                values = plan.decoded_lines(found)
                decoded.append(_Decoded.of(plan, found.global_positions, values))
        except Exception:  # noqa: BLE001 - event by event it is found out
            return None
        return sum(len(some.global_positions) for some in batch), self._handle(decoded)

    def _handle(self, decoded: Sequence[_Decoded]) -> int:
        """What handlers do to these events; returns how many had one."""
        if self._adders is None:
            return self._call(decoded)
        count = 0
        for plan, _, values in decoded:
            if plan.handle is not None:
                count += len(values)
                for add in self._adders[plan.chain.type]:
                    add(values)
        return count

    def _call(self, decoded: Sequence[_Decoded]) -> int:
        """Call the handlers in the order of the events; returns how many that were."""
        rows = self._rows
        rows.type = None  # found out for an error alone
        handled: list[Handled] = []
        for plan, positions, values in decoded:
            if plan.handle is not None:
                calls = [plan.handle.call] * len(values)
                handled += zip(positions, calls, values, strict=True)
        handled.sort(key=_POSITION)
        position = 0
        try:
            for position, call, value in handled:
                rows.position = position
                call(value, rows)
        except Exception as error:
            raise HandlerFailedError(position) from error
        return len(handled)

    def _one_by_one(self, batch: Sequence[DataRow]) -> tuple[int, int]:
        self._rows.type = None
        folded = 0
        for done, (position, type_, version, data) in enumerate(batch):
            try:
                plan = self._plans[type_, version]
                new_data, handle = plan.chain.new_data, plan.handle
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


class Plans(dict[tuple[str, int], Plan]):
    """Plans by stored type and version, each made when it is first needed."""

    def __init__(self, handlers: Mapping[str, OnData], upcaster: DataUpcaster) -> None:
        self._handlers = handlers
        self._upcaster = upcaster
        self.members: dict[tuple[str, int], Collection[str]] = {}

    def __missing__(self, version: tuple[str, int]) -> Plan:
        chain = self._upcaster(*version)
        if chain is None:
            raise NeedsEventError
        handle = self._handlers.get(chain.type)
        members = () if handle is None else handle.members
        if chain.new_data is None and members is not None:
            self.members[version] = members
        plan = self[version] = Plan(chain, handle)
        return plan


class NeedsEventError(Exception):
    """The next event must be whole."""
