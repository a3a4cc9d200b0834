"""One till: a process of one code version, which sells while its side is live.

It serves requests as an application does: reads an order's stream, decides what comes next,
and appends at the position it saw. What it is told was stored it logs, outside of the store.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eventmig.errors import ConflictError, FencedError
from eventmig.events import Event, NewEvent
from eventmig.live import LiveStore
from eventmig.migrate.states import Side

Data = dict[str, object]
OLD_CODE: list[tuple[str, int, Callable[[int], Data]]] = [
    ("OrderPlaced", 1, lambda n: {"mail": f"{n}@example.org", "cents": 100 + n}),
    ("OrderPaid", 1, lambda n: {"cents": 100 + n}),
    ("OrderSent", 1, lambda n: {"parcels": 1}),
]
NEW_CODE: list[tuple[str, int, Callable[[int], Data]]] = [
    ("OrderPlaced", 2, lambda n: {"email": f"{n}@example.org", "cents": 100 + n}),
    ("OrderPaid", 2, lambda n: {"cents": 100 + n, "currency": "EUR"}),
    ("OrderShipped", 1, lambda n: {"parcels": 1}),
]
CODE = {Side.OLD: OLD_CODE, Side.NEW: NEW_CODE}


def decide(side: Side, order: list[Event], name: str, n: int) -> NewEvent | None:
    """The order's next event by the code for this side; None for an order that is done."""
    known = {(type_, version) for type_, version, _ in CODE[side]}
    for event in order:
        if (event.type, event.schema_version) not in known:
            raise SystemExit(f"{name} cannot read {event.type} v{event.schema_version}")
    if len(order) >= len(known):
        return None
    type_, version, data = CODE[side][len(order)]
    return NewEvent(type_, json.dumps(data(n)).encode(), version, None, f"{name}-{n:06d}")


def sell(side: Side, name: str, old: str, new: str, pause_s: float) -> None:
    """Sell until the file `closing-time` is there; print the longest request (seconds)."""
    count, longest = 0, 0.0
    with (
        LiveStore(old, new, only=side, kept_s=0.2) as store,
        Path(f"{name}.log").open("a", 1) as log,
    ):
        while not Path("closing-time").exists():
            time.sleep(pause_s)
            if store.route().side is not side:
                continue  # the other code serves now
            count += 1
            began = time.monotonic()
            stream = f"order-{name}-{count // 3}"
            order = list(store.read_stream(stream))
            try:
                event = decide(side, order, name, count)
                if event is not None:
                    expected = order[-1].stream_position if order else None
                    stored = store.append(stream, [event], expected=expected)
                    log.write(f"{stored[0].id}\t{stream}\n")
            except (ConflictError, FencedError):  # the sides changed: the customer asks again
                continue
            longest = max(longest, time.monotonic() - began)
    print(f"{longest:.3f}")


if __name__ == "__main__":
    side, name, old, new, pause = sys.argv[1:]
    sell(Side(side), name, old, new, float(pause))
