"""Snapshots as rows: read, written and counted in bulk, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Dialect, Row, delete, func, select
from sqlalchemy.exc import DBAPIError

from eventmig.rebuild.bookkeeping import Kind, State, generations, is_there, snapshots
from eventmig.rebuild.statements import Statement, insert_into, parameter

HEAD = 0
"""The slot of the snapshot at a stream's head."""

_STREAMS_AT_ONCE = 400
_COLUMNS = tuple(column.name for column in snapshots.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A stored state: what `stream` came to at `stream_position` (the event `event_id`).

    `events_folded` handled events made it. `state` is JSON text. `source` is the
    identity of the store it was folded from.
    """

    stream: str
    slot: int
    stream_position: int
    event_id: str
    events_folded: int
    fingerprint: str
    state: str
    source: str = ""


class SnapshotWriter:
    """Writes snapshots of one aggregate and generation; an existing slot is replaced."""

    def __init__(self, aggregate: str, generation: int, fingerprint: str, dialect: Dialect) -> None:
        self._prefix = (aggregate, generation)
        self._fingerprint = fingerprint
        keys = list(snapshots.primary_key.columns)
        columns = list(snapshots.columns)
        clause = insert_into(snapshots, dialect).values(
            {column: parameter(index, column) for index, column in enumerate(columns)}
        )
        rest = {c.name: clause.excluded[c.name] for c in columns if c not in keys}
        full = clause.inline().on_conflict_do_update(index_elements=keys, set_=rest)
        self._statement = Statement(full, len(columns), dialect)

    def row(
        self, stream: str, slot: int, position: int, event_id: str, folded: int, state: str
    ) -> tuple[Any, ...]:
        """One snapshot as a row to be written."""
        key = (*self._prefix, stream, slot)
        return (*key, position, event_id, folded, self._fingerprint, state)

    def write(self, connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        """Write rows made by `row`."""
        rows.sort()
        self._statement.run(connection, rows)


def read_heads(
    connection: Connection, aggregate: str, generation: int, streams: Collection[str]
) -> Iterator[Snapshot]:
    """The head snapshots of these streams in one generation, where there are any (reads)."""
    rest = iter(streams)
    while chunk := list(islice(rest, _STREAMS_AT_ONCE)):
        query = select(snapshots).where(
            *_in_generation(aggregate, generation),
            snapshots.c.slot == HEAD,
            snapshots.c.stream.in_(chunk),
        )
        for row in connection.execute(query):
            yield _snapshot(row)


def last_slots(
    connection: Connection, aggregate: str, generation: int, streams: Collection[str]
) -> dict[str, int]:
    """The last slot written of each of these streams in one generation, if any (reads)."""
    found: dict[str, int] = {}
    rest = iter(streams)
    while chunk := list(islice(rest, _STREAMS_AT_ONCE)):
        query = (
            select(snapshots.c.stream, func.max(snapshots.c.slot))
            .where(*_in_generation(aggregate, generation), snapshots.c.stream.in_(chunk))
            .group_by(snapshots.c.stream)
        )
        found.update((stream, slot) for stream, slot in connection.execute(query))
    return found


def of_streams(
    connection: Connection, aggregate: str, generation: int, streams: Collection[str]
) -> Iterator[Snapshot]:
    """Every snapshot of these streams in one generation (reads)."""
    query = select(snapshots).where(*_in_generation(aggregate, generation))
    rest = iter(streams)
    while chunk := list(islice(rest, _STREAMS_AT_ONCE)):
        for row in connection.execute(query.where(snapshots.c.stream.in_(chunk))):
            yield _snapshot(row)


def names_after(
    connection: Connection, aggregate: str, generation: int, after: str, limit: int
) -> list[str]:
    """The next so many streams with a snapshot, by name (reads); `after` is exclusive."""
    query = (
        select(snapshots.c.stream)
        .where(*_in_generation(aggregate, generation))
        .where(snapshots.c.slot == HEAD, snapshots.c.stream > after)
        .order_by(snapshots.c.stream)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def live_snapshot(
    connection: Connection, aggregate: str, stream: str, upto: int | None
) -> Snapshot | None:
    """The latest snapshot of a stream in the live generation, at or before `upto` (reads)."""
    query = (
        select(snapshots, generations.c.source)
        .join(
            generations,
            (generations.c.kind == Kind.AGGREGATE.value)
            & (generations.c.name == snapshots.c.aggregate)
            & (generations.c.generation == snapshots.c.generation),
        )
        .where(
            generations.c.state == State.LIVE.value,
            snapshots.c.aggregate == aggregate,
            snapshots.c.stream == stream,
        )
        .order_by(snapshots.c.stream_position.desc())
        .limit(1)
    )
    if upto is not None:
        query = query.where(snapshots.c.stream_position <= upto)
    try:
        row = connection.execute(query).first()
    except DBAPIError:
        connection.rollback()
        if is_there(connection):
            raise
        return None  # no rebuild was ever begun here
    return None if row is None else _snapshot(row, row.source)


def sample_of(
    connection: Connection, aggregate: str, generation: int, size: int | None
) -> list[str]:
    """`size` streams with a snapshot, evenly spread over their names (None: all) (reads)."""
    at_head = (*_in_generation(aggregate, generation), snapshots.c.slot == HEAD)
    names = select(snapshots.c.stream).where(*at_head).order_by(snapshots.c.stream)
    if size is None:
        return list(connection.execute(names).scalars())
    total = count(connection, aggregate, generation)
    step = max(1, total // max(1, size))
    numbered = select(
        snapshots.c.stream, func.row_number().over(order_by=snapshots.c.stream).label("n")
    ).where(*at_head)
    ranked = numbered.subquery()
    query = select(ranked.c.stream).where(ranked.c.n % step == 0).order_by(ranked.c.stream)
    return list(connection.execute(query.limit(size)).scalars())


def count(connection: Connection, aggregate: str, generation: int) -> int:
    """How many streams have a snapshot at their head (reads)."""
    query = select(func.count()).where(
        *_in_generation(aggregate, generation), snapshots.c.slot == HEAD
    )
    return connection.execute(query).scalar_one()


def count_others(
    connection: Connection,
    aggregate: str,
    generation: int,
    fingerprint: str | None,
    streams: Sequence[str] | None = None,
) -> int:
    """How many streams' snapshots at the head are not of this fingerprint (None: of none) (reads).

    `streams`: of these alone.
    """
    conditions = [*_in_generation(aggregate, generation), snapshots.c.slot == HEAD]
    if fingerprint is not None:
        conditions.append(snapshots.c.fingerprint != fingerprint)
    if streams is not None:
        conditions.append(snapshots.c.stream.in_(streams))
    return connection.execute(select(func.count()).where(*conditions)).scalar_one()


def discard(
    connection: Connection,
    aggregate: str,
    generation: int,
    streams: Sequence[str] | None = None,
) -> None:
    """Delete a generation's snapshots, or those of some of its streams."""
    clause = delete(snapshots).where(*_in_generation(aggregate, generation))
    if streams is None:
        connection.execute(clause)
        return
    for start in range(0, len(streams), _STREAMS_AT_ONCE):
        chunk = streams[start : start + _STREAMS_AT_ONCE]
        connection.execute(clause.where(snapshots.c.stream.in_(chunk)))


def _in_generation(aggregate: str, generation: int) -> tuple[Any, ...]:
    return (snapshots.c.aggregate == aggregate, snapshots.c.generation == generation)


def _snapshot(row: Row[Any], source: str = "") -> Snapshot:
    return Snapshot(
        stream=row.stream,
        slot=row.slot,
        stream_position=row.stream_position,
        event_id=row.event_id,
        events_folded=row.events_folded,
        fingerprint=row.fingerprint,
        state=row.state,
        source=source,
    )
