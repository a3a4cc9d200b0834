"""A layout put on a real database: columns looked up, and the expressions that read and write them.

The statements are SQLAlchemy's, for SQLite and PostgreSQL alike: identifiers quoted
by it, values bound. Payloads are read as stored bytes, never parsed by a driver.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Integer,
    LargeBinary,
    TableClause,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    exists,
    func,
    inspect,
    literal,
    not_,
    select,
    table,
    tuple_,
)
from sqlalchemy import types as sa_types
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.util import ClauseAdapter

from eventmig.errors import DataError, NotAStoreError, Where
from eventmig.stores.layouts.columns import Expression, Found, Kind, columns_of, parameter
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.order import Order, numbered


class Tables:
    """A layout's tables in one database. Raises `NotAStoreError` where they lack something."""

    def __init__(self, connection: Connection, layout: Layout, url: str) -> None:
        self.layout = layout
        self.sqlite = connection.dialect.name == "sqlite"
        self._found: dict[str, Found] = {}
        inspector = inspect(connection)
        for name in (layout.table, *(join.table for join in layout.joins)):
            if name not in inspector.get_table_names() and name not in inspector.get_view_names():
                raise NotAStoreError(
                    f"there is no table {name!r}, which the layout {layout.name!r} reads",
                    where=Where(store=url),
                    remedy="name the table (?table=…) or another layout; `eventmig inspect` "
                    "shows what is there",
                )
            for column_name, found in columns_of(connection, name).items():
                self._found[f"{name}.{column_name}"] = found
        if self.sqlite:
            self._found.setdefault(f"{layout.table}.rowid", Found(Kind.INTEGER, Integer()))
        missing = [name for name in layout.columns() if self._full(name) not in self._found]
        if missing:
            raise NotAStoreError(
                f"the table {layout.table!r} has no column {', '.join(map(repr, missing))}, "
                f"which the layout {layout.name!r} reads",
                where=Where(store=url),
                remedy="`eventmig inspect` shows what is there; describe it in [layouts]",
            )
        self._check_payloads(url)
        names = [name for name in self._found if name.startswith(f"{layout.table}.")]
        self.events = table(layout.table, *(column(n.split(".", 1)[1]) for n in names))
        self._tables: dict[str, TableClause] = {layout.table: self.events}
        self.source: FromClause = self.events
        for join in layout.joins:
            joined = table(
                join.table,
                *(
                    column(n.split(".", 1)[1])
                    for n in self._found
                    if n.startswith(f"{join.table}.")
                ),
            )
            self._tables[join.table] = joined
            on = [joined.c[own] == self.column(other) for own, other in join.on.items()]
            self.source = self.source.join(joined, and_(*on))
        self._kinds = {name: self._found[self._full(name)].kind for name in layout.columns()}
        self.position: Expression = self.column(layout.position)
        self.stream_position: Expression = self.column(layout.stream.position)
        self.keys: tuple[Expression, ...] = tuple(map(self.column, layout.stream.columns))
        self.order = self._order(url)

    def _order(self, url: str) -> Order:
        transaction = self.layout.transaction
        if transaction is None:
            return Order(self.layout, self.position)
        name = transaction.column
        written = numbered(self.column(name), self.kind(name), name, url)
        return Order(self.layout, self.position, written)

    def _check_payloads(self, url: str) -> None:
        for payload in (self.layout.data, self.layout.metadata):
            if payload is None:
                continue
            type_ = self._found[self._full(payload.column)].type
            if isinstance(type_, postgresql.OID):
                raise NotAStoreError(
                    f"the column {payload.column!r} holds numbers of large objects (oid)",
                    where=Where(store=url),
                    remedy="eventmig reads payloads in the row: move them to bytea with the "
                    "library that owns them",
                )

    # columns

    def table(self, name: str) -> TableClause:
        """The events' table, or a joined one."""
        return self._tables[name]

    def column(self, name: str) -> Expression:
        """The column of this name (`table.column` for one of a joined table)."""
        full = self._full(name)
        table_name, _, column_name = full.rpartition(".")
        found: Expression = self._tables[table_name].c[column_name]
        return found

    def kind(self, name: str) -> Kind:
        """What this column, which the layout names, holds."""
        return self._kinds[name]

    def digits(self, name: str) -> int:
        """How many digits of a second a time column holds."""
        precision = getattr(self._found[self._full(name)].type, "precision", None)
        return 6 if precision is None else int(precision)

    def _full(self, name: str) -> str:
        joined = any(name.startswith(f"{join.table}.") for join in self.layout.joins)
        return name if joined else f"{self.layout.table}.{name}"

    def stored(self, name: str) -> Expression:
        """A payload column, as text or bytes and nothing else."""
        if self.sqlite:
            return cast(self.column(name), LargeBinary)
        if self.kind(name) is Kind.BLOB:
            return cast(self.column(name), LargeBinary)
        return cast(self.column(name), Text)

    def plain(self, name: str) -> Expression:
        """A column whose value is text or a number."""
        if self.kind(name) in (Kind.INTEGER, Kind.BOOLEAN, Kind.AWARE, Kind.NAIVE):
            return cast(self.column(name), Text) if self.sqlite_time(name) else self.column(name)
        return self.column(name) if self.sqlite else cast(self.column(name), Text)

    def sqlite_time(self, name: str) -> bool:
        """Whether SQLite keeps this time as text."""
        return self.sqlite and self.kind(name) in (Kind.AWARE, Kind.NAIVE)

    def carried(self, name: str) -> Expression:
        """A passed-through column: as it is in SQLite, as text in PostgreSQL."""
        return self.column(name) if self.sqlite else cast(self.column(name), Text)

    def bound(self, name: str, as_: str) -> Expression:
        """A parameter for this column, cast to the column's own type where that is needed."""
        return parameter(self._found[self._full(name)], as_, self.sqlite)

    def bound_carried(self, name: str, as_: str) -> Expression:
        """A parameter for a passed-through column, from what `carried` read."""
        if self.sqlite:
            return bindparam(as_)
        type_ = self._found[self._full(name)].type
        if isinstance(type_, sa_types.NullType):
            return bindparam(as_)
        return cast(bindparam(as_, type_=Text()), type_)

    def writes_bytes(self, name: str) -> bool:
        """Whether this payload column takes bytes (else text)."""
        return self.kind(name) is Kind.BLOB

    # rows

    def fixed(self) -> list[Expression]:
        """The conditions of `where`."""
        return [self.column(name) == value for name, value in self.layout.where.items()]

    def ours(self) -> list[Expression]:
        """The conditions under which a row is an event of this layout."""
        if not self.layout.links:
            return self.seen_in_row()
        patterns = self.layout.stream.left_out
        # Links of events that are left out are left out, too.
        beside, column = self.events.alias("beside"), self.layout.link_column()
        stream = beside.c[self.layout.stream.columns[0]]
        same = beside.c[column] == self.events.c[column]
        return [*self.fixed(), *(not_(exists().where(same, stream.like(p))) for p in patterns)]

    def seen_in_row(self) -> list[Expression]:
        """Of the conditions that a row is an event, those that are seen in the row itself."""
        return [*self.fixed(), *(not_(self.name().like(p)) for p in self.layout.stream.left_out)]

    def name(self) -> Expression:
        """The stream's name, in the database."""
        keys = [cast(key, Text) for key in self.keys]
        first: Expression = keys[0]
        for other in keys[1:]:
            first = first.concat(self.layout.stream.separator).concat(other)
        return first

    def stream(self, values: Sequence[object]) -> str:
        """The stream's name, from its key columns. Raises `DataError` where that is ambiguous."""
        if len(values) == 1:
            return str(values[0])
        separator = self.layout.stream.separator
        texts = [str(value) for value in values]
        if any(separator in text for text in texts[:-1]):
            raise DataError(
                f"the key {tuple(texts)} of a stream holds {separator!r} before its last part",
                remedy="set stream.separator in the layout to something that the keys do not hold",
            )
        return separator.join(texts)

    def streams(self, keys: Sequence[Sequence[object]]) -> list[str]:
        """The names of many streams, from their key columns; raises as `stream` does."""
        if len(keys) == 1:
            return list(map(str, keys[0]))
        return list(map(self.stream, zip(*keys, strict=True)))

    def key_of(self, stream: str) -> tuple[str, ...] | None:
        """The values of the key columns of a stream; None where it cannot be in these tables."""
        count = len(self.keys)
        if count == 1 and self.kind(self.layout.stream.columns[0]) is Kind.TEXT:
            return (stream,)
        parts = tuple(stream.split(self.layout.stream.separator, count - 1))
        if len(parts) != count:
            return None
        for name, value in zip(self.layout.stream.columns, parts, strict=True):
            if self.kind(name) is Kind.UUID and not _is_uuid(value):
                return None
            if self.kind(name) is Kind.INTEGER and not value.lstrip("-").isdecimal():
                return None
        return parts

    def among(
        self, keys: Sequence[tuple[str, ...]], of: Sequence[Expression] | None = None
    ) -> Expression:
        """The condition that a row belongs to one of the streams with these keys.

        `of`: such columns of another table (None: of the events').
        """
        columns = self.keys if of is None else of
        if len(columns) == 1:
            name = self.layout.stream.columns[0]
            among: Expression = columns[0].in_(self._bound_list(name, [key[0] for key in keys]))
        else:
            among = tuple_(*columns).in_([tuple_(*self._bound_key(key)) for key in keys])
        by_second = None if of is not None else self._by_second(among)
        return among if by_second is None else and_(among, by_second)

    def _by_second(self, among: Expression) -> Expression | None:
        """What follows from that condition: by the second rows of events, which stand by stream.

        The first ones stand by the order over all, and have no index of their streams.
        """
        join, event = self.layout.of_streams(), self.layout.link_column()
        number = self.layout.number_column()
        by = next((name for name, of in self.layout.second.items() if of == number), None)
        if join is None or not event or by is None:
            return None
        (its,) = join.on
        streams = self._tables[join.table].alias("named")
        named = ClauseAdapter(streams).traverse(among)
        second = self.events.alias("second")
        same = second.c[by] == streams.c[its]
        events = select(second.c[event]).join(streams, same).where(named)
        return self.events.c[event].in_(events)

    def beyond(self, key: tuple[str, ...]) -> Expression:
        """The condition that a row's stream comes after this one, in the order of the keys."""
        if len(self.keys) == 1:
            return self.keys[0] > self._bound_key(key)[0]
        return tuple_(*self.keys) > tuple_(*self._bound_key(key))

    def placed(self) -> FromClause:
        """What says of an event in which stream it is: the events' table alone, if that does."""
        named = (*self.layout.stream.columns, *self.layout.where)
        alone = all(self._full(n).startswith(f"{self.layout.table}.") for n in named)
        return self.events if alone else self.source

    def extent(self) -> tuple[Expression, Expression]:
        """The first and the last stream position of a group of rows of one stream."""
        if not self.layout.stream.counted:
            return func.min(self.stream_position), func.max(self.stream_position)
        first = self.layout.stream.first
        return literal(first), func.count() + (first - 1)

    def among_ids(self, ids: Sequence[str]) -> Expression:
        """The condition that a row's event has one of these ids."""
        assert self.layout.id.column is not None
        if self.kind(self.layout.id.column) is Kind.UUID:
            ids = list(filter(_is_uuid, ids))
        return self.column(self.layout.id.column).in_(self._bound_list(self.layout.id.column, ids))

    def _bound_list(self, name: str, values: Sequence[str]) -> Any:
        """Values of a column as one parameter, where its type is one of the usual."""
        found = self._found[self._full(name)]
        if found.kind is Kind.INTEGER:
            return list(map(int, values))
        if self.sqlite or found.kind is Kind.TEXT:
            return bindparam(None, values, type_=Text(), expanding=True)
        if found.kind is Kind.UUID:
            return bindparam(None, values, type_=Uuid(as_uuid=False), expanding=True)
        return [parameter(found, None, self.sqlite, value) for value in values]

    def _bound_key(self, key: tuple[str, ...]) -> list[Expression]:
        return [
            parameter(self._found[self._full(name)], None, self.sqlite, value)
            for name, value in zip(self.layout.stream.columns, key, strict=True)
        ]

    def highest(self) -> Expression:
        """The highest value of the position's column, whoseever the row is.

        For none, the one before the first.
        """
        return func.coalesce(func.max(self.position), self.layout.first - 1)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
