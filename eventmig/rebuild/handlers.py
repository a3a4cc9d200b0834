"""What a handler takes: read once from its signature, then only called.

Stands between an upcast event and a fold. One rule: a parameter called `event`
is given the event, one called `rows` the rows (one called `sql` their SQL), one called
`state` the aggregate's state; the one other parameter, if there is one, is given the
event's data, decoded as its annotation says. Never does I/O.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from pydantic import BaseModel

from eventmig import codec, fingerprint
from eventmig.errors import RebuildError, Where
from eventmig.events import Event

Decode = Callable[[bytes], object]
DecodeLines = Callable[[bytes], list[object]]
Call = Callable[[object, object], object]


class OnData(NamedTuple):
    """A handler that takes data and no event, as functions to be called one after the other.

    `decode` makes its data from the stored bytes, `decode_lines` (None: there is no such) those
    of several events at once, each ended by a newline; `call` takes that and the one other role.
    `members` are the top-level members that are looked at (None: all, or it is not known).
    `takes` is what msgspec decodes them as (None: it does not).
    """

    decode: Decode
    decode_lines: DecodeLines | None
    members: Collection[str] | None
    call: Call
    takes: object = None


_POSITIONAL = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One function of the user's, and how it is called.

    `name` is `module:function`. `function` is called with positions; `takes` are its
    parameters' roles in their order ("data", "event", "rows", "state"). `decode` makes
    its data from the stored bytes. `fingerprint` changes with its code and with
    the schema of its data.
    """

    name: str
    function: Callable[..., object]
    takes: tuple[str, ...]
    decode: Decode | None
    fingerprint: str


def handler_of(
    function: Callable[..., object], *, roles: frozenset[str], needs: frozenset[str]
) -> Handler:
    """Read a handler's signature; `roles` it may take, one of `needs` (if any) it must take.

    Raises `RebuildError` naming the handler when the signature fits no rule.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    takes: list[str] = []
    names: list[str] = []
    decode: Decode | None = None
    schema: fingerprint.Plain = None
    keywords = False
    for parameter in inspect.signature(function).parameters.values():
        keywords = keywords or parameter.kind is parameter.KEYWORD_ONLY
        if parameter.kind not in _POSITIONAL:
            raise _unfit(name, f"takes {parameter}", "name each parameter, without *, ** or /")
        role = parameter.name if parameter.name in roles else "data"
        if role in takes:
            raise _unfit(
                name,
                f"has two parameters for the data, {names[takes.index('data')]} and "
                f"{parameter.name}",
                f"besides {' and '.join(sorted(roles))} a handler takes one parameter",
            )
        if role == "data":
            annotation = _annotation(function, name, parameter)
            decode = _decoder(annotation, name)
            schema = schema_of(annotation)
        takes.append(role)
        names.append(parameter.name)
    if needs and needs.isdisjoint(takes):
        raise _unfit(
            name,
            f"has no parameter called {' or '.join(sorted(needs))}",
            "without it a handler can have no effect",
        )
    return Handler(
        name=name,
        function=_by_name(function, names) if keywords else function,
        takes=tuple(takes),
        decode=decode,
        fingerprint=fingerprint.of_value([fingerprint.of_function(function), schema]),
    )


def call(handler: Handler, extra: str) -> Callable[[Event, object], object]:
    """The handler as a function of the event and the one `extra` role ("rows" or "state")."""
    function, decode, takes = handler.function, handler.decode, handler.takes
    if takes == ("data", "event", extra) and decode is not None:
        return lambda event, value: function(decode(event.data), event, value)
    if takes == (extra, "data", "event") and decode is not None:
        return lambda event, value: function(value, decode(event.data), event)
    if takes == ("data", extra) and decode is not None:
        return lambda event, value: function(decode(event.data), value)
    if takes == (extra, "data") and decode is not None:
        return lambda event, value: function(value, decode(event.data))
    parts: dict[str, Callable[[Event, object], object]] = {
        "event": lambda event, value: event,
        extra: lambda event, value: value,
        "sql": lambda event, value: getattr(value, "sql"),  # noqa: B009
    }
    if decode is not None:
        parts["data"] = lambda event, value: decode(event.data)
    order = [parts[role] for role in takes]
    return lambda event, value: function(*[part(event, value) for part in order])


def call_with_data(handler: Handler, extra: str) -> OnData | None:
    """The handler as functions of data and the `extra` role; None if it takes the event."""
    function, decode, takes = handler.function, handler.decode, handler.takes
    if takes == (extra,):
        return OnData(bytes, _split_lines, (), lambda data, value: function(value))
    if decode is None:
        return None
    parser = getattr(decode, "__self__", None)
    lines, members, type_ = None, None, None
    if isinstance(parser, msgspec.json.Decoder):
        type_ = parser.type
        lines, members = parser.decode_lines, _members_of(type_)
    if takes == ("data", extra):
        return OnData(decode, lines, members, function, type_)
    if takes == (extra, "data"):
        return OnData(decode, lines, members, lambda data, value: function(value, data), type_)
    if takes == ("data",):
        return OnData(decode, lines, members, lambda data, value: function(data), type_)
    return None


def _members_of(type_: object) -> Collection[str] | None:
    """The members that a struct looks at, where others make no difference to it."""
    if not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        return None
    config = type_.__struct_config__
    if config.forbid_unknown_fields or config.array_like or config.tag is not None:
        return None
    return [field.encode_name for field in msgspec.structs.fields(type_)]


def _split_lines(lines: bytes) -> list[object]:
    return [*lines.split(b"\n")[:-1]]


def _by_name(function: Callable[..., object], names: list[str]) -> Callable[..., object]:
    return lambda *values: function(**dict(zip(names, values, strict=True)))


def schema_of(annotation: object) -> fingerprint.Plain:
    """The JSON Schema of a msgspec or pydantic type; the name of any other."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return typing.cast(fingerprint.Plain, annotation.model_json_schema())
    if is_plain(annotation) or annotation is bytes:
        return "plain"
    try:
        return typing.cast(fingerprint.Plain, msgspec.json.schema(annotation))
    except TypeError:
        return repr(annotation)


def is_plain(annotation: object) -> bool:
    """Whether an annotation asks for plain values: a dict or mapping of any kind, or anything."""
    origin = typing.get_origin(annotation) or annotation
    if origin in (object, typing.Any):
        return True
    return isinstance(origin, type) and origin in (dict, Mapping, typing.MutableMapping)


def _annotation(function: Callable[..., object], name: str, parameter: inspect.Parameter) -> object:
    if parameter.annotation is parameter.empty:
        raise _unfit(
            name,
            f"does not say what {parameter.name} is",
            "annotate it: a msgspec.Struct, a pydantic model, or dict",
        )
    # That one annotation alone: the others may name what exists for type checkers only.
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        found: object = typing.get_type_hints(alone, globalns=_globals(function))[parameter.name]
    except NameError as error:
        raise _unfit(
            name,
            f"annotates {parameter.name} with a name that is not there: {error}",
            "define the class at the top level of the module, outside `if TYPE_CHECKING`",
        ) from error
    return found


def _globals(function: Callable[..., object]) -> dict[str, object]:
    return typing.cast("dict[str, object]", getattr(function, "__globals__", {}))


def _decoder(annotation: object, name: str) -> Decode:
    if annotation is bytes:
        return bytes
    if is_plain(annotation):
        return codec.decode
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_validate_json
    try:
        return typing.cast(Decode, msgspec.json.Decoder(annotation).decode)
    except TypeError as error:
        raise _unfit(
            name,
            f"takes data as {annotation!r}, which is nothing to decode into: {error}",
            "annotate it with a msgspec.Struct, a pydantic model, or dict",
        ) from error


def _unfit(name: str, what: str, remedy: str) -> RebuildError:
    return RebuildError(f"the handler {name} {what}", where=Where(handler=name), remedy=remedy)
