"""For applications: which side of a job is live, and a store that always is the live one.

The route is the job's own state, in the ledger beside the target: looked up, kept for a
moment, and looked up anew when a fence says that it is out of date. Nothing has to be
deployed or restarted at a cut-over; a route that is too old costs one refused append.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from eventmig.errors import ConfigError, FencedError, JobError, Where
from eventmig.events import Event, NewEvent
from eventmig.migrate import ledger
from eventmig.migrate.made_by import active_job
from eventmig.migrate.states import Side, State, live_side
from eventmig.stores.base import EventAppender, Expected, JobTarget
from eventmig.stores.crossing import Fencing
from eventmig.stores.open import open_store

T = TypeVar("T")

KEPT_S = 1.0
"""How long a route is kept before it is looked up again, in seconds."""

WAIT_S = 30.0
"""How long an append waits before a closed fence, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the application belongs now.

    `epoch` is the number of crossings so far: a later route has a higher one. `naming` is
    how streams are named on this side: `{stream}`, and `{release}` for `release`.
    """

    side: Side
    state: State
    release: str
    naming: str
    epoch: int

    def stream(self, name: str) -> str:
        """The stream's name on this side."""
        return self.naming.replace("{stream}", name).replace("{release}", self.release)


class LiveStore:
    """The live one of two stores, for an application that is migrated while it runs.

    `old` and `new` are the URLs of the job's source and target; both must be there. Reads and
    appends go to the live side, under the names that streams have there. Not for several
    threads at once: give each its own.

    `only` is for code that knows one side's schema versions: it is refused (`FencedError`) while
    the other side is live, also where that came about amid an append.
    """

    def __init__(
        self,
        old: str,
        new: str,
        *,
        only: Side | None = None,
        kept_s: float = KEPT_S,
        wait_s: float = WAIT_S,
    ):
        self._only = only
        self._stores: dict[Side, JobTarget] = {}
        self._urls = {Side.OLD: old, Side.NEW: new}
        self._kept_s = kept_s
        self._wait_s = wait_s
        self._route: Route | None = None
        self._looked_at = 0.0

    def route(self, *, fresh: bool = False) -> Route:
        """Where the application belongs; looked up anew if `fresh`, or after `kept_s` seconds.

        Raises `JobError` while only an operator can tell.
        """
        if fresh or self._route is None or time.monotonic() - self._looked_at > self._kept_s:
            self._route = look_up(self._store(Side.NEW))
            self._looked_at = time.monotonic()
        return self._route

    def append(self, stream: str, events: Sequence[NewEvent], *, expected: Expected) -> list[Event]:
        """Append to a stream on the live side, by its name in the application.

        While a crossing keeps writers out it waits, at most `wait_s` seconds, then raises
        `FencedError`. Otherwise as `EventAppender.append`.
        """

        def append(store: JobTarget, route: Route) -> list[Event]:
            return cast(EventAppender, store).append(
                route.stream(stream), events, expected=expected
            )

        return self._there(append)

    def read_stream(self, stream: str) -> Iterator[Event]:
        """A stream's events on the live side, by its name in the application."""
        route = self.route()
        return self._store(route.side).read_stream(route.stream(stream))

    def close(self) -> None:
        """Close both stores; harmless twice."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def __enter__(self) -> LiveStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _there(self, work: Callable[[JobTarget, Route], T]) -> T:
        deadline = time.monotonic() + self._wait_s
        fresh = False
        while True:
            route = self.route(fresh=fresh)
            if self._only not in (None, route.side):
                raise FencedError(
                    f"the {route.side.value} side is live, and this code is for the other",
                    where=Where(store=self._urls[route.side]),
                    remedy="let the other version of the application serve",
                )
            try:
                return work(self._store(route.side), route)
            except FencedError:
                if time.monotonic() > deadline:
                    raise
                if fresh:  # not a route that was too old: a crossing is under way
                    time.sleep(0.01)
                fresh = True

    def _store(self, side: Side) -> JobTarget:
        if side not in self._stores:
            self._stores[side] = open_store(self._urls[side], mode="write")
        return self._stores[side]


def look_up(target: JobTarget) -> Route:
    """The route as the ledger beside this target has it. Reads only.

    Raises `ConfigError` where no job has this target, `JobError` while only an operator can
    tell which side is live.
    """
    job = active_job(target)
    if job is None:
        raise ConfigError(
            "no job has this target, so nothing says which side is live",
            where=Where(store=target.url),
            remedy="name the job's own target, and begin the job before the application asks",
        )
    side = live_side(job.state)
    if side is None:
        raise JobError(
            f"which side is live only an operator can tell: {job.reason}",
            where=Where(store=target.url),
            remedy="look at `eventmig status`",
        )
    with target.reading() as connection:
        epoch = len(ledger.journal(connection, job))
    naming = job.naming if side is Side.NEW else "{stream}"
    return Route(side=side, state=job.state, release=job.release, naming=naming, epoch=epoch)


def fenced(url: str) -> bool:
    """Whether the applications of this store are shut out now. Reads only."""
    store = open_store(url)
    try:
        fence = store.fence() if isinstance(store, Fencing) else None
        return fence is not None and fence.closed
    finally:
        store.close()
