"""The states of an aggregate's streams while they are folded, and the snapshots of them.

    `Gathered` ─▶ folded, stream by stream ─▶ rows of snapshots, when the caller writes

States are held in memory up to so many; one that was put out is read back from its snapshot,
which every commit brings to the last event folded. Never writes, and begins nothing anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection

from eventmig.rebuild import snapshot_rows
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.faults import handler_error
from eventmig.rebuild.gathering import Gathered, gather_whole, handled
from eventmig.rebuild.handlers import Call
from eventmig.rebuild.narrow import data_handlers
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.snapshot_rows import HEAD, SnapshotWriter


class _Folded:
    """A stream's state so far, and the last stored event folded into it."""

    __slots__ = ("event_id", "events", "position", "slot", "state")

    def __init__(self, state: Any, events: int, position: int, event_id: str, slot: int) -> None:
        self.state = state
        self.events = events
        self.position = position
        self.event_id = event_id
        self.slot = slot


class States:
    """Streams' states in one generation of snapshots, brought on page by page.

    `every`: a snapshot is due after each so many handled events, too. `from_nothing`: the
    generation has no snapshot yet, so that none need be looked for.
    """

    def __init__(
        self,
        aggregate: Aggregate[Any],
        connection: Connection,
        plan: Replay,
        generation: int,
        writer: SnapshotWriter,
        every: int | None,
        *,
        from_nothing: bool,
    ) -> None:
        self._aggregate = aggregate
        self._connection = connection
        self._plan = plan
        self._generation = generation
        self._writer = writer
        self._every = every
        self._all_here = from_nothing
        self._handlers = data_handlers(aggregate.handlers, "state") or {}
        self._states: dict[str, _Folded] = {}
        self._touched: dict[str, _Folded] = {}
        self._rows: list[tuple[Any, ...]] = []

    @property
    def due(self) -> int:
        """How many snapshots there are to be written, at most."""
        return len(self._touched) + len(self._rows)

    def fold(self, page: Gathered) -> int:
        """Bring the streams of a page on by its events; returns how many were handled.

        May read; raises `RebuildError` naming event and handler.
        """
        if not page.streams:
            return 0
        last = dict(zip(page.streams, range(len(page.streams)), strict=True))
        self._bring_in(last)
        if page.whole is None:
            try:
                events = handled(self._handlers, page)
            except Exception:  # noqa: BLE001 - whole events say what is wrong
                pages = gather_whole(self._aggregate, self._plan, page.after, page.until)
                return sum(map(self.fold, pages))
            self._call(page, events)
            folded = len(events)
        else:
            folded = self._apply(page)
        for stream, at in last.items():
            state = self._touched[stream] = self._states[stream]
            position = page.stream_positions[at]
            if self._every and position != state.position:
                self._periodic(stream, state)
            state.position, state.event_id = position, page.ids[at]
        return folded

    def rows(self) -> list[tuple[Any, ...]]:
        """The snapshots that are due now: of every stream brought on since it was settled."""
        whole = self._aggregate.category is not None  # else a stream is its own by what it folds
        self._rows.extend(
            self._row(stream, HEAD, at)
            for stream, at in self._touched.items()
            if whole or at.events
        )
        return self._rows

    def settle(self) -> None:
        """Take it that those have been written; put states out that are too many."""
        self._rows = []
        states = self._states
        for stream in self._touched:  # the last used stand last
            states[stream] = states.pop(stream)
        self._touched.clear()
        while len(states) > self._plan.max_rows:
            self._all_here = False
            del states[next(iter(states))]

    def _call(self, page: Gathered, events: Iterable[tuple[int, Call, object]]) -> None:
        states, streams, every = self._states, page.streams, self._every
        at = 0
        try:
            for at, call, value in events:
                state = states[streams[at]]
                if every and page.stream_positions[at] != state.position:
                    self._periodic(streams[at], state)
                    state.position, state.event_id = page.stream_positions[at], page.ids[at]
                state.state = call(value, state.state)
                state.events += 1
        except Exception as error:
            event = self._plan.event_at(page.global_positions[at])
            if event is None:
                raise
            names = {type_: handler.name for type_, handler in self._aggregate.handlers.items()}
            raise handler_error(error, event, names) from error

    def _apply(self, page: Gathered) -> int:
        states, every, folded = self._states, self._every, 0
        types, apply = self._aggregate.types, self._aggregate.apply
        ids = dict(zip(page.global_positions, page.ids, strict=True)) if every else {}
        for event in page.whole or ():
            if event.type not in types:
                continue
            state = states[event.stream]
            if every and event.stream_position != state.position:
                self._periodic(event.stream, state)
                state.position = event.stream_position
                state.event_id = ids[event.global_position]
            state.state = apply(state.state, event)
            state.events += 1
            folded += 1
        return folded

    def _bring_in(self, streams: Collection[str]) -> None:
        wanted = [stream for stream in streams if stream not in self._states]
        if wanted and not self._all_here:
            of = (self._connection, self._aggregate.name, self._generation, wanted)
            slots = snapshot_rows.last_slots(*of) if self._every else {}
            for found in snapshot_rows.read_heads(*of):
                self._states[found.stream] = _Folded(
                    self._aggregate.decode(found.state),
                    found.events_folded,
                    found.stream_position,
                    found.event_id,
                    slots.get(found.stream, 0),
                )
            self._connection.rollback()
        before = self._plan.source.first_position - 1
        for stream in wanted:
            if stream not in self._states:
                self._states[stream] = _Folded(None, 0, before, "", 0)

    def _periodic(self, stream: str, at: _Folded) -> None:
        """A snapshot of what was before the next stored event, when one is due."""
        if self._every and at.events // self._every > at.slot:
            at.slot = at.events // self._every
            self._rows.append(self._row(stream, at.slot, at))

    def _row(self, stream: str, slot: int, at: _Folded) -> tuple[Any, ...]:
        text = self._aggregate.encode(at.state)
        return self._writer.row(stream, slot, at.position, at.event_id, at.events, text)
