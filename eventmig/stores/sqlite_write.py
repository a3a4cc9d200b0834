"""One write transaction on a SQLite store: the hot path of a job.

The ledger writes through `connection` (SQLAlchemy); event rows go through the
driver's own connection below it, in the same transaction. What the store learned
of streams is kept between transactions in a `StreamCache`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final, cast

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, DropIndex

from eventmig.errors import ConflictError, DataError, Where
from eventmig.events import Event, Origin
from eventmig.stores.sqlite_cache import NAMES_KEPT, StreamCache
from eventmig.stores.sqlite_file import Location
from eventmig.stores.sqlite_refusals import check_names, doubled, not_text, refused_batch
from eventmig.stores.sqlite_schema import FIRST_POSITION, Statements, Tables

_NO_ORIGIN: Final = ("", None, None)


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
    ) -> None:
        self.connection = connection
        self._driver = cast(sqlite3.Connection, connection.connection.driver_connection)
        self._location = location
        self._tables = tables
        self._sql = sql
        self._cache = cache
        self._last_global: int | None = None
        self.deferred = self._indexes_missing()
        # While the indexes are deferred nobody else may append, so the heads hold;
        # otherwise a commit by any other connection ends what was known.
        (version,) = self._driver.execute("PRAGMA data_version").fetchone()
        if version != cache.data_version and not (self.deferred and cache.all_heads_known):
            cache.clear()
        cache.data_version = version

    # --- heads

    def heads(self, streams: Collection[str]) -> dict[str, int]:
        """Last stream position of each named stream; 0 where it has no events."""
        self._learn_streams(streams)
        ids = self._cache.ids
        known = {name: ids[name] for name in streams if name in ids}
        self._learn_heads(known.values())
        heads = dict.fromkeys(streams, FIRST_POSITION - 1)
        for name, stream_id in known.items():
            heads[name] = self._cache.head(stream_id) or FIRST_POSITION - 1
        return heads

    def _learn_heads(self, stream_ids: Collection[int]) -> None:
        cache = self._cache
        unknown = [i for i in stream_ids if cache.head(i) is None]
        if not unknown:
            return
        if self.deferred:  # no index to ask: one pass over the events, then all are known
            rows: Iterable[tuple[int, int | None]] = self._driver.execute(self._sql.heads_all)
            cache.all_heads_known = True
        else:
            rows = self._driver.execute(self._sql.heads_of_ids, {"ids": json.dumps(unknown)})
        cache.set_heads({key: at or FIRST_POSITION - 1 for key, at in rows})

    # --- events

    def append_copied(self, events: Sequence[Event]) -> int:
        """Write events as they are; returns the last global position.

        Raises `DuplicateIdError`, `ConflictError` (a position that is taken, a
        stream of another release) and `DataError` (what SQLite's text cannot
        hold). While the indexes are deferred, ids and positions are not looked
        at before `build_indexes`.
        """
        before = self._last_position()
        if not events:
            return before
        # Column by column: each step is one loop in C.
        _, streams, positions, ids, types, versions, data, metadata, times, origins = zip(
            *events, strict=True
        )
        if "\0" in "".join(ids) or not all(ids) or any(not t or "\0" in t for t in set(types)):
            check_names(events, self._location.url)
        try:
            keys = list(map(self._stream_ids(streams).__getitem__, streams))
            rows = zip(
                range(before + 1, before + 1 + len(events)),
                keys,
                positions,
                ids,
                types,
                versions,
                map(bytes.decode, data),
                [m if m is None else m.decode() for m in metadata],
                times,
                *self._lineage(streams, origins),
                strict=True,
            )
            self._driver.executemany(self._sql.insert_event, rows)
            if max(map(len, origins)) > 1:
                self._insert_merged(before, events)
        except UnicodeError as error:
            raise not_text(events, self._location.url) from error
        except sqlite3.IntegrityError as error:
            url = self._location.url
            raise refused_batch(self._driver, self._sql, url, events, before, error) from error
        self._cache.set_heads(dict(zip(keys, positions, strict=True)))
        self._last_global = before + len(events)
        return self._last_global

    def _lineage(
        self, streams: Sequence[str], origins: Sequence[tuple[Origin, ...]]
    ) -> tuple[Iterable[int | None], Iterable[int | None], Iterable[int | None]]:
        """The three origin columns of a batch, as `sqlite_schema` describes them."""
        if not any(origins):
            nothing = [None] * len(origins)
            return nothing, nothing, nothing
        firsts = [o[0] if o else _NO_ORIGIN for o in origins]
        names, positions, ordinals = zip(*firsts, strict=True)
        keys: list[int | None] = [None] * len(names)
        if names != streams:
            known = self._origin_ids(
                {o.stream: None for some in origins for o in some}
                if max(map(len, origins)) > 1
                else dict.fromkeys(names)
            )
            keys = [
                None if name == stream else known.get(name)
                for name, stream in zip(names, streams, strict=True)
            ]
        several = [n if len(o) < 2 else None for n, o in zip(ordinals, origins, strict=True)]
        return keys, positions, several

    def _insert_merged(self, before: int, events: Sequence[Event]) -> None:
        """All origins of the events that have several."""
        merged = [
            (n, event) for n, event in enumerate(events, before + 1) if len(event.origins) > 1
        ]
        known = self._origin_ids({o.stream: None for _, event in merged for o in event.origins})
        self._driver.executemany(
            self._sql.insert_origin,
            [
                (at, n, None if o.stream == event.stream else known[o.stream], *o[1:])
                for at, event in merged
                for n, o in enumerate(event.origins)
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
            for index in (self._tables.by_id, self._tables.by_stream):
                self.connection.execute(DropIndex(index, if_exists=True))
            self.deferred = True
        return self.deferred

    def build_indexes(self) -> None:
        """Build the unique indexes where they are missing; harmless otherwise.

        Raises `DuplicateIdError` or `ConflictError` naming the first offender.
        """
        if not self.deferred:
            return
        try:
            for index in (self._tables.by_id, self._tables.by_stream):
                self.connection.execute(CreateIndex(index, if_not_exists=True))
        except IntegrityError as error:
            url = self._location.url
            raise doubled(self._driver, self._sql, url, error) from error
        self.deferred = False

    def _indexes_missing(self) -> bool:
        names = [str(index.name) for index in (self._tables.by_id, self._tables.by_stream)]
        (found,) = self._driver.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name IN (?, ?)", names
        ).fetchone()
        return bool(found < len(names))

    # --- keys of streams

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
            self._cache.set_heads({ids[name]: FIRST_POSITION - 1 for name in new})
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
