"""Events as columns of a layout's table: the way back of `rows`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Text, cast, insert, select

from eventmig.errors import DataError, Where
from eventmig.events import Columns, Event
from eventmig.stores.layouts import values
from eventmig.stores.layouts.columns import Expression, Kind
from eventmig.stores.layouts.joined import Destination
from eventmig.stores.layouts.parts import TIME, Payload, Time
from eventmig.stores.layouts.tables import Tables


class Encoder:
    """Makes the columns of many rows at once.

    Raises `DataError`s that name the event and what of it these tables cannot hold. `transaction`
    is the number of the transaction that writes them, where a column holds it.
    """

    def __init__(self, tables: Tables, url: str, *, transaction: str | None) -> None:
        layout = tables.layout
        self._tables = tables
        self._layout = layout
        self._fixed: dict[str, object] = {**layout.where, **layout.constants}
        if layout.transaction is not None and transaction is not None:
            integer = tables.kind(layout.transaction.column) is Kind.INTEGER
            self._fixed[layout.transaction.column] = int(transaction) if integer else transaction
        self._url = url
        self._write_times: dict[str, Callable[[int], object]] = {}
        self._find_time: Callable[[bytes], int] | None = None
        for name in (name for name, value in layout.constants.items() if value == TIME):
            self._write_times[name] = time_writer(tables, Time(column=name))
        if layout.time is not None and layout.time.column is not None:
            self._write_times[layout.time.column] = time_writer(tables, layout.time)
        elif layout.time is not None and layout.time.member is not None:
            self._find_time = values.time_in_data(layout.time.member)
        self._elsewhere = elsewhere(tables)

    def insertion(self, to: Destination) -> Insert:
        """The statement for one row there; its parameters have the names of `parameters`."""
        bound: dict[str, Expression] = {}
        for number, (column, made) in enumerate(to.columns.items()):
            carried = made in self._layout.passed_through
            make = self._tables.bound_carried if carried else self._tables.bound
            bound[column] = make(to.named(column, self._layout), f"b{number}")
        return insert(self._tables.table(to.table)).values(bound)

    def parameters(
        self, columns: Mapping[str, Sequence[Any]], to: Destination
    ) -> dict[str, Sequence[Any]]:
        """What `columns` made, as parameters of `insertion`."""
        return {f"b{n}": columns[made] for n, made in enumerate(to.columns.values())}

    def columns(
        self,
        events: Columns,
        positions: Sequence[int],
        keys: Sequence[tuple[str, ...]],
        places: Sequence[int],
    ) -> dict[str, Sequence[Any]]:
        """The tables' columns for events at these stream and global positions, by their names.

        `keys` are the values of their streams' key columns.
        """
        try:
            return self._made(events, positions, keys, places)
        except DataError:
            for event, key, place in zip(events.events(positions), keys, places, strict=True):
                self._only(event, key, place)  # which one is it?
            raise

    def _only(self, event: Event, key: tuple[str, ...], place: int) -> None:
        try:
            self._made(Columns.of([event]), [event.stream_position], [key], [place])
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

    def _made(
        self,
        events: Columns,
        positions: Sequence[int],
        keys: Sequence[tuple[str, ...]],
        places: Sequence[int],
    ) -> dict[str, Sequence[Any]]:
        layout, version, count = self._layout, self._layout.version, len(events.ids)
        data, metadata = events.data, events.metadata
        numbers = events.schema_versions
        made: dict[str, Sequence[Any]] = {n: [v] * count for n, v in self._fixed.items()}
        carried: list[dict[str, object]] = []
        if layout.passed_through:
            parts = list(map(values.without_columns, metadata))
            metadata = [alone for alone, _ in parts]
            carried = [columns for _, columns in parts]
        if version.place == "data":
            data = [
                values.data_with_version(one, version, number)
                for one, number in zip(data, numbers, strict=True)
            ]
        elif version.place == "metadata":
            metadata = [
                values.metadata_with_version(one, version, number)
                for one, number in zip(metadata, numbers, strict=True)
            ]
        for name, column in zip(layout.stream.columns, zip(*keys, strict=True), strict=True):
            integer = self._tables.kind(name) is Kind.INTEGER
            made[name] = list(map(int, column)) if integer else column
        made[layout.position] = places
        made[layout.stream.position] = positions
        made[layout.type.column] = self._types(events)
        made[layout.data.column] = self._payloads(data, layout.data)
        self._set_metadata(made, metadata)
        if layout.id.column is not None:
            made[layout.id.column] = self._ids(events.ids, layout.id.column)
        if version.place == "column":
            text = self._tables.kind(version.name) is Kind.TEXT
            made[version.name] = list(map(str, numbers)) if text else numbers
        self._set_time(made, events)
        for name in layout.passed_through:
            usual = made.get(name) or [self._elsewhere.get(name)] * count
            made[name] = [had.get(name, at) for had, at in zip(carried, usual, strict=True)]
        return made

    def _types(self, events: Columns) -> list[str]:
        if self._layout.type.suffix is None:
            return events.types
        kinds = list(zip(events.types, events.schema_versions, strict=True))
        stored = {kind: values.joined_type(*kind, self._layout) for kind in set(kinds)}
        return list(map(stored.__getitem__, kinds))

    def _set_metadata(
        self, made: dict[str, Sequence[Any]], metadata: Sequence[bytes | None]
    ) -> None:
        payload = self._layout.metadata
        if payload is not None:
            empty = None if payload.empty is None else payload.empty.encode()
            given = [empty if one is None else one for one in metadata]
            made[payload.column] = self._payloads(given, payload)
        elif metadata.count(None) != len(metadata):
            raise DataError(
                f"the event has metadata, and the layout {self._layout.name!r} has no place "
                "for them",
                remedy="drop the metadata in a step, or choose a target that holds them",
            )

    def _set_time(self, made: dict[str, Sequence[Any]], events: Columns) -> None:
        for name, write in self._write_times.items():
            made[name] = list(map(write, events.recorded_at))
        time = self._layout.time
        if time is None and any(events.recorded_at):
            raise DataError(
                f"the event has a recorded time, and the layout {self._layout.name!r} has no place "
                "for it",
                remedy="say in the layout where the time is, or choose a target that holds it",
            )
        if time is None or self._find_time is None:
            return
        if list(map(self._find_time, events.data)) != events.recorded_at:
            raise DataError(
                f"the time in the data ({time.member}) is not the event's recorded time",
                remedy="keep that member in the upcaster: this layout has no other time",
            )

    def _payloads(self, data: Sequence[bytes | None], payload: Payload) -> list[bytes | str | None]:
        stored = [None if one is None else values.packed(one, payload) for one in data]
        if self._tables.writes_bytes(payload.column):
            return list(stored)
        return [None if one is None else one.decode() for one in stored]

    def _ids(self, ids: list[str], column: str) -> list[str]:
        if self._tables.kind(column) is Kind.UUID:
            for event_id in ids:
                try:
                    uuid.UUID(event_id)
                except ValueError as error:
                    raise DataError(
                        f"the id {event_id!r} is no UUID, and the column {column!r} holds only "
                        "those",
                        remedy="choose a target whose ids are text",
                    ) from error
        return ids


def time_writer(tables: Tables, time: Time) -> Callable[[int], object]:
    """From microseconds to a value of the column of this time; raises `DataError` as it does."""
    assert time.column is not None
    spoken = {Kind.AWARE: "aware", Kind.NAIVE: "naive"}.get(tables.kind(time.column), "text")
    spoken = "text" if tables.sqlite else spoken
    return values.time_writer(time, spoken, tables.digits(time.column))


def elsewhere(tables: Tables) -> dict[str, object]:
    """The values of passed-through columns for events from other tables: text in PostgreSQL."""
    given = tables.layout.elsewhere
    if tables.sqlite:
        return dict(given)
    return {n: str(v).lower() if isinstance(v, bool) else str(v) for n, v in given.items()}


def elsewhere_as_read(connection: Connection, tables: Tables) -> dict[str, object]:
    """The same as they are read back: PostgreSQL spells them. Reads only."""
    given = elsewhere(tables)
    if tables.sqlite or not given:
        return given
    columns = [cast(tables.bound_carried(name, f"e{n}"), Text) for n, name in enumerate(given)]
    bound = {f"e{n}": value for n, value in enumerate(given.values())}
    return dict(zip(given, connection.execute(select(*columns), bound).one(), strict=True))
