"""The upcast job: source → pipeline → target, batch by batch, resumable after any crash.

What it guarantees: the source is only read; a batch, its checkpoint and its share of
the accounting commit in one transaction of the target; every target event has its
place from the target's own heads; one job per target (a lock of the system, and an
epoch checked in every transaction). Killed anywhere, the same call goes on from the
last commit and ends as if nothing had happened.

The loop here is the only one that does I/O; what happens to a batch is in `batch`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from eventmig.errors import EventmigError, JobError, JobLostError, UpcastError, Where
from eventmig.events import Event
from eventmig.goal import place_of
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.ahead import one_ahead
from eventmig.migrate.batch import Transformed, Transformer
from eventmig.migrate.folding import Folding, Span
from eventmig.migrate.lanes import Turn, side_by_side
from eventmig.migrate.ledger import Job, Quarantined
from eventmig.migrate.pushdown import Pusher
from eventmig.migrate.states import State
from eventmig.stores.base import Capability, EventReader, JobTarget, TargetTransaction
from eventmig.stores.crossing import Fencing
from eventmig.stores.faster import KeepingTarget, KeepingTransaction, SharingTarget
from eventmig.stores.pushing import NotPushedError, PushingTransaction
from eventmig.transform import Pipeline

BATCH_SIZE = 5_000


class Phase(StrEnum):
    """What a progress report is about."""

    CHECKING = "checking"
    COPYING = "copying"
    INDEXING = "indexing"
    VERIFYING = "verifying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` source events (or verified ones) in this phase."""

    phase: Phase
    done: int
    total: int


OnProgress = Callable[[Progress], None]


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


Transforming = Callable[[int, int, int, bool], Iterator[Transformed]]
"""Yields transformed batches of the source: after (exclusive), until (inclusive), the end of
reading of the run before, which settled what stream steps yield, and whether the target
keeps what does not change (`Transformer`)."""


class UpcastJob:
    """One job on one target. The caller holds the target's lock as long as it uses it.

    `begin_or_resume` comes first; it raises `JobError` where the target belongs to
    another job or holds events no job wrote.
    """

    def __init__(
        self,
        source: EventReader,
        target: JobTarget,
        pipeline: Pipeline,
        setting: Setting,
        *,
        quarantine: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: OnProgress | None = None,
        transforming: Transforming | None = None,
        pusher: Pusher | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._pipeline = pipeline
        self._setting = setting
        self._quarantine = quarantine
        self._batch_size = batch_size
        self._watched = on_progress is not None
        self._report = on_progress or (lambda progress: None)
        self._transforming = transforming
        self._pusher = pusher
        self._folding = Folding()
        self.job: Job
        self.copied_bytes = 0

    def begin_or_resume(self) -> Job:
        """The target's active job if it is this one, else a new one. Call under the lock.

        A new one trusts its source: call `check_source` before.
        """
        self._check_pair()
        failpoints.reached("begin: before")
        with self._target.begin() as tx:
            ledger.create(tx.connection)
            job = ledger.active_job(tx.connection, self._target.namespace)
            if job is not None:
                self._check_same(job)
                self._check_not_ended(job)
                self.job = ledger.take_over(
                    tx.connection, job, registry_fingerprint=self._setting.registry_fingerprint
                )
                return self.job
            if self._target.count():
                raise JobError(
                    "the target holds events that no job wrote",
                    where=Where(store=self._target.url),
                    remedy="choose a target that is empty or not there yet (--target)",
                )
            self.job = ledger.begin_job(
                tx.connection,
                namespace=self._target.namespace,
                release=self._setting.release,
                steps_done=self._setting.steps_done,
                source=self._setting.source_name,
                source_identity=self._source.identity(),
                naming=self._setting.naming,
                registry_fingerprint=self._setting.registry_fingerprint,
                source_until=self._source.head_position(),
                target_position=tx.append_copied([]),
            )
            tx.defer_indexes()
        failpoints.reached("begin: after")
        return self.job

    def take_over(self) -> Job:
        """The target's job as it is, ended or not, held by this process."""
        with self._target.begin() as tx:
            job = ledger.active_job(tx.connection, self._target.namespace)
            if job is None:
                raise JobError(
                    "no job has this target",
                    where=Where(store=self._target.url),
                    remedy="begin one with `eventmig upcast`",
                )
            self._check_same(job)
            self.job = ledger.take_over(
                tx.connection, job, registry_fingerprint=job.registry_fingerprint
            )
        return self.job

    def adopt(self, job: Job) -> None:
        """Go on with a job that the caller holds: recorded elsewhere, or read anew."""
        self.job = job

    def follow(self, until: int) -> None:
        """Copy what the source holds up to `until` (inclusive), in whatever state the job is.

        Raises `UpcastError` at an event that fails, unless those are set aside.
        """
        if until > self.job.source_until:
            self._commit(lambda tx: ledger.extend(tx.connection, self.job, source_until=until))
        if self.job.source_position < self.job.source_until:
            self._copy(self.job.settled)

    def set_batch_size(self, events: int) -> None:
        """Read so many events at a time from now on."""
        self._batch_size = events

    def run(self) -> Job:
        """Copy everything up to the source's present head; returns the job as it stands then.

        Reads the source, writes the target. On an event that cannot be upcast the job
        is FAILED and the error is raised; the same call resumes.
        """
        head = self._source.head_position()
        if self.job.source_position >= self.job.source_until and head > self.job.source_until:
            self._commit(lambda tx: ledger.extend(tx.connection, self.job, source_until=head))
        try:
            if self.job.source_position < self.job.source_until:
                self._enter(State.CATCHING_UP if self.job.settled else State.BACKFILLING)
                self._copy(self.job.settled)
            elif self.job.state is State.PLANNED:
                self._enter(State.BACKFILLING)  # of an empty source
            self._build_indexes()
        except JobLostError:
            raise
        except EventmigError as error:
            self._failed(error)
            raise
        if self.job.tally.quarantined:
            count = self.job.tally.quarantined
            if self.job.state is not State.PAUSED:
                self._enter(State.PAUSED, f"{count} event{'s' if count > 1 else ''} in quarantine")
        return self.job

    def _copy(self, settled: int) -> None:
        until = self.job.source_until
        total = self._source.count(until=until) if self._watched else 0
        done = self.job.tally.read
        self._report(Progress(phase=Phase.COPYING, done=done, total=total))
        inside = self._copy_inside(self._pusher, settled) if self._pusher else ()
        for done in itertools.chain(inside, self._copy_through(settled)):
            self._report(Progress(phase=Phase.COPYING, done=done, total=total))

    def _copy_through(self, settled: int) -> Iterator[int]:
        """Every batch left, through Python; yields how many events are behind the job."""
        after, until = self.job.source_position, self.job.source_until
        if after < until:
            make = self._transforming or self._in_process
            keeping = self._in_place() and self._target_keeps()
            batches = make(after, until, settled, keeping)
            if self._transforming is None and self._by_a_server():
                batches = one_ahead(batches)
            for made in batches:
                stays = keeping and self.job.tally.even
                self._commit_batch(
                    lambda tx, made=made, stays=stays: self._write(tx, made, in_place=stays)  # type: ignore[misc]
                )
                self.copied_bytes += made.data_bytes
                yield self.job.tally.read

    def _by_a_server(self) -> bool:
        both = self._source.capabilities | self._target.capabilities
        return Capability.SERVER in both

    def _copy_inside(self, pusher: Pusher, settled: int) -> Iterator[int]:
        """Batches inside the database, as long as that can be; else as `_copy_through`.

        A batch that cannot is read from the source, and written to its own places: those
        of its events in the source, for all stayed there so far.
        """
        if not self._in_place():
            return
        until = self.job.source_until
        transformer = self.transformer(settled, self.job.source_position)
        while self.job.tally.even and self.job.source_position < until:
            lanes = side_by_side(
                pusher.targets,
                self.job.source_position,
                until,
                lambda store, turn: self._push(store, turn, pusher),
            )
            try:
                for _ in lanes:
                    pusher.counted.inside += 1
                    yield self.job.tally.read
            except NotPushedError as error:
                pusher.counted.left(str(error))
                page = next(
                    self._source.read_pages(
                        after=self.job.source_position, until=until, batch_size=self._batch_size
                    )
                )
                made = transformer.page(page)
                self._commit_batch(
                    lambda tx, made=made: self._write(tx, made, in_place=True)  # type: ignore[misc]
                )
                yield self.job.tally.read

    def _push(self, store: JobTarget, turn: Turn, pusher: Pusher) -> None:
        """One batch inside the database, in its turn."""
        failpoints.reached("batch: before")
        with store.begin() as any_tx:
            tx = cast(PushingTransaction, any_tx)
            after = turn.wait_for_place()
            extent = tx.extent(after=after, until=self.job.source_until, limit=self._batch_size)
            before = tx.take_positions(after, extent)
            turn.placed(extent.until)
            tally = pusher.take(tx, after, extent, before)
            turn.wait_to_commit()
            job = ledger.checkpoint(
                tx.connection,
                self.job,
                source_until=extent.until,
                target_until=before + tally.written,
                tally=tally,
            )
        self.job = job
        failpoints.reached("batch: after")

    def _target_keeps(self) -> bool:
        return isinstance(self._target, KeepingTarget) and self._target.keeps(self._source)

    def _in_place(self) -> bool:
        """Whether every source event has so far stayed one event at its place of its stream."""
        pipeline = self._pipeline
        if pipeline.routes or pipeline.stream_steps or pipeline.naming != "{stream}":
            return False
        if not self.job.tally.even or self._source.first_position != self._target.first_position:
            return False
        with self._target.reading() as connection:  # applications may have appended to the target
            began = ledger.began_after(connection, self.job)
            return began == 0 and not ledger.windows(connection, self.job)

    def _in_process(
        self, after: int, until: int, settled: int, keeping: bool
    ) -> Iterator[Transformed]:
        transformer = self.transformer(settled, after, keeping=keeping)
        return transformer.all(self._source, after=after, until=until, batch_size=self._batch_size)

    def transformer(
        self, settled: int = 0, written: int = 0, *, keeping: bool = False
    ) -> Transformer:
        """What turns batches into target events, reading streams up to the job's end.

        `settled` and `written` as `StreamCache` has them, `keeping` as `Transformer` does.
        """
        until = self.job.source_until

        def read_stream(stream: str) -> list[Event]:
            events = self._source.read_stream(stream)
            return [e for e in events if e.global_position <= until]

        return Transformer(
            self._pipeline,
            read_stream,
            keep_source_ids=self._source.id_scope() != self._target.id_scope(),
            quarantine=self._quarantine,
            settled=settled,
            written=written,
            keeping=keeping,
        )

    def _write(self, tx: TargetTransaction, made: Transformed, *, in_place: bool = False) -> Job:
        """`in_place`: every event written before stands where it stands in the source."""
        target_until = self.job.target_position
        if isinstance(self._target, Fencing):
            self._target.pass_fence(tx)
        if made.kept is not None:
            target_until = cast(KeepingTransaction, tx).append_kept(made.kept)
        elif made.columns.ids:
            columns = made.columns
            if in_place and made.tally.even:
                positions = [cast(int, position) for position in columns.origin_positions]
            else:
                positions = place(columns.streams, tx)
            target_until = tx.append_columns(columns, positions)
        ledger.set_aside(tx.connection, self.job, map(_aside, made.failed))
        job = ledger.checkpoint(
            tx.connection,
            self.job,
            source_until=made.until,
            target_until=target_until,
            tally=made.tally,
        )
        span = Span(
            after=self.job.source_position,
            until=made.until,
            events=made.tally.read,
            data_bytes=made.data_bytes,
        )
        for several in self._folding.wrote(span):
            ledger.fold(tx.connection, job, after=several.after, until=several.until)
        return job

    def _build_indexes(self) -> None:
        self._report(Progress(phase=Phase.INDEXING, done=0, total=1))
        failpoints.reached("indexes: before")
        with self._target.begin() as tx:
            tx.build_indexes()
        failpoints.reached("indexes: after")
        self._report(Progress(phase=Phase.INDEXING, done=1, total=1))

    def _commit_batch(self, work: Callable[[TargetTransaction], Job]) -> None:
        failpoints.reached("batch: before")
        self._commit(work)
        failpoints.reached("batch: after")

    def _commit(self, work: Callable[[TargetTransaction], Job]) -> Job:
        with self._target.begin() as tx:
            job = work(tx)
        self.job = job
        return job

    def _enter(self, state: State, reason: str = "") -> None:
        if self.job.state is not state or self.job.reason != reason:
            self._commit(lambda tx: ledger.enter(tx.connection, self.job, state, reason))

    def enter(self, state: State, reason: str = "") -> Job:
        """Put the job into a state, persisted; raises `JobError` where it may not follow."""
        self._enter(state, reason)
        return self.job

    def _failed(self, error: EventmigError) -> None:
        if isinstance(error, UpcastError) and not self._quarantine:
            error.add_note("--quarantine sets such events aside; the same command resumes the job")
        try:
            self._enter(State.FAILED, error.what)
        except EventmigError as second:
            error.add_note(f"the ledger could not be told: {second.what}")

    def retry_quarantined(self) -> list[Quarantined]:
        """Try the events set aside with the present upcasters.

        Returns those that still fail. When none does, the job goes back to just before
        the first of them, so that what follows it in its stream is written after it;
        `run` then copies from there.
        """
        with self._target.begin() as tx:
            waiting = list(ledger.quarantined(tx.connection, self.job))
        transformer = self.transformer()
        failing: list[Quarantined] = []
        for found in waiting:
            try:
                result = transformer.batch([found.event])
            except UpcastError as error:
                failing.append(_aside((found.event, error)))
                continue
            failing += map(_aside, result.failed)
        if failing or not waiting:
            return failing
        first = waiting[0].event.global_position

        def go_back(tx: TargetTransaction) -> Job:
            job = ledger.rewind(tx.connection, self.job, before=first)
            tx.truncate_after(job.target_position)
            return ledger.enter(tx.connection, job, State.BACKFILLING, "quarantine retried")

        self._commit(go_back)
        return []

    # what must hold before anything is written ----------------------------------------------

    def _check_pair(self) -> None:
        if self._source.identity() == self._target.identity():
            raise JobError(
                "the target is the source",
                where=Where(store=self._target.url),
                remedy="name another file, another set of tables (?tables=…), or new streams in "
                "the same tables (?release=… with a naming such as {stream}-{release})",
            )
        if isinstance(self._target, SharingTarget) and self._target.shares_streams(self._source):
            raise JobError(
                "source and target share streams: the job would read what it writes",
                where=Where(store=self._target.url),
                remedy="give the target a prefix of its own (?prefix=r2.), and leave that out of "
                "the source (?without=r2.)",
            )
        same_tables = self._source.id_scope() == self._target.id_scope()
        if same_tables and self._pipeline.naming == "{stream}" and not self._pipeline.routes:
            raise JobError(
                "source and target are the same tables, and the streams keep their names",
                where=Where(store=self._target.url),
                remedy="give the new streams names of their own: --naming '{stream}-{release}'",
            )

    def _check_same(self, job: Job) -> None:
        ours = {
            "release": (job.release, self._setting.release),
            "source": (job.source_identity, self._source.identity()),
            "naming": (job.naming, self._setting.naming),
            "steps the source has behind it": (job.steps_done, self._setting.steps_done),
        }
        differ = [
            f"{what}: {old} then, {new} now" for what, (old, new) in ours.items() if old != new
        ]
        if differ:
            raise JobError(
                f"this target belongs to another job ({'; '.join(differ)})",
                where=Where(store=self._target.url),
                remedy="run the command as it was begun, choose another --target, or end the "
                "old job with `eventmig cancel`",
            )
        if job.registry_fingerprint != self._setting.registry_fingerprint:
            self._check_mended(job)

    def _check_not_ended(self, job: Job) -> None:
        if job.state is State.COMPLETED:
            raise JobError(
                f"the job to release {job.release} is completed",
                where=Where(store=self._target.url),
                remedy="there is nothing left to do; a further release takes another --target",
            )

    def _check_mended(self, job: Job) -> None:
        """Changed upcasters may go on only where nothing was written with the old ones."""
        if job.tally.written and job.state not in (State.FAILED, State.PAUSED):
            raise JobError(
                "the upcasters changed since this job began",
                where=Where(store=self._target.url),
                remedy="finish it with the code it began with, or end it with "
                "`eventmig cancel` and begin anew",
            )


def check_source(source: EventReader, on_progress: OnProgress | None = None) -> None:
    """Raise the first damage of a source, before anything is made for a job. Reads only."""
    report = on_progress or (lambda progress: None)
    report(Progress(phase=Phase.CHECKING, done=0, total=1))
    for damage in source.preflight():
        raise damage
    report(Progress(phase=Phase.CHECKING, done=1, total=1))


def cancel_job(target: JobTarget, job: Job) -> int:
    """End a job and delete what it wrote; returns how many events that were.

    Call under the target's lock. Writes the target alone, and needs no upcasters.
    """
    failpoints.reached("cancel: before")
    with target.begin() as tx:
        job = ledger.take_over(tx.connection, job, registry_fingerprint=job.registry_fingerprint)
        job = ledger.rewind(tx.connection, job, before=0)
        deleted = tx.truncate_after(job.target_position)
        ledger.enter(tx.connection, job, State.CANCELLED, "cancelled by command")
        tx.build_indexes()
    failpoints.reached("cancel: after")
    return deleted


def place(streams: Sequence[str], tx: TargetTransaction) -> list[int]:
    """The stream positions of events of these streams: the last step, from the target's heads."""
    heads = tx.heads(set(streams))
    positions: list[int] = []
    for stream in streams:
        position = heads[stream] + 1
        heads[stream] = position
        positions.append(position)
    return positions


def _aside(failed: tuple[Event, UpcastError]) -> Quarantined:
    event, error = failed
    return Quarantined(
        event=event,
        what=error.what,
        remedy=error.remedy,
        where=error.where.within(place_of(event)),
    )
