"""What makes a job this job and no other, and what must hold before it writes anything.

Nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventmig.errors import JobError, Where
from eventmig.migrate.ledger import Job
from eventmig.migrate.states import State
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.faster import SharingTarget
from eventmig.transform import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything that makes a job this job and no other.

    `source_name` is the source's URL without secrets, for the ledger and for people.
    """

    release: str
    steps_done: tuple[str, ...]
    source_name: str
    naming: str
    registry_fingerprint: str


def check_sides(source: EventReader, target: EventReader) -> None:
    """Raise `JobError` where they are the same store."""
    if source.identity() == target.identity():
        raise JobError(
            "the target is the source",
            where=Where(store=target.url),
            remedy="name another file, another set of tables (?tables=…), or new streams in "
            "the same tables (?release=… with a naming such as {stream}-{release})",
        )


def check_pair(source: EventReader, target: JobTarget, pipeline: Pipeline) -> None:
    """Raise `JobError` where a job from this source to this target would read what it writes."""
    check_sides(source, target)
    if isinstance(target, SharingTarget) and target.shares_streams(source):
        raise JobError(
            "source and target share streams: the job would read what it writes",
            where=Where(store=target.url),
            remedy="give the target a prefix of its own (?prefix=r2.), and leave that out of "
            "the source (?without=r2.)",
        )
    same_tables = source.id_scope() == target.id_scope()
    if same_tables and pipeline.naming == "{stream}" and not pipeline.routes:
        raise JobError(
            "source and target are the same tables, and the streams keep their names",
            where=Where(store=target.url),
            remedy="give the new streams names of their own: --naming '{stream}-{release}'",
        )


def check_same(job: Job, setting: Setting, source: EventReader, target: JobTarget) -> None:
    """Raise `JobError` where the target's job is another, or was begun with other upcasters."""
    ours = {
        "release": (job.release, setting.release),
        "source": (job.source_identity, source.identity()),
        "naming": (job.naming, setting.naming),
        "steps the source has behind it": (job.steps_done, setting.steps_done),
    }
    differ = [f"{what}: {old} then, {new} now" for what, (old, new) in ours.items() if old != new]
    if differ:
        raise JobError(
            f"this target belongs to another job ({'; '.join(differ)})",
            where=Where(store=target.url),
            remedy="run the command as it was begun, choose another --target, or end the "
            "old job with `eventmig cancel`",
        )
    if job.registry_fingerprint != setting.registry_fingerprint:
        _check_mended(job, target)


def check_not_ended(job: Job, target: JobTarget) -> None:
    """Raise `JobError` where the job is completed."""
    if job.state is State.COMPLETED:
        raise JobError(
            f"the job to release {job.release} is completed",
            where=Where(store=target.url),
            remedy="there is nothing left to do; a further release takes another --target",
        )


def _check_mended(job: Job, target: JobTarget) -> None:
    """Changed upcasters may go on only where nothing was written with the old ones."""
    if job.tally.written and job.state not in (State.FAILED, State.PAUSED):
        raise JobError(
            "the upcasters changed since this job began",
            where=Where(store=target.url),
            remedy="finish it with the code it began with, or end it with "
            "`eventmig cancel` and begin anew",
        )
