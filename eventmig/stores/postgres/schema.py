"""The native layout in PostgreSQL: its tables, and every statement the store runs.

The tables are those of the SQLite layout (streams, events, origin_streams, origins, and
eventmig_store, by which a store is recognised), and an event row names its origin so:

    origin_position NULL                    no origin: an application appended it
    origin_ordinal set, origin_stream NULL  one origin, in a stream of the same name
    origin_ordinal set, origin_stream set   one origin, in a stream of another name
    origin_ordinal NULL                     several: the rows of `origins`

What is PostgreSQL's own: global positions come from the sequence `events_position` (see
`tail`); data is `jsonb`, `json`, `text` or `bytea`, and metadata the same, but `json` beside
`jsonb`, so that its bytes are kept; names are compared byte by byte (collation "C").
There are no foreign keys: each would cost a look-up per row, and only eventmig writes here.
Imports nothing of eventmig but other parts of statements, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from psycopg import sql
from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.types import TypeEngine

from eventmig.stores.faster import Members
from eventmig.stores.postgres.location import DataType
from eventmig.stores.postgres.members import Kinds, narrowed
from eventmig.stores.postgres.sums import Addends, summed

FORMAT: Final = 1
"""The layout this module writes; a higher number in a database is a newer eventmig's."""

FIRST_POSITION: Final = 1
"""Stream positions of the native layout count from 1."""

MARK: Final = "eventmig_store"
"""The table (after the prefix) that makes a schema an event store."""

SPELLED: Final = """SELECT convert_to(t.text::jsonb::text, 'UTF8')
    FROM unnest(string_to_array(%(lines)s::text, E'\\n')) WITH ORDINALITY t (text, number)
    ORDER BY t.number"""
"""JSON texts, one a line, as `jsonb` spells them, in order.

Lines, for the driver looks at each character of the texts of an array.
"""

_TYPES: Final[dict[str, TypeEngine[Any]]] = {
    "jsonb": JSONB(),
    "json": JSON(),
    "text": Text(),
    "bytea": LargeBinary(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """One set of tables: SQLAlchemy Core definitions in one schema, under one name prefix."""

    metadata: MetaData
    mark: Table
    streams: Table
    origin_streams: Table
    events: Table
    origins: Table
    positions: Sequence
    by_id: Index
    by_stream: Index


def metadata_type(data: DataType) -> DataType:
    """The type of the metadata column beside this type of data."""
    return "json" if data == "jsonb" else data


def define_tables(schema: str, prefix: str, data: DataType) -> Tables:
    """The tables whose names begin with `prefix` (may be empty)."""
    meta = MetaData(schema=schema)
    name = Text(collation="C")
    mark = Table(prefix + MARK, meta, Column("format", Integer, nullable=False))
    positions = Sequence(prefix + "events_position", metadata=meta, data_type=BigInteger)
    streams = Table(
        prefix + "streams",
        meta,
        Column("stream_id", BigInteger, Identity(), primary_key=True),
        Column("name", name, nullable=False, unique=True),
        Column("release", name),
    )
    origin_streams = Table(
        prefix + "origin_streams",
        meta,
        Column("origin_stream_id", BigInteger, Identity(), primary_key=True),
        Column("name", name, nullable=False, unique=True),
    )
    events = Table(
        prefix + "events",
        meta,
        Column("global_position", BigInteger, primary_key=True, autoincrement=False),
        Column("stream_id", BigInteger, nullable=False),
        Column("stream_position", BigInteger, nullable=False),
        Column("recorded_at", BigInteger, nullable=False),  # microseconds since 1970, UTC
        Column("origin_stream", BigInteger),
        Column("origin_position", BigInteger),
        Column("origin_ordinal", Integer),
        Column("schema_version", Integer, nullable=False),
        Column("event_id", name, nullable=False),
        Column("type", name, nullable=False),
        Column("data", _TYPES[data], nullable=False),
        Column("metadata", _TYPES[metadata_type(data)]),
    )
    origins = Table(
        prefix + "origins",
        meta,
        Column("global_position", BigInteger, primary_key=True, autoincrement=False),
        Column("number", Integer, primary_key=True, autoincrement=False),  # 0-based, in order
        Column("origin_stream", BigInteger),
        Column("origin_position", BigInteger, nullable=False),
        Column("origin_ordinal", Integer, nullable=False),
    )
    return Tables(
        metadata=meta,
        mark=mark,
        streams=streams,
        origin_streams=origin_streams,
        events=events,
        origins=origins,
        positions=positions,
        by_id=Index(prefix + "events_by_id", events.c.event_id, unique=True),
        by_stream=Index(
            prefix + "events_by_stream", events.c.stream_id, events.c.stream_position, unique=True
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The hot-path SQL of one set of tables; run on the driver's connection."""

    # reading
    read_events: str
    read_events_ours: str
    read_page: str
    read_page_ours: str
    read_data: str
    read_data_ours: str
    read_grouped: Callable[[Members, Kinds], str]
    read_grouped_ours: Callable[[Members, Kinds], str]
    read_stream: str
    read_streams: str
    streams_of_names: str
    event_by_id: str
    examples: str
    origins_of: str
    stream_names: str
    origin_names: str
    other_release: str
    heads_page: str
    heads_named: str
    categories: str
    type_counts: str
    kinds: str
    summed: Callable[[Addends, Kinds, int], str]
    head_position: str
    count: str
    count_typed: str
    count_all_typed: str
    count_after: str
    table_now: str
    # writing
    hold_tables: str
    held: str
    any_event: str
    streams_named: str
    stream_locked: str
    insert_streams: str
    origin_streams_named: str
    insert_origin_streams: str
    heads_of_ids: str
    heads_all: str
    take_positions: str
    copy_events: str
    copy_origins: str
    data_at: str
    delete_origins_after: str
    delete_events_after: str
    analyze: str
    ids_present: str
    positions_present: str
    # checking
    doubled_id: str
    doubled_position: str
    gaps: str
    orphans: str
    beyond_sequence: str


def compose(tables: Tables, data: DataType) -> Statements:
    """The statements over these tables.

    Parameters are named, and a % in a schema's name is doubled: all but the COPYs are run
    with parameters, be they none. `release` is NULL for the streams of no release. Data
    comes as bytea, so that the driver hands out the stored bytes and parses nothing.

    Those that hand out keys, or are one of several that belong together, have rows only while
    `table` (an oid) bears the name of the events: the statement has its lock then, so that the
    tables cannot change names before it ends.
    """
    names = {
        "streams": tables.streams,
        "events": tables.events,
        "origin_streams": tables.origin_streams,
        "origins": tables.origins,
    }

    def parts(percent: str) -> dict[str, sql.Composable]:
        return {
            name: sql.Identifier(str(table.schema).replace("%", percent), table.name)
            for name, table in names.items()
        }

    bound, plain = parts("%%"), parts("%")
    bound["events_name"] = sql.Literal(bound["events"].as_string())
    now = "to_regclass({events_name})"
    same = f"{now} = %(table)s::bigint::oid"
    as_bytes = "e.{}" if data == "bytea" else "convert_to(e.{}::text, 'UTF8')"
    content = as_bytes.format("data")
    stored = f"{content}, {as_bytes.format('metadata')}"
    copied = f"""e.global_position, e.stream_id, e.stream_position, e.event_id, e.type,
        e.schema_version, {stored}, e.recorded_at"""
    whole = f"{copied}, e.origin_stream, e.origin_position, e.origin_ordinal"
    narrow = f"e.global_position, e.type, e.schema_version, {content}"
    span = """e.global_position > %(after)s::bigint AND e.global_position <= %(until)s::bigint
        AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s))"""
    span += f" AND {same}"
    in_order = "ORDER BY e.global_position LIMIT %(limit)s::bigint"
    # One look-up by key for each row read, whatever the planner thinks of `streams`.
    ours = """(SELECT s.release IS NOT DISTINCT FROM %(release)s::text
        FROM {streams} s WHERE s.stream_id = e.stream_id)"""
    mine = "{events} e JOIN {streams} s ON s.stream_id = e.stream_id"
    released = "s.release IS NOT DISTINCT FROM %(release)s::text"
    until = "e.global_position <= %(until)s::bigint"

    def page(columns: str, condition: str = "") -> str:
        return f"SELECT {columns} FROM {{events}} e WHERE {span} {condition} {in_order}"

    def made(statement: str) -> str:
        return sql.SQL(statement).format(**bound).as_string()

    def grouped(condition: str = "") -> Callable[[Members, Kinds], str]:
        newline = r"'\x0a'::bytea" if data == "bytea" else r"E'\n'"
        whole = "e.data" if data == "bytea" else "e.data::text"
        joined = f"string_agg(content, {newline}) || {newline}"
        as_bytea = joined if data == "bytea" else f"convert_to({joined}, 'UTF8')"
        columns = "e.global_position, e.type, e.schema_version, {content} AS content"
        statement = f"""SELECT type, schema_version, count(*)::bigint, min(global_position),
                max(global_position),
                array_agg(global_position) FILTER (WHERE content IS NOT NULL), {as_bytea}
            FROM ({page(columns, condition)}) e GROUP BY type, schema_version"""

        def composed(members: Members, without: Kinds) -> str:
            content = narrowed(whole, members, without)
            return sql.SQL(statement).format(**bound, content=content).as_string()

        return composed

    def copy(statement: str) -> str:
        return sql.SQL(statement).format(**plain).as_string()

    extent = """(SELECT min(e.stream_position) AS first, max(e.stream_position) AS last,
            count(*) AS events FROM {events} e WHERE e.stream_id = s.stream_id) x"""
    return Statements(
        # One page of the global order, by key, never by offset. "Ours": where these tables
        # hold streams of another release.
        read_events=made(page(whole)),
        read_events_ours=made(page(whole, f"AND {ours}")),
        read_page=made(page(copied)),
        read_page_ours=made(page(copied, f"AND {ours}")),
        read_data=made(page(narrow)),
        read_data_ours=made(page(narrow, f"AND {ours}")),
        # The same by type and version, the data as lines; of some, only how many there are.
        read_grouped=grouped(),
        read_grouped_ours=grouped(f"AND {ours}"),
        # One page of a stream.
        read_stream=made(f"""SELECT {whole} FROM {{events}} e
            WHERE e.stream_id = (SELECT s.stream_id FROM {{streams}} s
                                 WHERE s.name = %(stream)s AND {released})
              AND e.stream_position BETWEEN %(first)s::bigint AND %(last)s::bigint AND {same}
            ORDER BY e.stream_position LIMIT %(limit)s::bigint"""),
        # Events of several streams, by the index over streams.
        read_streams=made(f"""SELECT {whole} FROM {{events}} e
            WHERE e.stream_id = ANY (%(ids)s::bigint[]) AND {same}
            ORDER BY e.stream_id, e.stream_position LIMIT %(limit)s::bigint"""),
        streams_of_names=made(f"""SELECT s.name, s.stream_id FROM {{streams}} s
            WHERE s.name = ANY (%(names)s::text[]) AND {released} AND {same}"""),
        event_by_id=made(f"""SELECT {whole} FROM {{events}} e
            WHERE e.event_id = %(event_id)s AND {ours} AND {same}"""),
        examples=made(f"""SELECT {whole} FROM {{events}} e WHERE e.type = %(type)s
            AND e.schema_version = %(schema_version)s AND {ours} AND {same} {in_order}"""),
        origins_of=made(f"""SELECT g.global_position, coalesce(o.name, s.name),
                g.origin_position, g.origin_ordinal
            FROM {{origins}} g JOIN {{events}} e ON e.global_position = g.global_position
            JOIN {{streams}} s ON s.stream_id = e.stream_id
            LEFT JOIN {{origin_streams}} o ON o.origin_stream_id = g.origin_stream
            WHERE g.global_position = ANY (%(positions)s::bigint[]) AND {same}
            ORDER BY g.global_position, g.number"""),
        stream_names=made(f"""SELECT stream_id, name FROM {{streams}}
            WHERE stream_id = ANY (%(ids)s::bigint[]) AND {same}"""),
        origin_names=made(f"""SELECT origin_stream_id, name FROM {{origin_streams}}
            WHERE origin_stream_id = ANY (%(ids)s::bigint[]) AND {same}"""),
        other_release=made("""SELECT EXISTS (SELECT FROM {streams}
            WHERE release IS DISTINCT FROM %(release)s::text)"""),
        # One page of stream extents: the index over streams answers it alone.
        heads_page=made(f"""SELECT s.name, x.first, x.last, x.events
            FROM (SELECT s.stream_id, s.name FROM {{streams}} s
                  WHERE {released} AND s.name > %(after)s AND {same}
                  ORDER BY s.name LIMIT %(limit)s::bigint) s
            CROSS JOIN LATERAL {extent} ORDER BY s.name"""),
        heads_named=made(f"""SELECT s.name, x.first, x.last, x.events FROM {{streams}} s
            CROSS JOIN LATERAL {extent}
            WHERE {released} AND s.name = ANY (%(names)s::text[]) AND x.events > 0
            ORDER BY s.name"""),
        categories=made(f"""SELECT split_part(s.name, '-', 1) AS category, count(*),
                sum(h.events)::bigint
            FROM (SELECT stream_id, count(*) AS events FROM {{events}} GROUP BY stream_id) h
            JOIN {{streams}} s ON s.stream_id = h.stream_id
            WHERE {released} GROUP BY category ORDER BY category"""),
        type_counts=made(f"""SELECT e.type, e.schema_version, count(*) FROM {mine}
            WHERE {until} AND {released}
            GROUP BY e.type, e.schema_version ORDER BY e.type, e.schema_version"""),
        kinds=made(f"""SELECT e.type, e.schema_version, max(e.global_position) FROM {{events}} e
            WHERE {span} GROUP BY e.type, e.schema_version"""),
        summed=partial(summed, made(f"{{events}} e WHERE {span}")),
        head_position=made(f"""SELECT e.global_position FROM {{events}} e
            WHERE {until} AND {ours} AND {same} ORDER BY e.global_position DESC LIMIT 1"""),
        count=made(f"SELECT count(*) FROM {mine} WHERE {until} AND {released}"),
        count_typed=made(f"""SELECT count(*) FROM {mine}
            WHERE {until} AND {released} AND e.type = ANY (%(types)s::text[])"""),
        # The same where these tables hold streams of this release alone: without a look-up of
        # each row's stream, a quarter of the time (measured).
        count_all_typed=made(f"""SELECT count(*) FROM {{events}} e
            WHERE {until} AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s))"""),
        count_after=made(f"""SELECT count(*) FROM {mine}
            WHERE e.global_position > %(after)s::bigint AND {released}"""),
        table_now=made(f"SELECT {now}::oid::bigint"),
        # A writer holds the tables as they are: nobody takes the indexes off under it, or the
        # names. Then: whether the indexes are there, and which table it is.
        hold_tables=made("LOCK TABLE {events} IN ROW EXCLUSIVE MODE"),
        held=made(f"""SELECT count(*) = 2, {now}::oid::bigint FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s::text[])
              AND c.relkind = 'i'"""),
        any_event=made("SELECT EXISTS (SELECT FROM {events})"),
        streams_named=made("""SELECT name, stream_id, release FROM {streams}
            WHERE name = ANY (%(names)s::text[])"""),
        # Who appends to a stream holds its row until the end: one writer at a time.
        stream_locked=made("""SELECT stream_id, release FROM {streams} WHERE name = %(name)s
            FOR NO KEY UPDATE"""),
        insert_streams=made("""INSERT INTO {streams} (name, release)
            SELECT n, %(release)s FROM unnest(%(names)s::text[]) n
            ON CONFLICT (name) DO NOTHING"""),
        origin_streams_named=made("""SELECT name, origin_stream_id FROM {origin_streams}
            WHERE name = ANY (%(names)s::text[])"""),
        insert_origin_streams=made("""INSERT INTO {origin_streams} (name)
            SELECT n FROM unnest(%(names)s::text[]) n ON CONFLICT (name) DO NOTHING"""),
        # Heads of some streams, from the index; of all, while there is no index yet.
        heads_of_ids=made("""SELECT i.id, (SELECT max(e.stream_position) FROM {events} e
                WHERE e.stream_id = i.id) FROM unnest(%(ids)s::bigint[]) i (id)"""),
        heads_all=made("SELECT stream_id, max(stream_position) FROM {events} GROUP BY stream_id"),
        # The positions themselves only where another writer's stand between them.
        take_positions="""SELECT min(p), CASE WHEN max(p) - min(p) + 1 = count(*) THEN NULL
                ELSE array_agg(p ORDER BY p) END
            FROM (SELECT nextval(%(sequence)s::bigint::oid::regclass) AS p
                  FROM generate_series(1, %(count)s)) taken""",
        copy_events=copy("""COPY {events} (global_position, stream_id, stream_position,
            schema_version, recorded_at, origin_stream, origin_position, origin_ordinal,
            event_id, type, data, metadata) FROM STDIN (FORMAT binary)"""),
        copy_origins=copy("""COPY {origins} (global_position, number, origin_stream,
            origin_position, origin_ordinal) FROM STDIN"""),
        data_at=made(f"""SELECT {stored} FROM {{events}} e
            WHERE e.global_position = ANY (%(positions)s::bigint[]) ORDER BY e.global_position"""),
        # Only the events of the store's own release.
        delete_origins_after=made(f"""DELETE FROM {{origins}} g USING {mine}
            WHERE g.global_position = e.global_position
              AND e.global_position > %(after)s::bigint AND {released}"""),
        delete_events_after=made(f"""DELETE FROM {{events}} e USING {{streams}} s
            WHERE s.stream_id = e.stream_id
              AND e.global_position > %(after)s::bigint AND {released}"""),
        analyze=made("ANALYZE {events}, {streams}"),
        # After a refused insert: which of the batch are there already.
        ids_present=made(f"""SELECT e.event_id, s.name, e.stream_position, e.global_position
            FROM {mine} WHERE e.event_id = ANY (%(ids)s::text[])
            ORDER BY e.global_position LIMIT 1"""),
        positions_present=made("""SELECT s.name, e.stream_position
            FROM unnest(%(streams)s::text[], %(positions)s::bigint[]) p (stream, position)
            JOIN {streams} s ON s.name = p.stream
            JOIN {events} e ON e.stream_id = s.stream_id AND e.stream_position = p.position
            LIMIT 1"""),
        doubled_id=made("""SELECT event_id, min(global_position), max(global_position)
            FROM {events} GROUP BY event_id HAVING count(*) > 1 LIMIT 1"""),
        doubled_position=made(f"""SELECT s.name, e.stream_position FROM {mine}
            GROUP BY s.name, e.stream_position HAVING count(*) > 1 LIMIT 1"""),
        # Positions that do not follow their predecessor: one pass over the index.
        gaps=made("""SELECT s.name, g.stream_position, g.previous FROM
            (SELECT stream_id, stream_position, lag(stream_position, 1, %(first)s::bigint - 1)
                OVER (PARTITION BY stream_id ORDER BY stream_position) AS previous
             FROM {events}) g
            JOIN {streams} s ON s.stream_id = g.stream_id
            WHERE g.stream_position <> g.previous + 1
              AND s.release IS NOT DISTINCT FROM %(release)s::text
            LIMIT %(limit)s"""),
        orphans=made("""SELECT min(e.global_position), count(*) FROM {events} e
            WHERE NOT EXISTS (SELECT FROM {streams} s WHERE s.stream_id = e.stream_id)"""),
        beyond_sequence=made("""SELECT max(global_position) FROM {events}
            WHERE global_position > coalesce(
                pg_sequence_last_value(%(sequence)s::bigint::oid::regclass), 0)"""),
    )
