"""The ledger's tables, beside the target; made where they are not there yet."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
)

from eventmig.errors import NewerLedgerError
from eventmig.migrate.tally import NUMBERS

FORMAT = 1
"""The ledger this module writes; a higher number in a database is a newer eventmig's."""

metadata = MetaData()

format_ = Table("eventmig_ledger", metadata, Column("format", Integer, nullable=False))

jobs = Table(
    "eventmig_jobs",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("namespace", String(255), nullable=False),
    Column("release", String(255), nullable=False),
    Column("steps_done", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("source_identity", Text, nullable=False),
    Column("naming", Text, nullable=False),
    Column("registry_fingerprint", String(64), nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("epoch", Integer, nullable=False),
    Column("source_until", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("source_position", BigInteger, nullable=False),
    Column("target_position", BigInteger, nullable=False),
    *[Column(name, BigInteger, nullable=False) for name in NUMBERS],
    Column("dropped_by", Text, nullable=False),
    Column("begun_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
)

batches = Table(
    "eventmig_batches",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("source_after", BigInteger, nullable=False),
    Column("source_until", BigInteger, nullable=False),
    Column("target_after", BigInteger, nullable=False),
    Column("target_until", BigInteger, nullable=False),
    *[Column(name, BigInteger, nullable=False) for name in NUMBERS],
    Column("dropped_by", Text, nullable=False),
)

transitions = Table(
    "eventmig_transitions",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

quarantine = Table(
    "eventmig_quarantine",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("global_position", BigInteger, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("stream_position", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("metadata", LargeBinary),
    Column("recorded_at", BigInteger, nullable=False),
    Column("step", Text),
    Column("path", Text),
    Column("what", Text, nullable=False),
    Column("remedy", Text, nullable=False),
)

stream_hashes = Table(
    "eventmig_stream_hashes",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("stream", String(1024), primary_key=True),
    Column("stream_position", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
)

journal = Table(
    "eventmig_journal",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("crossing", String(32), nullable=False),
    Column("switch", String(32), nullable=False),
    Column("old_position", BigInteger, nullable=False),
    Column("new_position", BigInteger, nullable=False),
    Column("stood_still_us", BigInteger, nullable=False),
    Column("at", String(32), nullable=False),
)

windows = Table(
    "eventmig_windows",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("batch", Integer, primary_key=True),
    Column("passed", BigInteger, nullable=False),
)

controls = Table(
    "eventmig_controls",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("paused", Boolean, nullable=False),
    Column("postponed", Boolean, nullable=False),
    Column("share", Float, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("hand_over", BigInteger, nullable=False),
)

followed = Table(
    "eventmig_followed",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("verified_batch", Integer, nullable=False),
    Column("verified", BigInteger, nullable=False),
    Column("mismatches", BigInteger, nullable=False),
    Column("copied_bytes", BigInteger, nullable=False),
    Column("throttled", Text, nullable=False),
)


def exists(connection: Connection) -> bool:
    """Whether a ledger is there; raises `NewerLedgerError` for one of a newer eventmig."""
    if not inspect(connection).has_table(format_.name):
        return False
    found = connection.execute(select(func.max(format_.c.format))).scalar() or 0
    if found > FORMAT:
        raise NewerLedgerError(
            f"the ledger has format {found}, and this eventmig knows {FORMAT}",
            remedy="upgrade eventmig to the version that wrote it; nothing was changed",
        )
    return True


def create(connection: Connection) -> None:
    """Make the ledger's tables where they are not there yet."""
    if exists(connection):
        return
    metadata.create_all(connection)
    connection.execute(insert(format_).values(format=FORMAT))
