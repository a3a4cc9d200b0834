"""The native layout in SQLite: its tables, and every statement the store runs.

    streams         one row per stream; event rows carry its integer key
    events          one row per event; global_position is the rowid
    origin_streams  names of source streams that differ from the target's own
    origins         all origins of an event merged from several, in order
    eventmig_store  one row: the format number, by which a file is recognised

An event row names its origin so:

    origin_position NULL                    no origin: an application appended it
    origin_ordinal set, origin_stream NULL  one origin, in a stream of the same name
    origin_ordinal set, origin_stream set   one origin, in a stream of another name
    origin_ordinal NULL                     several: the rows of `origins`

The unique indexes of the events are in `indexes`.
Imports nothing of eventmig and runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text
from sqlalchemy.dialects.sqlite import dialect

FORMAT: Final = 1
"""The layout this module writes; a higher number in a file is a newer eventmig's."""

FIRST_POSITION: Final = 1
"""Stream positions of the native layout count from 1."""

MARK: Final = "eventmig_store"
"""The table (after the prefix) that makes a SQLite file an event store."""

ROWS: Final = 80
"""How many events `insert_events` takes: as many as every SQLite has parameters for (999)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """One set of tables: SQLAlchemy Core definitions under one name prefix."""

    metadata: MetaData
    mark: Table
    streams: Table
    origin_streams: Table
    events: Table
    origins: Table


def define_tables(prefix: str) -> Tables:
    """The tables whose names begin with `prefix` (may be empty)."""
    meta = MetaData()
    mark = Table(prefix + MARK, meta, Column("format", Integer, nullable=False))
    streams = Table(
        prefix + "streams",
        meta,
        Column("stream_id", Integer, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
        Column("release", Text),
    )
    origin_streams = Table(
        prefix + "origin_streams",
        meta,
        Column("origin_stream_id", Integer, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
    )
    events = Table(
        prefix + "events",
        meta,
        Column("global_position", Integer, primary_key=True),
        Column("stream_id", Integer, ForeignKey(streams.c.stream_id), nullable=False),
        Column("stream_position", Integer, nullable=False),
        Column("event_id", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("schema_version", Integer, nullable=False),
        Column("data", Text, nullable=False),
        Column("metadata", Text),
        Column("recorded_at", Integer, nullable=False),  # microseconds since 1970, UTC
        Column("origin_stream", Integer, ForeignKey(origin_streams.c.origin_stream_id)),
        Column("origin_position", Integer),
        Column("origin_ordinal", Integer),
    )
    origins = Table(
        prefix + "origins",
        meta,
        Column("global_position", Integer, primary_key=True, autoincrement=False),
        Column("number", Integer, primary_key=True, autoincrement=False),  # 0-based, in order
        Column("origin_stream", Integer, ForeignKey(origin_streams.c.origin_stream_id)),
        Column("origin_position", Integer, nullable=False),
        Column("origin_ordinal", Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    return Tables(
        metadata=meta,
        mark=mark,
        streams=streams,
        origin_streams=origin_streams,
        events=events,
        origins=origins,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The hot-path SQL of one set of tables; run on the driver's connection."""

    # reading
    read_all: str
    read_all_typed: str
    read_page: str
    read_page_typed: str
    read_page_alone: str
    read_page_alone_typed: str
    stream_names: str
    read_data: str
    read_data_typed: str
    read_data_alone: str
    read_data_alone_typed: str
    other_streams: str
    read_stream: str
    read_streams: str
    event_by_id: str
    examples: str
    origins_of: str
    heads_page: str
    heads_named: str
    categories: str
    type_counts: str
    head_position: str
    count: str
    count_typed: str
    count_typed_alone: str
    # writing
    last_global: str
    last_stream_id: str
    last_origin_stream_id: str
    streams_named: str
    origin_streams_named: str
    heads_of_ids: str
    heads_all: str
    insert_stream: str
    insert_origin_stream: str
    insert_event: str
    insert_events: str
    insert_origin: str
    delete_origins_after: str
    delete_events_after: str
    ids_present: str
    positions_present: str
    # checking
    doubled_id: str
    doubled_position: str
    gaps: str
    orphans: str


def quote(name: str) -> str:
    """An identifier in SQLite's own quoting (the dialect's composer)."""
    return str(dialect().identifier_preparer.quote(name))


def compose(tables: Tables) -> Statements:
    """The statements over these tables.

    Parameters are named; `:release` is NULL for the streams of no release.
    CAST(... AS BLOB) hands the stored text back as its exact bytes; CROSS JOIN
    keeps SQLite from turning the join around (sqlite.org/optoverview.html, 7.3).
    """
    streams, events = quote(tables.streams.name), quote(tables.events.name)
    origin_streams, origins = quote(tables.origin_streams.name), quote(tables.origins.name)
    columns = """e.global_position, s.name, e.stream_position, e.event_id, e.type,
        e.schema_version, CAST(e.data AS BLOB), CAST(e.metadata AS BLOB), e.recorded_at,
        o.name, e.origin_position, e.origin_ordinal"""
    origin = f"LEFT JOIN {origin_streams} o ON o.origin_stream_id = e.origin_stream"
    mine = f"{events} e CROSS JOIN {streams} s ON s.stream_id = e.stream_id"
    ours = f"{streams} s CROSS JOIN {events} e ON e.stream_id = s.stream_id"
    copied = f"SELECT {columns.rsplit(',', 3)[0]} FROM"  # without the origin
    by_key = copied.replace("s.name", "e.stream_id")
    data = "SELECT e.global_position, e.type, e.schema_version, CAST(e.data AS BLOB) FROM"
    span = "e.global_position > :after AND e.global_position <= :until"
    typed = "AND e.type IN (SELECT value FROM json_each(:types))"
    page = f"""SELECT {columns} FROM {mine} {origin}
        WHERE {span} AND s.release IS :release"""
    in_order = "ORDER BY e.global_position LIMIT :limit"
    insert_event = f"""INSERT INTO {events} (global_position, stream_id, stream_position,
                event_id, type, schema_version, data, metadata, recorded_at,
                origin_stream, origin_position, origin_ordinal)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
    extent = "min(e.stream_position), max(e.stream_position), count(*)"
    return Statements(
        # One page of the global order, by key, never by offset.
        read_all=f"{page} {in_order}",
        read_all_typed=f"{page} {typed} {in_order}",
        # The same without origins. "Alone": where these tables hold no stream of another release;
        # then the key of the stream stands for its name, and names are looked up once.
        read_page=f"{copied} {mine} WHERE {span} AND s.release IS :release {in_order}",
        read_page_typed=f"""{copied} {mine}
            WHERE {span} AND s.release IS :release {typed} {in_order}""",
        read_page_alone=f"{by_key} {events} e WHERE {span} {in_order}",
        read_page_alone_typed=f"{by_key} {events} e WHERE {span} {typed} {in_order}",
        stream_names=f"""SELECT stream_id, name FROM {streams}
            WHERE stream_id IN (SELECT value FROM json_each(:ids))""",
        # The same without what only a whole event needs; "alone" where these tables hold no
        # stream of another release.
        read_data=f"{data} {mine} WHERE {span} AND s.release IS :release {in_order}",
        read_data_typed=f"{data} {mine} WHERE {span} AND s.release IS :release {typed} {in_order}",
        read_data_alone=f"{data} {events} e WHERE {span} {in_order}",
        read_data_alone_typed=f"{data} {events} e WHERE {span} {typed} {in_order}",
        # Of the streams that came after one: the last, and whether any is another release's.
        other_streams=f"""SELECT max(stream_id), max(release IS NOT :release)
            FROM {streams} WHERE stream_id > :seen""",
        # One page of a stream.
        read_stream=f"""SELECT {columns} FROM {ours} {origin}
            WHERE s.name = :stream AND s.release IS :release
              AND e.stream_position BETWEEN :first AND :last
            ORDER BY e.stream_position LIMIT :limit""",
        # Events of several streams, by the index over streams, without a sort.
        read_streams=f"""SELECT {columns} FROM {mine} {origin}
            WHERE e.stream_id IN (SELECT value FROM json_each(:ids))
            ORDER BY e.stream_id, e.stream_position LIMIT :limit""",
        event_by_id=f"""SELECT {columns} FROM {mine} {origin}
            WHERE e.event_id = :event_id AND s.release IS :release""",
        examples=f"""{page} AND e.type = :type AND e.schema_version = :schema_version
            {in_order}""",
        # All origins of these merged events.
        origins_of=f"""SELECT g.global_position, coalesce(o.name, s.name),
                g.origin_position, g.origin_ordinal
            FROM {origins} g CROSS JOIN {events} e ON e.global_position = g.global_position
            CROSS JOIN {streams} s ON s.stream_id = e.stream_id
            LEFT JOIN {origin_streams} o ON o.origin_stream_id = g.origin_stream
            WHERE g.global_position IN (SELECT value FROM json_each(:positions))
            ORDER BY g.global_position, g.number""",
        # One page of stream extents: the index over streams answers it alone.
        heads_page=f"""SELECT s.name, {extent}
            FROM (SELECT stream_id, name FROM {streams}
                  WHERE release IS :release AND name > :after ORDER BY name LIMIT :limit) s
            CROSS JOIN {events} e ON e.stream_id = s.stream_id
            GROUP BY s.name ORDER BY s.name""",
        heads_named=f"""SELECT s.name, {extent} FROM {ours}
            WHERE s.release IS :release AND s.name IN (SELECT value FROM json_each(:names))
            GROUP BY s.name ORDER BY s.name""",
        categories=f"""SELECT CASE instr(s.name, '-') WHEN 0 THEN s.name
                   ELSE substr(s.name, 1, instr(s.name, '-') - 1) END AS category,
                count(*), sum(h.events)
            FROM (SELECT stream_id, count(*) AS events FROM {events} GROUP BY stream_id) h
            CROSS JOIN {streams} s ON s.stream_id = h.stream_id
            WHERE s.release IS :release GROUP BY category ORDER BY category""",
        type_counts=f"""SELECT e.type, e.schema_version, count(*) FROM {mine}
            WHERE e.global_position <= :until AND s.release IS :release
            GROUP BY e.type, e.schema_version ORDER BY e.type, e.schema_version""",
        head_position=f"""SELECT e.global_position FROM {mine}
            WHERE s.release IS :release ORDER BY e.global_position DESC LIMIT 1""",
        # The + keeps it off the table's pages: the index over streams has all it needs.
        count=f"""SELECT count(*) FROM {mine}
            WHERE +e.global_position <= :until AND s.release IS :release""",
        count_typed=f"""SELECT count(*) FROM {mine}
            WHERE e.global_position <= :until AND s.release IS :release {typed}""",
        count_typed_alone=f"""SELECT count(*) FROM {events} e
            WHERE e.global_position <= :until {typed}""",
        last_global=f"SELECT coalesce(max(global_position), 0) FROM {events}",
        last_stream_id=f"SELECT coalesce(max(stream_id), 0) FROM {streams}",
        last_origin_stream_id=f"SELECT coalesce(max(origin_stream_id), 0) FROM {origin_streams}",
        streams_named=f"""SELECT name, stream_id, release FROM {streams}
            WHERE name IN (SELECT value FROM json_each(:names))""",
        origin_streams_named=f"""SELECT name, origin_stream_id FROM {origin_streams}
            WHERE name IN (SELECT value FROM json_each(:names))""",
        # Heads of some streams, from the index; of all, while there is no index yet.
        heads_of_ids=f"""SELECT i.value, (SELECT max(e.stream_position) FROM {events} e
                WHERE e.stream_id = i.value) FROM json_each(:ids) i""",
        heads_all=f"SELECT stream_id, max(stream_position) FROM {events} GROUP BY stream_id",
        insert_stream=f"INSERT INTO {streams} (stream_id, name, release) VALUES (?, ?, ?)",
        insert_origin_stream=f"""INSERT INTO {origin_streams} (origin_stream_id, name)
            VALUES (?, ?)""",
        insert_event=insert_event,
        # Many rows in one statement: a quarter faster than one each.
        insert_events=f"{insert_event}{', (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)' * (ROWS - 1)}",
        insert_origin=f"""INSERT INTO {origins} (global_position, number, origin_stream,
                origin_position, origin_ordinal) VALUES (?, ?, ?, ?, ?)""",
        # Only the events of the store's own release.
        delete_origins_after=f"""DELETE FROM {origins} WHERE global_position IN
            (SELECT e.global_position FROM {mine}
             WHERE e.global_position > :after AND s.release IS :release)""",
        delete_events_after=f"""DELETE FROM {events} WHERE global_position > :after
            AND stream_id IN (SELECT stream_id FROM {streams} WHERE release IS :release)""",
        # After a refused insert: which of the batch are there already.
        ids_present=f"""SELECT e.event_id, s.name, e.stream_position, e.global_position FROM {mine}
            WHERE e.event_id IN (SELECT value FROM json_each(:ids))
              AND e.global_position <= :until ORDER BY e.global_position LIMIT 1""",
        positions_present=f"""SELECT s.name, e.stream_position FROM {ours}
            JOIN json_each(:places) p ON s.name = json_extract(p.value, '$[0]')
                AND e.stream_position = json_extract(p.value, '$[1]')
            WHERE e.global_position <= :until LIMIT 1""",
        doubled_id=f"""SELECT event_id, min(global_position), max(global_position)
            FROM {events} GROUP BY event_id HAVING count(*) > 1 LIMIT 1""",
        doubled_position=f"""SELECT s.name, e.stream_position FROM {mine}
            GROUP BY e.stream_id, e.stream_position HAVING count(*) > 1 LIMIT 1""",
        # Positions that do not follow their predecessor: one pass over the index.
        gaps=f"""SELECT s.name, g.stream_position, g.previous FROM
            (SELECT stream_id, stream_position, lag(stream_position, 1, :first - 1)
                OVER (PARTITION BY stream_id ORDER BY stream_position) AS previous
             FROM {events}) g
            JOIN {streams} s ON s.stream_id = g.stream_id
            WHERE g.stream_position <> g.previous + 1 AND s.release IS :release LIMIT :limit""",
        orphans=f"""SELECT min(global_position), count(*) FROM {events}
            WHERE stream_id NOT IN (SELECT stream_id FROM {streams})""",
    )
