"""One write transaction on a SQLite store: the hot path of a job.

The ledger writes through `connection` (SQLAlchemy); event rows go through the
driver's own connection below it, in the same transaction. What the store learned
of streams is kept between transactions in a `StreamCache`.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NoReturn, cast

from sqlalchemy import Connection
from sqlalchemy.schema import CreateIndex, DropIndex

from eventmig.errors import (
    ConflictError,
    DataError,
    DuplicateIdError,
    StoreDamagedError,
    StoreError,
    Where,
)
from eventmig.events import Event, Origin
from eventmig.stores.sqlite_file import Location
from eventmig.stores.sqlite_schema import FIRST_POSITION, Statements, Tables

_NAMES_KEPT: Final = 200_000
_UNKNOWN: Final = -1


class StreamCache:
    """What one store object knows of its streams: keys by name, heads by key.

    Bounded: at most 200,000 names of either kind; a head costs 8 bytes a stream.
    Emptied whenever another connection committed, or a transaction was undone.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.ids: dict[str, int] = {}
        self.origin_ids: dict[str, int] = {}
        self.heads = array("q")
        self.all_heads_known = False
        self.data_version = _UNKNOWN

    def set_head(self, stream_id: int, position: int) -> None:
        """Note a stream's last position."""
        missing = stream_id + 1 - len(self.heads)
        if missing > 0:
            self.heads.extend([_UNKNOWN] * missing)
        self.heads[stream_id] = position

    def head(self, stream_id: int) -> int | None:
        """A stream's last position, or None where it is not known."""
        if stream_id < len(self.heads) and self.heads[stream_id] != _UNKNOWN:
            return self.heads[stream_id]
        return FIRST_POSITION - 1 if self.all_heads_known else None


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
        for stream_id, position in rows:
            cache.set_head(stream_id, FIRST_POSITION - 1 if position is None else position)

    # --- events

    def append_copied(self, events: Sequence[Event]) -> int:
        """Write events as they are; returns the last global position.

        Raises `DuplicateIdError`, `ConflictError` (a position that is taken, a
        stream of another release) and `DataError` (what SQLite's text cannot
        hold). While the indexes are deferred the first two show in
        `build_indexes`.
        """
        last = self._last_position()
        if not events:
            return last
        ids = self._stream_ids([event.stream for event in events])
        cache = self._cache
        rows: list[tuple[object, ...]] = []
        merged: list[tuple[int, tuple[Origin, ...]]] = []
        add = rows.append
        position = last
        origin_ids = self._origin_ids(events)
        try:
            for _, stream, sp, event_id, type_, version, data, metadata, time, origins in events:
                position += 1
                o_stream: int | None = None
                o_position: int | None = None
                o_ordinal: int | None = None
                if origins:
                    o_name, o_position, o_ordinal = origins[0]
                    if o_name != stream:
                        o_stream = origin_ids[o_name]
                    if len(origins) > 1:
                        o_ordinal = None
                        merged.append((position, origins))
                add(
                    (
                        position,
                        ids[stream],
                        sp,
                        event_id,
                        type_,
                        version,
                        data.decode(),
                        metadata if metadata is None else metadata.decode(),
                        time,
                        o_stream,
                        o_position,
                        o_ordinal,
                    )
                )
            _refuse_nul(events)
            self._driver.executemany(self._sql.insert_event, rows)
        except UnicodeError as error:
            raise self._not_text(events) from error
        except sqlite3.IntegrityError as error:
            self._refused(events, last, error)
        for global_position, origins in merged:
            stream = events[global_position - last - 1].stream
            self._driver.executemany(
                self._sql.insert_origin,
                [
                    (global_position, n, None if o.stream == stream else origin_ids[o.stream], *o[1:])
                    for n, o in enumerate(origins)
                ],
            )
        for stream_id, head in {row[1]: row[2] for row in rows}.items():
            cache.set_head(cast(int, stream_id), cast(int, head))
        self._last_global = position
        return position

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
        except Exception as error:
            if not isinstance(getattr(error, "orig", None), sqlite3.IntegrityError):
                raise
            self._doubled(error)
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
        new = [name for name in dict.fromkeys(streams) if name not in ids]
        if new:
            for name in new:
                if not name or "\0" in name:
                    raise DataError(
                        f"{name!r} cannot name a stream: it is empty or holds a NUL",
                        where=Where(store=self._location.url, stream=name),
                        remedy="give the stream another name",
                    )
            (last,) = self._driver.execute(self._sql.last_stream_id).fetchone()
            numbered = list(enumerate(new, last + 1))
            release = self._location.release
            try:
                self._driver.executemany(
                    self._sql.insert_stream, [(n, name, release) for n, name in numbered]
                )
            except UnicodeEncodeError as error:
                raise _surrogate("a stream's name", self._location.url, error) from error
            for stream_id, name in numbered:
                ids[name] = stream_id
                self._cache.set_head(stream_id, FIRST_POSITION - 1)
        return ids

    def _learn_streams(self, streams: Iterable[str]) -> None:
        ids = self._cache.ids
        unknown = [name for name in dict.fromkeys(streams) if name not in ids]
        if not unknown:
            return
        if len(ids) + len(unknown) > _NAMES_KEPT and ids:
            ids.clear()
            unknown = list(dict.fromkeys(streams))
        for name, stream_id, release in self._driver.execute(
            self._sql.streams_named, {"names": json.dumps(unknown)}
        ):
            if release != self._location.release:
                raise ConflictError(
                    f"the stream {name!r} is in these tables already, "
                    + (f"as one of release {release}" if release else "as one of no release"),
                    where=Where(store=self._location.url, stream=name),
                    remedy="name the new streams differently (a template with the release in it)",
                )
            ids[name] = stream_id

    def _origin_ids(self, events: Sequence[Event]) -> dict[str, int]:
        """The keys of the origin streams that are not the event's own."""
        cache = self._cache
        names = dict.fromkeys(
            origin[0] for event in events for origin in event[9] if origin[0] != event[1]
        )
        unknown = [name for name in names if name not in cache.origin_ids]
        if unknown:
            if len(cache.origin_ids) + len(unknown) > _NAMES_KEPT:
                cache.origin_ids.clear()
                unknown = list(names)
            cache.origin_ids.update(
                self._driver.execute(
                    self._sql.origin_streams_named, {"names": json.dumps(unknown)}
                ).fetchall()
            )
            new = [name for name in unknown if name not in cache.origin_ids]
            (last,) = self._driver.execute(self._sql.last_origin_stream_id).fetchone()
            numbered = list(enumerate(new, last + 1))
            self._driver.executemany(self._sql.insert_origin_stream, numbered)
            cache.origin_ids.update((name, number) for number, name in numbered)
        return cache.origin_ids

    def _last_position(self) -> int:
        if self._last_global is None:
            (self._last_global,) = self._driver.execute(self._sql.last_global).fetchone()
        return cast(int, self._last_global)

    # --- what was refused

    def _refused(self, events: Sequence[Event], last: int, error: sqlite3.IntegrityError) -> NoReturn:
        """Say which event of a batch the unique indexes refused."""
        url = self._location.url
        ids = [event.id for event in events]
        doubled = next((i for i, n in Counter(ids).items() if n > 1), None)
        present = self._driver.execute(
            self._sql.ids_present, {"ids": json.dumps(ids), "until": last}
        ).fetchone()
        if present or doubled:
            event_id, *place = present or (doubled, None, None, None)
            raise DuplicateIdError(
                f"an event with the id {event_id} is stored already"
                if present
                else f"the id {event_id} stands twice in one append",
                where=Where(
                    store=url,
                    event_id=event_id,
                    stream=place[0],
                    stream_position=place[1],
                    global_position=place[2],
                ),
                remedy="append each event once, under an id of its own; nothing was written",
            ) from error
        places = [[event.stream, event.stream_position] for event in events]
        taken = self._driver.execute(
            self._sql.positions_present, {"places": json.dumps(places), "until": last}
        ).fetchone()
        if taken is None:
            counted = Counter((event.stream, event.stream_position) for event in events)
            taken = next((place for place, n in counted.items() if n > 1), None)
        if taken is None:
            raise StoreError(
                f"the store refused a batch of events ({error})", where=Where(store=url)
            ) from error
        raise self._taken(taken) from error

    def _doubled(self, error: Exception) -> NoReturn:
        """Say which event kept the unique indexes from being built."""
        row = self._driver.execute(self._sql.doubled_id).fetchone()
        if row is not None:
            event_id, first, second = row
            raise DuplicateIdError(
                f"the id {event_id} stands at the global positions {first} and {second}",
                where=Where(
                    store=self._location.url, event_id=event_id, global_position=second
                ),
                remedy="mend the step (or the source) that gives two events one id, "
                "then run the job anew",
            ) from error
        row = self._driver.execute(self._sql.doubled_position).fetchone()
        if row is None:
            raise StoreDamagedError(
                f"the store's indexes cannot be built ({error})",
                where=Where(store=self._location.url),
                remedy="restore the store from a backup, or run the job anew",
            ) from error
        raise self._taken(row) from error

    def _taken(self, place: tuple[str, int]) -> ConflictError:
        return ConflictError(
            f"the stream {place[0]!r} has an event at position {place[1]} already",
            where=Where(store=self._location.url, stream=place[0], stream_position=place[1]),
            remedy="number the stream's events without repeating a position",
        )

    def _not_text(self, events: Sequence[Event]) -> DataError:
        """Say which event of a batch holds what is not UTF-8."""
        for event in events:
            try:
                event.data.decode()
                (event.metadata or b"").decode()
                "".join((event.id, event.type)).encode()
                for origin in event.origins:
                    origin.stream.encode()
            except UnicodeError as error:
                return DataError(
                    f"an event's data, metadata, id or type is not UTF-8 ({error.reason})",
                    where=Where(
                        store=self._location.url,
                        stream=event.stream,
                        stream_position=event.stream_position,
                        event_id=repr(event.id)[1:-1],
                        type=repr(event.type)[1:-1],
                    ),
                    remedy="store JSON text in UTF-8; wrap other bytes (base64) in a JSON string",
                )
        return DataError("a batch holds text that is not UTF-8")


def _refuse_nul(events: Sequence[Event]) -> None:
    for part, name in ((3, "id"), (4, "type")):
        values = [event[part] for event in events]
        if "\0" in "".join(cast("list[str]", values)) or not all(values):
            event = next(e for e in events if not e[part] or "\0" in cast(str, e[part]))
            raise DataError(
                f"an event's {name} is empty or holds a NUL: {event[part]!r}",
                where=Where(stream=event.stream, stream_position=event.stream_position),
                remedy=f"give the event another {name}",
            )


def _surrogate(what: str, store: str, error: UnicodeEncodeError) -> DataError:
    return DataError(
        f"{what} holds a lone surrogate: {error.object!r}",
        where=Where(store=store),
        remedy="UTF-8 cannot carry it; mend the name where it comes from",
    )
