"""The path of a batch: source → pipeline → target, or inside the database that has both.

What it guarantees: the source is only read; a batch, its checkpoint and its share of the
accounting commit in one transaction of the target; every target event has its place from the
target's own heads. Killed anywhere, the next process goes on from the last commit.

The loop here is the only one of a job that does I/O on events. What happens to a batch on its
way is in `batch`, through Python, and in `pushdown`, inside the database.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import cast

from eventmig.events import Event
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.ahead import one_ahead
from eventmig.migrate.batch import Transformed, Transformer
from eventmig.migrate.folding import Folding, Span
from eventmig.migrate.held import HeldJob
from eventmig.migrate.lanes import Turn, side_by_side
from eventmig.migrate.ledger import Job, Quarantined
from eventmig.migrate.pushdown import Pusher
from eventmig.stores.base import Capability, JobTarget, TargetTransaction
from eventmig.stores.crossing import Fencing
from eventmig.stores.faster import KeepingTarget, KeepingTransaction
from eventmig.stores.pushing import NotPushedError, PushingTransaction

Transforming = Callable[[int, int, int, bool], Generator[Transformed, None, None]]
"""Yields transformed batches of the source: after (exclusive), until (inclusive), the end of
reading of the run before, which settled what stream steps yield, and whether the target
keeps what does not change (`Transformer`)."""


class Copying:
    """What copies a held job's batches, and moves its record on with each.

    `batch_size` events are read at a time; it may change between two batches. With
    `quarantine`, events that cannot be upcast are set aside. `transforming` makes the batches
    elsewhere than in this process, `pusher` takes over inside the database what it can.
    """

    def __init__(
        self,
        held: HeldJob,
        *,
        quarantine: bool,
        batch_size: int,
        transforming: Transforming | None,
        pusher: Pusher | None,
    ) -> None:
        self.batch_size = batch_size
        self._held = held
        self._source = held.source
        self._target = held.target
        self._pipeline = held.pipeline
        self._quarantine = quarantine
        self._transforming = transforming
        self._pusher = pusher
        self._folding = Folding()

    def batches(self) -> Generator[int, None, None]:
        """Commit every batch up to the job's end of reading.

        Yields after each how many bytes of data of it went through Python.
        """
        settled = self._held.job.settled
        if self._pusher is not None:
            yield from self._inside(self._pusher, settled)
        yield from self._through(settled)

    # through Python -------------------------------------------------------------------------

    def _through(self, settled: int) -> Generator[int, None, None]:
        """Every batch left; whatever ends it, nothing is read any more then."""
        job = self._held.job
        after, until = job.source_position, job.source_until
        if after < until:
            make = self._transforming or self._in_process
            keeping = self._in_place() and self._target_keeps()
            batches = make(after, until, settled, keeping)
            if self._transforming is None and self._by_a_server():
                batches = one_ahead(batches)
            with closing(batches):
                for made in batches:
                    self._commit(made, in_place=keeping and self._held.job.tally.even)
                    yield made.data_bytes

    def _in_process(
        self, after: int, until: int, settled: int, keeping: bool
    ) -> Generator[Transformed, None, None]:
        transformer = self.transformer(settled, after, keeping=keeping)
        return transformer.all(self._source, after=after, until=until, batch_size=self.batch_size)

    def transformer(
        self, settled: int = 0, written: int = 0, *, keeping: bool = False
    ) -> Transformer:
        """What turns batches into target events, reading streams up to the job's end.

        `settled` and `written` as `StreamCache` has them, `keeping` as `Transformer` does.
        """
        until = self._held.job.source_until

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

    def _by_a_server(self) -> bool:
        both = self._source.capabilities | self._target.capabilities
        return Capability.SERVER in both

    def _target_keeps(self) -> bool:
        return isinstance(self._target, KeepingTarget) and self._target.keeps(self._source)

    def _in_place(self) -> bool:
        """Whether every source event has so far stayed one event at its place of its stream."""
        pipeline, job = self._pipeline, self._held.job
        if pipeline.routes or pipeline.stream_steps or pipeline.naming != "{stream}":
            return False
        if not job.tally.even or self._source.first_position != self._target.first_position:
            return False
        with self._target.reading() as connection:  # applications may have appended to the target
            began = ledger.began_after(connection, job)
            return began == 0 and not ledger.windows(connection, job)

    def _commit(self, made: Transformed, *, in_place: bool) -> None:
        failpoints.reached("batch: before")
        self._held.commit(lambda tx: self._write(tx, made, in_place=in_place))
        failpoints.reached("batch: after")

    def _write(self, tx: TargetTransaction, made: Transformed, *, in_place: bool) -> Job:
        """`in_place`: every event written before stands where it stands in the source."""
        before = self._held.job
        target_until = before.target_position
        if isinstance(self._target, Fencing):
            self._target.pass_fence(tx)
        if made.kept is not None:
            target_until = cast(KeepingTransaction, tx).append_kept(made.kept)
        elif made.columns.ids:
            columns = made.columns
            if in_place and made.tally.even:
                positions = [cast(int, position) for position in columns.origin_positions]
            else:
                positions = _places(columns.streams, tx)
            target_until = tx.append_columns(columns, positions)
        ledger.set_aside(tx.connection, before, (Quarantined.of(*one) for one in made.failed))
        job = ledger.checkpoint(
            tx.connection,
            before,
            source_until=made.until,
            target_until=target_until,
            tally=made.tally,
        )
        span = Span(
            after=before.source_position,
            until=made.until,
            events=made.tally.read,
            data_bytes=made.data_bytes,
        )
        for several in self._folding.wrote(span):
            ledger.fold(tx.connection, job, after=several.after, until=several.until)
        return job

    # inside the database --------------------------------------------------------------------

    def _inside(self, pusher: Pusher, settled: int) -> Generator[int, None, None]:
        """Batches as long as that can be; what is left then goes through Python.

        A batch that cannot is read from the source, and written to its own places: those
        of its events in the source, for all stayed there so far.
        """
        if not self._in_place():
            return
        held = self._held
        until = held.job.source_until
        transformer = self.transformer(settled, held.job.source_position)
        while held.job.tally.even and held.job.source_position < until:
            lanes = side_by_side(
                pusher.targets,
                held.job.source_position,
                until,
                lambda store, turn: self._push(store, turn, pusher),
            )
            try:
                for _ in lanes:
                    pusher.counted.inside += 1
                    yield 0
            except NotPushedError as error:
                pusher.counted.left(str(error))
                page = next(
                    self._source.read_pages(
                        after=held.job.source_position, until=until, batch_size=self.batch_size
                    )
                )
                made = transformer.page(page)
                self._commit(made, in_place=True)
                yield made.data_bytes

    def _push(self, store: JobTarget, turn: Turn, pusher: Pusher) -> None:
        """One batch, in its turn."""
        failpoints.reached("batch: before")
        with store.begin() as any_tx:
            tx = cast(PushingTransaction, any_tx)
            after = turn.wait_for_place()
            until = self._held.job.source_until
            extent = tx.extent(after=after, until=until, limit=self.batch_size)
            before = tx.take_positions(after, extent)
            turn.placed(extent.until)
            tally = pusher.take(tx, after, extent, before)
            turn.wait_to_commit()
            job = ledger.checkpoint(
                tx.connection,
                self._held.job,
                source_until=extent.until,
                target_until=before + tally.written,
                tally=tally,
            )
        self._held.adopt(job)
        failpoints.reached("batch: after")


def _places(streams: Sequence[str], tx: TargetTransaction) -> list[int]:
    """The stream positions of events of these streams: the last step, from the target's heads."""
    heads = tx.heads(set(streams))
    positions: list[int] = []
    for stream in streams:
        position = heads[stream] + 1
        heads[stream] = position
        positions.append(position)
    return positions
