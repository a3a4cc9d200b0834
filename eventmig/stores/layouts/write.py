"""One write transaction on a described layout: events, side table and stream heads together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Insert, bindparam, delete, exists, func, insert, not_, select
from sqlalchemy.exc import IntegrityError

from eventmig.errors import ConflictError, DataError, DuplicateIdError, StoreError, Where
from eventmig.events import Columns, Event, Origin
from eventmig.stores.layouts import lineage
from eventmig.stores.layouts.description import Guard, Layout
from eventmig.stores.layouts.encode import Encoder
from eventmig.stores.layouts.place import Database, Place
from eventmig.stores.layouts.stream_heads import StreamHeads
from eventmig.stores.layouts.tables import Tables

_NAMED: Final = 500
_ORIGIN: Final = {c.name: bindparam(f"o_{c.name}", type_=c.type) for c in lineage.origins.c}


class LayoutTransaction:
    """An open write transaction (`TargetTransaction`); ended by `LayoutStore.begin`."""

    connection: Connection

    def __init__(
        self, connection: Connection, *, place: Place, database: Database, tables: Tables
    ) -> None:
        self.connection = connection
        self._place = place
        self._layout: Layout = place.layout
        self._database = database
        self._tables = tables
        self._guarded = place.layout.guard is Guard.NONE

    # heads

    def heads(self, streams: Collection[str]) -> dict[str, int]:
        """Last stream position of each named stream; `first - 1` where it has no events."""
        tables = self._tables
        heads = dict.fromkeys(streams, self._layout.stream.first - 1)
        self._claim(heads)
        keys = [self._key(stream) for stream in heads]
        columns = [tables.plain(name) for name in self._layout.stream.columns]
        for at in range(0, len(keys), _NAMED):
            found = self.connection.execute(
                select(*columns, func.max(tables.stream_position))
                .where(tables.among(keys[at : at + _NAMED]), *tables.ours())
                .group_by(*tables.keys)
            )
            heads.update((tables.stream(row[:-1]), row[-1]) for row in found)
        return heads

    def _claim(self, names: Collection[str]) -> None:
        """Refuse streams that are not this release's, where the table holds other streams too."""
        release = self._place.release
        if release is None or not names:
            return
        made = lineage.streams.c
        mine = set()
        for name, owner in self.connection.execute(
            select(made.stream, made.release).where(
                made.events_table == self._layout.table, made.stream.in_(names)
            )
        ):
            if owner != release:
                raise self._taken(name, f"as one of release {owner}")
            mine.add(name)
        new = [name for name in names if name not in mine]
        for at in range(0, len(new), _NAMED):
            keys = [self._key(name) for name in new[at : at + _NAMED]]
            columns = [self._tables.plain(name) for name in self._layout.stream.columns]
            found = self.connection.execute(
                select(*columns).where(self._tables.among(keys)).limit(1)
            ).first()
            if found is not None:
                raise self._taken(self._tables.stream(found), "as one of no release")
        if new:
            self._check_categories(new)
            self.connection.execute(
                insert(lineage.streams),
                [
                    {"events_table": self._layout.table, "stream": name, "release": release}
                    for name in new
                ],
            )

    def _check_categories(self, names: Sequence[str]) -> None:
        """Refuse new streams in a category of streams that are there already, by the rule."""
        if not self._layout.stream.own_category:
            return
        tables, made = self._tables, lineage.streams.c
        name = tables.name()
        ours = exists().where(
            made.events_table == self._layout.table,
            made.release == self._place.release,
            made.stream == name,
        )
        for category in {self._layout.category(stream) for stream in names}:
            same = name.startswith(f"{category}-", autoescape=True) | (name == category)
            old = self.connection.execute(select(name).where(same, not_(ours)).limit(1)).scalar()
            if old is not None:
                raise ConflictError(
                    f"the new streams would be in the category {category!r}, as {old!r} is: its "
                    "consumers would read both",
                    where=Where(store=self._place.url, stream=str(old)),
                    remedy=f"route them to a category of their own, as {category}-{{id}} to "
                    f"{category}V2-{{id}}",
                )

    def _taken(self, stream: str, how: str) -> ConflictError:
        return ConflictError(
            f"the stream {stream!r} is in this table already, {how}",
            where=Where(store=self._place.url, stream=stream),
            remedy="name the new streams differently (a route, or a naming with the release in it)",
        )

    def _key(self, stream: str) -> tuple[str, ...]:
        key = self._tables.key_of(stream)
        if key is None:
            raise DataError(
                f"the stream {stream!r} cannot stand in the columns "
                f"{', '.join(self._layout.stream.columns)} of the layout {self._layout.name!r}",
                where=Where(store=self._place.url, stream=stream),
                remedy="route the events to streams named as this layout names them",
            )
        return key

    # events

    def append_copied(self, events: Sequence[Event]) -> int:
        """Write events as they are; returns the last global position of the table.

        Raises `DuplicateIdError`, `ConflictError` (a position that is taken) and
        `DataError` (what the layout cannot hold).
        """
        return self.append_columns(Columns.of(events), [e.stream_position for e in events])

    def append_columns(self, columns: Columns, positions: Sequence[int]) -> int:
        """`append_copied`, column by column."""
        if not columns.ids:
            return int(self.connection.execute(select(self._tables.highest())).scalar_one())
        self._guard()
        events = columns.events(positions)
        encoder = Encoder(self._tables, self._place.url)
        keys = [self._key(event.stream) for event in events]
        places = self._database.reserve(self.connection, self._tables, len(events))
        rows = [
            encoder.row(event, key, place)
            for event, key, place in zip(events, keys, places, strict=True)
        ]
        try:
            self._keep_heads(events, keys)  # first: the events may refer to them
            self._insert(encoder.insertion(), rows)
        except IntegrityError as error:
            raise self._refused(events, error) from error
        self._note_origins(events, places)
        return places[-1]

    def _guard(self) -> None:
        if not self._guarded:
            quoted = self.connection.dialect.identifier_preparer.quote(self._layout.table)
            self.connection.exec_driver_sql(f"LOCK TABLE {quoted} IN EXCLUSIVE MODE")
            self._guarded = True

    def _note_origins(self, events: Sequence[Event], places: Sequence[int]) -> None:
        keep_id = self._layout.id.column is None
        keep_version = self._layout.version.place == "none"
        rows: list[dict[str, Any]] = []
        for event, place in zip(events, places, strict=True):
            own = {
                "o_event_id": event.id if keep_id else None,
                "o_schema_version": event.schema_version if keep_version else None,
            }
            for number, origin in enumerate(event.origins or (None,)):
                rows.append(
                    {
                        "o_namespace": self._place.namespace,
                        "o_global_position": place,
                        "o_number": number,
                        **_origin(origin, event.stream),
                        **(own if number == 0 else dict.fromkeys(own)),
                    }
                )
        self._insert(insert(lineage.origins).values(_ORIGIN), rows)

    def _insert(self, statement: Insert, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows of bound values with the driver's own executemany: compiled once."""
        compiled = statement.compile(dialect=self.connection.dialect)
        text, names = str(compiled), compiled.positiontup
        given: Any = rows if names is None else [tuple(row[n] for n in names) for row in rows]
        self.connection.exec_driver_sql(text, given)

    def _keep_heads(self, events: Sequence[Event], keys: Sequence[tuple[str, ...]]) -> None:
        """Write the heads of these events' streams, where the owner keeps a table of them."""
        if self._layout.heads is not None:
            last = {
                key: (event.stream, event.stream_position)
                for key, event in zip(keys, events, strict=True)
            }
            StreamHeads(self.connection, self._layout, self._layout.heads).keep(last)

    def _refused(self, events: Sequence[Event], error: IntegrityError) -> StoreError | DataError:
        """What a refused insert means. SQLite can still be asked; PostgreSQL's words are used."""
        words = str(error.orig).splitlines()[0]
        where = Where(store=self._place.url)
        ids = {event.id for event in events}
        if self._layout.id.column is not None and self._layout.id.column in words:
            return DuplicateIdError(
                f"an event id is stored already ({words})"
                if len(ids) == len(events)
                else f"an event id stands twice in one batch ({words})",
                where=where,
                remedy="an id may stand once in this table; nothing of the batch was written",
            )
        return ConflictError(
            f"the owner's table refuses the events ({words})",
            where=where,
            remedy="look at what the constraint says; nothing of the batch was written",
        )

    # taking back

    def truncate_after(self, global_position: int) -> int:
        """Delete this job's own events after a global position; returns how many."""
        o = lineage.origins.c
        mine = (o.namespace == self._place.namespace) & (o.global_position > global_position)
        tables = self._tables
        doomed = tables.position.in_(select(o.global_position).where(mine))
        columns = [tables.plain(name) for name in self._layout.stream.columns]
        touched = [
            tables.stream(row)
            for row in self.connection.execute(select(*columns).where(doomed).distinct())
        ]
        if touched:
            self._guard()
        deleted = self.connection.execute(delete(tables.events).where(doomed)).rowcount
        self.connection.execute(delete(lineage.origins).where(mine))
        for at in range(0, len(touched), _NAMED):
            self._take_back(touched[at : at + _NAMED])
        return deleted

    def _take_back(self, streams: Sequence[str]) -> None:
        """Set the heads of these streams back, and forget those that are gone."""
        left = self.heads(streams)
        gone = [name for name, head in left.items() if head < self._layout.stream.first]
        made = lineage.streams.c
        self.connection.execute(
            delete(lineage.streams).where(
                made.events_table == self._layout.table,
                made.release == (self._place.release or ""),
                made.stream.in_(gone),
            )
        )
        if self._layout.heads is not None:
            heads = StreamHeads(self.connection, self._layout, self._layout.heads)
            for stream, head in left.items():
                heads.set_back(self._key(stream), None if stream in gone else head)

    def defer_indexes(self) -> bool:
        """The owner's indexes stay as they are: False."""
        return False

    def build_indexes(self) -> None:
        """Nothing was left off."""


def _origin(origin: Origin | None, stream: str) -> dict[str, object]:
    """The columns of one origin of an event of this stream."""
    if origin is None:
        return {"o_stream": None, "o_stream_position": None, "o_ordinal": None}
    return {
        "o_stream": None if origin.stream == stream else origin.stream,
        "o_stream_position": origin.stream_position,
        "o_ordinal": origin.ordinal,
    }
