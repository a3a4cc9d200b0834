"""The chained hash of each verified stream, up to a stream position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection, delete, func, insert, select

from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.lifecycle import write_job
from eventmig.migrate.ledger.records import Job


def store_hashes(connection: Connection, job: Job, hashes: Mapping[str, tuple[int, bytes]]) -> None:
    """Record the chained hash of streams up to a stream position (inclusive)."""
    write_job(connection, job)
    names = list(hashes)
    for start in range(0, len(names), 500):
        connection.execute(
            delete(tables.stream_hashes).where(
                tables.stream_hashes.c.job_id == job.job_id,
                tables.stream_hashes.c.stream.in_(names[start : start + 500]),
            )
        )
    rows = [
        {"job_id": job.job_id, "stream": s, "stream_position": p, "hash": h}
        for s, (p, h) in hashes.items()
    ]
    if rows:
        connection.execute(insert(tables.stream_hashes), rows)


def hashes(
    connection: Connection, job: Job, streams: Iterable[str]
) -> dict[str, tuple[int, bytes]]:
    """The recorded hash of each named stream that has one: (stream position, hash)."""
    names = list(streams)
    found: dict[str, tuple[int, bytes]] = {}
    for start in range(0, len(names), 500):
        rows = connection.execute(
            select(tables.stream_hashes).where(
                tables.stream_hashes.c.job_id == job.job_id,
                tables.stream_hashes.c.stream.in_(names[start : start + 500]),
            )
        )
        found |= {r.stream: (r.stream_position, r.hash) for r in rows}
    return found


def all_hashes(connection: Connection, job: Job) -> dict[str, tuple[int, bytes]]:
    """Every recorded hash: (stream position, hash)."""
    rows = connection.execute(
        select(
            tables.stream_hashes.c.stream,
            tables.stream_hashes.c.stream_position,
            tables.stream_hashes.c.hash,
        ).where(tables.stream_hashes.c.job_id == job.job_id)
    )
    return {stream: (position, value) for stream, position, value in rows}


def hashed_streams(connection: Connection, job: Job) -> int:
    """How many streams have a recorded hash."""
    count = (
        select(func.count())
        .select_from(tables.stream_hashes)
        .where(tables.stream_hashes.c.job_id == job.job_id)
    )
    return int(connection.execute(count).scalar_one())


def hashed_names(connection: Connection, job: Job) -> Iterator[dict[str, int]]:
    """Every stream that has a recorded hash, with the position it goes up to, some at a time."""
    found = connection.execute(
        select(tables.stream_hashes.c.stream, tables.stream_hashes.c.stream_position)
        .where(tables.stream_hashes.c.job_id == job.job_id)
        .order_by(tables.stream_hashes.c.stream)
    )
    for rows in found.partitions(500):
        yield {row.stream: row.stream_position for row in rows}
