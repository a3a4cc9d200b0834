"""The job: upcast, verify, status, history, cancel, and its quarantine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from eventmig.commands.holding import held, setting_of
from eventmig.commands.steering import kept_up, was_announced
from eventmig.errors import (
    EventmigError,
    JobError,
    NotAStoreError,
    VerifyError,
    Where,
)
from eventmig.hooks import run_hook
from eventmig.migrate import ledger
from eventmig.migrate.copying import Transforming
from eventmig.migrate.job import (
    OnProgress,
    Phase,
    Progress,
    UpcastJob,
    cancel_job,
    check_source,
)
from eventmig.migrate.ledger import Job, Quarantined, Transition
from eventmig.migrate.made_by import active_job
from eventmig.migrate.pushdown import Pushdown, Pushed, Pusher, may_push, pusher_for
from eventmig.migrate.setting import check_sides
from eventmig.migrate.states import Side, State, check_transition
from eventmig.migrate.verify import WORTH_A_HELPER, Verification, VerifyHelper, verify_job
from eventmig.processes import CALM, TURN_S, Child
from eventmig.project import (
    Project,
    job_of,
    opened,
    opened_target,
    public,
)
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.held_up import HeldUp, held_up
from eventmig.stores.open import open_store
from eventmig.stores.owned import LeftBehind, OwnerSnapshots
from eventmig.transform import Pipeline
from eventmig.workers import transform_in, transforming_process, verify_in_process


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """A job as it stands, with what its verification found (None: not verified now).

    `pushed` counts the batches of this run that ran inside the database (None: it was no run).
    `left_behind` is what of the source's owner was not copied, `in_target` what snapshots its
    owner has in the target: those are not of the job. Both are empty where it was no run.
    `held_up` is what kept a run from reading all that the source holds (None: nothing did).
    """

    job: Job
    target: str
    verification: Verification | None = None
    resumed: bool = False
    running: bool = False
    source_events: int | None = None
    pushed: Pushed | None = None
    left_behind: tuple[LeftBehind, ...] = ()
    in_target: tuple[LeftBehind, ...] = ()
    held_up: HeldUp | None = None

    @property
    def ready(self) -> bool:
        """Whether the job is ready to be cut over to."""
        return self.job.state is State.READY


def upcast(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    naming: str | None = None,
    quarantine: bool = False,
    workers: int | None = None,
    batch_size: int | None = None,
    pushdown: Pushdown = Pushdown.AUTO,
    verify: bool = True,
    on_progress: OnProgress | None = None,
) -> JobReport:
    """Rewrite the source's history to a release, verify it, and leave the job READY.

    Reads the source; writes the target and the ledger beside it. Killed or interrupted
    anywhere, the same call resumes. Raises `UpcastError` at an event that fails (unless
    `quarantine` sets it aside), `VerifyError` where the target is not right, `JobError`
    where `pushdown` is ALWAYS and the batches cannot run inside the database.
    """
    frozen = project.release(release)
    source_url = project.url("source", source, frozen.name)
    target_url = project.url("target", target, frozen.name)
    if was_announced(project, release=frozen.name, target=target):
        kept, waits_for = kept_up(project, release=frozen.name, source=source, target=target)
        return JobReport(job=kept, target=public(target_url), resumed=True, held_up=waits_for)
    with opened(source_url) as reader:
        pipeline = project.pipeline(frozen, reader, naming)
        about = {"release": frozen.name, "source": public(source_url), "target": public(target_url)}

        def before_copy() -> None:
            run_hook(project.config, "before_copy", about)

        with ExitStack() as stack:
            both = (workers or project.config.workers) > 1
            child: Child | None = None
            if both and pushdown is not Pushdown.ALWAYS and not may_push(pushdown, reader):
                # It imports while the source is checked.
                child = stack.enter_context(transforming_process(project))
            writer = stack.enter_context(_target_for(target_url, reader, on_progress, before_copy))
            size = batch_size or project.config.batch_size
            setting = setting_of(frozen, reader, pipeline, project.steps_done(reader))
            targets = [writer]
            if both and may_push(pushdown, writer):
                targets.append(stack.enter_context(opened(target_url, "write")))
            pusher = pusher_for(pushdown, reader, targets, pipeline)
            transforming: Transforming | None = None
            if both and not isinstance(pusher, Pusher):
                transforming = transform_in(
                    child or stack.enter_context(transforming_process(project)),
                    release=frozen.name,
                    source=source_url,
                    steps_done=setting.steps_done,
                    naming=setting.naming,
                    keep_source_ids=reader.id_scope() != writer.id_scope(),
                    quarantine=quarantine,
                    batch_size=size,
                )
            job = UpcastJob(
                reader,
                writer,
                pipeline,
                setting,
                quarantine=quarantine,
                batch_size=size,
                on_progress=on_progress,
                transforming=transforming,
                pusher=pusher if isinstance(pusher, Pusher) else None,
            )
            with writer.lock(), tuned():
                resumed = job.begin_or_resume().epoch > 1
                was_ready = job.job.state is State.READY
                before = job.job.source_position
                job.run()
                report = JobReport(
                    held_up=held_up(reader),
                    job=job.job,
                    target=public(target_url),
                    resumed=resumed,
                    pushed=Pushed(why_not=pusher) if isinstance(pusher, str) else pusher.counted,
                    left_behind=_beside(reader),
                    in_target=tuple(one for one in _beside(writer) if one.table),
                )
                if job.job.state is State.PAUSED or not verify:
                    return report
                if was_ready and job.job.source_position == before:
                    return report
                with _helper(
                    project, job.job, pipeline.naming, source_url, target_url, workers
                ) as helper:
                    verification = _verify(job, reader, writer, pipeline, helper, on_progress)
                return replace(report, job=job.job, verification=verification)


def _beside(store: EventReader) -> tuple[LeftBehind, ...]:
    return tuple(store.left_behind()) if isinstance(store, OwnerSnapshots) else ()


@contextmanager
def tuned() -> Iterator[None]:
    """Fewer runs of the garbage collector, and shorter turns of threads.

    Batches hold many values and no cycles, and one thread waits for a server while another
    computes. Measured: a quarter of the time of decoding, and two thirds of that of a
    statement beside it (docs/performance.md). What a caller has frozen (`gc.freeze`) stays so.
    """
    before, turn_s = gc.get_threshold(), sys.getswitchinterval()
    frozen = gc.get_freeze_count() > 0
    if not frozen:
        gc.collect()
        gc.freeze()
    gc.set_threshold(*CALM)
    sys.setswitchinterval(TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(turn_s)
        gc.set_threshold(*before)
        if not frozen:
            gc.unfreeze()


@contextmanager
def _target_for(
    url: str,
    source: EventReader,
    on_progress: OnProgress | None,
    before: Callable[[], object],
) -> Iterator[JobTarget]:
    """The target, made if it is not there, and taken back if nothing came of it.

    For a new job `before` is called and the source checked first, before anything is written.
    """
    begun = _has_job(url, source)
    if not begun:
        before()
        check_source(source, on_progress)
    store = open_store(url, mode="create")
    try:
        yield store
    except BaseException:
        if not begun:
            _take_back(store, url, source)
        raise
    finally:
        store.close()


def _take_back(store: JobTarget, url: str, source: EventReader) -> None:
    """Take back what opening it made, unless a job is recorded or another process holds it."""
    with suppress(EventmigError), store.lock():
        if not _has_job(url, source):
            store.discard()


def _has_job(url: str, source: EventReader) -> bool:
    """Whether a job is recorded for this target. Raises `JobError` for the source itself."""
    try:
        with opened(url) as store:
            check_sides(source, store)
            return active_job(store) is not None
    except NotAStoreError:
        return False


@contextmanager
def _helper(
    project: Project, job: Job, naming: str, source: str, target: str, workers: int | None
) -> Iterator[VerifyHelper | None]:
    """A second process for the verification, where two are to work and it is worth one."""
    if (workers or project.config.workers) < 2 or job.tally.written < WORTH_A_HELPER:
        yield None
        return
    with verify_in_process(
        project,
        release=job.release,
        source=source,
        target=target,
        steps_done=job.steps_done,
        naming=naming,
    ) as helper:
        yield helper


def _verify(
    job: UpcastJob,
    reader: EventReader,
    writer: JobTarget,
    pipeline: Pipeline,
    helper: VerifyHelper | None,
    on_progress: OnProgress | None,
) -> Verification:
    job.enter(State.VERIFYING)

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress(phase=Phase.VERIFYING, done=done, total=total))

    found = verify_job(reader, writer, pipeline, job.job, helper=helper, on_progress=report)
    if not found.right:
        job.enter(State.FAILED, f"verification found {found.mismatches} mismatches")
        raise VerifyError(
            f"the target is not right: {found.mismatches} mismatches\n"
            + "\n".join(f"  - {mismatch}" for mismatch in found.shown),
            where=Where(store=writer.url),
            remedy="nothing reads this target yet: end the job with `eventmig cancel` and run "
            "it anew; if it comes back, report it",
        )
    job.enter(State.READY)
    return found


def verify(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    naming: str | None = None,
    derive: bool = True,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> JobReport:
    """Verify a job's target again; without `derive`, only heads and recorded hashes.

    Reads both sides; records stream hashes in the ledger when all is right. The report
    holds what was found: nothing is raised for mismatches. Raises `JobLockedError` while
    a job works on the target.
    """
    frozen = project.release(release)
    target_url = project.url("target", target, frozen.name)
    source_url = project.url("source", source, frozen.name)
    with (
        opened(source_url) as reader,
        opened_target(target_url, "write") as writer,
        writer.lock(),
        tuned(),
    ):
        job = job_of(writer)
        if job.release != frozen.name:
            raise JobError(
                f"this target is of release {job.release}, not of {frozen.name}",
                where=Where(store=writer.url),
                remedy=f"say --release {job.release}, or name another target",
            )
        with writer.reading() as connection:
            moved = ledger.exchanged(job, ledger.journal(connection, job))
        old, new = (writer, reader) if moved else (reader, writer)
        pipeline = project.pipeline(frozen, old, naming or job.naming, beside=new)

        def report(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(Progress(phase=Phase.VERIFYING, done=done, total=total))

        # A helper opens the sides as they are named.
        alone = 1 if moved else workers
        with _helper(project, job, pipeline.naming, source_url, target_url, alone) as helper:
            found = verify_job(
                old,
                new,
                pipeline,
                job,
                beside=writer,
                derive=derive,
                helper=helper,
                on_progress=report,
            )
        return JobReport(job=job, target=public(target_url), verification=found)


def status(project: Project, *, release: str | None = None, target: str | None = None) -> JobReport:
    """The target's job as it stands, and whether a process works on it now. Reads only."""
    name = release or (project.lock.latest.name if project.lock.latest else None)
    target_url = project.url("target", target, name)
    with opened_target(target_url) as store:
        job = job_of(store)
        return JobReport(job=job, target=public(target_url), running=store.held())


def cancel(project: Project, *, release: str | None = None, target: str | None = None) -> int:
    """End the target's job and delete what it wrote; returns how many events that were.

    The source and everything no job wrote stay as they are.
    """
    name = release or (project.lock.latest.name if project.lock.latest else None)
    if was_announced(project, release=name, target=target):
        with held(project, release=name, target=target) as (sides, writer):
            check_transition(sides.job.state, State.CANCELLED)
            sides.open(Side.NEW)  # no fence of this job is to stand before the next one
            return cancel_job(writer, sides.job)
    with opened_target(project.url("target", target, name), "write") as writer, writer.lock():
        return cancel_job(writer, job_of(writer))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHistory:
    """One job with every state it entered."""

    job: Job
    transitions: tuple[Transition, ...]


def history(
    project: Project, *, release: str | None = None, target: str | None = None
) -> list[JobHistory]:
    """Every job of the target's database, oldest first. Reads only."""
    name = release or (project.lock.latest.name if project.lock.latest else None)
    with opened_target(project.url("target", target, name)) as store, store.reading() as connection:
        if not ledger.exists(connection):
            return []
        return [
            JobHistory(job=job, transitions=tuple(ledger.transitions(connection, job)))
            for job in ledger.jobs(connection)
        ]


# quarantine --------------------------------------------------------------------------------------


def quarantined(
    project: Project, *, release: str | None = None, target: str | None = None
) -> list[Quarantined]:
    """The events the target's job set aside, in source order. Reads only."""
    name = release or (project.lock.latest.name if project.lock.latest else None)
    with opened_target(project.url("target", target, name)) as store, store.reading() as connection:
        found = active_job(store)
        return list(ledger.quarantined(connection, found)) if found else []


def retry_quarantined(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[list[Quarantined], JobReport | None]:
    """Try the events set aside again; where all pass now, copy on from before the first.

    Returns those that still fail, and the report of the job that went on (None if any
    still fails: then nothing changed).
    """
    frozen = project.release(release)
    with (
        opened(project.url("source", source, frozen.name)) as reader,
        opened_target(project.url("target", target, frozen.name), "write") as writer,
        writer.lock(),
    ):
        naming = job_of(writer).naming
        pipeline = project.pipeline(frozen, reader, naming)
        setting = setting_of(frozen, reader, pipeline, project.steps_done(reader))
        job = UpcastJob(reader, writer, pipeline, setting)
        job.begin_or_resume()
        failing = job.retry_quarantined()
    if failing:
        return failing, None
    report = upcast(
        project,
        release=release,
        source=source,
        target=target,
        naming=naming,
        on_progress=on_progress,
    )
    return [], report
