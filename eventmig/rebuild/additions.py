"""What a handler adds to rows, read from the handler itself: then it need not be called.

Many handlers of read models do nothing but count and sum: they call `rows.increment` with
members of the data and with constants. Where its code shows that, such a handler is called once,
with stand-ins for members in place of the data, and what it says is kept. That holds for every
event, as the code runs straight from its first instruction to its last, looks at no value, and
calls nothing else; whatever is not known to do that is called for each. Reads no events and
changes nothing.
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
        *("CALL", "CALL_KW", "KW_NAMES", "PRECALL", "POP_TOP"),
        *("RETURN_CONST", "RETURN_VALUE"),
    }
)
"""Instructions (docs.python.org/3/library/dis.html) that never jump, and hand values on unseen.

What is called is loaded as a method, as a global that is called, or together with `PUSH_NULL`.
"""

_METHOD_FLAG: Final = sys.version_info >= (3, 12)
"""Whether a method is loaded by `LOAD_ATTR` with its lowest bit set (else by `LOAD_METHOD`)."""


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
    if on_data is None or type(function) is not FunctionType or not _adds(function.__code__):
        return ()
    fields: list[Field] = []
    data = None if on_data.takes is None else _stand_in(on_data.takes, "", (), fields)
    if "data" in handler.takes and data is None:
        return ()
    noted: list[Addition] = []
    try:
        on_data.call(data, _Noting(noted, shapes))
    except Exception:  # noqa: BLE001 - what a stand-in is not good for
        return ()
    if not noted:
        return ()
    used = {given for one in noted for given in (*one.key, *one.amounts)}
    unused = tuple(field.member for field in fields if field not in used)
    first, *others = noted
    return (first._replace(also=unused), *others)


def _member(given: Any) -> Any:
    return given.member if isinstance(given, Field) else given


class _OtherwiseError(Exception):
    """The handler does something else, or it cannot be told what it does."""


def _adds(code: CodeType) -> bool:
    """Whether code runs straight, and calls nothing but `rows.increment`, if anything.

    It looks at no attribute whose name begins with an underscore: stand-ins have others there.
    """
    before: object = None  # the local that is on top of the stack
    for instruction in dis.get_instructions(code):
        name, argument = instruction.opname, instruction.argval
        if name not in _STRAIGHT:
            return False
        if name in ("LOAD_ATTR", "LOAD_METHOD") and argument.startswith("_"):
            return False
        if _is_callee(instruction) and (before, argument) != ("rows", "increment"):
            return False
        locals_ = argument if isinstance(argument, tuple) else (argument,)
        if (
            name.startswith("STORE_FAST")
            and "rows" in locals_[: 1 + name.count("STORE_FAST_STORE")]
        ):
            return False
        before = locals_[-1] if "LOAD_FAST" in name else None
    return True


def _is_callee(instruction: dis.Instruction) -> bool:
    """Whether it loads what will be called."""
    name, flag = instruction.opname, bool((instruction.arg or 0) & 1)
    return (
        name == "LOAD_METHOD"
        or (name == "LOAD_ATTR" and _METHOD_FLAG and flag)
        or (name == "LOAD_GLOBAL" and flag)
    )


class _Leaf:
    """Stands in for a value, and has nothing that code could look at."""

    __slots__ = ("_field",)

    def __init__(self, field: Field) -> None:
        self._field = field


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
            fields.append(Field(name, Member(at, field.type)))
            value = _Leaf(fields[-1])
        else:
            value = _stand_in(field.type, f"{name}.", at, fields)
        if value is None:
            return None
        values[field.name] = value
    return SimpleNamespace(**values) if values else None


class _Noting:
    """Stands in for `Rows`: notes what is added; it can do nothing else."""

    __slots__ = ("_noted", "_shapes")

    def __init__(self, noted: list[Addition], shapes: Mapping[Table, Shape]) -> None:
        self._noted = noted
        self._shapes = shapes

    def increment(self, table: Table, /, key: object, **amounts: object) -> None:
        """`Rows.increment`; raises where a row must be there already, or a value does not fit."""
        shape = self._shapes[table]
        if not amounts or not shape.required <= amounts.keys() <= shape.defaults.keys():
            raise _OtherwiseError
        columns = tuple(sorted(amounts, key=[*shape.defaults].index))
        added = [_given(amounts[name]) for name in columns]
        if any(_type_of(one) is not int for one in added):
            raise _OtherwiseError
        parts = _key_parts(shape, key)
        types = [_type_of(part) for part in parts]
        if types != list(shape.key_types) or not {str, int}.issuperset(types):
            raise _OtherwiseError
        self._noted.append(Addition(table, columns, tuple(parts), tuple(added)))


def _key_parts(shape: Shape, key: object) -> list[Any]:
    if isinstance(key, dict):
        if key.keys() != set(shape.key):
            raise _OtherwiseError
        return [_given(key[name]) for name in shape.key]
    return [*map(_given, shape.key_values(key))]


def _given(value: Any) -> Any:
    return value._field if type(value) is _Leaf else value


def _type_of(given: object) -> type:
    return given.member.type if isinstance(given, Field) else type(given)
