"""KurrentDB: reading, appending, a whole job, beside one append per event on the same server.

Against the tests' own server, in a process of its own; with EVENTMIG_TEST_KURRENTDB against
that one. The tests' server is slower than a real one, so besides the rates of the clock
there are those of this process's own CPU time: what one core of the client can do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.figures import Figure
from eventmig import Registry, commands, ops, upcaster
from eventmig.config import Config
from eventmig.events import Event, NewEvent
from eventmig.project import Project
from eventmig.release import Lock
from eventmig.stores.kurrent.append import Appender
from eventmig.stores.kurrent.client import Connection
from eventmig.stores.kurrent.items import new_item
from eventmig.stores.kurrent.url import locate
from eventmig.stores.open import open_store

EVENTS = 20_000
ONE_BY_ONE = 1_000
CAPACITY = 20.0  # thousand events per second of one core, aimed at
_DATA = b'{"name":"' + b"x" * 380 + b'","n":1}'
_METADATA = b'{"causation_id":"5f2f34b8-3c0f-4a43-a1a7-1f5b3c2d7f60","user":"ada"}'


def kurrentdb(folder: Path, at_most: int) -> list[Figure]:
    """The figures of one run; streams are left behind on a server that is not ours."""
    history, count = folder / "kurrentdb.db", min(EVENTS, at_most)
    _write(history, count)
    with _server() as url:
        figures: list[Figure] = []
        one = _one_by_one(_fresh(url))
        for order in ("global", "stream"):
            its = _project(folder, f"sqlite:///{history}", f"{_fresh(url)}&order={order}")
            rate, cpu = _timed(count, partial(commands.upcast, its, verify=False))
            figures += [
                _figure(f"job into KurrentDB, order={order}", rate, "one append each", one, 10.0),
                _figure(f"order={order}, per CPU second of the client", cpu, "aim", CAPACITY, 1.0),
            ]
        read = open_store(its.config.target or "")
        rate, cpu = _timed(count, lambda: [None for _ in read.read_all()])
        read.close()
        figures += [
            _figure("read from KurrentDB", rate, "one append each", one, None),
            _figure("read, per CPU second of the client", cpu, "aim", CAPACITY, 1.0),
        ]
        return figures


def _one_by_one(url: str) -> float:
    """One request per event, each waited for: thousand events per second."""
    location = locate(url)
    connection = Connection(location)
    appender = Appender(connection)
    new = NewEvent("Opened", _DATA, metadata=_METADATA)

    def work() -> None:
        for n in range(ONE_BY_ONE):
            appender.append([new_item(location, f"s-{n}", 0, new)])

    rate, _ = _timed(ONE_BY_ONE, work)
    connection.close()
    return rate


def _write(path: Path, count: int) -> None:
    store = open_store(f"sqlite:///{path}", mode="create")
    heads: dict[str, int] = {}
    events = []
    for n in range(count):
        stream = f"cart-{n * 7919 % (count // 20)}"
        heads[stream] = heads.get(stream, 0) + 1
        type_ = "Opened" if n % 2 else "Plain"
        at = 1_600_000_000_000_000 + n
        id_ = str(uuid.UUID(int=n))
        events.append(Event(0, stream, heads[stream], id_, type_, 1, _DATA, _METADATA, at))
    with store.begin() as tx:
        tx.append_copied(events)
    store.close()


def _project(folder: Path, source: str, target: str) -> Project:
    registry = Registry([upcaster("Opened", 1, ops.rename("name", "title"))])
    config = Config.model_validate({"folder": folder, "source": source, "target": target})
    return Project(config, registry, Lock().with_release(registry.freeze("2")))


def _timed(events: int, work: Callable[[], object]) -> tuple[float, float]:
    """Thousand events per second: of the clock, and of this process's CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return (
        events / (time.perf_counter() - clock) / 1e3,
        events / (time.process_time() - cpu) / 1e3,
    )


def _figure(
    what: str, rate: float, reference: str, reference_rate: float, target: float | None
) -> Figure:
    return Figure(
        name="kurrentdb",
        what=what,
        rate=rate,
        reference=reference,
        reference_rate=reference_rate,
        ratio=rate / reference_rate,
        target=target,
    )


def _fresh(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}prefix=bench-{uuid.uuid4().hex[:12]}."


@contextmanager
def _server() -> Iterator[str]:
    if given := os.environ.get("EVENTMIG_TEST_KURRENTDB"):
        yield given
        return
    command = [sys.executable, "-m", "tests.kurrent_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
