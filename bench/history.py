"""The history the benchmark runs on: the same events for the same numbers, on every machine.

About 400 bytes of data and 100 of metadata per event, in streams that grow side by side,
with ids as random as UUIDv4. Every event is at version 1.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator

import msgspec

from eventmig.events import Event
from eventmig.stores.open import open_store

SEED = 20_260_131
BATCH_SIZE = 5_000
BEGIN = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z, in microseconds

SHARES = {"ParcelShipped": 0.35, "OrderPlaced": 0.25, "PaymentReceived": 0.25, "PageViewed": 0.15}
"""Event types (with chains of 1, 3, 2 and no steps) and their shares of the events."""

_WORDS = (
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbour", "island",
    "juniper", "kelp", "lagoon", "meadow", "north", "ocean", "prairie", "quarry", "river",
    "summit", "tundra", "upland", "valley", "willow", "yarrow", "zephyr",
)  # fmt: skip
_CITIES = ("Köln", "Berlin", "Hamburg", "Zürich", "Wien", "Roma", "Lyon", "Gent")
_COUNTRIES = ("DE", "CH", "AT", "IT", "FR", "BE")


def batches(events: int, streams: int) -> Iterator[list[Event]]:
    """The history in batches, placed: global and stream positions count from 1."""
    rng = random.Random(SEED)
    names = [f"order-{_id(rng)}" for _ in range(streams)]
    customers = [_id(rng) for _ in range(streams)]
    heads = [0] * streams
    types, weights = list(SHARES), list(SHARES.values())
    encode = msgspec.json.encode
    for first in range(0, events, BATCH_SIZE):
        batch: list[Event] = []
        size = min(BATCH_SIZE, events - first)
        for number, type_ in enumerate(rng.choices(types, weights, k=size), first + 1):
            stream = rng.randrange(streams)
            heads[stream] += 1
            data = _DATA[type_](rng, customers[stream])
            metadata = {"correlation_id": _id(rng), "user": f"u{stream}", "host": "app-3", "try": 1}
            batch.append(
                Event(
                    number,
                    names[stream],
                    heads[stream],
                    _id(rng),
                    type_,
                    1,
                    encode(data),
                    encode(metadata),
                    BEGIN + number * 20_000,
                )
            )
        yield batch


def write(url: str, events: int, streams: int) -> None:
    """Make a store in the native layout and fill it with the history."""
    store = open_store(url, mode="create")
    try:
        with store.begin() as tx:
            tx.defer_indexes()
        for batch in batches(events, streams):
            with store.begin() as tx:
                tx.append_copied(batch)
        with store.begin() as tx:
            tx.build_indexes()
    finally:
        store.close()


def _order(rng: random.Random, customer: str) -> dict[str, object]:
    return {
        "order_id": _id(rng),
        "customer": customer,
        "name": f"{rng.choice(_WORDS).title()} {rng.choice(_WORDS).title()}",
        "mail": f"{rng.choice(_WORDS)}.{rng.choice(_WORDS)}@example.org",
        "status": rng.choice("NPC"),
        "total": _money(rng),
        "address": _address(rng),
        "lines": [
            {"sku": _sku(rng), "quantity": rng.randint(1, 9), "price": _money(rng)}
            for _ in range(2)
        ],
    }


def _payment(rng: random.Random, customer: str) -> dict[str, object]:
    return {
        "payment_id": _id(rng),
        "order_id": _id(rng),
        "customer": customer,
        "sum": _money(rng),
        "currency": "EUR",
        "method": rng.choice("TD"),
        "iban": f"DE{rng.randrange(10**20):020d}",
        "bic": "COBADEFFXXX",
        "reference": _sentence(rng, 5),
        "remark": _sentence(rng, 14),
    }


def _parcel(rng: random.Random, customer: str) -> dict[str, object]:
    return {
        "parcel": _id(rng),
        "order_id": _id(rng),
        "customer": customer,
        "carrier": rng.choice(_WORDS),
        "weight": str(rng.randint(100, 20_000)),
        "address": _address(rng),
        "contents": [_sku(rng) for _ in range(9)],
    }


def _page(rng: random.Random, customer: str) -> dict[str, object]:
    return {
        "customer_id": customer,
        "url": f"https://example.org/{rng.choice(_WORDS)}/{_sku(rng)}",
        "referrer": f"https://example.com/{rng.choice(_WORDS)}?q={rng.choice(_WORDS)}",
        "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "seconds": rng.randrange(10_000) / 10,
        "words": [rng.choice(_WORDS) for _ in range(16)],
    }


_DATA: dict[str, Callable[[random.Random, str], dict[str, object]]] = {
    "OrderPlaced": _order,
    "PaymentReceived": _payment,
    "ParcelShipped": _parcel,
    "PageViewed": _page,
}


def _address(rng: random.Random) -> dict[str, object]:
    return {
        "street": f"{rng.choice(_WORDS).title()}straße {rng.randint(1, 200)}",
        "postcode": f"{rng.randrange(100_000):05d}",
        "city": rng.choice(_CITIES),
        "country": rng.choice(_COUNTRIES),
    }


def _money(rng: random.Random) -> str:
    cents = rng.randrange(100, 500_000)
    return f"{cents // 100}.{cents % 100:02d}"


def _sku(rng: random.Random) -> str:
    return f"{rng.choice(_WORDS)[:3].upper()}-{rng.randrange(10**6):06d}"


def _sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))


def _id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
