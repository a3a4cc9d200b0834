"""Which job made the events that a store holds now: for the ledgers keep jobs, not histories.

Most often that is the job which has the store as its target. Where a job's tables changed names,
its events bear the name of its source, and its own name is borne by what was there before. Such a
job stands in the ledger beside its target until it is completed, and then in that beside its
source; in PostgreSQL those are two, where the tables are in two schemas. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from eventmig.errors import NewerLedgerError, Where
from eventmig.migrate import ledger
from eventmig.migrate.ledger import Job
from eventmig.migrate.states import CROSSED, State
from eventmig.stores.base import EventReader
from eventmig.stores.crossing import Exchanging, Fencing

_FINISHED = frozenset({State.READY, *CROSSED})


def active_job(store: EventReader) -> Job | None:
    """The job that has this store as its target and is not ended, or None."""
    try:
        with store.reading() as connection:
            return (
                ledger.active_job(connection, _namespace(store))
                if ledger.exists(connection)
                else None
            )
    except NewerLedgerError as error:
        where = Where(store=store.url)
        raise NewerLedgerError(error.what, where=where, remedy=error.remedy) from None


def finished_job(store: EventReader, *beside: EventReader) -> Job | None:
    """The last job that made the events which this store holds now ready, or None.

    Where its tables changed names with those of a store whose ledger is another, it is found if
    that store is `beside`.
    """
    job, identity = active_job(store), store.identity()
    known = list(_known(store, *beside))
    if here := [it.job for it in known if it.exchanged and it.job.source_identity == identity]:
        return _last(here)
    if (left := _left_by(store, job, known)) is not None:
        return _last(
            it.job
            for it in known
            if it.job.job_id != left.job_id
            and left.source_identity == (it.job.source_identity if it.exchanged else it.target)
            and it.job.state in _FINISHED
        )
    return job if job is not None and job.state in _FINISHED else None


def left_by(store: EventReader, *beside: EventReader) -> Job | None:
    """The job whose old side this store is since its tables changed names, or None.

    A job that is completed is found where its records are, here or `beside`.
    """
    return _left_by(store, active_job(store), list(_known(store, *beside)))


class _Known(NamedTuple):
    """A job of a ledger. `target` is the identity of its target where that is a store that was
    asked about, else empty; `exchanged`: its sides have each other's names now.
    """

    job: Job
    target: str
    exchanged: bool


def _known(*stores: EventReader) -> Iterator[_Known]:
    for store in stores:
        with store.reading() as connection:
            for job in ledger.jobs(connection) if ledger.exists(connection) else []:
                target = store.identity() if job.namespace == _namespace(store) else ""
                exchanged = job.state in CROSSED and ledger.exchanged(
                    job, ledger.journal(connection, job)
                )
                yield _Known(job, target, exchanged)


def _left_by(store: EventReader, job: Job | None, known: list[_Known]) -> Job | None:
    """`job` is the store's active one; where there is none, its fence names who left it."""
    if job is None and isinstance(store, Exchanging) and isinstance(store, Fencing):
        fence = store.fence()
        named = fence.job_id if fence is not None and fence.closed else ""
    else:
        named = "" if job is None else job.job_id
    identity = store.identity()
    left = (it for it in known if it.exchanged and it.job.source_identity != identity)
    return next((it.job for it in left if it.job.job_id == named), None)


def _last(jobs: Iterator[Job] | list[Job]) -> Job | None:
    """Clocks of several machines told when they began; one that is not completed came later."""
    return max(jobs, key=lambda one: (one.state is not State.COMPLETED, one.begun_at), default=None)


def _namespace(store: EventReader) -> str:
    return getattr(store, "namespace", "")
