"""The owner's snapshots beside the events: counted, replaced, and taken away where none can be.

A snapshot table names stream, position, type and state by the same columns as the table of
events. Everything here is within the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Delete,
    Text,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    inspect,
    or_,
    select,
    table,
)
from sqlalchemy import column as sa_column

from eventmig.errors import NotAStoreError, OpaqueError, StoreDamagedError, Where
from eventmig.stores.layouts import owner_states, values
from eventmig.stores.layouts.bulk import copies, copy_rows, insert_rows
from eventmig.stores.layouts.columns import Expression, Kind, columns_of, parameter
from eventmig.stores.layouts.rows import Rows
from eventmig.stores.layouts.tables import Tables
from eventmig.stores.owned import LeftBehind, OwnerSnapshot

_AT_ONCE: Final = 200  # streams in one statement


def left_behind(connection: Connection, tables: Tables) -> list[LeftBehind]:
    """Snapshots, and streams that are no events, where there are some. Reads only."""
    found = []
    for name in there(connection, tables):
        count = connection.execute(select(func.count()).select_from(table(name))).scalar_one()
        found.append(LeftBehind(number=count, table=name))
    for pattern in tables.layout.stream.left_out:
        query = select(func.count()).select_from(tables.source).where(tables.name().like(pattern))
        count = connection.execute(query).scalar_one()
        found.append(LeftBehind(number=count, streams=pattern))
    return [one for one in found if one.number]


def there(connection: Connection, tables: Tables) -> list[str]:
    """The layout's tables of snapshots that this database has. Reads only."""
    names = set(inspect(connection).get_table_names())
    return [name for name in tables.layout.snapshot_tables() if name in names]


def drop_astray(
    connection: Connection, tables: Tables, streams: Sequence[tuple[str, ...]] | None = None
) -> int:
    """Delete snapshots (of the streams with these keys) that stand where no event is.

    Returns how many. Tables with other columns than the events' are left alone.
    """
    gone = 0
    for name in there(connection, tables):
        with suppress(NotAStoreError):
            gone += SnapshotTable(connection, tables, name).drop_astray(streams)
    return gone


class SnapshotTable:
    """One table of snapshots; raises `NotAStoreError` where it is not as the events' table."""

    def __init__(self, connection: Connection, tables: Tables, name: str) -> None:
        layout = tables.layout
        self.name = name
        self._connection = connection
        self._tables = tables
        self._found = columns_of(connection, name)
        place = [*layout.stream.columns, layout.stream.position]
        missing = [one for one in place if one not in self._found]
        if missing:
            raise NotAStoreError(
                f"the table {name!r} of snapshots has no column {missing[0]!r}",
                remedy="`eventmig inspect` shows what is there; describe it in the layout",
            )
        self._table = table(name, *map(sa_column, self._found))
        self._keys = [self._table.c[one] for one in layout.stream.columns]
        self._fixed = {n: value for n, value in layout.where.items() if n in self._found}

    def drop_astray(self, keys: Sequence[tuple[str, ...]] | None = None) -> int:
        """Delete snapshots (of these streams) that stand where no event is; returns how many."""
        tables, layout = self._tables, self._tables.layout
        same = [*layout.stream.columns, layout.stream.position]
        event = exists().where(*(tables.events.c[n] == self._table.c[n] for n in same))
        clause = self._delete().where(~event)
        if keys is None:
            return self._connection.execute(clause).rowcount
        return sum(
            self._connection.execute(clause.where(self._among(keys[at : at + _AT_ONCE]))).rowcount
            for at in range(0, len(keys), _AT_ONCE)
        )

    def replace(
        self, streams: Collection[str], snapshots: Sequence[OwnerSnapshot], rows: Rows, url: str
    ) -> int:
        """Delete the snapshots of these streams, and write these; returns how many went.

        Raises `StoreDamagedError` where an event is another, `DataError` for a state that the
        owner's form cannot hold.
        """
        keys = [key for key in map(self._tables.key_of, sorted(streams)) if key is not None]
        gone = 0
        for at in range(0, len(keys), _AT_ONCE):
            among = self._among(keys[at : at + _AT_ONCE])
            gone += self._connection.execute(self._delete().where(among)).rowcount
        for at in range(0, len(snapshots), _AT_ONCE):
            self._write(snapshots[at : at + _AT_ONCE], rows, url)
        return gone

    def places(self, streams: Collection[str]) -> list[tuple[str, int]]:
        """Stream and position of each snapshot of these streams, in this order. Reads only."""
        keys = [key for key in map(self._tables.key_of, streams) if key is not None]
        columns = [self._name(one) for one in self._tables.layout.stream.columns]
        position = self._table.c[self._tables.layout.stream.position]
        found = []
        for at in range(0, len(keys), _AT_ONCE):
            query = select(*columns, position).where(self._among(keys[at : at + _AT_ONCE]))
            for *key, place in self._connection.execute(query):
                found.append((self._tables.stream(key), int(place)))
        return sorted(found)

    def unlike(
        self, snapshots: Sequence[OwnerSnapshot], rows: Rows, url: str
    ) -> Iterator[tuple[str, int, str]]:
        """Stream, position and what is wrong, of snapshots that are not stored so. Reads only.

        Raises as `replace`.
        """
        for at in range(0, len(snapshots), _AT_ONCE):
            some = snapshots[at : at + _AT_ONCE]
            stored = self._stored(some)
            for one, state in zip(some, self._states(some, rows, url), strict=True):
                kind, found = stored.get((one.stream, one.stream_position), ("", None))
                reason = _unlike(one, kind, found, state)
                if reason:
                    yield one.stream, one.stream_position, reason

    def _stored(
        self, snapshots: Sequence[OwnerSnapshot]
    ) -> dict[tuple[str, int], tuple[str, bytes | None]]:
        layout = self._tables.layout
        columns = [self._name(one) for one in layout.stream.columns]
        position, kind, state = (
            self._table.c[n]
            for n in (layout.stream.position, layout.type.column, layout.data.column)
        )
        keys = [k for k in {self._tables.key_of(one.stream) for one in snapshots} if k is not None]
        query = select(*columns, position, kind, state).where(self._among(keys))
        found: dict[tuple[str, int], tuple[str, bytes | None]] = {}
        for *key, place, type_, stored in self._connection.execute(query):
            try:
                unpacked = values.unpacked(stored, layout.data)
            except OpaqueError:
                unpacked = None
            found[self._tables.stream(key), int(place)] = (type_, unpacked)
        return found

    def _name(self, column: str) -> Expression:
        found: Expression = self._table.c[column]
        return found if self._tables.sqlite else cast(found, Text)

    def _write(self, snapshots: Sequence[OwnerSnapshot], rows: Rows, url: str) -> None:
        layout = self._tables.layout
        columns: dict[str, list[Any]] = {
            name: []
            for name in (
                *layout.stream.columns,
                layout.stream.position,
                layout.type.column,
                layout.data.column,
                *self._fixed,
            )
        }
        binary = self._found[layout.data.column].kind is Kind.BLOB
        for one, made in zip(snapshots, self._states(snapshots, rows, url), strict=True):
            state = values.packed(made, layout.data)
            key = self._tables.key_of(one.stream)
            assert state is not None
            assert key is not None
            text = state if binary else state.decode()
            row = (*key, one.stream_position, one.kind, text, *self._fixed.values())
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        if copies(self._connection, self.name):
            copy_rows(self._connection, self.name, columns)
            return
        sqlite = self._tables.sqlite
        bound = {n: parameter(self._found[n], f"b{i}", sqlite) for i, n in enumerate(columns)}
        named = {f"b{i}": column for i, column in enumerate(columns.values())}
        insert_rows(self._connection, insert(self._table).values(bound), named)

    def _states(self, snapshots: Sequence[OwnerSnapshot], rows: Rows, url: str) -> list[bytes]:
        """What the owner would store as the state of each, as JSON."""
        events = self._events(snapshots, rows)
        made = []
        for one in snapshots:
            first = events.get((one.stream, self._tables.layout.stream.first))
            last = events.get((one.stream, one.stream_position))
            if first is None or last is None or last[0] != one.event_id:
                raise StoreDamagedError(
                    f"a snapshot was folded up to the event {one.event_id}, which is not at its "
                    "place any more",
                    where=Where(store=url, stream=one.stream, stream_position=one.stream_position),
                    remedy="the store was changed meanwhile: rebuild the snapshots again",
                )
            made.append(owner_states.eventsourcing(one, first[1], last[1]))
        return made

    def _events(
        self, snapshots: Sequence[OwnerSnapshot], rows: Rows
    ) -> dict[tuple[str, int], tuple[str, bytes]]:
        """Id and data of the events that these snapshots stand at, and of each stream's first."""
        wanted: dict[int, set[tuple[str, ...]]] = {}
        for one in snapshots:
            key = self._tables.key_of(one.stream)
            for place in (self._tables.layout.stream.first, one.stream_position):
                if key is not None:
                    wanted.setdefault(place, set()).add(key)
        position = self._tables.stream_position
        places = [
            and_(position == place, self._tables.among(sorted(keys)))
            for place, keys in sorted(wanted.items())
        ]
        found = self._connection.execute(rows.events().where(or_(*places))).all()
        if not found:
            return {}
        page = rows.page(found)
        at = zip(page.streams, page.stream_positions, strict=True)
        return dict(zip(at, zip(page.ids, page.data, strict=True), strict=True))

    def _delete(self) -> Delete:
        """To delete of this store's own rows."""
        own = (self._table.c[name] == value for name, value in self._fixed.items())
        return delete(self._table).where(*own)

    def _among(self, keys: Sequence[tuple[str, ...]]) -> Expression:
        return self._tables.among(keys, self._keys)


def _unlike(wanted: OwnerSnapshot, kind: str, stored: bytes | None, made: bytes) -> str:
    """What is wrong with a stored snapshot; empty where nothing is. Its own time does not count."""
    if stored is None:
        return "it is opaque, or not there any more"
    try:
        found, right = json.loads(stored), json.loads(made)
        if (kind, found["topic"]) != (wanted.kind, wanted.topic):
            return f"it is a {kind} of {found['topic']}"
        if found["state"] == right["state"]:
            return ""
        ours, theirs = right["state"], found["state"]
        names = [n for n in {**ours, **theirs} if ours.get(n, ours) != theirs.get(n, theirs)]
    except (KeyError, TypeError, AttributeError, ValueError):
        return "it is no snapshot of this form"
    return f"a full replay gives another {', '.join(names)}"
