"""A read model as the user declares it: tables, and handlers per event type.

Declared in user code at import, read by the rebuild; does nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, TypeAlias, TypeVar

from sqlalchemy import Table

from eventmig import fingerprint
from eventmig.errors import RebuildError
from eventmig.events import Event
from eventmig.rebuild.additions import Addition, additions
from eventmig.rebuild.handlers import Handler, handler_of
from eventmig.rebuild.shape import Shape, shape_of

F = TypeVar("F", bound=Callable[..., None])


PartitionKey: TypeAlias = Callable[[Event], Hashable]
"""An event of the release to what its rows belong to, such as a customer's id."""


class ReplayOrder(StrEnum):
    """How much of the order of events a read model needs."""

    GLOBAL = "global"  # rows depend on events of several streams, in their order
    STREAM = "stream"  # rows depend on the order within each stream alone
    KEY = "key"  # rows depend on the order of the events with one key alone


class ReadModel:
    """SQL tables that handlers fill from events.

    `version` is raised when the rows' meaning changes. `tables` are SQLAlchemy Core
    tables with primary keys; columns have scalar defaults or none. `order` says which
    order of events the rows depend on, for whoever handles events side by side: a rebuild
    gives the rows of global order with any number of workers. `key` is what `order="key"`
    goes by; `eventmig.testing.assert_order` finds a wrong claim. Raises `RebuildError` for
    tables a fold could not repeat exactly.
    """

    def __init__(
        self,
        name: str,
        *,
        version: int = 1,
        tables: Sequence[Table],
        order: ReplayOrder | Literal["global", "stream", "key"] = ReplayOrder.GLOBAL,
        key: PartitionKey | None = None,
    ) -> None:
        if not name or len(name) > 200:
            raise RebuildError(f"a read model's name has 1 to 200 characters, not {len(name)}")
        if not tables:
            raise RebuildError(
                f"the read model {name} has no tables", remedy="name them in tables=[…]"
            )
        for table in tables:
            if table.name.startswith("eventmig_"):
                raise RebuildError(
                    f"the table name {table.name} is kept for eventmig itself",
                    remedy="name the table otherwise",
                )
        self.name = name
        self.version = version
        self.tables = tuple(tables)
        self.order = ReplayOrder(order)
        if (self.order is ReplayOrder.KEY) is not (key is not None):
            raise RebuildError(
                f'{name} has order="{self.order}" and {"no" if key is None else "a"} key',
                remedy='order="key" goes with key=…, a function of the event; the others have none',
            )
        self._key = key
        self.shapes: tuple[Shape, ...] = tuple(shape_of(table) for table in tables)
        self._handlers: dict[str, Handler] = {}
        self._additions: Mapping[str, Sequence[Addition]] | None = None

    def on(self, *types: str) -> Callable[[F], F]:
        """Declare the handler of these event types, as they are called in the release.

        A handler's parameters: `rows` (a `Rows`) or, the slow way, `sql` (a `Sql`); `event`
        if it wants it; and one more for the event's data, decoded as annotated (a
        msgspec.Struct, a pydantic model, dict). It is given nothing else: a rebuild has no
        side effects. Raises `RebuildError` when its signature fits no rule, or a type has
        one already.
        """

        def declare(function: F) -> F:
            handler = handler_of(
                function,
                roles=frozenset({"event", "rows", "sql"}),
                needs=frozenset({"rows", "sql"}),
            )
            for type_ in types:
                if type_ in self._handlers:
                    raise RebuildError(
                        f"{self.name} has two handlers for {type_}: "
                        f"{self._handlers[type_].name} and {handler.name}",
                        remedy="let one handler do both",
                    )
                self._handlers[type_] = handler
            self._additions = None
            return function

        return declare

    @property
    def handlers(self) -> dict[str, Handler]:
        """The handlers by event type; a copy."""
        return dict(self._handlers)

    @property
    def types(self) -> frozenset[str]:
        """The event types it handles."""
        return frozenset(self._handlers)

    @property
    def additions(self) -> Mapping[str, Sequence[Addition]]:
        """What events add, by type, as far as handlers do nothing else; read from them once."""
        if self._additions is None:
            shapes = {shape.table: shape for shape in self.shapes}
            found = {type_: additions(one, shapes) for type_, one in self._handlers.items()}
            self._additions = {type_: each for type_, each in found.items() if each}
        return self._additions

    @property
    def only_adds(self) -> bool:
        """Whether no handler does anything but add."""
        return self.additions.keys() == self.types

    @property
    def runs_sql(self) -> bool:
        """Whether a handler takes `sql`: such a model is replayed one event at a time."""
        return any("sql" in handler.takes for handler in self._handlers.values())

    def partition_of(self, event: Event) -> Hashable:
        """What the order of an event's handling depends on: one value for global order."""
        if self.order is ReplayOrder.STREAM:
            return event.stream
        return None if self._key is None else self._key(event)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over version, tables and the handlers' code and data types."""
        return fingerprint.of_value(
            {
                "version": self.version,
                "tables": [_description(table) for table in self.tables],
                "handlers": {name: h.fingerprint for name, h in self._handlers.items()},
            }
        )

    def __repr__(self) -> str:
        return f"ReadModel({self.name!r}, version={self.version})"


def _description(table: Table) -> list[fingerprint.Plain]:
    columns: list[fingerprint.Plain] = [
        [
            column.name,
            column.key,
            repr(column.type),
            column.nullable,
            column.primary_key,
            _text(getattr(column.default, "arg", None)),
            _text(getattr(column.server_default, "arg", None)),
        ]
        for column in table.columns
    ]
    constraints: list[fingerprint.Plain] = [
        [
            type(constraint).__name__,
            _text(getattr(constraint, "sqltext", None)),
            [column.name for column in getattr(constraint, "columns", ())],
            [key.target_fullname for key in getattr(constraint, "elements", ())],
        ]
        for constraint in table.constraints
    ]
    indexes: list[fingerprint.Plain] = [
        [str(index.name), index.unique, [str(part) for part in index.expressions]]
        for index in table.indexes
    ]
    return [
        table.fullname,
        columns,
        sorted(constraints, key=repr),
        sorted(indexes, key=repr),
        sorted(f"{name}={value}" for name, value in table.dialect_kwargs.items()),
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
