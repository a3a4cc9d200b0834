"""Snapshots of one aggregate, built anew: its streams folded in global order.

States are held in memory up to `max_states`; one that was put out is read back
from its snapshot, which every commit brings to the last event folded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from eventmig.errors import RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild import bookkeeping, snapshot_rows
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.bookkeeping import Kind, State
from eventmig.rebuild.collector import collector_paused
from eventmig.rebuild.loading import compare_generation
from eventmig.rebuild.planning import plan_generation
from eventmig.rebuild.progress import Phase, Progress, RebuildProgress, RebuildResult
from eventmig.rebuild.replay import READ_AT_ONCE, Replay
from eventmig.rebuild.snapshot_rows import HEAD, SnapshotWriter

_KIND = Kind.AGGREGATE


class _Folded:
    """A stream's state so far, and the last stored event folded into it."""

    __slots__ = ("event_id", "events", "position", "slot", "state")

    def __init__(self, state: Any, events: int, position: int, event_id: str, slot: int) -> None:
        self.state = state
        self.events = events
        self.position = position
        self.event_id = event_id
        self.slot = slot


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
    ) -> None:
        self.aggregate = aggregate
        self.connection = connection
        self.plan = plan
        self.tell = tell
        self.every = every
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
        self.expected = plan.expected()
        self.writer = SnapshotWriter(
            aggregate.name, self.at.number, self.fingerprint, connection.dialect
        )
        self.states: dict[str, _Folded] = {}
        self.touched: dict[str, _Folded] = {}
        self.rows: list[tuple[Any, ...]] = []

    def run(self, sample: int | None) -> RebuildResult:
        """Fold, compare `sample` streams (None: all) with full replays, and go live."""
        self._tell(Phase.REPLAYING)
        self._replay()
        self._tell(Phase.CHECKING)
        self._check(sample)
        result = self._go_live()
        self._tell(Phase.SWAPPED)
        return result

    def _replay(self) -> None:
        pending = 0
        batches = self.plan.source.read_all(
            after=self.at.position,
            until=self.plan.upto,
            types=self.plan.types,
            batch_size=min(self.plan.batch_size, READ_AT_ONCE),
        )
        with collector_paused() as let_run:
            for stored in batches:
                folded = self._fold(stored)
                pending += len(stored)
                self.at = replace(
                    self.at,
                    position=stored[-1].global_position,
                    events_read=self.at.events_read + len(stored),
                    events_folded=self.at.events_folded + folded,
                )
                if pending >= self.plan.batch_size or len(self.touched) > self.plan.max_rows:
                    self._commit()
                    pending = 0
                    with let_run():
                        self._tell(Phase.REPLAYING)
            if pending:
                self._commit()
        if pending:
            self._tell(Phase.REPLAYING)

    def _fold(self, stored: list[Event]) -> int:
        aggregate, states, touched = self.aggregate, self.states, self.touched
        mine = stored
        if (category := aggregate.category) is not None:
            prefix = category + "-"
            mine = [e for e in stored if e.stream.startswith(prefix) or e.stream == category]
        last = {event.stream: event for event in mine}
        self._bring_in(last.keys())
        origins = {e.global_position: e.id for e in mine} if self.every else {}
        apply, types, folded = aggregate.apply, aggregate.types, 0
        for event in self.plan.upcast(mine):
            if event.type not in types:
                continue
            at = states[event.stream]
            if self.every and event.stream_position != at.position:
                self._periodic(event.stream, at)
                at.position = event.stream_position
                at.event_id = origins[event.global_position]
            at.state = apply(at.state, event)
            at.events += 1
            folded += 1
        for stream, event in last.items():
            at = touched[stream] = states[stream]
            if self.every and event.stream_position != at.position:
                self._periodic(stream, at)
            at.position, at.event_id = event.stream_position, event.id
        return folded

    def _bring_in(self, streams: Collection[str]) -> None:
        wanted = [stream for stream in streams if stream not in self.states]
        if self.at.events_read:
            name, number = self.aggregate.name, self.at.number
            for found in snapshot_rows.read_heads(self.connection, name, number, wanted):
                slot = found.events_folded // self.every if self.every else 0
                self.states[found.stream] = _Folded(
                    self.aggregate.decode(found.state),
                    found.events_folded,
                    found.stream_position,
                    found.event_id,
                    slot,
                )
            self.connection.rollback()
        for stream in wanted:
            if stream not in self.states:
                self.states[stream] = _Folded(None, 0, self.plan.source.first_position - 1, "", 0)

    def _periodic(self, stream: str, at: _Folded) -> None:
        """A snapshot of what was before the next stored event, when one is due."""
        if self.every and at.events // self.every > at.slot:
            at.slot = at.events // self.every
            self.rows.append(self._row(stream, at.slot, at))

    def _row(self, stream: str, slot: int, at: _Folded) -> tuple[Any, ...]:
        text = self.aggregate.encode(at.state)
        return self.writer.row(stream, slot, at.position, at.event_id, at.events, text)

    def _commit(self) -> None:
        rows = self.rows
        whole = self.aggregate.category is not None  # else a stream is its own by what it folds
        rows.extend(
            self._row(stream, HEAD, at) for stream, at in self.touched.items() if whole or at.events
        )
        with self.connection.begin():
            self.hold.fence(self.connection)
            bookkeeping.checkpoint(self.connection, self.hold, self.at)
            self.writer.write(self.connection, rows)
        self.rows = []
        states = self.states
        for stream in self.touched:  # the last used stand last
            states[stream] = states.pop(stream)
        self.touched.clear()
        while len(states) > self.plan.max_rows:
            del states[next(iter(states))]

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
