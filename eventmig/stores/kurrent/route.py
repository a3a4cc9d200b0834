"""The route of a job, published in a stream that applications read and subscribe to.

Each crossing that reached its switch has one event `RoutePublished` in the stream
`eventmig-route-…` of either side that is a KurrentDB, and `complete` adds the last one. The
ledger decides which side is live; this only says so, afterwards. An event's id follows
from what it says and its revision is exact, so a route stands there once, whoever
publishes it, and never behind a later one of its job. Clocks have no part in it.
"""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from typing import Final

from eventmig.errors import ConflictError
from eventmig.stores.crossing import PublishedRoute
from eventmig.stores.kurrent.append import Appender
from eventmig.stores.kurrent.client import Message
from eventmig.stores.kurrent.log import Log
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Location
from eventmig.stores.kurrent.wire import proposed

PUBLISHED: Final = "RoutePublished"
FORMAT: Final = 1
_IDS: Final = uuid.UUID("6b1c0a52-0f53-5d0e-8c0e-5a7a4c5f9d11")


class RouteStream:
    """The published routes of one location."""

    def __init__(self, location: Location, log: Log, appender: Appender) -> None:
        self._name = location.route_stream
        self._log = log
        self._appender = appender

    def publish(self, route: PublishedRoute) -> None:
        """`Publishing.publish`. Raises `ConflictError` where the stream was tombstoned."""
        before: int | None = None
        while True:
            last, said = self._look(route)
            if said:
                return
            try:
                self._appender.append([self._item(route, last + 1)])
                return
            except ConflictError:
                if last == before:
                    raise
                before = last  # another holder was faster: look again

    # --- below

    def _look(self, route: PublishedRoute) -> tuple[int, bool]:
        """The stream's last revision (-1: none), and whether this route or a later one is there."""
        last = -1
        with closing(self._log.of_stream_backwards(self._name)) as stored_events:
            for stored in stored_events:
                last = max(last, stored.stream_revision)
                if _covers(stored, route):
                    return last, True
        return last, False

    def _item(self, route: PublishedRoute, revision: int) -> Item:
        data = json.dumps({"format": FORMAT, **route._asdict()}, ensure_ascii=False).encode()
        id_ = str(uuid.uuid5(_IDS, f"{route.job_id}/{route.epoch}/{route.final}"))
        message = proposed(id_, PUBLISHED, "application/json", data, b"")
        return Item(self._name, revision, id_, message, len(data))


def _covers(stored: Message, route: PublishedRoute) -> bool:
    if stored.metadata["type"] != PUBLISHED:
        return False
    said = json.loads(stored.data)
    return said["job_id"] == route.job_id and (said["epoch"], said["final"]) >= (
        route.epoch,
        route.final,
    )
