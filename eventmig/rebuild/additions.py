"""What a handler adds to rows, read from the handler itself: then it need not be called.

Many handlers of read models do nothing but count and sum: they call `rows.increment` with
members of the data and with constants. Such a handler is called once, with stand-ins for
members in place of the data, and what it says is kept. That holds for every event if its code
runs straight from its first instruction to its last, looks at no value, and calls nothing else;
whatever is not known to do that is called. Reads no events and changes nothing.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType, MemberDescriptorType, SimpleNamespace
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from sqlalchemy import Table

from eventmig.rebuild.handlers import Handler, call_with_data
from eventmig.rebuild.shape import Shape
from eventmig.stores.faster import Addend, Member

_STRAIGHT: Final = frozenset(
    {
        *("LOAD_ATTR", "LOAD_CONST", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_METHOD", "LOAD_SMALL_INT"),
        *("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"),
        *("LOAD_FAST_LOAD_FAST", "STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"),
        *("BUILD_CONST_KEY_MAP", "BUILD_MAP", "BUILD_TUPLE", "COPY_FREE_VARS", "NOP", "RESUME"),
        *("CALL", "CALL_KW", "KW_NAMES", "PRECALL", "PUSH_NULL", "POP_TOP"),
        *("RETURN_CONST", "RETURN_VALUE"),
    }
)
"""Instructions (docs.python.org/3/library/dis.html) that never jump, and hand values on unseen."""

_CALLS: Final = frozenset({"CALL", "CALL_KW"})


class Field(NamedTuple):
    """A member of an event's data, and the attribute that it is of the struct (`place.row`)."""

    attribute: str
    member: Member


Given: TypeAlias = Field | str | int
"""What a handler hands on: a member of each event's data, or the same for all."""


class Addition(NamedTuple):
    """What each event of a type adds to the row of a table with this `key`: amounts to `columns`.

    The key is in the order of the table's, columns are in that of its shape. The data holds the
    members `also`, too.
    """

    table: Table
    columns: tuple[str, ...]
    key: tuple[Given, ...]
    amounts: tuple[Field | int, ...]
    also: tuple[Member, ...] = ()

    def addend(self, columns: Sequence[str]) -> Addend:
        """The same as a store sums it, for a sum over these columns."""
        amounts = {n: _member(a) for n, a in zip(self.columns, self.amounts, strict=True)}
        return Addend(tuple(map(_member, self.key)), tuple(map(amounts.get, columns)), self.also)


def additions(handler: Handler, shapes: Mapping[Table, Shape]) -> Sequence[Addition]:
    """What a handler adds, for every event; nothing where it may do more, or something else."""
    on_data, function = call_with_data(handler, "rows"), handler.function
    if on_data is None or type(function) is not FunctionType or not _is_straight(function.__code__):
        return ()
    fields: list[Field] = []
    data = None if on_data.takes is None else _stand_in(on_data.takes, "", (), fields)
    if "data" in handler.takes and data is None:
        return ()
    noted = _Noted(function.__code__, shapes)
    try:
        on_data.call(data, noted)
    except Exception:  # noqa: BLE001 - what a stand-in is not good for
        return ()
    if not noted.additions or len(noted.additions) != _calls(function.__code__):
        return ()
    used = {given for one in noted.additions for given in (*one.key, *one.amounts)}
    unused = tuple(field.member for field in fields if field not in used)
    first, *others = noted.additions
    return (first._replace(also=unused), *others)


def _member(given: Any) -> Any:
    return given.member if isinstance(given, Field) else given


class _OtherwiseError(Exception):
    """The handler does something else, or it cannot be told what it does."""


def _is_straight(code: CodeType) -> bool:
    return all(instruction.opname in _STRAIGHT for instruction in dis.get_instructions(code))


def _calls(code: CodeType) -> int:
    """How often straight code calls something."""
    return sum(instruction.opname in _CALLS for instruction in dis.get_instructions(code))


def _stand_in(
    type_: object, prefix: str, path: tuple[str, ...], fields: list[Field]
) -> object | None:
    """A stand-in for data of a struct, its members added to `fields`.

    None where a database could not tell whether data fits the struct.
    """
    if not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        return None
    config = type_.__struct_config__
    if config.forbid_unknown_fields or config.array_like or config.tag is not None:
        return None
    if hasattr(type_, "__post_init__") or type_.__getattribute__ is not object.__getattribute__:
        return None
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(type_):
        at, name = (*path, field.encode_name), f"{prefix}{field.name}"
        value: object | None
        if not field.required or type(getattr(type_, field.name)) is not MemberDescriptorType:
            return None
        if field.type in (str, int):
            value = Field(name, Member(at, field.type))
            fields.append(value)
        else:
            value = _stand_in(field.type, f"{name}.", at, fields)
        if value is None:
            return None
        values[field.name] = value
    return SimpleNamespace(**values) if values else None


class _Noted:
    """Stands in for `Rows`: notes what the code itself adds; anything else is an error."""

    def __init__(self, code: CodeType, shapes: Mapping[Table, Shape]) -> None:
        self.additions: list[Addition] = []
        self._code = code
        self._shapes = shapes

    def increment(self, table: Table, /, key: object, **amounts: object) -> None:
        """`Rows.increment`; raises where a row must be there already, or a value does not fit."""
        shape = self._shapes[table]
        if sys._getframe(1).f_code is not self._code:  # whoever it calls may branch
            raise _OtherwiseError
        if not amounts or not shape.required <= amounts.keys() <= shape.defaults.keys():
            raise _OtherwiseError
        if not all(_type_of(amount) is int for amount in amounts.values()):
            raise _OtherwiseError
        parts = _key_parts(shape, key)
        types = [_type_of(part) for part in parts]
        if types != list(shape.key_types) or not {str, int}.issuperset(types):
            raise _OtherwiseError
        columns = tuple(sorted(amounts, key=[*shape.defaults].index))
        values: Any = tuple(amounts[name] for name in columns)
        self.additions.append(Addition(table, columns, tuple(parts), values))


def _key_parts(shape: Shape, key: object) -> list[Given]:
    if isinstance(key, dict):
        if key.keys() != set(shape.key):
            raise _OtherwiseError
        return [key[name] for name in shape.key]
    return [*shape.key_values(key)]  # type: ignore[list-item]  # their types are looked at


def _type_of(given: object) -> type:
    return given.member.type if isinstance(given, Field) else type(given)
