"""The ledger: jobs, checkpoints, quarantine and verification, beside the target.

Its tables live in the target's database, and every function here works on the SQL
connection of the target's own transaction: a batch and its checkpoint commit
together or not at all. `namespace` says which set of tables or streams of that
database a job writes.
"""

from eventmig.migrate.ledger.checkpoints import batches, checkpoint, rewind
from eventmig.migrate.ledger.lifecycle import (
    active_job,
    begin_job,
    enter,
    extend,
    jobs,
    now,
    take_over,
    transitions,
)
from eventmig.migrate.ledger.quarantine import Quarantined, quarantined, set_aside
from eventmig.migrate.ledger.records import Batch, Job, Transition
from eventmig.migrate.ledger.stream_hashes import hashed_names, hashed_streams, hashes, store_hashes
from eventmig.migrate.ledger.tables import FORMAT, create, exists, metadata

__all__ = [
    "FORMAT",
    "Batch",
    "Job",
    "Quarantined",
    "Transition",
    "active_job",
    "batches",
    "begin_job",
    "checkpoint",
    "create",
    "enter",
    "exists",
    "extend",
    "hashed_names",
    "hashed_streams",
    "hashes",
    "jobs",
    "metadata",
    "now",
    "quarantined",
    "rewind",
    "set_aside",
    "store_hashes",
    "take_over",
    "transitions",
]
