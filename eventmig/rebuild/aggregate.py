"""An aggregate as the user declares it: a state, and a fold per event type.

Declared in user code at import, read by the rebuild and by `load`; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

import msgspec
from pydantic import BaseModel, TypeAdapter

from eventmig import codec, fingerprint
from eventmig.errors import RebuildError, Where
from eventmig.events import Event, category_of
from eventmig.rebuild.faults import handler_error
from eventmig.rebuild.handlers import Handler, call, handler_of, is_plain, schema_of
from eventmig.rebuild.owners import EventsourcingAggregate

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., object])

_KEPT: Final = (bytes, date, datetime, time, timedelta, Decimal, UUID)
"""Types that a state's members keep on their way to an owner, who has forms of them."""


class Aggregate(Generic[S]):
    """The state that the events of one stream come to.

    `category` names the streams: all whose name is it, up to the first `-`. Without one, they
    are those that hold an event of a type it folds. `state` is a msgspec.Struct, a pydantic
    model or dict. `version` is raised when the state's meaning changes in a way that neither
    its schema nor the fold shows. `owner`: its class in the library that owns the store's
    tables, whose snapshots are written too, then.
    """

    def __init__(
        self,
        name: str,
        *,
        state: type[S],
        category: str | None = None,
        version: int = 1,
        owner: EventsourcingAggregate | None = None,
    ) -> None:
        if not name or len(name) > 200:
            raise RebuildError(f"an aggregate's name has 1 to 200 characters, not {len(name)}")
        self.name = name
        self.category = category
        self.state = state
        self.version = version
        self.owner = owner
        self._handlers: dict[str, Handler] = {}
        self._calls: dict[str, Callable[[Event, object], object]] = {}
        self._encode, self._decode = _state_codec(state, name)

    def on(self, *types: str) -> Callable[[F], F]:
        """Declare the fold of these event types, as they are called in the release.

        A handler's parameters: `state` (None before the first), `event` if it wants
        it, and one more for the event's data, decoded as annotated. It returns the
        next state, and is given nothing else: a fold is pure. Raises `RebuildError`
        when its signature fits no rule, or a type has one already.
        """

        def declare(function: F) -> F:
            handler = handler_of(function, roles=frozenset({"event", "state"}), needs=frozenset())
            for type_ in types:
                if type_ in self._handlers:
                    raise RebuildError(
                        f"{self.name} has two handlers for {type_}: "
                        f"{self._handlers[type_].name} and {handler.name}",
                        remedy="let one handler do both",
                    )
                self._handlers[type_] = handler
                self._calls[type_] = call(handler, "state")
            return function

        return declare

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The fold of each event type."""
        return self._handlers

    @property
    def types(self) -> frozenset[str]:
        """The event types it folds."""
        return frozenset(self._handlers)

    def covers(self, stream: str) -> bool:
        """Whether this stream may be one of the aggregate's, as far as its name shows."""
        return self.category is None or category_of(stream) == self.category

    def apply(self, state: S | None, event: Event) -> S | None:
        """The state after one event of the release; unhandled types change nothing.

        Raises `RebuildError` naming event and handler.
        """
        handle = self._calls.get(event.type)
        if handle is None:
            return state
        try:
            return cast("S | None", handle(event, state))
        except Exception as error:
            names = {type_: handler.name for type_, handler in self._handlers.items()}
            raise handler_error(error, event, names) from error

    def fold(self, events: Iterable[Event], state: S | None = None) -> S | None:
        """The state after these events of the release, in order, from `state` on."""
        for event in events:
            state = self.apply(state, event)
        return state

    def encode(self, state: S | None) -> str:
        """A state as JSON text."""
        return "null" if state is None else self._encode(state)

    def decode(self, text: str) -> S | None:
        """JSON text as a state."""
        return None if text == "null" else cast("S", self._decode(text))

    def members(self, text: str) -> dict[str, object]:
        """The members of a state that was encoded, for its owner.

        Those of a model are Python's values, those of a dict JSON (`msgspec.Raw`). Raises
        `RebuildError` where it is no object.
        """
        if is_plain(self.state):
            found: object = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        elif (state := self.decode(text)) is not None and isinstance(state, BaseModel):
            found = state.model_dump(by_alias=True)
        else:
            found = msgspec.to_builtins(state, builtin_types=_KEPT, str_keys=True)
        if not isinstance(found, dict):
            raise RebuildError(
                f"the state of {self.name} is no object with members",
                where=Where(path=self.name),
                remedy="let it be a dict or a model with a field for each attribute",
            )
        return found

    def fingerprint(self, release: str) -> str:
        """16 hex digits over the state's schema, the fold's code, version and release."""
        return fingerprint.of_value(
            {
                "version": self.version,
                "release": release,
                "category": self.category,
                "state": schema_of(self.state),
                "fold": {name: h.fingerprint for name, h in self._handlers.items()},
            }
        )

    def __repr__(self) -> str:
        return f"Aggregate({self.name!r}, category={self.category!r}, version={self.version})"


def _state_codec(state: object, name: str) -> tuple[Callable[[Any], str], Callable[[str], object]]:
    if is_plain(state):
        return (
            lambda value: codec.encode_checked(value).decode(),
            lambda text: codec.decode(text.encode()),
        )
    if isinstance(state, type) and issubclass(state, BaseModel):
        adapter = TypeAdapter(state)
        return (
            lambda value: adapter.dump_json(value, by_alias=True).decode(),
            adapter.validate_json,
        )
    encoder = msgspec.json.Encoder(decimal_format="number")
    try:
        decoder = msgspec.json.Decoder(state)
    except TypeError as error:
        raise RebuildError(
            f"the state of {name} is {state!r}, which is nothing to decode into: {error}",
            remedy="use a msgspec.Struct, a pydantic model, or dict",
        ) from error
    return (lambda value: encoder.encode(value).decode(), decoder.decode)
