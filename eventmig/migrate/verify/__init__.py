"""Verification: is the target what the source and the registry say it must be?

It does not trust the copier. It reads both sides back; it derives the target anew by
the slow, obvious reading of the steps (`Chains.plain`), not the compiled one; it counts
stream positions itself. Three parts:

1. heads: the target's streams have no holes, its events are as many as the accounting
   says, and the recorded batches tile both sides without gap or overlap;
2. derivation: batch by batch, what the source yields now, compared with what the
   target holds: stream, position, id, type, version, data (canonical), metadata, time,
   origins, in order;
3. hashes: a hash chained per stream over what was found right, recorded in the ledger;
   a later verification recomputes it and finds any change since.

Reads only, but for the hashes, which go into the ledger when everything was right.
"""

from eventmig.migrate.verify.chaining import Hashed
from eventmig.migrate.verify.derivation import Compared
from eventmig.migrate.verify.findings import Mismatch, Verification
from eventmig.migrate.verify.run import (
    WORTH_A_HELPER,
    OnVerified,
    VerifyHelper,
    verify_job,
    verify_tail,
)
from eventmig.migrate.verify.sharing import Share

__all__ = [
    "WORTH_A_HELPER",
    "Compared",
    "Hashed",
    "Mismatch",
    "OnVerified",
    "Share",
    "Verification",
    "VerifyHelper",
    "verify_job",
    "verify_tail",
]
