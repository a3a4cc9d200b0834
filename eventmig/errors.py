"""Every error eventmig raises on purpose, in one tree.

    EventmigError
    ├── ConfigError            the configuration, or a module:object it names
    ├── RegistryError          the registry as a whole is not sound
    ├── CheckError             `eventmig check` found something to mend
    ├── ReleaseError           eventmig.lock, or a release it lacks
    ├── DataError              bytes that are not what they should be
    │   ├── CodecError         bytes that are no JSON, values JSON cannot carry
    │   ├── OpError            an op met data it may not change
    │   ├── ValidationError    data its schema rejects
    │   ├── ImportLineError    a line of an imported file
    │   └── OpaqueError        a stored payload that nobody but its owner can read
    ├── UpcastError            an event that could not be upcast (says which step)
    │   └── NewerEventError    written by a newer release than the registry knows
    ├── StoreError             the store itself
    │   ├── NotAStoreError     no event store behind this URL
    │   ├── StoreDamagedError  truncated, corrupt, a hole in a stream
    │   ├── StoreUnavailableError  the server does not answer, or cut the connection
    │   ├── StoreFullError     no room left
    │   ├── ReadOnlyError      cannot be written
    │   ├── ConflictError      the stream is not where the writer expected it
    │   ├── DuplicateIdError   an event id that is there already
    │   ├── FencedError        writers are shut out: a cut-over is under way, or was
    │   └── CapabilityError    this kind of store cannot do that
    ├── JobError               a job that cannot go on as it is
    │   ├── JobLockedError     another process works on this target
    │   ├── JobLostError       this process lost its hold on the job
    │   ├── AccountingError    the sums do not close
    │   ├── CrossingError      a cut-over or reverse that cannot be, or not now
    │   ├── HookError          a before-hook said no
    │   ├── NewerLedgerError   the ledger was written by a newer eventmig
    │   └── VerifyError        the copy is not what it should be
    └── RebuildError           a projection or aggregate that could not be rebuilt

Every one carries what happened, where, and what to do now.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A place in a history, a file or a registry; only what is known is set.

    `line` is 1-based; `stream_position` and `global_position` are the store's own.
    """

    store: str | None = None
    file: str | None = None
    line: int | None = None
    stream: str | None = None
    stream_position: int | None = None
    global_position: int | None = None
    event_id: str | None = None
    type: str | None = None
    schema_version: int | None = None
    step: str | None = None
    path: str | None = None
    handler: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        known = ((f.name, getattr(self, f.name)) for f in fields(self))
        return ", ".join(f"{n.replace('_', ' ')} {v}" for n, v in known if v is not None)

    def as_dict(self) -> dict[str, str | int]:
        """The known parts by name, for JSON output."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}

    def within(self, outer: Where) -> Where:
        """This place, with what it does not know taken from `outer`."""
        return Where(**(outer.as_dict() | self.as_dict()))  # type: ignore[arg-type]


class EventmigError(Exception):
    """Base of all errors eventmig raises on purpose.

    `what` happened, `where` (a `Where`, may be empty), and `remedy`: what to do now.
    """

    def __init__(self, what: str, *, where: Where | None = None, remedy: str = "") -> None:
        self.what = what
        self.where = where or Where()
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = str(self.where)
        lines = [self.what]
        if place:
            lines.append(f"  where: {place}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


class ConfigError(EventmigError):
    """The configuration, or something it names, is not right."""


class RegistryError(EventmigError):
    """The upcasters do not form sound chains; names every offender."""


class CheckError(EventmigError):
    """`eventmig check` found something that must be mended before a release."""


class ReleaseError(EventmigError):
    """The lock file is missing, damaged, or lacks the release asked for."""


class DataError(EventmigError):
    """Bytes or values that are not what they should be."""


class CodecError(DataError):
    """Bytes that are no JSON text, or values that JSON cannot carry."""


class OpError(DataError):
    """An op met data it cannot change without loss; `where.path` names the member."""


class ValidationError(DataError):
    """Data that the schema of its type and version rejects."""


class ImportLineError(DataError):
    """A line of an imported file that is no event; `where.line` is 1-based."""


class OpaqueError(DataError):
    """A payload that is no JSON after its layout's codecs; names what it seems to be."""


class UpcastError(EventmigError):
    """An event that one step of its chain could not take to the next version."""


class NewerEventError(UpcastError):
    """An event of a schema version newer than the registry (or release) knows."""


class StoreError(EventmigError):
    """The store cannot do what was asked."""


class NotAStoreError(StoreError):
    """There is no event store behind this URL."""


class StoreDamagedError(StoreError):
    """The store is truncated or corrupt, or a stream has a hole."""


class StoreUnavailableError(StoreError):
    """The store's server does not answer, refused us, or cut the connection."""


class StoreFullError(StoreError):
    """The store has no room left; nothing of the batch was kept."""


class ReadOnlyError(StoreError):
    """The store cannot be written."""


class ConflictError(StoreError):
    """The stream is not at the position the writer expected."""


class DuplicateIdError(StoreError):
    """An event with this id is stored already."""


class FencedError(StoreError):
    """Applications may not append here: a cut-over is under way, or they belong elsewhere now."""


class CapabilityError(StoreError):
    """This kind of store cannot do that; names the capability."""


class JobError(EventmigError):
    """A job that cannot go on as it is."""


class JobLockedError(JobError):
    """Another process holds this target."""


class JobLostError(JobError):
    """Another process took the job over; this one wrote nothing more."""


class AccountingError(JobError):
    """What was read is not what was written, dropped and set aside together."""


class CrossingError(JobError):
    """A cut-over or reverse that cannot be done, or not now; the job is as it was before."""


class HookError(JobError):
    """A hook that runs before a step ended with an error, so the step was not taken."""


class NewerLedgerError(JobError):
    """The ledger beside the target was written by a newer eventmig."""


class VerifyError(JobError):
    """The target is not what the source and the registry say it must be."""


class RebuildError(EventmigError):
    """A projection or an aggregate could not be rebuilt; the live tables are as before."""
