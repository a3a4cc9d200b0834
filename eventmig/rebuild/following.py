"""Live read models, kept up to date from the live store by the handlers that made them.

Each transaction brings one model's rows on together with its position, and begins by
making sure that both are what this process left them: a swap, a rollback or another
follower in between, and it writes nothing but goes on from where the rows are now. So
every event counts once, whoever applies it. A store that tells of its new events is
subscribed to; any other is looked at every now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine

from eventmig.errors import JobLockedError, JobLostError, RebuildError, Where
from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Generation, Kind, LiveHold, State
from eventmig.rebuild.careful import all_one_by_one
from eventmig.rebuild.hold import held
from eventmig.rebuild.progress import DataUpcaster, SourceTypes, Upcast
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, replay
from eventmig.stores.base import EventReader
from eventmig.stores.faster import Subscribing, Subscription

_KIND = Kind.READ_MODEL
_TASK = "kept up to date"
_BATCH = 5_000  # stored events per transaction: readers wait for no longer than that takes
_PAUSE = 0.2  # seconds between two looks at a store with nothing new
_STANDBY = 1.0  # seconds between two attempts to become the leader


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How far a read model's live rows are: `position` is the last event's, or where it began.

    `events` are those applied by this call.
    """

    name: str
    generation: int
    position: int
    events: int


OnFollowed = Callable[[Followed], None]


def bring_up_to_date(
    models: Sequence[ReadModel],
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    source_types: SourceTypes | None = None,
    data_upcaster: DataUpcaster | None = None,
    on_commit: OnFollowed | None = None,
) -> list[Followed]:
    """Apply what the store holds beyond the live rows of these models, to its head as it is now.

    Reads `source`, writes the live tables in `engine`'s database, rows and position in one
    transaction. Raises `RebuildError` for a model that has no live rows of this source made
    by these handlers, and for an event that cannot be handled; `JobLockedError` while
    another process keeps one of them up to date.
    """
    followers = [
        _Follower(model, source, upcast, source_types, data_upcaster, on_commit or _quiet)
        for model in models
    ]
    with held(engine, _KIND, [model.name for model in models], _TASK), engine.connect() as c:
        return [follower.bring_on(c, source.head_position()) for follower in followers]


def follow(
    models: Sequence[ReadModel],
    *,
    source: EventReader,
    upcast: Upcast,
    engine: Engine,
    stop: Callable[[], bool],
    source_types: SourceTypes | None = None,
    data_upcaster: DataUpcaster | None = None,
    on_commit: OnFollowed | None = None,
    on_standby: Callable[[], None] | None = None,
) -> list[Followed]:
    """`bring_up_to_date` again and again, until `stop` says so.

    One process leads; another that is called meanwhile stands by (`on_standby` is told once),
    and takes over when the leader ends or dies. A rebuild may run at the same time: after
    its swap the new rows are brought on. Raises as `bring_up_to_date`, but for the lock.
    """
    followers = [
        _Follower(model, source, upcast, source_types, data_upcaster, on_commit or _quiet)
        for model in models
    ]
    told = False
    while not stop():
        try:
            with held(engine, _KIND, [model.name for model in models], _TASK):
                _lead(followers, source, engine, stop)
        except JobLockedError:
            if not told and on_standby is not None:
                on_standby()
            told = True
            time.sleep(_STANDBY)
    return [follower.done for follower in followers if follower.done is not None]


def _lead(
    followers: Sequence[_Follower], source: EventReader, engine: Engine, stop: Callable[[], bool]
) -> None:
    with engine.connect() as connection:
        head = source.head_position()
        for follower in followers:
            follower.bring_on(connection, head)
        with _subscribed(source, head) as told:
            while not stop():
                before, head = [follower.done for follower in followers], told.position()
                if before == [follower.bring_on(connection, head) for follower in followers]:
                    told.wait(after=head, timeout_s=_PAUSE)


@contextmanager
def _subscribed(source: EventReader, after: int) -> Iterator[Subscription]:
    """The store's subscription, or what looks at its head instead."""
    if isinstance(source, Subscribing):
        with source.subscribed(after=after) as subscription:
            yield subscription
    else:
        yield _Looking(source)


class _Looking:
    """A subscription to a store that has none: its head is looked at (`Subscription`)."""

    def __init__(self, source: EventReader) -> None:
        self._source = source

    def position(self) -> int:
        return self._source.head_position()

    def wait(self, *, after: int, timeout_s: float) -> None:
        time.sleep(timeout_s)


def _quiet(_: Followed) -> None:
    return None


class _Follower:
    """One model's live rows, and what brings them on."""

    def __init__(
        self,
        model: ReadModel,
        source: EventReader,
        upcast: Upcast,
        source_types: SourceTypes | None,
        data_upcaster: DataUpcaster | None,
        tell: OnFollowed,
    ) -> None:
        self._model = model
        self._tell = tell
        self._events = 0
        self._plan = Replay(
            source=source,
            upcast=upcast,
            types=None if source_types is None else frozenset(source_types(model.types)),
            upto=0,
            batch_size=_BATCH,
            max_rows=_BATCH * 4,
            data_upcaster=data_upcaster,
        )
        self._through = (0, 0, -1)  # generation, its position, and the head it was brought to
        self.done: Followed | None = None

    def bring_on(self, connection: Connection, head: int) -> Followed:
        """Apply everything up to a global position (inclusive)."""
        while True:
            try:
                self.done = self._bring_on(connection, head)
            except JobLostError:  # swapped meanwhile: go on with the rows that are live now
                connection.rollback()
                continue
            return self.done

    def _bring_on(self, connection: Connection, head: int) -> Followed:
        live = self._live(connection)
        number, position, through = self._through
        if (number, position) == (live.number, live.position) and head <= through:
            return self._followed(live)
        plan = replace(self._plan, upto=head)
        hold = LiveHold(
            kind=_KIND, name=self._model.name, number=live.number, position=live.position
        )
        parts = (self._model, self._model.tables, connection, hold, live, plan)
        for at in all_one_by_one(*parts) if self._model.runs_sql else replay(*parts):
            hold.position = at.position
            self._events += at.events_read - live.events_read
            live = at
            self._tell(self._followed(at))
        self._through = (live.number, live.position, head)
        return self._followed(live)

    def _followed(self, at: Generation) -> Followed:
        return Followed(
            name=self._model.name,
            generation=at.number,
            position=at.position,
            events=self._events,
        )

    def _live(self, connection: Connection) -> Generation:
        """The live generation; raises `RebuildError` where these handlers cannot go on with it."""
        model = self._model
        live = None
        if bookkeeping.is_there(connection):
            live = bookkeeping.generation(connection, _KIND, model.name, State.LIVE)
        connection.rollback()
        if live is None:
            reason = "has no live rows yet"
        elif bookkeeping.is_outdated(live.source, self._plan.source.identity()):
            reason = (
                "has live rows whose position counts in tables that changed names in a cut-over: "
                "other events stand at it now"
            )
        elif live.source != self._plan.source.identity():
            reason = "has live rows of another source"
        elif live.fingerprint != model.fingerprint:
            reason = "has live rows that other handlers, tables or another version made"
        else:
            return live
        raise RebuildError(
            f"the read model {model.name} {reason}",
            where=Where(path=model.name),
            remedy=f"run `eventmig rebuild {model.name}` first",
        )
