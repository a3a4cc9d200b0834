"""The documented tables of other libraries, in our own words, for databases of the tests."""

from __future__ import annotations

from typing import Final

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
)
"""Message DB 1.3 without its functions, views and roles."""
