"""One write transaction on a SQLite store: the hot path of a job.

The ledger writes through `connection` (SQLAlchemy); event rows go through the
driver's own connection below it, in the same transaction. What the store learned
of streams is kept between transactions in a `StreamCache`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import cast

from sqlalchemy import Connection

from eventmig.errors import ConflictError, DataError, Where
from eventmig.events import Columns, Event, Kept
from eventmig.stores.fences import lift
from eventmig.stores.pushing import Change, Extent, Values, Version
from eventmig.stores.sqlite.file import Location
from eventmig.stores.sqlite.indexes import build_indexes, drop_indexes, indexes_missing
from eventmig.stores.sqlite.keep import Keeper
from eventmig.stores.sqlite.pushdown import Pusher
from eventmig.stores.sqlite.refusals import check_names, doubled, not_text, refused_batch
from eventmig.stores.sqlite.schema import FIRST_POSITION, ROWS, Statements, Tables, quote
from eventmig.stores.stream_cache import NAMES_KEPT, StreamCache


class SqliteTransaction:
    """An open write transaction (`TargetTransaction`); ended by `SqliteStore.begin`."""

    connection: Connection

    def __init__(
        self,
        connection: Connection,
        *,
        location: Location,
        tables: Tables,
        sql: Statements,
        cache: StreamCache,
        keeper: Keeper | None = None,
    ) -> None:
        self.connection = connection
        self._driver = cast(sqlite3.Connection, connection.connection.driver_connection)
        self._location = location
        self._tables = tables
        self._sql = sql
        self._cache = cache
        self._keeper = keeper
        self._last_global: int | None = None
        self.passes_fence = False
        self.deferred = indexes_missing(self._driver, self._tables)
        # While the indexes are deferred nobody else may append, so the heads hold;
        # otherwise a commit by any other connection ends what was known.
        (version,) = self._driver.execute("PRAGMA data_version").fetchone()
        if version != cache.data_version and not (self.deferred and cache.all_heads_known):
            cache.clear()
        cache.data_version = version

    # --- heads

    def heads(self, streams: Collection[str]) -> dict[str, int]:
        """Last stream position of each named stream; 0 where it has no events."""
        ids = self._cache.ids
        keys = list(map(ids.get, streams))
        if None in keys:
            self._learn_streams(streams)
            keys = list(map(ids.get, streams))
        self._learn_heads([key for key in keys if key is not None])
        known = self._cache.heads
        none = FIRST_POSITION - 1
        return dict(
            zip(streams, [none if key is None else known[key] for key in keys], strict=True)
        )

    def _learn_heads(self, stream_ids: Sequence[int]) -> None:
        cache = self._cache
        unknown = cache.unknown_heads(stream_ids)
        if not unknown:
            return
        rows: Iterable[tuple[int, int | None]]
        if not self.deferred:
            rows = self._driver.execute(self._sql.heads_of_ids, {"ids": json.dumps(unknown)})
        elif cache.all_heads_known:
            rows = []
        else:  # no index to ask: one pass over the events, then all are known
            rows = self._driver.execute(self._sql.heads_all)
            cache.all_heads_known = True
        heads = dict.fromkeys(unknown, FIRST_POSITION - 1)
        heads.update((key, at) for key, at in rows if at is not None)
        cache.set_heads(list(heads), list(heads.values()))

    # --- events

    def append_copied(self, events: Sequence[Event]) -> int:
        """Write events as they are; returns the last global position.

        Raises `DuplicateIdError`, `ConflictError` (a position that is taken, a
        stream of another release) and `DataError` (what SQLite's text cannot
        hold). While the indexes are deferred, ids and positions are not looked
        at before `build_indexes`.
        """
        positions = [event.stream_position for event in events]
        return self.append_columns(Columns.of(events), positions)

    def append_columns(self, columns: Columns, positions: Sequence[int]) -> int:
        """`append_copied`, column by column: each step is one loop in C."""
        before = self._last_position()
        if not columns.ids:
            return before
        streams, ids, types = columns.streams, columns.ids, columns.types
        if "\0" in "".join(ids) or not all(ids) or any(not t or "\0" in t for t in set(types)):
            check_names(columns.events(positions), self._location.url)
        try:
            keys = self._keys(streams)
            self._lift_fence(True)
            self._insert(
                range(before + 1, before + 1 + len(ids)),
                keys,
                positions,
                ids,
                types,
                columns.schema_versions,
                map(bytes.decode, columns.data),
                [m if m is None else m.decode() for m in columns.metadata],
                columns.recorded_at,
                *self._lineage(columns),
            )
            if columns.merged:
                self._insert_merged(before, columns)
            self._lift_fence(False)
        except UnicodeError as error:
            raise not_text(columns.events(positions), self._location.url) from error
        except sqlite3.IntegrityError as error:
            events, url = columns.events(positions), self._location.url
            raise refused_batch(self._driver, self._sql, url, events, before, error) from error
        self._cache.set_heads(keys, positions)
        self._last_global = before + len(ids)
        return self._last_global

    def append_kept(self, kept: Kept) -> int:
        """Copy events of the source that `SqliteStore.keeps`, with what is new of them.

        Raises as `append_copied` does, and `StoreDamagedError` where the source lost some.
        """
        assert self._keeper is not None
        before = self._last_position()
        try:
            self._lift_fence(True)
            self._last_global = self._keeper.copy(kept, before)
            self._lift_fence(False)
        except sqlite3.IntegrityError as error:
            events, url = self._keeper.events(kept), self._location.url
            raise refused_batch(self._driver, self._sql, url, events, before, error) from error
        self._cache.forget_heads()
        return self._last_global

    def _lift_fence(self, lifted: bool) -> None:
        if self.passes_fence:
            lift(self.connection, self._location.namespace, closed=not lifted)

    def extent(self, *, after: int, until: int, limit: int) -> Extent:
        """The next events of the source that `SqliteStore.keeps`."""
        return self._pusher().extent(after=after, until=until, limit=limit)

    def take_positions(self, after: int, extent: Extent) -> int:
        """The last global position: a run follows it."""
        return self._last_position()

    def append_pushed(
        self, after: int, extent: Extent, before: int, changes: Sequence[Change], values: Values
    ) -> None:
        """Copy a run of the source that `SqliteStore.keeps`, new data by SQL expressions."""
        self._last_global = self._pusher().copy(after, extent, changes, values, before)
        self._cache.forget_heads()

    def pushed_data(
        self, after: int, until: int, versions: Collection[Version]
    ) -> Iterator[tuple[str, int, Sequence[bytes]]]:
        """What `append_pushed` wrote of these versions after a global position."""
        return self._pusher().data(after, until, versions)

    def _pusher(self) -> Pusher:
        assert self._keeper is not None
        return Pusher(self._driver, self._keeper, f"main.{quote(self._tables.events.name)}")

    def _insert(self, positions: range, *others: Iterable[object]) -> None:
        """Insert rows given as columns, many of them with one statement."""
        width = 1 + len(others)
        values: list[object] = [None] * (width * len(positions))
        for number, column in enumerate([positions, *others]):
            values[number::width] = column
        step = width * ROWS
        whole = len(values) - len(values) % step
        for at in range(0, whole, step):
            self._driver.execute(self._sql.insert_events, values[at : at + step])
        rest = iter(values[whole:])
        self._driver.executemany(self._sql.insert_event, zip(*[rest] * width, strict=True))

    def _lineage(
        self, columns: Columns
    ) -> tuple[Iterable[int | None], Iterable[int | None], Iterable[int | None]]:
        """The three origin columns of a batch, as `schema` describes them."""
        streams, names, positions = (
            columns.streams,
            columns.origin_streams,
            columns.origin_positions,
        )
        ordinals: list[int | None] = [*columns.origin_ordinals]
        if None in positions:
            ordinals = [
                None if at is None else n for at, n in zip(positions, ordinals, strict=True)
            ]
        for index in columns.merged:
            ordinals[index] = None
        keys: list[int | None] = [None] * len(names)
        if names is not streams and names != streams:
            known = self._origin_ids(dict.fromkeys(names))
            keys = [
                None if name == stream else known.get(name)
                for name, stream in zip(names, streams, strict=True)
            ]
        return keys, positions, ordinals

    def _insert_merged(self, before: int, columns: Columns) -> None:
        """All origins of the events that have several."""
        merged = columns.merged
        known = self._origin_ids({o.stream: None for origins in merged.values() for o in origins})
        self._driver.executemany(
            self._sql.insert_origin,
            [
                (
                    before + 1 + index,
                    n,
                    None if o.stream == columns.streams[index] else known[o.stream],
                    *o[1:],
                )
                for index, origins in merged.items()
                for n, o in enumerate(origins)
            ],
        )

    def truncate_after(self, global_position: int) -> int:
        """Delete this release's events after a global position; returns how many."""
        bound = {"after": global_position, "release": self._location.release}
        self._driver.execute(self._sql.delete_origins_after, bound)
        deleted = self._driver.execute(self._sql.delete_events_after, bound).rowcount
        self._cache.clear()
        self._last_global = None
        return deleted

    # --- indexes

    def defer_indexes(self) -> bool:
        """Drop the unique indexes if the tables hold no event yet; True if they are off.

        For a load into a new target: about twice as fast, three times on disk.
        Until `build_indexes`, duplicate ids and positions are not seen and
        applications cannot append. Safe to repeat and to be killed in.
        """
        if not self.deferred and self._last_position() == 0:
            drop_indexes(self._driver, self._tables)
            self.deferred = True
        return self.deferred

    def build_indexes(self) -> None:
        """Build the unique indexes where they are missing; harmless otherwise.

        Raises `DuplicateIdError` or `ConflictError` naming the first offender.
        """
        if not self.deferred:
            return
        try:
            build_indexes(self._driver, self._tables)
        except sqlite3.IntegrityError as error:
            url = self._location.url
            raise doubled(self._driver, self._sql, url, error) from error
        self.deferred = False

    # --- keys of streams

    def _keys(self, streams: Sequence[str]) -> list[int]:
        try:
            return list(map(self._cache.ids.__getitem__, streams))
        except KeyError:
            return list(map(self._stream_ids(streams).__getitem__, streams))

    def _stream_ids(self, streams: Sequence[str]) -> dict[str, int]:
        """The keys of all these streams; new ones are added, marked with the release."""
        self._learn_streams(streams)
        ids = self._cache.ids
        if unknown := set(streams).difference(ids):
            new = [name for name in dict.fromkeys(streams) if name in unknown]
            for name in new:
                if not name or "\0" in name:
                    raise DataError(
                        f"{name!r} cannot name a stream: it is empty or holds a NUL",
                        where=Where(store=self._location.url),
                        remedy="give the stream another name",
                    )
            (last,) = self._driver.execute(self._sql.last_stream_id).fetchone()
            release = self._location.release
            self._driver.executemany(
                self._sql.insert_stream,
                [(key, name, release) for key, name in enumerate(new, last + 1)],
            )
            ids.update(zip(new, range(last + 1, last + 1 + len(new)), strict=True))
            self._cache.set_heads([ids[name] for name in new], [FIRST_POSITION - 1] * len(new))
        return ids

    def _learn_streams(self, streams: Iterable[str]) -> None:
        """Look up the keys of those streams that exist and are not known yet."""
        ids = self._cache.ids
        wanted = set(streams)
        unknown = wanted.difference(ids)  # not `- ids.keys()`: that walks over all known names
        if not unknown:
            return
        if len(ids) + len(unknown) > NAMES_KEPT:
            ids.clear()
            unknown = wanted
        named = {"names": json.dumps(list(unknown))}
        for name, stream_id, release in self._driver.execute(self._sql.streams_named, named):
            if release != self._location.release:
                raise ConflictError(
                    f"the stream {name!r} is in these tables already, "
                    + (f"as one of release {release}" if release else "as one of no release"),
                    where=Where(store=self._location.url, stream=name),
                    remedy="name the new streams differently (a template with the release in it)",
                )
            ids[name] = stream_id

    def _origin_ids(self, names: dict[str, None]) -> dict[str, int]:
        """The keys of these origin streams; new ones are added."""
        known = self._cache.origin_ids
        names.pop("", None)
        unknown = [name for name in names if name not in known]
        if unknown:
            if len(known) + len(unknown) > NAMES_KEPT:
                known.clear()
                unknown = list(names)
            named = {"names": json.dumps(unknown)}
            known.update(self._driver.execute(self._sql.origin_streams_named, named).fetchall())
            new = [name for name in unknown if name not in known]
            (last,) = self._driver.execute(self._sql.last_origin_stream_id).fetchone()
            numbered = list(enumerate(new, last + 1))
            self._driver.executemany(self._sql.insert_origin_stream, numbered)
            known.update((name, number) for number, name in numbered)
        return known

    def _last_position(self) -> int:
        if self._last_global is None:
            (self._last_global,) = self._driver.execute(self._sql.last_global).fetchone()
        return cast(int, self._last_global)
