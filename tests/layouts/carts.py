"""Carts that an owner's library keeps: what its programs append, and what a migration makes of it.

A program (`tests/layouts/owners/*/carts.mjs`) takes messages as JSON, and prints every stream as
the library reads it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import make_url

from eventmig import Registry, drop_event, ops, upcaster

Message: TypeAlias = dict[str, Any]
Streams: TypeAlias = dict[str, list[Message]]
Order: TypeAlias = list[list[Any]]
"""Stream, position in it and type of each message."""

_TRY_AGAIN = 75  # what a program ends with where its library was refused for a moment
_TRIES = 20

STEPS = [
    upcaster("Added", 1, ops.rename("price", "amount")),
    drop_event("Seen", 1, why="nobody reads it"),
]
REGISTRY = Registry(STEPS)
"""The events after one that is dropped get other positions."""


def history(streams: Sequence[str], *, bare: bool = False) -> list[Message]:
    """Messages of these streams in turn, with the position that each expects before itself.

    `bare`: events without data have none (else an empty object).
    """
    last = dict.fromkeys(streams, 0)
    messages = []
    for n in range(40):
        stream = streams[n * n % len(streams)] if n >= len(streams) else streams[n]
        kind = "Opened" if last[stream] == 0 else ("Added", "Seen", "Added", "Closed")[n % 4]
        data: Any = {
            "Opened": {"name": f"Zoë {n} \U0001f600", "big": 2**52 + n},
            "Added": {"price": f"{n}.50", "lines": [{"sku": "A\n1"}, None, 1.25]},
            "Seen": {"by": n},
            "Closed": None if bare else {},
        }[kind]
        metadata = {"who": f"user {n}", "trace": {"id": n}} if n % 3 else None
        messages.append(
            {
                "stream": stream,
                "type": kind,
                "data": data,
                "metadata": metadata,
                "expected": last[stream],
            }
        )
        last[stream] += 1
    return messages


def priced(stream: str, expected: int) -> Message:
    """One more message of a stream, as the application of the old release appends it."""
    return message(stream, expected) | {"data": {"price": "99.00"}}


def message(stream: str, expected: int) -> Message:
    """One more message of a stream, as the application of the new release appends it."""
    data = {"amount": "99.00"}
    return {
        "stream": stream, "type": "Added", "data": data, "metadata": None, "expected": expected,
    }  # fmt: skip


def migrated(streams: Streams) -> Streams:
    """What `REGISTRY` makes of streams, as their library must read them then."""
    out = {}
    for stream, before in streams.items():
        kept = [dict(one) for one in before if one["type"] != "Seen"]
        for position, one in enumerate(kept, 1):
            one["position"] = position
            if one["type"] == "Added":
                one["data"] = {("amount" if k == "price" else k): v for k, v in one["data"].items()}
        out[stream] = kept
    return out


def followed(order: Order) -> Order:
    """What a consumer must be handed after `REGISTRY`, of what it was handed before."""
    made: dict[str, int] = {}
    out: Order = []
    for stream, _, type_ in order:
        if type_ != "Seen":
            made[stream] = made.get(stream, 0) + 1
            out.append([stream, made[stream], type_])
    return out


class Library:
    """An installed library with one store of it, which its program finds by these variables."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._folder = folder
        self._variables = variables

    def make(self) -> None:
        """Have it make what its store lacks of tables, as it does when it is first used."""
        self._run("make")

    def append(self, messages: Sequence[Message]) -> list[int | str]:
        """Append messages, each alone; returns the position each got, or "refused"."""
        results: list[int | str] = []
        while len(results) < len(messages):
            results += self._run("append", messages[len(results) :])
        return results

    def read(self, **variables: str) -> tuple[Streams, Order]:
        """Every stream as it reads it, and what its consumer is handed, in order."""
        found = self._run("read", **variables)
        return found["streams"], found["order"]

    def _run(self, what: str, given: Sequence[Message] = (), **variables: str) -> Any:
        for _ in range(_TRIES):
            done = subprocess.run(
                ["node", "carts.mjs", what],
                cwd=self._folder,
                env=os.environ | self._variables | variables,
                input=json.dumps(list(given)),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if done.returncode != _TRY_AGAIN:
                break
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def server(url: str) -> dict[str, str]:
    """The variables by which a program in JavaScript finds a database."""
    place = make_url(url)
    host = place.query.get("host", place.host)
    return {
        "DATABASE_URL": f"postgresql:///{place.database}",
        "PGHOST": str(host),
        "PGPORT": str(place.port or 5432),
        "PGUSER": str(place.username),
        "PGPASSWORD": place.password or "unused",
        "PGDATABASE": str(place.database),
    }
