"""Rows of a layout's tables as events: what is selected, and what becomes of it.

The statement and the reading of its rows belong together, so both are here. No I/O
happens here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Final

from sqlalchemy import Select, and_, exists, func, not_, or_, select

from eventmig.errors import DataError, Where
from eventmig.events import Event, Origin
from eventmig.stores.layouts import lineage, values
from eventmig.stores.layouts.columns import Expression
from eventmig.stores.layouts.tables import Tables

_NAMESPACE: Final = uuid.UUID("0b1b1a2e-2f0e-5c55-9f0c-4d6a3c1f7e02")
_FIRST = lineage.origins.alias("o")


def derived_id(stream: str, position: int) -> str:
    """The id of an event whose tables have none: UUIDv5 over its stream and position.

    Put together here: `uuid.uuid5` and its text take three times as long.
    """
    name = _NAMESPACE.bytes + f"{stream}\x1f{position}".encode()
    text = sha1(name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


class Rows:
    """Selects events of a layout and makes `Event`s of the rows.

    `beside` says whether the side tables are there. Raises `DataError`s that name the
    event: opaque payloads, versions that are no numbers, times that are none.
    """

    def __init__(
        self, tables: Tables, *, url: str, namespace: str, release: str | None, beside: bool
    ) -> None:
        layout = tables.layout
        self._tables = tables
        self._layout = layout
        self._url = url
        self._namespace = namespace
        self._release = release
        self._beside = beside
        self._keys = len(tables.keys)
        self._version = layout.version
        empty = layout.metadata.empty if layout.metadata else None
        self._no_metadata = None if empty is None else empty.encode()
        self._read_time: Callable[[Any], int] | None = None
        self._find_time: Callable[[bytes], int] | None = None
        if layout.time is not None and layout.time.column is not None:
            self._read_time = values.time_reader(layout.time)
        elif layout.time is not None and layout.time.member is not None:
            self._find_time = values.time_in_data(layout.time.member)

    # statements

    def events(self) -> Select[Any]:
        """Every event of this store, with all its parts; to be bounded and ordered."""
        tables, layout = self._tables, self._layout
        columns: list[Expression] = [
            tables.position,
            *(tables.plain(name) for name in layout.stream.columns),
            tables.stream_position,
            tables.plain(layout.type.column),
            tables.stored(layout.data.column),
        ]
        if layout.metadata is not None:
            columns.append(tables.stored(layout.metadata.column))
        if layout.id.column is not None:
            columns.append(tables.plain(layout.id.column))
        if layout.version.place == "column":
            columns.append(tables.column(layout.version.name))
        if layout.time is not None and layout.time.column is not None:
            columns.append(tables.plain(layout.time.column))
        columns += map(tables.carried, layout.passed_through)
        source: Any = tables.source
        if self._beside:
            o = _FIRST.c
            columns += [o.event_id, o.schema_version, o.stream, o.stream_position, o.ordinal]
            source = self._beside_of(source)
        return select(*columns).select_from(source).where(*self.ours())

    def ours(self) -> list[Expression]:
        """The conditions under which a row is an event of this store."""
        conditions = self._tables.ours()
        if self._beside:
            streams = lineage.streams.c
            made = [
                streams.events_table == self._layout.table,
                streams.stream == self._tables.name(),
            ]
            if self._release is None:
                conditions.append(not_(exists().where(*made)))
            else:
                conditions.append(exists().where(*made, streams.release == self._release))
        elif self._release is not None:
            conditions.append(self._tables.position < 0)  # no job has made any stream yet
        return conditions

    def of_types(self, types: Sequence[str]) -> Expression:
        """The condition that a row is of one of these types (or may be: see `events`)."""
        column = self._tables.column(self._layout.type.column)
        suffix = self._layout.type.suffix
        exact: Expression = column.in_(types)
        if suffix is None:
            return exact
        return or_(exact, *(column.startswith(t + suffix, autoescape=True) for t in types))

    def kinds(self) -> Select[Any] | None:
        """Stored type, stored version (or the side table's) and count of each kind of event.

        None where the schema version is inside of payloads, which only a scan sees.
        """
        tables, version = self._tables, self._version
        if version.place in ("data", "metadata"):
            return None
        kind: list[Expression] = [tables.column(self._layout.type.column)]
        if version.place == "column":
            kind.append(tables.column(version.name))
        source: Any = tables.source
        if version.place == "none" and self._beside:
            source = self._beside_of(source)
            kind.append(_FIRST.c.schema_version)
        counted = select(*kind, func.count()).select_from(source).where(*self.ours())
        return counted.group_by(*kind)

    def kind(self, row: Sequence[Any]) -> tuple[str, int]:
        """Type and schema version of a row of `kinds`."""
        version = row[1] if len(row) > 2 else None
        return self._kind(row[0], version, version)

    # rows

    def event(self, row: Sequence[Any]) -> Event:
        """The event of one row of `events`, with at most one origin."""
        keys = self._keys
        position, key, stream_position = row[0], row[1 : 1 + keys], row[1 + keys]
        stream = self._tables.stream(key)
        try:
            return self._event(row, stream)
        except DataError as error:
            where = Where(
                store=self._url,
                stream=stream,
                stream_position=stream_position,
                global_position=position,
                type=str(row[2 + keys]),
            )
            raise type(error)(error.what, where=where, remedy=error.remedy) from error

    def _event(self, row: Sequence[Any], stream: str) -> Event:
        layout = self._layout
        rest = iter(row[self._keys + 1 :])
        stream_position, stored_type, stored = next(rest), next(rest), next(rest)
        data = values.unpacked(stored, layout.data)
        metadata = None
        if layout.metadata is not None:
            stored = next(rest)
            metadata = None if stored is None else values.unpacked(stored, layout.metadata)
            if metadata is not None and metadata == self._no_metadata:
                metadata = None
        event_id = None if layout.id.column is None else str(next(rest))
        stored_version = next(rest) if layout.version.place == "column" else None
        recorded_at = 0
        if self._read_time is not None:
            at = next(rest)
            recorded_at = 0 if at is None else self._read_time(at)
        elif self._find_time is not None:
            recorded_at = self._find_time(data)
        if layout.passed_through:
            carried = {name: next(rest) for name in layout.passed_through}
            metadata = values.with_columns(metadata, carried)
        origins: tuple[Origin, ...] = ()
        kept_id = kept_version = None
        if self._beside:
            kept_id, kept_version, origin_stream, origin_position, ordinal = rest
            if origin_position is not None:
                origins = (Origin(origin_stream or stream, origin_position, ordinal),)
        type_, version = self._kind(stored_type, stored_version, kept_version)
        if layout.version.place == "data":
            version, data = values.version_of_data(data, layout.version)
        elif layout.version.place == "metadata":
            version = values.version_of_metadata(metadata, layout.version)
        if event_id is None:
            event_id = kept_id or derived_id(stream, stream_position)
        return Event(
            row[0],
            stream,
            stream_position,
            event_id,
            type_,
            version,
            data,
            metadata,
            recorded_at,
            origins,
        )

    def _kind(self, stored: str, version: object, kept: int | None) -> tuple[str, int]:
        match self._version.place:
            case "type":
                return values.split_type(stored, self._layout)
            case "column":
                return stored, values.version_of_column(version, self._version)
            case "none":
                return stored, kept or self._version.absent
        return stored, self._version.absent

    def _beside_of(self, source: Any) -> Any:
        o = _FIRST.c
        return source.outerjoin(
            _FIRST,
            and_(
                o.namespace == self._namespace,
                o.global_position == self._tables.position,
                o.number == 0,
            ),
        )
