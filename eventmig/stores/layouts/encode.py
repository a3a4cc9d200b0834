"""Events as rows of a layout's table: the way back of `rows`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Insert, func, insert

from eventmig.errors import DataError, Where
from eventmig.events import Event
from eventmig.stores.layouts import values
from eventmig.stores.layouts.columns import Expression, Kind
from eventmig.stores.layouts.description import Payload
from eventmig.stores.layouts.tables import Tables

XID: Final = "{xid}"


class Encoder:
    """Makes the rows of one insert. Raises `DataError`s that name the event and what of it
    these tables cannot hold.
    """

    def __init__(self, tables: Tables, url: str) -> None:
        layout = tables.layout
        self._tables = tables
        self._layout = layout
        self._columns = layout.columns()
        self._fixed: dict[str, object] = {**layout.where, **layout.constants}
        self._url = url
        self._write_time: Callable[[int], object] | None = None
        self._find_time: Callable[[bytes], int] | None = None
        if layout.time is not None and layout.time.column is not None:
            kind = tables.kind(layout.time.column)
            spoken = {Kind.AWARE: "aware", Kind.NAIVE: "naive"}.get(kind, "text")
            spoken = "text" if tables.sqlite else spoken
            digits = tables.digits(layout.time.column)
            self._write_time = values.time_writer(layout.time, spoken, digits)
        elif layout.time is not None and layout.time.member is not None:
            self._find_time = values.time_in_data(layout.time.member)

    def insertion(self) -> Insert:
        """The statement for rows made by `row`."""
        bound: dict[str, Expression] = {}
        for number, name in enumerate(self._columns):
            if self._layout.constants.get(name) == XID:
                bound[name] = func.pg_current_xact_id()
                continue
            carried = name in self._layout.passed_through
            make = self._tables.bound_carried if carried else self._tables.bound
            bound[name] = make(name, f"b{number}")
        return insert(self._tables.events).values(bound)

    def row(self, event: Event, key: tuple[str, ...], place: int) -> dict[str, object]:
        """One event's values for `insertion`, at this global position."""
        try:
            found = self._row(event, key, place)
        except DataError as error:
            where = Where(
                store=self._url,
                stream=event.stream,
                stream_position=event.stream_position,
                event_id=event.id,
                type=event.type,
                schema_version=event.schema_version,
            )
            raise type(error)(error.what, where=where, remedy=error.remedy) from error
        named = enumerate(self._columns)
        return {f"b{n}": found[name] for n, name in named if found[name] != XID}

    def _row(self, event: Event, key: tuple[str, ...], place: int) -> dict[str, Any]:
        layout, version = self._layout, self._layout.version
        data, metadata = event.data, event.metadata
        carried: dict[str, object] = {}
        if layout.passed_through:
            metadata, carried = values.without_columns(metadata)
        if version.place == "data":
            data = values.data_with_version(data, version, event.schema_version)
        elif version.place == "metadata":
            metadata = values.metadata_with_version(metadata, version, event.schema_version)
        row: dict[str, Any] = dict(self._fixed)
        row |= zip(layout.stream.columns, map(self._typed, layout.stream.columns, key), strict=True)
        row[layout.position] = place
        row[layout.stream.position] = event.stream_position
        row[layout.type.column] = values.joined_type(event.type, event.schema_version, layout)
        row[layout.data.column] = self._payload(data, layout.data)
        if layout.metadata is not None:
            if metadata is None and layout.metadata.empty is not None:
                metadata = layout.metadata.empty.encode()
            stored = None if metadata is None else self._payload(metadata, layout.metadata)
            row[layout.metadata.column] = stored
        elif metadata is not None:
            raise DataError(
                f"the event has metadata, and the layout {layout.name!r} has no place for them",
                remedy="drop the metadata in a step, or choose a target that holds them",
            )
        if layout.id.column is not None:
            row[layout.id.column] = self._id(event.id, layout.id.column)
        if version.place == "column":
            text = self._tables.kind(version.name) is Kind.TEXT
            number = event.schema_version
            row[version.name] = str(number) if text else number
        self._set_time(row, event)
        for name in layout.passed_through:
            row[name] = carried.get(name, row.get(name))
        return row

    def _set_time(self, row: dict[str, Any], event: Event) -> None:
        time = self._layout.time
        if self._write_time is not None and time is not None and time.column is not None:
            row[time.column] = self._write_time(event.recorded_at)
            return
        wrong = self._find_time is not None and self._find_time(event.data) != event.recorded_at
        if wrong and time is not None:
            raise DataError(
                f"the time in the data ({time.member}) is not the event's recorded time",
                remedy="keep that member in the upcaster: this layout has no other time",
            )

    def _payload(self, data: bytes, payload: Payload) -> bytes | str | None:
        stored = values.packed(data, payload)
        if stored is None or self._tables.writes_bytes(payload.column):
            return stored
        return stored.decode()

    def _typed(self, name: str, value: str) -> object:
        return int(value) if self._tables.kind(name) is Kind.INTEGER else value

    def _id(self, event_id: str, column: str) -> str:
        if self._tables.kind(column) is Kind.UUID:
            try:
                uuid.UUID(event_id)
            except ValueError as error:
                raise DataError(
                    f"the id {event_id!r} is no UUID, and the column {column!r} holds only those",
                    remedy="choose a target whose ids are text",
                ) from error
        return event_id
