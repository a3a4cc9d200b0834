"""One typed function per command: each takes a `Project`, does its work, returns a value.

Nothing here prints; the command line (`cli`) and programs call the same functions.
Progress comes through callbacks. All errors are `EventmigError`s.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventmig import plan as planning
from eventmig import scaffold
from eventmig.check import EXAMPLES, CheckReport, check_registry_and_lock
from eventmig.config import FILE
from eventmig.drafts import Draft
from eventmig.errors import (
    JobError,
    NotAStoreError,
    RebuildError,
    ReleaseError,
    UpcastError,
    VerifyError,
    Where,
)
from eventmig.events import Event
from eventmig.export import export_jsonl
from eventmig.files import write_atomically
from eventmig.mapping import Mapping
from eventmig.migrate import ledger
from eventmig.migrate.job import (
    OnProgress,
    Phase,
    Progress,
    Setting,
    Transforming,
    UpcastJob,
    cancel_job,
    check_source,
)
from eventmig.migrate.ledger import Job, Quarantined, Transition
from eventmig.migrate.states import State
from eventmig.migrate.verify import Verification, verify_job
from eventmig.project import (
    Project,
    active_job,
    finished_job,
    job_of,
    opened,
    opened_target,
    public,
    sql_engine,
)
from eventmig.rebuild import (
    Aggregate,
    Loaded,
    ReadModel,
    RebuildProgress,
    RebuildResult,
    rebuild_read_models,
    rebuild_snapshots,
    rollback_read_models,
    rollback_snapshots,
)
from eventmig.rebuild import load as load_state
from eventmig.release import Release, format_lock
from eventmig.stores.base import EventReader, JobTarget
from eventmig.stores.open import open_store
from eventmig.transfer import ImportResult, import_jsonl
from eventmig.transform import Pipeline
from eventmig.workers import CALM, transform_in_process

# init, check and release --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `init` wrote: files, and a source store with sample events of release 1."""

    files: tuple[Path, ...]
    store: str
    events: int
    release: str


FIRST_RELEASE = "2"


def init(folder: Path) -> Started:
    """Write a first project into an empty folder: configuration, domain, sample history.

    Imports the sample events into the source store and freezes the first release, so that
    `check`, `plan`, `upcast` and `rebuild` can be run at once. Raises `ConfigError` where a
    file of that name is there; then nothing was written.
    """
    files = scaffold.init(folder)
    project = Project.open(folder / FILE)
    result = import_history(project, folder / "sample.jsonl")
    release(project, FIRST_RELEASE)
    return Started(
        files=tuple(files),
        store=public(project.url("source", None)),
        events=result.events,
        release=FIRST_RELEASE,
    )


def check(
    project: Project,
    *,
    examples: int = EXAMPLES,
    on_step: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check the registry against the lock, the schemas, and random events. Writes nothing."""
    return check_registry_and_lock(
        project.registry, project.lock, examples=examples, on_step=on_step
    )


def release(project: Project, name: str, *, amend: bool = False) -> Release:
    """Freeze the registry as it is now under a name, in the lock file.

    `amend` freezes the latest release anew, under its own name: for an upcaster that was
    mended before any job to the release was ready. Raises `ReleaseError` where the name
    is taken, or is not the latest to amend. Writes the lock file, atomically.
    """
    frozen = project.registry.freeze(name)
    if amend:
        _check_unfinished(project, name)
    lock = project.lock.amended(frozen) if amend else project.lock.with_release(frozen)
    write_atomically(project.config.lock_path, format_lock(lock))
    return frozen


def _check_unfinished(project: Project, name: str) -> None:
    """A release can be amended while no job of the configured target has been ready."""
    if project.config.target is None:
        return
    try:
        found = history(project, release=name)
    except (JobError, NotAStoreError):
        return
    for entry in found:
        ready = any(t.state is State.READY for t in entry.transitions)
        if entry.job.release == name and ready and entry.job.state is not State.CANCELLED:
            raise ReleaseError(
                f"a job to release {name} was ready already: its target is that release",
                where=Where(store=project.url("target", None, name)),
                remedy="freeze a new release (`eventmig release NAME`), or end that job first "
                "(`eventmig cancel`)",
            )


# plan ----------------------------------------------------------------------------------------

SAMPLES_EACH = 1


def plan(
    project: Project,
    *,
    release: str | None = None,
    source: str | None = None,
    target: str | None = None,
    naming: str | None = None,
    samples: int = SAMPLES_EACH,
) -> planning.Plan:
    """What a job would do: counts per type and version, steps, samples. Writes nothing.

    `samples` is how many events of each (type, version) that changes are shown.
    """
    frozen = project.release(release)
    target_url = project.url("target", target, frozen.name)
    with opened(project.url("source", source, frozen.name)) as store:
        pipeline = project.pipeline(frozen, store, naming)
        counts = store.type_counts()
        chosen: list[Event] = []
        for count in counts:
            if not pipeline.chains.goal.arrived((count.type, count.schema_version)):
                chosen += store.examples(count.type, count.schema_version, samples)
        return planning.make_plan(
            pipeline, counts, chosen, source=public(store.url), target=public(target_url)
        )


# the job -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """A job as it stands, with what its verification found (None: not verified now)."""

    job: Job
    target: str
    verification: Verification | None = None
    resumed: bool = False
    running: bool = False
    source_events: int | None = None

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
    verify: bool = True,
    on_progress: OnProgress | None = None,
) -> JobReport:
    """Rewrite the source's history to a release, verify it, and leave the job READY.

    Reads the source; writes the target and the ledger beside it. Killed or interrupted
    anywhere, the same call resumes. Raises `UpcastError` at an event that fails (unless
    `quarantine` sets it aside), `VerifyError` where the target is not right.
    """
    frozen = project.release(release)
    source_url = project.url("source", source, frozen.name)
    target_url = project.url("target", target, frozen.name)
    with opened(source_url) as reader:
        pipeline = project.pipeline(frozen, reader, naming)
        with _target_for(target_url, reader, on_progress) as writer, ExitStack() as stack:
            size = batch_size or project.config.batch_size
            setting = _setting(project, frozen, reader, pipeline)
            transforming: Transforming | None = None
            if (workers or project.config.workers) > 1:
                transforming = stack.enter_context(
                    transform_in_process(
                        project,
                        release=frozen.name,
                        source=source_url,
                        steps_done=setting.steps_done,
                        naming=setting.naming,
                        keep_source_ids=reader.id_scope() != writer.id_scope(),
                        quarantine=quarantine,
                        batch_size=size,
                    )
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
            )
            with writer.lock(), calm_collector():
                resumed = job.begin_or_resume().epoch > 1
                was_ready = job.job.state is State.READY
                before = job.job.source_position
                job.run()
                report = JobReport(job=job.job, target=public(target_url), resumed=resumed)
                if job.job.state is State.PAUSED or not verify:
                    return report
                if was_ready and job.job.source_position == before:
                    return report
                verification = _verify(job, reader, writer, pipeline, on_progress)
                return JobReport(
                    job=job.job,
                    target=public(target_url),
                    verification=verification,
                    resumed=resumed,
                )


@contextmanager
def calm_collector() -> Iterator[None]:
    """Fewer runs of the garbage collector: batches hold many values and no cycles.

    Measured: a quarter of the time of decoding (docs/performance.md).
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*CALM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _setting(project: Project, frozen: Release, reader: EventReader, pipeline: Pipeline) -> Setting:
    return Setting(
        release=frozen.name,
        steps_done=project.steps_done(reader),
        source_name=public(reader.url),
        naming=pipeline.naming,
        registry_fingerprint=frozen.fingerprint(),
    )


@contextmanager
def _target_for(
    url: str, source: EventReader, on_progress: OnProgress | None
) -> Iterator[JobTarget]:
    """The target, made if it is not there, and taken back if nothing came of it.

    For a new job the source is checked first, before anything is written.
    """
    begun = _has_job(url, source)
    if not begun:
        check_source(source, on_progress)
    store = open_store(url, mode="create")
    try:
        yield store
    except BaseException:
        if not begun and not _has_job(url, source):
            store.discard()
        raise
    finally:
        store.close()


def _has_job(url: str, source: EventReader) -> bool:
    """Whether a job is recorded for this target. Raises `JobError` for the source itself."""
    try:
        with opened(url) as store:
            if store.identity() == source.identity():
                raise JobError(
                    "the target is the source",
                    where=Where(store=public(url)),
                    remedy="name another file, another set of tables (?tables=…), or new streams "
                    "in the same tables (?release=… with a naming such as {stream}-{release})",
                )
            return active_job(store) is not None
    except NotAStoreError:
        return False


def _verify(
    job: UpcastJob,
    reader: EventReader,
    writer: JobTarget,
    pipeline: Pipeline,
    on_progress: OnProgress | None,
) -> Verification:
    job.enter(State.VERIFYING)

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress(phase=Phase.VERIFYING, done=done, total=total))

    found = verify_job(reader, writer, pipeline, job.job, on_progress=report)
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
    on_progress: OnProgress | None = None,
) -> JobReport:
    """Verify a job's target again; without `derive`, only heads and recorded hashes.

    Reads both sides; records stream hashes in the ledger when all is right. The report
    holds what was found: nothing is raised for mismatches. Raises `JobLockedError` while
    a job works on the target.
    """
    frozen = project.release(release)
    target_url = project.url("target", target, frozen.name)
    with (
        opened(project.url("source", source, frozen.name)) as reader,
        opened(target_url, "write") as writer,
        writer.lock(),
    ):
        job = job_of(writer)
        if job.release != frozen.name:
            raise JobError(
                f"this target is of release {job.release}, not of {frozen.name}",
                where=Where(store=writer.url),
                remedy=f"say --release {job.release}, or name another target",
            )
        pipeline = project.pipeline(frozen, reader, naming or job.naming)

        def report(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(Progress(phase=Phase.VERIFYING, done=done, total=total))

        found = verify_job(reader, writer, pipeline, job, derive=derive, on_progress=report)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What a store holds: the release it was upcast to (None: no job made it), and counts."""

    store: str
    release: str | None
    state: str | None
    events: int
    types: tuple[tuple[str, int, int], ...]


def current(project: Project, *, store: str | None = None) -> Current:
    """The release a store is at, with its types, versions and counts. Reads only."""
    name = project.lock.latest.name if project.lock.latest else None
    url = project.url("source", store, name)
    with opened(url) as reader:
        job = finished_job(reader)
        return Current(
            store=public(url),
            release=job.release if job else None,
            state=job.state.value if job else None,
            events=reader.count(),
            types=tuple((c.type, c.schema_version, c.count) for c in reader.type_counts()),
        )


# show ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One stored event, and what it is after each step: (step, texts of the events then)."""

    event: Event
    before: str
    after: tuple[tuple[str, tuple[str, ...]], ...]
    error: str = ""


def show(
    project: Project,
    what: str,
    *,
    store: str | None = None,
    release: str | None = None,
    first: int | None = None,
    limit: int = 20,
) -> list[Shown]:
    """A stream or one event (by id), before and after each step. Reads only.

    `first` is a stream position (inclusive). Raises `JobError` where nothing is named so.
    """
    frozen = project.release(release) if release or project.lock.latest else None
    url = project.url("source", store, frozen.name if frozen else None)
    with opened(url) as reader:
        event = reader.event(what)
        events = [event] if event else []
        if not events:
            for event in reader.read_stream(what, first=first):
                events.append(event)
                if len(events) == limit:
                    break
    if not events:
        raise JobError(
            f"there is no stream and no event named {what!r}",
            where=Where(store=public(url)),
            remedy="streams have names such as order-17; `eventmig current` shows the types",
        )
    chains = project.registry.at(frozen).chains if frozen else project.registry.chains
    shown: list[Shown] = []
    for event in events:
        before = planning.pretty(event.type, event.schema_version, event.data)
        try:
            steps = chains.before_and_after(event)
            after = tuple((n, _texts(drafts)) for n, drafts in steps)
            shown.append(Shown(event=event, before=before, after=after))
        except UpcastError as error:
            shown.append(Shown(event=event, before=before, after=(), error=str(error)))
    return shown


def _texts(drafts: Sequence[Draft]) -> tuple[str, ...]:
    return tuple(map(planning.pretty_draft, drafts))


# quarantine ----------------------------------------------------------------------------------


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
        job = UpcastJob(reader, writer, pipeline, _setting(project, frozen, reader, pipeline))
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


# rebuild -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """What a rebuild made, per read model and aggregate, and from which events."""

    source: str
    database: str
    release: str
    results: tuple[RebuildResult, ...] = field(default_factory=tuple)


def rebuild(
    project: Project,
    names: Sequence[str] = (),
    *,
    all_: bool = False,
    source: str | None = None,
    read_models: str | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> RebuildReport:
    """Rebuild read models and snapshots by name, or all of them, and swap them in.

    Reads `source`: the one given, else the latest release's target if a job made it
    ready, else the configured source. Writes the read models' database.
    """
    chosen = _chosen(project, names, all_)
    mark = release_mark(project)
    source_url = source_of_rebuild(project, source)
    database = _read_models_url(project, read_models, source_url)
    models = [p for p in chosen if isinstance(p, ReadModel)]
    aggregates = [p for p in chosen if isinstance(p, Aggregate)]
    with opened(source_url) as reader, sql_engine(database) as engine:
        _check_steps_done(project, reader)
        results: list[RebuildResult] = []
        upcast_batch = project.registry.upcast_batch
        if models:
            results += rebuild_read_models(
                models,
                source=reader,
                upcast=upcast_batch,
                engine=engine,
                release=mark,
                source_types=project.registry.sources_of,
                data_upcaster=project.registry.data_upcaster,
                progress=on_progress,
            )
        if aggregates:
            results += rebuild_snapshots(
                aggregates,
                source=reader,
                upcast=upcast_batch,
                engine=engine,
                release=mark,
                source_types=project.registry.sources_of,
                progress=on_progress,
            )
    return RebuildReport(
        source=public(source_url), database=public(database), release=mark, results=tuple(results)
    )


def _check_steps_done(project: Project, reader: EventReader) -> None:
    """A rebuild upcasts event by event: stream and store steps must be behind the source."""
    latest = project.lock.latest
    missing = set(latest.steps if latest else ()) - set(project.steps_done(reader))
    if missing:
        raise RebuildError(
            f"this store has not been through {', '.join(sorted(missing))}",
            where=Where(store=public(reader.url)),
            remedy="stream and store steps need a job: run `eventmig upcast`, and rebuild from "
            "its target",
        )


def rollback(
    project: Project,
    names: Sequence[str],
    *,
    all_: bool = False,
    read_models: str | None = None,
) -> dict[str, int]:
    """Bring back the generation before of these read models and snapshots.

    Returns each name's live generation.
    """
    chosen = _chosen(project, names, all_)
    database = _read_models_url(project, read_models, source_of_rebuild(project, None))
    models = [p.name for p in chosen if isinstance(p, ReadModel)]
    aggregates = [p.name for p in chosen if isinstance(p, Aggregate)]
    with sql_engine(database) as engine:
        live = rollback_read_models(models, engine=engine) if models else {}
        return live | (rollback_snapshots(aggregates, engine=engine) if aggregates else {})


def release_mark(project: Project) -> str:
    """What snapshots and read models are marked with: release and registry together."""
    name = project.lock.latest.name if project.lock.latest else "unreleased"
    return f"{name}@{project.registry.fingerprint()}"


def source_of_rebuild(project: Project, given: str | None) -> str:
    """The store a rebuild reads: the one given, else a ready target, else the source."""
    latest = project.lock.latest
    if given is None and latest is not None and project.config.target is not None:
        url = project.url("target", None, latest.name)
        try:
            with opened(url) as store:
                if finished_job(store) is not None:
                    return url
        except NotAStoreError:
            pass
    return project.url("source", given, latest.name if latest else None)


def _chosen(project: Project, names: Sequence[str], all_: bool) -> list[ReadModel | Aggregate[Any]]:
    known = {p.name: p for p in project.projections}
    unknown = [n for n in names if n not in known]
    if unknown or not (names or all_):
        what = f"there is no projection {unknown[0]!r}" if unknown else "nothing is named"
        raise RebuildError(
            f"{what} (there are: {', '.join(known) or 'none'})",
            remedy="name some of those, or all of them: --all",
        )
    return list(known.values()) if all_ else [known[n] for n in dict.fromkeys(names)]


def load(
    project: Project,
    aggregate: str,
    stream: str,
    *,
    source: str | None = None,
    read_models: str | None = None,
) -> Loaded[Any]:
    """One aggregate's state, from its snapshot and the events after it. Reads only.

    `aggregate` is its name among the projections. Raises `RebuildError`.
    """
    found = _chosen(project, [aggregate], all_=False)[0]
    if not isinstance(found, Aggregate):
        raise RebuildError(
            f"{aggregate} is a read model, and has no state per stream",
            remedy="read its tables with SQL",
        )
    source_url = source_of_rebuild(project, source)
    database = _read_models_url(project, read_models, source_url)
    with opened(source_url) as reader, sql_engine(database) as engine:
        return load_state(
            found,
            stream,
            source=reader,
            upcast=project.registry.upcast_batch,
            engine=engine,
            release=release_mark(project),
        )


def _read_models_url(project: Project, given: str | None, source_url: str) -> str:
    name = project.lock.latest.name if project.lock.latest else None
    return project.config.url(given or project.config.read_models or source_url, release=name)


# import and export ---------------------------------------------------------------------------


def import_history(
    project: Project,
    path: Path,
    *,
    store: str | None = None,
    mapping: Mapping | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Append a JSON Lines file to a store, all or nothing. Creates the store if need be."""
    name = project.lock.latest.name if project.lock.latest else None
    url = project.url("source", store, name)
    with opened(url, "create") as target:
        return import_jsonl(
            str(path), target, mapping or project.config.mapping(), progress=on_progress
        )


def export_history(project: Project, path: Path, *, store: str | None = None) -> int:
    """Write a store's events to a JSON Lines file, atomically; returns how many."""
    name = project.lock.latest.name if project.lock.latest else None
    with opened(project.url("source", store, name)) as reader:
        return export_jsonl(reader, str(path))
