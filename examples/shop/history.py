"""The history of the shop's first release: seeded, so that it is the same everywhere.

    for event in generate(100_000):         # values
        ...
    write("sqlite:///history.db")           # the same, into a new store

Customers' stories overlap, so their streams are interleaved as in a live store. Over
the years, newer versions of some events were deployed: the older ones are still there,
with what they lacked. The shelves are counted by somebody else's program, whose events
no registry knows.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from uuid import UUID

from eventmig import Event
from eventmig.errors import StoreError, Where
from eventmig.stores.open import open_store
from examples.shop.life import BEGIN, DAY, Life
from examples.shop.words import GOODS

YEARS = 900 * DAY
"""How long the history is, about."""
_EVENTS_OF_A_LIFE = 26
_BATCH = 5_000


def generate(events: int = 100_000, seed: int = 1) -> Iterator[Event]:
    """The first `events` events of a history of about two and a half years, in global order.

    Stream and global positions count from 1. Equal arguments yield equal bytes: all
    times and ids come from the seed. Holds no more than the customers who are still
    active, and a number for each stream.
    """
    heads: Counter[str] = Counter()
    for position, event in enumerate(islice(_woven(events, seed), events), 1):
        heads[event.stream] += 1
        yield event._replace(global_position=position, stream_position=heads[event.stream])


def write(
    store_url: str,
    events: int = 100_000,
    *,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Make a store with this history in it; returns the number of events.

    `progress` is called with the number written so far, after each batch. Raises
    `StoreError` where there are events already.
    """
    written = 0
    with open_store(store_url, mode="create") as store:
        if store.head_position():
            raise StoreError(
                "there are events in this store already",
                where=Where(store=store_url),
                remedy="name another file, or remove this one",
            )
        history = generate(events, seed)
        while batch := list(islice(history, _BATCH)):
            with store.begin() as transaction:
                transaction.append_copied(batch)
            written += len(batch)
            if progress is not None:
                progress(written)
    return written


def _woven(events: int, seed: int) -> Iterator[Event]:
    """All stories, by time; a new customer comes when it is their time."""
    random = Random(f"{seed}/customers")
    apart = YEARS * _EVENTS_OF_A_LIFE // max(events, _EVENTS_OF_A_LIFE)
    active: list[tuple[int, int, Event, Iterator[Event]]] = []
    _follow(active, 0, _counting(seed))
    number, born = 1, BEGIN
    while True:
        while not active or born <= active[0][0]:
            _follow(active, number, Life(number, seed=seed, born=born).story())
            number += 1
            born += random.randrange(apart // 2, apart * 3 // 2)
        _, who, event, story = heapq.heappop(active)
        yield event
        _follow(active, who, story)


def _follow(
    active: list[tuple[int, int, Event, Iterator[Event]]], who: int, story: Iterator[Event]
) -> None:
    event = next(story, None)
    if event is not None:
        heapq.heappush(active, (event.recorded_at, who, event, story))


def _counting(seed: int) -> Iterator[Event]:
    """Once a month the shelves are counted; a scale says 1.10 and means it."""
    random = Random(f"{seed}/shelves")
    now = BEGIN + DAY
    while True:
        for good in GOODS:
            now += 60_000_000
            weight = f"{random.randrange(1, 400)}.{random.randrange(10)}0"
            yield Event(
                0,
                f"stock-{good.sku}",
                0,
                str(UUID(int=random.getrandbits(128), version=4)),
                "StockCounted",
                1,
                f'{{"sku": "{good.sku}", "weight_kg": {weight}, '
                f'"ean": {random.randrange(10**19, 10**20)}, "by": "\\u00c5sa"}}'.encode(),
                None,
                now,
            )
        now += 30 * DAY
