"""The documented tables of other libraries, in our own words, for databases of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_STAMP = '"timestamp":{"_data_":"2026-01-02T03:04:05+00:00"}'

MESSAGE_DB: Final = (
    "CREATE SCHEMA message_store",
    """CREATE TABLE message_store.messages (
        global_position bigserial PRIMARY KEY,
        position bigint NOT NULL,
        time timestamp without time zone DEFAULT (now() AT TIME ZONE 'utc') NOT NULL,
        stream_name text NOT NULL,
        type text NOT NULL,
        data jsonb,
        metadata jsonb,
        id uuid NOT NULL DEFAULT gen_random_uuid())""",
    "CREATE UNIQUE INDEX messages_id ON message_store.messages (id)",
    "CREATE UNIQUE INDEX messages_stream ON message_store.messages (stream_name, position)",
    """CREATE FUNCTION message_store.acquire_lock (stream_name varchar) RETURNS bigint
        LANGUAGE sql AS 'SELECT count(pg_advisory_xact_lock(hashtext(stream_name)))'""",
)
"""Message DB 1.3 without its other functions, views and roles."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Tables of one system with the events of two carts, and what its owner relies on.

    `after` selects what must be the same in the target but for the texts in `became`;
    empty for layouts that are only read. `append` is the owner's own next append.
    """

    layout: str
    tables: tuple[str, ...]
    rows: tuple[str, ...]
    first: int
    after: str = ""
    became: dict[str, str] = field(default_factory=dict)
    append: tuple[str, ...] = ()


CARTS: Final = (  # cart, number in it (from 0), type, data
    (1, 0, "Opened", '{"name":"Zoë"}'),
    (2, 0, "Opened", '{"name":"Cher"}'),
    (1, 1, "Added", '{"price":"1.50"}'),
    (1, 2, "Added", '{"price":"2.00"}'),
    (2, 1, "Added", '{"price":"3.00"}'),
)
TIME: Final = "2026-01-02 03:04:05+00"
ID: Final = "00000000-0000-4000-8000-{:012d}"
RENAMED: Final = {
    f'{{"price"{space}"{price}"}}': f'{{"amount"{space}"{price}"}}'
    for price in ("1.50", "2.00", "3.00")
    for space in (":", ": ")
}


def rows(statement: str) -> tuple[str, ...]:
    """One statement per event: {gp} and {n} from 1, {at} from 0, {cart}, {type}, {data}, {id}."""
    return tuple(
        statement.format(
            gp=n, n=at + 1, at=at, cart=cart, type=type_, data=data, id=ID.format(n), time=TIME
        )
        for n, (cart, at, type_, data) in enumerate(CARTS, 1)
    )


def heads(statement: str) -> tuple[str, ...]:
    """One statement per cart: {cart} and {n}, its last position from 1."""
    return tuple(statement.format(cart=cart, n=n) for cart, n in ((1, 3), (2, 2)))


def refused(event: str, table: str, function: str) -> str:
    """A trigger of commanded that refuses to delete from a table, or to update it."""
    return (
        f"CREATE TRIGGER no_{event}_{table} BEFORE {event} ON {table} FOR EACH STATEMENT"
        f" EXECUTE PROCEDURE {function}()"
    )


COMMANDED: Final = (
    """CREATE TABLE streams (stream_id bigserial PRIMARY KEY, stream_uuid text NOT NULL UNIQUE,
        stream_version bigint NOT NULL DEFAULT 0, stream_origin bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz)""",
    """CREATE TABLE events (event_id uuid PRIMARY KEY, event_type text NOT NULL,
        causation_id uuid, correlation_id uuid, data bytea NOT NULL, metadata bytea,
        created_at timestamptz NOT NULL DEFAULT now())""",
    """CREATE TABLE stream_events (event_id uuid NOT NULL REFERENCES events,
        stream_id bigint NOT NULL REFERENCES streams, stream_version bigint NOT NULL,
        original_stream_id bigint REFERENCES streams, original_stream_version bigint,
        PRIMARY KEY (event_id, stream_id))""",
    "CREATE UNIQUE INDEX ix_stream_events ON stream_events (stream_id, stream_version)",
    """CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''EventStore: cannot''; END'""",
    """CREATE FUNCTION hardly() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF current_setting(''eventstore.enable_hard_deletes'', true) = ''on'' THEN
        RETURN OLD; END IF; RAISE EXCEPTION ''EventStore: cannot delete'' USING ERRCODE =
        ''feature_not_supported''; END'""",
    *(refused("UPDATE", table, "never") for table in ("events", "stream_events")),
    *(refused("DELETE", table, "hardly") for table in ("streams", "events", "stream_events")),
    "INSERT INTO streams (stream_id, stream_uuid) VALUES (0, '$all')",
    """CREATE FUNCTION notify_events() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM
        pg_notify(TG_TABLE_SCHEMA || ''.events'', NEW.stream_uuid || '','' || NEW.stream_id ||
        '','' || (CASE TG_OP WHEN ''UPDATE'' THEN OLD.stream_version ELSE 0 END + 1) || '','' ||
        NEW.stream_version); RETURN NULL; END'""",
    """CREATE TRIGGER event_notification AFTER INSERT OR UPDATE ON streams FOR EACH ROW
        EXECUTE PROCEDURE notify_events()""",
)
"""commanded/eventstore 1.4 without subscriptions and snapshots: its rules and notifications too."""

ALL_COUNTED: Final = (
    "UPDATE streams SET stream_version = 5 WHERE stream_id = 0",
    "SELECT setval('streams_stream_id_seq', 2)",
)

CASES: Final = (
    Case(
        layout="castore",
        tables=(
            """CREATE TABLE event (id bigserial PRIMARY KEY, aggregate_name varchar(32) NOT NULL,
                aggregate_id uuid NOT NULL, version bigint NOT NULL, type varchar(64) NOT NULL,
                data jsonb, metadata jsonb, timestamp timestamptz NOT NULL DEFAULT now(),
                UNIQUE (aggregate_name, aggregate_id, version))""",
            "CREATE INDEX idx_event_aggregate_name ON event (aggregate_name)",
        ),
        rows=rows(
            "INSERT INTO event (aggregate_name, aggregate_id, version, type, data, timestamp)"
            " VALUES ('CART', '00000000-0000-4000-8000-00000000000{cart}', {n}, '{type}',"
            " '{data}', '{time}')"
        ),
        first=1,
        after="SELECT id, aggregate_id::text, version, type, data, metadata, timestamp FROM event"
        " ORDER BY id",
        became=RENAMED,
        append=(
            "INSERT INTO event (aggregate_name, aggregate_id, version, type) VALUES"
            " ('CART', '00000000-0000-4000-8000-000000000001', 4, 'Late')",
        ),
    ),
    Case(
        layout="axon",
        tables=(
            """CREATE TABLE domain_event_entry (global_index bigint PRIMARY KEY,
                event_identifier varchar(255) NOT NULL UNIQUE, meta_data bytea,
                payload bytea NOT NULL, payload_revision varchar(255),
                payload_type varchar(255) NOT NULL, time_stamp varchar(255) NOT NULL,
                aggregate_identifier varchar(255) NOT NULL, sequence_number bigint NOT NULL,
                type varchar(255), UNIQUE (aggregate_identifier, sequence_number))""",
            "CREATE SEQUENCE domain_event_entry_seq INCREMENT BY 50",
        ),
        rows=rows(
            "INSERT INTO domain_event_entry VALUES ({gp}, '{id}', '{{}}', '{data}', NULL,"
            " '{type}', '2026-01-02T03:04:05.123456789Z', 'cart-{cart}', {at}, 'Cart')"
        ),
        first=0,
        after="SELECT global_index, event_identifier, meta_data, payload, time_stamp,"
        " payload_type || ':' || coalesce(payload_revision, ''), aggregate_identifier,"
        " sequence_number, type FROM domain_event_entry ORDER BY global_index",
        became={**RENAMED, "Added:": "Added:2", "Opened:": "Opened:1"},
        append=(
            "INSERT INTO domain_event_entry SELECT nextval('domain_event_entry_seq') - 49,"
            " 'late', '{}', '{}', NULL, 'Late', '2026-01-02T03:04:06Z', 'cart-1', 3, 'Cart'",
        ),
    ),
    Case(
        layout="marten",
        tables=(
            """CREATE TABLE mt_streams (id uuid PRIMARY KEY, type varchar, version bigint,
                timestamp timestamptz NOT NULL DEFAULT now(), snapshot jsonb,
                snapshot_version integer, created timestamptz NOT NULL DEFAULT now(),
                tenant_id varchar DEFAULT '*DEFAULT*', is_archived bool DEFAULT false)""",
            """CREATE TABLE mt_events (seq_id bigint PRIMARY KEY, id uuid NOT NULL,
                stream_id uuid REFERENCES mt_streams (id) ON DELETE CASCADE,
                version bigint NOT NULL, data jsonb NOT NULL, type varchar(500) NOT NULL,
                timestamp timestamptz NOT NULL DEFAULT now(), headers jsonb,
                tenant_id varchar DEFAULT '*DEFAULT*', mt_dotnet_type varchar,
                is_archived bool DEFAULT false, UNIQUE (stream_id, version))""",
            "CREATE SEQUENCE mt_events_sequence",
        ),
        rows=heads(
            "INSERT INTO mt_streams (id, version) VALUES"
            " ('00000000-0000-4000-8000-00000000000{cart}', {n})"
        )
        + rows(
            "INSERT INTO mt_events (seq_id, id, stream_id, version, data, type, timestamp,"
            " mt_dotnet_type) VALUES (nextval('mt_events_sequence'), '{id}',"
            " '00000000-0000-4000-8000-00000000000{cart}', {n}, '{data}', '{type}', '{time}',"
            " 'Shop.{type}, Shop')"
        ),
        first=1,
        after="SELECT e.seq_id, e.id::text, e.stream_id::text, e.version, e.data, e.type,"
        " e.timestamp, e.headers, e.mt_dotnet_type, s.version, s.tenant_id, s.is_archived"
        " FROM mt_events e JOIN mt_streams s ON s.id = e.stream_id ORDER BY e.seq_id",
        became={**RENAMED, "Added": "Added_v2"},
        append=(
            "INSERT INTO mt_events (seq_id, id, stream_id, version, data, type) SELECT"
            " nextval('mt_events_sequence'), gen_random_uuid(), id, version + 1, '{}', 'late'"
            " FROM mt_streams WHERE id = '00000000-0000-4000-8000-000000000001'",
        ),
    ),
    Case(
        layout="patchlevel",
        tables=(
            """CREATE TABLE event_store (id bigserial PRIMARY KEY, stream varchar(255) NOT NULL,
                playhead int, event varchar(255) NOT NULL, payload json NOT NULL,
                recorded_on timestamp(0) with time zone NOT NULL,
                new_stream_start boolean NOT NULL DEFAULT false,
                archived boolean NOT NULL DEFAULT false, custom_headers json NOT NULL,
                UNIQUE (stream, playhead))""",
        ),
        rows=rows(
            "INSERT INTO event_store (stream, playhead, event, payload, recorded_on,"
            " new_stream_start, custom_headers) VALUES ('cart-{cart}', {n}, '{type}', '{data}',"
            " '{time}', {at} = 0, '[{{\"name\":\"who\"}}]')"
        ),
        first=1,
        after="SELECT id, stream, playhead, event, payload::text, recorded_on, new_stream_start,"
        " archived, custom_headers::text FROM event_store ORDER BY id",
        became=RENAMED,
        append=(
            "INSERT INTO event_store (stream, playhead, event, payload, recorded_on,"
            " custom_headers) VALUES ('cart-1', 4, 'late', '{}', now(), '[]')",
        ),
    ),
    Case(
        layout="pekko-jdbc",
        tables=(
            """CREATE TABLE event_journal (ordering bigserial, persistence_id varchar(255) NOT NULL,
                sequence_number bigint NOT NULL, deleted boolean DEFAULT false NOT NULL,
                writer varchar(255) NOT NULL, write_timestamp bigint,
                adapter_manifest varchar(255), event_ser_id integer NOT NULL,
                event_ser_manifest varchar(255) NOT NULL, event_payload bytea NOT NULL,
                meta_ser_id integer, meta_ser_manifest varchar(255), meta_payload bytea,
                PRIMARY KEY (persistence_id, sequence_number))""",
            "CREATE UNIQUE INDEX event_journal_ordering_idx ON event_journal (ordering)",
        ),
        rows=rows(
            "INSERT INTO event_journal (persistence_id, sequence_number, writer,"
            " write_timestamp, adapter_manifest, event_ser_id, event_ser_manifest, event_payload)"
            " VALUES ('cart-{cart}', {n}, 'writer-{gp}', 1700000000123, '', 33, '{type}',"
            " '{data}')"
        ),
        first=1,
        after="SELECT ordering, persistence_id, sequence_number, deleted, writer,"
        " write_timestamp, adapter_manifest, event_ser_id, event_ser_manifest, event_payload,"
        " meta_ser_id, meta_ser_manifest, meta_payload FROM event_journal ORDER BY ordering",
        became={**RENAMED, "Added": "Added#2"},
        append=(
            "INSERT INTO event_journal (persistence_id, sequence_number, writer,"
            " write_timestamp, event_ser_id, event_ser_manifest, event_payload) VALUES"
            " ('cart-1', 4, 'w', 1700000000124, 33, 'Late', '{}')",
        ),
    ),
    Case(
        layout="eventsourcing-django",
        tables=(
            """CREATE TABLE stored_events (id bigserial PRIMARY KEY,
                application_name varchar(32) NOT NULL, originator_id uuid NOT NULL,
                originator_version bigint NOT NULL, topic text NOT NULL, state bytea NOT NULL,
                UNIQUE (application_name, originator_id, originator_version))""",
        ),
        rows=tuple(
            text.replace("\"}'", '","timestamp":{"_data_":"2026-01-02T03:04:05+00:00"}}\'')
            for text in rows(
                "INSERT INTO stored_events (application_name, originator_id, originator_version,"
                " topic, state) VALUES ('Shop', '00000000-0000-4000-8000-00000000000{cart}', {n},"
                " '{type}', '{data}')"
            )
        ),
        first=1,
        after="SELECT id, application_name, originator_id::text, originator_version, topic, state"
        " FROM stored_events ORDER BY id",
        became={
            f'{{"price":"{price}",{_STAMP}}}': f'{{"amount":"{price}",{_STAMP},"class_version":2}}'
            for price in ("1.50", "2.00", "3.00")
        },
        append=(
            "INSERT INTO stored_events (application_name, originator_id, originator_version,"
            " topic, state) VALUES ('Shop', '00000000-0000-4000-8000-000000000001', 4, 'Late',"
            " '{}')",
        ),
    ),
    Case(
        layout="emmett",
        tables=(
            """CREATE TABLE emt_streams (stream_id text NOT NULL, stream_position bigint NOT NULL,
                partition text NOT NULL DEFAULT 'global', stream_type text NOT NULL,
                stream_metadata jsonb NOT NULL, is_archived boolean NOT NULL DEFAULT false,
                PRIMARY KEY (stream_id, partition, is_archived)) PARTITION BY LIST (partition)""",
            "CREATE TABLE emt_streams_default PARTITION OF emt_streams FOR VALUES"
            " IN ('emt:default')",
            "CREATE SEQUENCE emt_global_message_position",
            """CREATE TABLE emt_messages (stream_id text NOT NULL, stream_position bigint NOT NULL,
                partition text NOT NULL DEFAULT 'global', message_kind char(1) NOT NULL DEFAULT 'E',
                message_data jsonb NOT NULL, message_metadata jsonb NOT NULL,
                message_schema_version text NOT NULL, message_type text NOT NULL,
                message_id text NOT NULL, is_archived boolean NOT NULL DEFAULT false,
                global_position bigint DEFAULT nextval('emt_global_message_position'),
                transaction_id xid8 NOT NULL, created timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (stream_id, stream_position, partition, is_archived))
                PARTITION BY LIST (partition)""",
            "CREATE TABLE emt_messages_default PARTITION OF emt_messages FOR VALUES"
            " IN ('emt:default')",
        ),
        rows=heads(
            "INSERT INTO emt_streams VALUES ('cart-{cart}', {n}, 'emt:default', 'cart', '{{}}')"
        )
        + rows(
            "INSERT INTO emt_messages (stream_id, stream_position, partition, message_data,"
            " message_metadata, message_schema_version, message_type, message_id,"
            " transaction_id, created) VALUES ('cart-{cart}', {n}, 'emt:default', '{data}',"
            " '{{}}', '1', '{type}', '{id}', pg_current_xact_id(), '{time}')"
        ),
        first=1,
        after="SELECT m.global_position, m.stream_id, m.stream_position, m.message_kind,"
        " m.message_data, m.message_metadata, m.message_type, m.message_id, m.created, s.*"
        " FROM emt_messages m JOIN emt_streams s USING (stream_id) WHERE"
        " m.transaction_id < pg_snapshot_xmin(pg_current_snapshot())"
        " ORDER BY m.transaction_id, m.global_position",
        became=RENAMED,
        append=(
            "INSERT INTO emt_messages (stream_id, stream_position, partition, message_data,"
            " message_metadata, message_schema_version, message_type, message_id,"
            " transaction_id) VALUES ('cart-1', 4, 'emt:default', '{}', '{}', '1', 'Late',"
            " 'late', pg_current_xact_id())",
        ),
    ),
    Case(
        layout="commanded",
        tables=COMMANDED,
        rows=heads("INSERT INTO streams VALUES ({cart}, 'cart-{cart}', {n}, 0)")
        + ALL_COUNTED
        + rows(
            "INSERT INTO events VALUES ('{id}', '{type}', NULL, '{id}', '{data}', '{{}}', '{time}')"
        )
        + rows(
            "INSERT INTO stream_events VALUES ('{id}', {cart}, {n}, {cart}, {n}),"
            " ('{id}', 0, {gp}, {cart}, {n})"
        ),
        first=1,
        after="SELECT se.stream_id, se.stream_version, e.event_id::text, s.stream_uuid,"
        " se.original_stream_version, e.event_type, e.correlation_id::text, e.causation_id::text,"
        " e.data, e.metadata, e.created_at, s.stream_version, se.original_stream_id"
        " FROM stream_events se JOIN streams s ON s.stream_id = se.original_stream_id"
        " JOIN events e ON e.event_id = se.event_id ORDER BY 1, 2",
        became=RENAMED,
        append=(
            "INSERT INTO events VALUES ('00000000-0000-4000-8000-000000000009', 'Late', NULL,"
            " NULL, '{}', NULL)",
            "WITH new AS (UPDATE streams SET stream_version = stream_version + 1 WHERE"
            " stream_uuid IN ('$all', 'cart-1') RETURNING stream_id, stream_version)"
            " INSERT INTO stream_events SELECT '00000000-0000-4000-8000-000000000009', stream_id,"
            " stream_version, 1, 4 FROM new",
        ),
    ),
    Case(
        layout="rails-event-store",
        tables=(
            """CREATE TABLE event_store_events (id bigserial PRIMARY KEY,
                event_id uuid NOT NULL UNIQUE, event_type varchar NOT NULL, metadata jsonb,
                data jsonb NOT NULL, created_at timestamp(6) NOT NULL, valid_at timestamp(6))""",
            """CREATE TABLE event_store_events_in_streams (id bigserial PRIMARY KEY,
                stream varchar NOT NULL, position int,
                event_id uuid NOT NULL REFERENCES event_store_events (event_id),
                created_at timestamp(6) NOT NULL, UNIQUE (stream, position),
                UNIQUE (stream, event_id))""",
            "CREATE INDEX of_event ON event_store_events_in_streams (event_id)",
        ),
        rows=rows(
            "INSERT INTO event_store_events (event_id, event_type, metadata, data, created_at)"
            " VALUES ('{id}', '{type}', '{{}}', '{data}', '2026-01-02 03:04:05.000006')"
        )
        + rows(
            "INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at)"
            " VALUES ('cart-{cart}', {at}, '{id}', '2026-01-02 03:04:05.000006')"
        ),
        first=0,
        after="SELECT s.id, s.stream, s.position, e.event_id::text, e.event_type, e.data,"
        " e.metadata, e.created_at, e.valid_at, s.created_at, e.id"
        " FROM event_store_events_in_streams s JOIN event_store_events e USING (event_id)"
        " ORDER BY s.id",
        became={**RENAMED, "Added": "Added_v2"},
        append=(
            "INSERT INTO event_store_events (event_id, event_type, data, created_at) VALUES"
            " ('00000000-0000-4000-8000-000000000009', 'Late', '{}', now())",
            "INSERT INTO event_store_events_in_streams (stream, event_id, created_at) VALUES"
            " ('cart-1', '00000000-0000-4000-8000-000000000009', now())",
        ),
    ),
)
"""Presets for PostgreSQL: those whose owner cannot run in tests, or not everywhere."""

SQL_STREAM_STORE: Final = (
    """CREATE TABLE streams (id char(42) NOT NULL, id_original varchar(1000) NOT NULL,
        id_internal serial PRIMARY KEY, version int NOT NULL DEFAULT -1,
        position bigint NOT NULL DEFAULT -1)""",
    """CREATE TABLE messages (stream_id_internal int NOT NULL, stream_version int NOT NULL,
        position bigint PRIMARY KEY, message_id uuid NOT NULL,
        created_utc timestamp NOT NULL, type varchar(128) NOT NULL, json_data jsonb NOT NULL,
        json_metadata jsonb)""",
    "INSERT INTO streams (id, id_original) VALUES ('h1', 'cart-1'), ('h2', 'cart-2')",
    *rows(
        "INSERT INTO messages VALUES ({cart}, {at}, {gp} - 1, '{id}', '2026-01-02 03:04:05',"
        " '{type}', '{data}', '{{}}')"
    ),
)
"""SqlStreamStore on PostgreSQL, which has no preset: the global position begins at 0."""

EMMETT_SQLITE: Final = (
    """CREATE TABLE emt_streams (stream_id TEXT NOT NULL, stream_position BIGINT NOT NULL,
        partition TEXT NOT NULL, stream_type TEXT NOT NULL, stream_metadata JSONB NOT NULL,
        is_archived BOOLEAN NOT NULL DEFAULT FALSE,
        PRIMARY KEY (stream_id, partition, is_archived))""",
    """CREATE TABLE emt_messages (stream_id TEXT NOT NULL, stream_position BIGINT NOT NULL,
        partition TEXT NOT NULL, message_kind CHAR(1) NOT NULL DEFAULT 'E',
        message_data JSONB NOT NULL, message_metadata JSONB NOT NULL,
        message_schema_version TEXT NOT NULL, message_type TEXT NOT NULL,
        message_id TEXT NOT NULL, is_archived BOOLEAN NOT NULL DEFAULT FALSE,
        global_position INTEGER PRIMARY KEY, created DATETIME DEFAULT CURRENT_TIMESTAMP,
        UNIQUE (stream_id, stream_position, partition, is_archived))""",
)
EMMETT_ROWS: Final = tuple(
    "INSERT INTO emt_messages (stream_id, stream_position, partition, message_data,"
    " message_metadata, message_schema_version, message_type, message_id, created)"
    f" VALUES ('cart-{cart}', {n}, 'emt:default', '{data}', '{metadata}', '0', '{type_}', '{id_}',"
    " '2026-01-02 03:04:05')"
    for cart, n, type_, data, metadata, id_ in (
        (1, 1, "Opened", '{"name":"Zoë"}', '{"who":"ada"}', "a-1"),
        (1, 2, "Added", '{"price":"1.50"}', "{}", "a-2"),
        (2, 1, "Opened", '{"name":"Cher"}', "{}", "b-1"),
        (1, 3, "Added", '{"price":"2.00"}', "{}", "a-3"),
        (2, 2, "Added", '{"price":"3.00"}', "{}", "b-2"),
    )
)
