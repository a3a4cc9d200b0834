"""Columns as a database has them: what they hold, and parameters of their types."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    DateTime,
    LargeBinary,
    Text,
    Uuid,
    bindparam,
    cast,
    inspect,
)
from sqlalchemy import types as sa_types
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SAWarning

Expression: TypeAlias = ColumnElement[Any]


class Kind(Enum):
    """What a column holds, as far as reading and writing it differ."""

    TEXT = "text"
    BLOB = "blob"
    JSON = "json"
    JSONB = "jsonb"
    UUID = "uuid"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    AWARE = "time with zone"
    NAIVE = "time without zone"
    XID8 = "transaction id"
    OTHER = "other"


class Xid8(sa_types.UserDefinedType[str]):
    """PostgreSQL's `xid8`, which SQLAlchemy does not know; written as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


postgresql.base.ischema_names.setdefault("xid8", Xid8)

_TYPES: Final[dict[Kind, Any]] = {
    Kind.TEXT: Text(),
    Kind.BLOB: LargeBinary(),
    Kind.JSON: postgresql.JSON(),
    Kind.JSONB: postgresql.JSONB(),
    Kind.UUID: Uuid(as_uuid=False),
    Kind.INTEGER: BigInteger(),
    Kind.BOOLEAN: Boolean(),
    Kind.AWARE: DateTime(timezone=True),
    Kind.NAIVE: DateTime(),
}


_SQLITE: Final[dict[Kind, Any]] = {Kind.BLOB: LargeBinary()}


@dataclass(frozen=True, slots=True)
class Found:
    """A column as the database has it."""

    kind: Kind
    type: sa_types.TypeEngine[Any]


def found_in(type_: Any, *, sqlite: bool) -> Found:
    """A column of this type, as SQLAlchemy found it."""
    return Found(_kind(type_, sqlite=sqlite), type_)


def columns_of(connection: Connection, name: str, schema: str | None = None) -> dict[str, Found]:
    """The columns of a table, by name; types that SQLAlchemy does not know are OTHER."""
    sqlite = connection.dialect.name == "sqlite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        columns = inspect(connection).get_columns(name, schema=schema)
    return {c["name"]: found_in(c["type"], sqlite=sqlite) for c in columns}


def parameter(found: Found, name: str | None, sqlite: bool, value: object = None) -> Expression:
    """A parameter for a column, cast to the column's own type where that is needed.

    Without a `name` it has this `value` at once.
    """
    given: dict[str, Any] = {} if name is not None else {"value": value}
    if found.kind is Kind.INTEGER and isinstance(value, str):
        given["value"] = int(value)
    if sqlite:
        return bindparam(name, type_=_SQLITE.get(found.kind), **given)
    if isinstance(found.type, sa_types.NullType):
        return bindparam(name, **given)
    if found.kind in (Kind.JSON, Kind.JSONB, Kind.UUID, Kind.XID8, Kind.OTHER):
        return cast(bindparam(name, type_=Text(), **given), found.type)
    return bindparam(name, type_=_TYPES[found.kind], **given)


def _kind(type_: Any, *, sqlite: bool) -> Kind:
    rules: tuple[tuple[Any, Kind], ...] = (
        (postgresql.JSONB, Kind.JSONB),
        (sa_types.JSON, Kind.TEXT if sqlite else Kind.JSON),
        (sa_types.Uuid, Kind.TEXT if sqlite else Kind.UUID),
        (sa_types.LargeBinary, Kind.BLOB),
        (sa_types.Boolean, Kind.BOOLEAN),
        (sa_types.Integer, Kind.INTEGER),
        (Xid8, Kind.XID8),
        (sa_types.String, Kind.TEXT),
    )
    for class_, kind in rules:
        if isinstance(type_, class_):
            return kind
    if isinstance(type_, sa_types.DateTime):
        return Kind.AWARE if getattr(type_, "timezone", False) else Kind.NAIVE
    return Kind.TEXT if sqlite else Kind.OTHER
