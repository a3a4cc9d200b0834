"""The store of a described layout: somebody else's tables, read and written by their rules.

Reading is in `read`, the write transaction in `write`, the database in `sqlite` and
`postgres`. The ledger and the side tables stand beside the owner's tables, in the same
transaction; the owner's tables get no column.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import Connection, func, select, table

from eventmig.errors import NotAStoreError, ReadOnlyError, StoreError, Where
from eventmig.events import Event
from eventmig.stores.base import Capability
from eventmig.stores.layouts import lineage, links, owner_snapshots, values
from eventmig.stores.layouts.columns import Kind
from eventmig.stores.layouts.encode import elsewhere_as_read, time_writer
from eventmig.stores.layouts.owner_snapshots import SnapshotTable
from eventmig.stores.layouts.place import Address, Database, Place
from eventmig.stores.layouts.postgres import PostgresDatabase
from eventmig.stores.layouts.read import LayoutReader
from eventmig.stores.layouts.spelling import respelled
from eventmig.stores.layouts.sqlite import SqliteDatabase
from eventmig.stores.layouts.write import LayoutTransaction
from eventmig.stores.owned import LeftBehind, OwnerSnapshot


class LayoutStore(LayoutReader):
    """A store in tables that a layout describes (`EventReader`, `JobTarget`).

    Applications append with the library that owns the tables, never with eventmig.
    Opening raises `NotAStoreError` where the tables are not as described, and
    `ReadOnlyError` for a target that the owner's rules forbid; "create" makes what the
    layout says how to make, the other modes make nothing.
    """

    def __init__(self, place: Place, *, mode: Literal["read", "write", "create"]) -> None:
        super().__init__(place, database_of(place.address))
        self.mode = mode
        self._made = False
        writable = not place.layout.read_only
        self.capabilities = frozenset(
            {Capability.SQL, Capability.GLOBAL_ORDER, Capability.CONTIGUOUS}
            | ({Capability.TARGET, Capability.UNDO, Capability.LINEAGE} if writable else set())
        )
        try:
            if mode != "read":
                self._check_writable()
            if mode == "create":
                self._made = self._database.create(place.layout)
            self._database.check()
            _ = self._access.tables
            if mode == "create":
                self._check_snapshots()
        except BaseException:
            self.close()
            if self._made:
                self._database.discard()
            raise

    @contextmanager
    def begin(self) -> Iterator[LayoutTransaction]:
        """Open a write transaction: commit at the end, else roll back. One at a time.

        Makes the side tables where they are missing.
        """
        if self.mode == "read":
            raise ReadOnlyError(
                "the store was opened for reading only",
                where=Where(store=self.url),
                remedy='open it with mode="write"',
            )
        with self._database.begin() as connection:
            lineage.metadata.create_all(connection)
            yield LayoutTransaction(
                connection, place=self.place, database=self._database, tables=self._access.tables
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this target for one job; raises `JobLockedError` at once."""
        with self._database.lock(self.namespace):
            yield

    def held(self) -> bool:
        """Whether a process holds this target now; changes nothing."""
        return self._database.held(self.namespace)

    def discard(self) -> None:
        """Take back what opening with "create" made, if it holds no event; closes the store."""
        unused = self._made and self.count() == 0
        self.close()
        if unused:
            self._database.discard()

    @property
    def snapshot_form(self) -> str:
        """The library whose snapshots can be written here; empty where none can."""
        return self.place.layout.snapshot_form

    def left_behind(self) -> list[LeftBehind]:
        """Snapshots, and streams that are no events, where there are some. Reads only.

        Where streams of a release stand beside others, the table's snapshots are of those.
        """
        with self.reading() as connection:
            found = owner_snapshots.left_behind(connection, self._access.tables)
        return [one for one in found if self.place.release is None or not one.table]

    def replace_snapshots(
        self, streams: Collection[str], snapshots: Sequence[OwnerSnapshot]
    ) -> tuple[str, int]:
        """Give these streams these snapshots and no others, in one transaction.

        Returns the table, and how many older ones went.
        """
        with self._database.begin() as connection:
            place = self._snapshot_table(connection)
            rows = self._access.rows(connection)
            return place.name, place.replace(streams, snapshots, rows, self.url)

    def snapshot_places(self, streams: Collection[str]) -> list[tuple[str, int]]:
        """Stream and position of each of the owner's snapshots of these streams. Reads only."""
        with self.reading() as connection:
            return self._snapshot_table(connection).places(streams)

    def unlike_snapshots(self, snapshots: Sequence[OwnerSnapshot]) -> list[tuple[str, int, str]]:
        """Stream, position and what is wrong, of those that are not stored so. Reads only."""
        with self._access.reading() as (connection, rows):
            return list(self._snapshot_table(connection).unlike(snapshots, rows, self.url))

    def _snapshot_table(self, connection: Connection) -> SnapshotTable:
        names = owner_snapshots.there(connection, self._access.tables)
        if not names:
            raise NotAStoreError(
                f"there is no table {', '.join(self.place.layout.snapshot_tables())}",
                where=Where(store=self.url),
                remedy="let the library that owns the tables make it",
            )
        return SnapshotTable(connection, self._access.tables, names[0])

    def drop_astray(self) -> int:
        """Delete snapshots that stand where no event is; returns how many.

        None where streams of a release stand beside others, which may be a source's.
        """
        if self.place.release is not None:
            return 0
        tables = self._access.tables
        with self._database.begin() as connection:
            return owner_snapshots.drop_astray(connection, tables)

    def as_held(self, events: Sequence[Event]) -> list[Event]:
        """What this store hands back for these events: the schema version is inside of data or
        metadata, if anywhere, and jsonb is spelled by the database. Reads only.
        """
        layout, tables = self.place.layout, self._access.tables
        out = [self._versioned(event) for event in events]
        with self.reading() as connection:
            if tables.kind(layout.data.column) is Kind.JSONB:
                data = respelled(connection, [event.data for event in out])
                out = [e._replace(data=d or e.data) for e, d in zip(out, data, strict=True)]
            alone, carried = self._metadata_alone(connection, out)
            if layout.metadata and tables.kind(layout.metadata.column) is Kind.JSONB:
                alone = respelled(connection, alone)
            if layout.metadata and layout.metadata.empty is not None:
                empty = layout.metadata.empty.encode()
                alone = [None if one == empty else one for one in alone]
            if layout.links:
                out = links.as_held(connection, tables, out)
        if layout.passed_through:
            pairs = zip(alone, carried, strict=True)
            alone = [values.with_columns(metadata, columns) for metadata, columns in pairs]
        return [e._replace(metadata=m) for e, m in zip(out, alone, strict=True)]

    def _metadata_alone(
        self, connection: Connection, events: Sequence[Event]
    ) -> tuple[list[bytes | None], list[dict[str, object]]]:
        """Metadata without the passed-through columns in them, and those columns."""
        layout, tables = self.place.layout, self._access.tables
        names = layout.passed_through
        if not names:
            return [event.metadata for event in events], []
        usual = elsewhere_as_read(connection, tables)
        time = (layout.time and layout.time.column) or ""
        write = time_writer(tables, layout.time) if layout.time and time in names else None
        alone: list[bytes | None] = []
        carried: list[dict[str, object]] = []
        for event in events:
            metadata, columns = values.without_columns(event.metadata)
            others = usual if write is None else usual | {time: write(event.recorded_at)}
            alone.append(metadata)
            carried.append({name: columns.get(name, others.get(name)) for name in names})
        return alone, carried

    def _versioned(self, event: Event) -> Event:
        version = self.place.layout.version
        number = event.schema_version
        if self.place.layout.links and event.type == links.LINK:
            return event
        if version.place == "data" and number != version.absent:
            return event._replace(data=values.data_as_held(event.data, version, number))
        if version.place == "metadata":
            metadata = values.metadata_with_version(event.metadata, version, number)
            return event._replace(metadata=metadata)
        return event

    def __enter__(self) -> LayoutStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_writable(self) -> None:
        reason = self.place.layout.read_only
        if reason:
            raise ReadOnlyError(
                f"a store of the layout {self.place.layout.name!r} is only read: {reason}",
                where=Where(store=self.url),
                remedy="copy into another kind of store, as in --target sqlite:///history-2.db",
            )

    def _check_snapshots(self) -> None:
        """Refuse snapshots in a target that has no events yet: they would be stale.

        Beside other streams in the same table, snapshots are of those.
        """
        if self.place.release is not None or self.count():
            return
        with self.reading() as connection:
            for name in owner_snapshots.there(connection, self._access.tables):
                query = select(func.count()).select_from(table(name))
                if count := connection.execute(query).scalar_one():
                    raise StoreError(
                        f"the target's table {name!r} holds {count} snapshots, and no events",
                        where=Where(store=self.url),
                        remedy="empty that table: snapshots of another history give wrong state",
                    )


def database_of(address: Address) -> Database:
    """The database at an address; nothing is opened yet."""
    kind = SqliteDatabase if address.dialect == "sqlite" else PostgresDatabase
    return kind(address)
