"""One write transaction on a described layout: events, side table and stream heads together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
)
from sqlalchemy.exc import IntegrityError

from eventmig.errors import (
    ConflictError,
    DataError,
    DuplicateIdError,
    FencedError,
    StoreError,
    Where,
)
from eventmig.events import Columns, Event
from eventmig.stores import fences
from eventmig.stores.layouts import lineage, links
from eventmig.stores.layouts.bulk import copies, copy_rows, insert_rows
from eventmig.stores.layouts.counter import CounterRow
from eventmig.stores.layouts.deletion import delete_rows
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.encode import Encoder
from eventmig.stores.layouts.guard import Guarding
from eventmig.stores.layouts.joined import Destination, Made, destinations
from eventmig.stores.layouts.owner_snapshots import drop_astray
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
        self._guarding = Guarding(connection, place.layout, place.url)

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
                select(*columns, tables.extent()[1])
                .select_from(tables.source)
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
                select(*columns)
                .select_from(self._tables.source)
                .where(self._tables.among(keys))
                .limit(1)
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
            others = select(name).select_from(tables.source).where(same, not_(ours))
            old = self.connection.execute(others.limit(1)).scalar()
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
        """Write events as they are; returns the last global position.

        Raises `DuplicateIdError`, `ConflictError` (a position that is taken) and
        `DataError` (what the layout cannot hold).
        """
        return self.append_columns(Columns.of(events), [e.stream_position for e in events])

    def append_columns(self, columns: Columns, positions: Sequence[int]) -> int:
        """`append_copied`, column by column."""
        if not columns.ids:
            tables = self._tables
            return int(self.connection.execute(tables.order.last(tables.events)).scalar() or 0)
        by_name = {stream: self._key(stream) for stream in dict.fromkeys(columns.streams)}
        self._guarding.lock(by_name)
        transaction = self._transaction()
        encoder = Encoder(self._tables, self._place.url, transaction=transaction)
        keys = list(map(by_name.__getitem__, columns.streams))
        try:
            # Heads first: the events may refer to them. And an owner that counts all events in
            # a row locks that row after the stream's.
            numbers = self._keep_heads(columns, positions, by_name)
            places = self._reserve(len(keys))
            made = encoder.columns(columns, positions, keys, places)
            if numbers:
                made[self._layout.number_column()] = list(map(numbers.__getitem__, keys))
            self._insert_all(encoder, columns, positions, made)
        except IntegrityError as error:
            raise self._refused(columns, error) from error
        self._note_origins(columns, places)
        self._guarding.notify()
        return self._tables.order.at(places[-1], transaction)

    def _reserve(self, count: int) -> list[int]:
        if self._layout.counter is not None:
            return CounterRow(self.connection, self._layout.counter).draw(count)
        return self._database.reserve(self.connection, self._tables, count)

    def _insert_all(
        self, encoder: Encoder, columns: Columns, positions: Sequence[int], made: Made
    ) -> None:
        layout = self._layout
        linked = links.among(columns) if layout.links else []
        into = destinations(layout)
        events = links.without(made, linked)
        for to in (to for to in into if to.table != layout.table):
            self._insert(encoder, to, events)
        if linked:  # now the events are there
            where = Where(store=self._place.url)
            ids = links.targets(self.connection, self._tables, columns, positions, where)
            made = links.pointed(made, str(layout.id.column), ids)
        for to in (to for to in into if to.table == layout.table):
            self._insert(encoder, to, made)

    def _insert(self, encoder: Encoder, to: Destination, made: Made) -> None:
        if not next(iter(made.values())):
            return
        if copies(self.connection, to.table):
            given = {column: made[name] for column, name in to.columns.items()}
            copy_rows(self.connection, to.table, given)
        else:
            insert_rows(self.connection, encoder.insertion(to), encoder.parameters(made, to))

    def _transaction(self) -> str | None:
        """This transaction's number, where the rows hold it."""
        if self._layout.transaction is None:
            return None
        drawn = self.connection.execute(select(cast(func.pg_current_xact_id(), Text)))
        return str(drawn.scalar_one())

    def _note_origins(self, columns: Columns, places: Sequence[int]) -> None:
        """One row per event, and one more for each further origin."""
        count = len(places)
        linked = set(links.among(columns)) if self._layout.links else set()

        def of_links(values: Sequence[Any]) -> list[Any]:
            return [value if n in linked else None for n, value in enumerate(values)]

        streams, positions = columns.streams, columns.origin_positions
        origins = zip(columns.origin_streams, streams, positions, strict=True)
        ordinals = zip(positions, columns.origin_ordinals, strict=True)
        rows: dict[str, list[Any]] = {
            "global_position": list(places),
            "number": [0] * count,
            "stream": [None if n == s or at is None else n for n, s, at in origins],
            "stream_position": list(positions),
            "ordinal": [None if at is None else n for at, n in ordinals],
            "event_id": columns.ids if self._layout.id.column is None else of_links(columns.ids),
            "schema_version": (
                columns.schema_versions
                if self._layout.version.place == "none"
                else of_links(columns.schema_versions)
            ),
        }
        if columns.merged:
            rows = {name: list(column) for name, column in rows.items()}
        for at, several in columns.merged.items():
            for number, origin in enumerate(several[1:], 1):
                elsewhere = None if origin.stream == streams[at] else origin.stream
                row = (places[at], number, elsewhere, *origin[1:], None, None)
                for column, value in zip(rows.values(), row, strict=True):
                    column.append(value)
        rows["namespace"] = [self._place.namespace] * len(rows["number"])
        if copies(self.connection, lineage.origins.name):
            copy_rows(self.connection, lineage.origins.name, rows)
        else:
            statement = insert(lineage.origins).values(_ORIGIN)
            insert_rows(self.connection, statement, {f"o_{n}": rows[n] for n in rows})

    def _keep_heads(
        self, columns: Columns, positions: Sequence[int], keys: Mapping[str, tuple[str, ...]]
    ) -> dict[tuple[str, ...], int]:
        """Write the heads of these events' streams, where the owner keeps a table of them.

        Returns the streams' numbers, where they have some.
        """
        if self._layout.heads is None:
            return {}
        last = dict(zip(columns.streams, positions, strict=True))
        heads = StreamHeads(self.connection, self._layout, self._layout.heads)
        heads.keep({keys[stream]: (stream, position) for stream, position in last.items()})
        return heads.numbers(list(keys.values())) if self._layout.heads.number else {}

    def _refused(self, columns: Columns, error: IntegrityError) -> StoreError | DataError:
        """What a refused insert means. SQLite can still be asked; PostgreSQL's words are used."""
        words = str(error.orig).splitlines()[0]
        where = Where(store=self._place.url)
        if fences.REFUSAL in words:  # the owner may have triggers of its own
            return FencedError(
                fences.WHAT,
                where=where,
                remedy="look which side is live (`eventmig status`), and write there",
            )
        id_column = (self._layout.id.column or "").rpartition(".")[2]
        if id_column and (id_column in words or f"Key ({id_column})=" in str(error.orig)):
            return DuplicateIdError(
                f"an event id is stored already ({words})"
                if len(set(columns.ids)) == len(columns.ids)
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
        # A job's positions rise with its transactions: the column alone tells what is after.
        o = lineage.origins.c
        last = self._tables.order.column_value(global_position)
        mine = (o.namespace == self._place.namespace) & (o.global_position > last)
        tables = self._tables
        positions = select(o.global_position).where(mine)
        columns = [tables.plain(name) for name in self._layout.stream.columns]
        chosen = select(*columns).select_from(tables.source).distinct()
        doomed = chosen.where(*tables.fixed(), tables.position.in_(positions))
        touched = [tables.stream(row) for row in self.connection.execute(doomed)]
        self._guarding.lock(touched)
        deleted = delete_rows(self.connection, tables, positions)
        self.connection.execute(delete(lineage.origins).where(mine))
        for at in range(0, len(touched), _NAMED):
            self._take_back(touched[at : at + _NAMED])
        if self._layout.counter is not None:
            CounterRow(self.connection, self._layout.counter).set_back(tables)
        if touched:
            drop_astray(self.connection, tables, list(map(self._key, touched)))
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
