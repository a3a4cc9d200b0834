"""Snapshots of one aggregate, built anew: its streams folded in global order.

    ranges of events ─▶ gathered by helpers, and by this process ─▶ folded in order (`states`)
        ─▶ snapshots + checkpoint written together

Reading and upcasting are shared out; folding, in one process, needs no state to travel: any
number of processes goes on from the checkpoint of any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from eventmig.errors import JobError, RebuildError, Where
from eventmig.rebuild import bookkeeping, snapshot_rows
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.batching import Batch
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.collector import collector_paused
from eventmig.rebuild.gathering import Gathered, gather, gather_together
from eventmig.rebuild.loading import compare_generation
from eventmig.rebuild.planning import plan_generation
from eventmig.rebuild.progress import (
    Phase,
    Progress,
    RebuildProgress,
    RebuildResult,
    events_expected,
)
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.sharing import FoldHelpers, Work, start_helpers
from eventmig.rebuild.snapshot_rows import HEAD, SnapshotWriter
from eventmig.rebuild.states import States
from eventmig.stores.faster import Count

_KIND = Kind.AGGREGATE


class SnapshotBuilding:
    """One aggregate's rebuild: planned when made, done by `run`."""

    def __init__(
        self,
        aggregate: Aggregate[Any],
        connection: Connection,
        plan: Replay,
        release: str,
        every: int | None,
        tell: Progress,
        helpers: FoldHelpers | None = None,
    ) -> None:
        self.aggregate = aggregate
        self.connection = connection
        self.plan = plan
        self.tell = tell
        self.helpers = helpers
        self.fingerprint = aggregate.fingerprint(release)
        with connection.begin():
            self.hold = bookkeeping.take(connection, _KIND, aggregate.name)
            self.planned = plan_generation(
                connection,
                self.hold,
                version=aggregate.version,
                fingerprint=f"{self.fingerprint}/{every or HEAD}",
                release=release,
                source=plan.source.identity(),
                upto=plan.upto,
                discard=lambda old: snapshot_rows.discard(connection, aggregate.name, old.number),
            )
            self.at = self.planned.generation
        if helpers is not None:
            start_helpers(helpers, self.at.position, plan.upto)
        self.expected = 0
        self._count: Count | None = None
        self.writer = SnapshotWriter(
            aggregate.name, self.at.number, self.fingerprint, connection.dialect
        )
        self.states = States(
            aggregate,
            connection,
            plan,
            self.at.number,
            self.writer,
            every,
            from_nothing=not self.at.events_read,
        )

    def run(self, sample: int | None) -> RebuildResult:
        """Fold, compare `sample` streams (None: all) with full replays, and go live."""
        with self.plan.counting() as self._count:
            self._tell(Phase.REPLAYING)
            self._replay(self._pages(self.helpers))
            self.expected = self._count.wait()
        self._count = None
        self._tell(Phase.CHECKING)
        self._check(sample)
        result = self._go_live()
        self._tell(Phase.SWAPPED)
        return result

    def _replay(self, pages: Iterable[Gathered]) -> None:
        batch = Batch(self.plan.batch_size, self.plan.max_rows)
        with collector_paused() as paused:
            for page in pages:
                folded = self.states.fold(page)
                paused.folded(page.events_read)
                self.at = replace(
                    self.at,
                    position=page.until,
                    events_read=self.at.events_read + page.events_read,
                    events_folded=self.at.events_folded + folded,
                )
                if batch.add(page.events_read, self.states.due):
                    self._commit()
                    with paused.let_run():
                        self._tell(Phase.REPLAYING)
                    batch.begin()
            if batch.pending:
                self._commit()
        if batch.pending:
            self._tell(Phase.REPLAYING)

    def _pages(self, helpers: FoldHelpers | None) -> Iterator[Gathered]:
        """What is left to be folded, in order: gathered here, and by helpers if it is much."""
        aggregate, plan, after = self.aggregate, self.plan, self.at.position
        pages = partial(gather, aggregate, plan)
        if helpers is not None:
            of = (Work.GATHER_STREAMS, aggregate.name, pages, plan, after, helpers)
            try:
                for made in gather_together(*of) or ():
                    # Page by page where they could not be gathered: errors are raised here.
                    yield from pages(made.after, made.until) if made.found is None else made.found
                    after = made.until
            except JobError:  # a helper is gone
                pass
        yield from pages(after, plan.upto)

    def _commit(self) -> None:
        rows = self.states.rows()
        with self.connection.begin():
            self.hold.fence(self.connection)
            bookkeeping.checkpoint(self.connection, self.hold, self.at)
            self.writer.write(self.connection, rows)
        self.states.settle()

    def _check(self, sample: int | None) -> None:
        name = self.aggregate.name
        if self.at.events_read != self.expected:
            raise RebuildError(
                f"the snapshots of {name} were folded from {self.at.events_read} events, and the "
                f"source holds {self.expected} of these types up to position {self.plan.upto}",
                remedy="the source was changed while it was read, or since the rebuild began; "
                "verify it, then rebuild with a release of another name, which begins anew",
            )
        found = compare_generation(
            self.aggregate,
            self.connection,
            self.at.number,
            source=self.plan.source,
            upcast=self.plan.upcast,
            fingerprint=self.fingerprint,
            sample=sample,
        )
        self.connection.rollback()
        for wrong in found.mismatches[:1]:
            raise RebuildError(
                f"{len(found.mismatches)} of {found.checked} snapshots of {name} do not lead to "
                f"the state of a full replay; the first: {wrong.reason}",
                where=Where(stream=wrong.stream, stream_position=wrong.stream_position),
                remedy="a fold must be pure, and a state must come back from JSON as it was; the "
                "live snapshots are as before",
            )

    def _go_live(self) -> RebuildResult:
        connection, hold, name = self.connection, self.hold, self.aggregate.name
        with connection.begin():
            hold.fence(connection)
            oldest = bookkeeping.generation(connection, _KIND, name, State.KEPT)
            if oldest is not None:
                snapshot_rows.discard(connection, name, oldest.number)
                bookkeeping.remove(connection, hold, oldest.number)
            live = bookkeeping.generation(connection, _KIND, name, State.LIVE)
            stale = 0
            if live is not None:
                here = live.source == self.plan.source.identity()
                mine = self.fingerprint if here else None
                stale = snapshot_rows.count_others(connection, name, live.number, mine)
                bookkeeping.become(connection, hold, live.number, State.KEPT)
            bookkeeping.checkpoint(connection, hold, self.at)
            bookkeeping.become(connection, hold, self.at.number, State.LIVE)
            streams = snapshot_rows.count(connection, name, self.at.number)
        return RebuildResult(
            name=name,
            generation=self.at.number,
            kept=None if live is None else live.number,
            position=self.at.position,
            events_read=self.at.events_read,
            events_folded=self.at.events_folded,
            rows={bookkeeping.snapshots.name: streams},
            resumed=self.planned.resumed,
            restarted=self.planned.restarted,
            stale=stale,
        )

    def _tell(self, phase: Phase) -> None:
        if self._count is not None:
            self.expected = events_expected(self._count, self.at, self.plan.upto)
        self.tell(
            RebuildProgress(
                name=self.aggregate.name,
                phase=phase,
                generation=self.at.number,
                position=self.at.position,
                upto=self.plan.upto,
                events_read=self.at.events_read,
                events_expected=self.expected,
                resumed=self.planned.resumed,
            )
        )
