"""Rows of a layout's tables as events: what is selected, and what becomes of it.

The statement and the reading of its rows belong together, so both are here. No I/O
happens here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Select,
    Text,
    and_,
    case,
    exists,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
)

from eventmig.errors import DataError, Where
from eventmig.events import Origin, Page
from eventmig.stores.layouts import lineage, links, values
from eventmig.stores.layouts.columns import Expression, Kind
from eventmig.stores.layouts.tables import Tables

_NAMESPACE: Final = uuid.UUID("0b1b1a2e-2f0e-5c55-9f0c-4d6a3c1f7e02").bytes
_FIRST = lineage.origins.alias("o")


def derived_id(stream: str, place: int | str) -> str:
    """The id of an event whose tables have none: UUIDv5 over its stream and position.

    Of a link: over its stream, and the id of the event it is to, which is there only once. Put
    together here: `uuid.uuid5` and its text take three times as long.
    """
    name = _NAMESPACE + f"{stream}\x1f{place}".encode()
    text = sha1(name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


class Rows:
    """Selects events of a layout and makes pages of the rows.

    `beside` says whether the side tables are there; `late` has the global positions of events
    that have another than `Order.place`, by that. Raises `DataError`s that name the
    event: opaque payloads, versions that are no numbers, times that are none.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        url: str,
        namespace: str,
        release: str | None,
        beside: bool,
        late: Mapping[int, int],
    ) -> None:
        layout = tables.layout
        self._tables = tables
        self._layout = layout
        self._url = url
        self._namespace = namespace
        self._release = release
        self._beside = beside
        self._late = late
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
        # Whether nobody else sees that data are JSON: neither the column nor the time in them.
        kind = tables.kind(layout.data.column)
        self._at = self._places()
        self._unproven = kind not in (Kind.JSON, Kind.JSONB) and self._find_time is None

    def _places(self) -> dict[str, int]:
        """Which column of a row has which part of an event; those that a link has not."""
        layout = self._layout
        at = {"type": 2 + self._keys, "data": 3 + self._keys}
        parts = {
            "metadata": layout.metadata is not None,
            "id": layout.id.column is not None,
            "version": layout.version.place == "column",
            "time": layout.time is not None and layout.time.column is not None,
        }
        for part in (part for part, there in parts.items() if there):
            at[part] = 4 + self._keys + len(at) - 2
        at["columns"] = 4 + self._keys + len(at) - 2
        return at

    # statements

    def events(self) -> Select[Any]:
        """Every event of this store, with all its parts; to be bounded and ordered."""
        tables, layout = self._tables, self._layout
        columns: list[Expression] = [
            tables.order.place,
            *(tables.plain(name) for name in layout.stream.columns),
            tables.stream_position,
            self._type(tables.plain(layout.type.column)),
            tables.stored(layout.data.column),
        ]
        if layout.metadata is not None:
            columns.append(tables.stored(layout.metadata.column))
        if layout.id.column is not None:
            columns.append(tables.plain(layout.id.column))
        if layout.version.place == "column":
            columns.append(tables.column(layout.version.name))
        if layout.time is not None and layout.time.column is not None:
            columns.append(self._time(tables.plain(layout.time.column)))
        columns += map(tables.carried, layout.passed_through)
        if layout.links:
            columns.append(links.is_event(tables))
        source: Any = tables.source
        if self._beside:
            o = _FIRST.c
            columns += [o.event_id, o.schema_version, o.stream, o.stream_position, o.ordinal]
            source = self._beside_of(source)
        return select(*columns).select_from(source).where(*self.ours())

    def _type(self, stored: Expression) -> Expression:
        """The type of a row's event."""
        if not self._layout.links:
            return stored
        link = literal_column(f"'{links.LINK}'", Text())  # no parameter: it is grouped by, too
        return case((links.is_event(self._tables), stored), else_=link)

    def _time(self, stored: Expression) -> Expression:
        """The time of a row's event, or of the link that it is."""
        own = self._layout.row_time() if self._layout.links else ""
        if not own:
            return stored
        return case((links.is_event(self._tables), stored), else_=self._tables.plain(own))

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
            conditions.append(false())  # no job has made any stream yet
        return conditions

    def of_types(self, types: Sequence[str]) -> Expression:
        """The condition that a row is of one of these types (or may be: see `events`)."""
        column = self._type(self._tables.column(self._layout.type.column))
        suffix = self._layout.type.suffix
        exact: Expression = column.in_(types)
        if suffix is None:
            return exact
        return or_(exact, *(column.startswith(t + suffix, autoescape=True) for t in types))

    def kinds(self) -> Select[Any] | None:
        """Stored type, stored version (or the side table's) and count of each kind of event.

        None where the schema version is inside of payloads, which only a scan sees, or in a
        column that links have not.
        """
        tables, version, linked = self._tables, self._version, self._layout.links
        if version.place in ("data", "metadata") or (version.place == "column" and linked):
            return None
        kind: list[Expression] = [self._type(tables.column(self._layout.type.column))]
        if version.place == "column":
            kind.append(tables.column(version.name))
        source: Any = tables.source
        if (version.place == "none" or linked) and self._beside:
            source = self._beside_of(source)
            kind.append(_FIRST.c.schema_version)
        counted = select(*kind, func.count()).select_from(source).where(*self.ours())
        return counted.group_by(*kind)

    def kind(self, row: Sequence[Any]) -> tuple[str, int]:
        """Type and schema version of a row of `kinds`."""
        version = row[1] if len(row) > 2 else None
        if self._layout.links and row[0] == links.LINK:
            return links.LINK, version or 1
        return self._kind(row[0], version, version)

    # rows

    def page(self, rows: Sequence[Sequence[Any]]) -> Page:
        """The events of rows of `events`, column by column; at least one row."""
        try:
            return self._page(rows)
        except (DataError, ValueError, msgspec.MsgspecError):
            for row in rows:  # which one is it?
                self._only(row)
            raise

    def _only(self, row: Sequence[Any]) -> None:
        try:
            self._page([row])
        except (DataError, ValueError, msgspec.MsgspecError) as error:
            keys = self._keys
            where = Where(
                store=self._url,
                stream=self.stream(row),
                stream_position=row[1 + keys],
                global_position=self.place(row),
                type=str(row[2 + keys]),
            )
            if isinstance(error, DataError):
                raise type(error)(error.what, where=where, remedy=error.remedy) from error
            raise DataError(
                f"the payload is not what the layout {self._layout.name!r} says: {error}",
                where=where,
                remedy="mend that event, or the layout",
            ) from error

    def stream(self, row: Sequence[Any]) -> str:
        """The stream of a row of `events`."""
        return self._tables.stream(row[1 : 1 + self._keys])

    def place(self, row: Sequence[Any]) -> int:
        """The global position of a row of `events`."""
        return self._late.get(row[0], row[0])

    def first_origins(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Origin, ...]]:
        """The first origin of each row's event, if it has one."""
        if not self._beside:
            return [()] * len(rows)
        return [
            ()
            if row[-2] is None
            else (
                Origin(
                    self.stream(row) if row[-3] is None else row[-3],
                    row[-2],
                    row[-1],
                ),
            )
            for row in rows
        ]

    def _page(self, rows: Sequence[Sequence[Any]]) -> Page:
        layout, count = self._layout, len(rows)
        whole: list[Sequence[Any]] = list(zip(*rows, strict=True))
        columns = iter(self._with_links(whole) if layout.links else whole)
        places: Sequence[int] = next(columns)
        if None in places:
            raise self._tables.order.too_large()
        if self._late:
            places = [self._late.get(place, place) for place in places]
        streams = self._tables.streams([next(columns) for _ in range(self._keys)])
        positions, stored_types = next(columns), next(columns)
        data = values.all_unpacked(next(columns), layout.data)
        if self._unproven:
            values.check_json(data)
        metadata: list[bytes | None] = [None] * count
        if layout.metadata is not None:
            metadata = [self._metadata(stored) for stored in next(columns)]
        stored_ids = None if layout.id.column is None else next(columns)
        stored_versions = next(columns) if layout.version.place == "column" else ()
        recorded_at = [0] * count
        if self._read_time is not None:
            read = self._read_time
            recorded_at = [0 if at is None else read(at) for at in next(columns)]
        elif self._find_time is not None:
            recorded_at = list(map(self._find_time, data))
        if layout.passed_through:
            carried = zip(*(next(columns) for _ in layout.passed_through), strict=True)
            named = (dict(zip(layout.passed_through, row, strict=True)) for row in carried)
            metadata = list(map(values.with_columns, metadata, named))
        if layout.links:
            next(columns)
        kept_ids = next(columns) if self._beside else ()
        kept_versions = next(columns) if self._beside else (None,) * count
        types, versions = self._kinds(stored_types, stored_versions or kept_versions)
        if layout.version.place == "data":
            versions, data = values.versions_of_data(data, layout.version)
        elif layout.version.place == "metadata":
            versions = [values.version_of_metadata(one, layout.version) for one in metadata]
        if layout.links:
            for n in (n for n, type_ in enumerate(types) if type_ == links.LINK):
                versions[n] = kept_versions[n] or 1
        if stored_ids is not None:
            ids = list(map(str, stored_ids))
        else:
            ids = [
                kept or derived_id(stream, position)
                for kept, stream, position in zip(
                    kept_ids or (None,) * count, streams, positions, strict=True
                )
            ]
        return Page(places, streams, positions, ids, types, versions, data, metadata, recorded_at)

    def _with_links(self, columns: list[Sequence[Any]]) -> list[Sequence[Any]]:
        """Columns of rows, in which those that are links read as links."""
        at, keys = self._at, self._keys
        linked = [n for n, home in enumerate(columns[-6 if self._beside else -1]) if not home]
        if not linked:
            return columns
        ids = [str(columns[at["id"]][n]) for n in linked]
        streams = self._tables.streams([[c[n] for n in linked] for c in columns[1 : 1 + keys]])
        kept = [columns[-5][n] if self._beside else None for n in linked]
        data: list[Any] = [values.packed(links.data_of(id_), self._layout.data) for id_ in ids]
        if not (self._tables.sqlite or self._tables.writes_bytes(self._layout.data.column)):
            data = [one.decode() for one in data]  # as the others come
        own = zip(kept, streams, ids, strict=True)
        put: dict[int, Sequence[Any]] = {
            at["data"]: data,
            at["id"]: [one or derived_id(stream, id_) for one, stream, id_ in own],
        }
        for part in ("metadata", "version"):
            if part in at:
                put[at[part]] = [None] * len(linked)
        for number in range(len(self._layout.passed_through)):
            put[at["columns"] + number] = [None] * len(linked)
        for place, given in put.items():
            column = list(columns[place])
            for n, value in zip(linked, given, strict=True):
                column[n] = value
            columns[place] = column
        return columns

    def _metadata(self, stored: bytes | str | None) -> bytes | None:
        assert self._layout.metadata is not None
        if stored is None:
            return None
        metadata = values.unpacked(stored, self._layout.metadata)
        return None if metadata == self._no_metadata else metadata

    def _kinds(self, stored: Sequence[str], versions: Sequence[Any]) -> tuple[list[str], list[int]]:
        """Types and schema versions, as far as they are no part of payloads."""
        pairs = list(zip(stored, versions, strict=True))
        found = {pair: self._kind(*pair, pair[1]) for pair in set(pairs)}
        types, numbers = zip(*map(found.__getitem__, pairs), strict=True)
        return list(types), list(numbers)

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
