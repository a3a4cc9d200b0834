"""The ledger: jobs, checkpoints, quarantine and verification, beside the target.

Its tables live in the target's database, and every function here works on the SQL
connection of the target's own transaction: a batch and its checkpoint commit
together or not at all. `namespace` says which set of tables or streams of that
database a job writes.
"""

from eventmig.migrate.ledger.checkpoints import (
    batches,
    began_after,
    checkpoint,
    fold,
    rewind,
    windows,
)
from eventmig.migrate.ledger.crossings import (
    Crossed,
    announced,
    back_job,
    begin_back,
    exchanged,
    hold,
    journal,
    jump,
    write_journal,
)
from eventmig.migrate.ledger.following import (
    Controls,
    Followed,
    controls,
    followed,
    set_controls,
    set_followed,
)
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
from eventmig.migrate.ledger.moving import move
from eventmig.migrate.ledger.quarantine import Quarantined, quarantined, set_aside
from eventmig.migrate.ledger.records import Batch, Job, Transition
from eventmig.migrate.ledger.stream_hashes import (
    all_hashes,
    hashed_names,
    hashed_streams,
    hashes,
    store_hashes,
)
from eventmig.migrate.ledger.tables import FORMAT, create, exists, metadata

__all__ = [
    "FORMAT",
    "Batch",
    "Controls",
    "Crossed",
    "Followed",
    "Job",
    "Quarantined",
    "Transition",
    "active_job",
    "all_hashes",
    "announced",
    "back_job",
    "batches",
    "began_after",
    "begin_back",
    "begin_job",
    "checkpoint",
    "controls",
    "create",
    "enter",
    "exchanged",
    "exists",
    "extend",
    "fold",
    "followed",
    "hashed_names",
    "hashed_streams",
    "hashes",
    "hold",
    "jobs",
    "journal",
    "jump",
    "metadata",
    "move",
    "now",
    "quarantined",
    "rewind",
    "set_aside",
    "set_controls",
    "set_followed",
    "store_hashes",
    "take_over",
    "transitions",
    "windows",
    "write_journal",
]
