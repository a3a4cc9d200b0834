"""A store in use: does a follower keep up, and how long do writers stand still at a cut-over?

A process of its own appends at a fixed pace, 50 events at a time, while this one follows;
then the application is taken across with writers writing. On SQLite, and on the PostgreSQL
that EVENTMIG_TEST_POSTGRES names (into a fresh schema, which is dropped at the end).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from bench.figures import Figure
from eventmig import Registry, commands, ops, upcaster
from eventmig.config import Config
from eventmig.events import NewEvent
from eventmig.migrate.follow import Follower
from eventmig.project import Project
from eventmig.release import Lock
from eventmig.stores.base import EventAppender
from eventmig.stores.open import open_store

PACE = 2_000  # appended events a second
SECONDS = 8.0  # at the most; as many as the pace needs for the events of the run
STILL = 1.0  # second that writers may stand still, at the most
_WRITER = """
import sys, time
from eventmig.errors import FencedError
from eventmig.events import NewEvent
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store

url, pace, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
data = b'{"name":"' + b"x" * 380 + b'","n":1}'
store, began, count = open_store(url, mode="write"), time.monotonic(), 0
try:
    while (spent := time.monotonic() - began) < seconds:
        if count > spent * pace:
            time.sleep(0.001)
            continue
        events = [NewEvent("Opened", data)] * 50
        store.append(f"cart-{count // 50 % 500}", events, expected=ANY)
        count += 50
except FencedError:
    pass
print(count, time.monotonic() - began)
"""


def live(folder: Path, events: int) -> tuple[list[Figure], list[str]]:
    """The figures, and what is worth saying beside them."""
    seconds = min(SECONDS, events / PACE)
    found, notes = _measured("SQLite", folder, seconds, f"sqlite:///{folder}/live.db", "live-2.db")
    url = os.environ.get("EVENTMIG_TEST_POSTGRES")
    if url is None:
        return found, [*notes, "following on PostgreSQL was not measured: no server is named"]
    name = f"live_{uuid.uuid4().hex[:8]}"
    mark = "&" if "?" in url else "?"
    ours = f"{url}{mark}schema={name}"
    try:
        more, said = _measured("PostgreSQL", folder, seconds, ours, f"{ours}&tables=v2_")
    finally:
        _drop(url, name)
    return found + more, notes + said


def _drop(url: str, schema: str) -> None:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.schema import DropSchema

    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(DropSchema(schema, cascade=True, if_exists=True))
    engine.dispose()


def _measured(
    kind: str, folder: Path, seconds: float, source: str, target: str
) -> tuple[list[Figure], list[str]]:
    registry = Registry([upcaster("Opened", 1, ops.rename("name", "title"))])
    target = target if "://" in target else f"sqlite:///{folder}/{target}"
    config = Config.model_validate({"folder": folder, "source": source, "target": target})
    its = Project(config, registry, Lock().with_release(registry.freeze("2")))
    store = open_store(source, mode="create")
    cast(EventAppender, store).append(
        "cart-0", [NewEvent("Opened", b'{"name":"x"}')], expected=None
    )
    store.close()
    commands.upcast(its)
    appended, copied, took = _followed(its, source, seconds)
    with _writing(source, PACE / 2, 60.0):
        time.sleep(1.0)
        report = commands.cutover(its)
    pace = Figure(
        name="live",
        what=f"{kind}: followed while it was appended",
        rate=copied / took / 1e3,
        reference=f"appended, {PACE:,} a second asked for",
        reference_rate=appended / took / 1e3,
        ratio=copied / appended,
        target=0.95,
        peak_mb=None,
    )
    note = (
        f"{kind}: a cut-over with {PACE // 2:,} events a second and {report.lag_events:,} events "
        f"of lag kept writers out for {report.stood_still_s:.3f} s (aim: below {STILL:g} s)"
    )
    return [pace], [note]


def _followed(its: Project, source: str, seconds: float) -> tuple[int, int, float]:
    """Appended and copied events by the moment the writer ended, and the seconds it took."""
    with commands.holding.held(its) as (sides, target):
        follower = Follower(sides, target, poll_s=0.05)
        before = sides.job.tally.read
        with _writing(source, PACE, seconds) as writer:
            while writer.poll() is None:
                follower.round()
            copied = sides.job.tally.read - before
            count, took = writer.communicate()[0].split()
        return int(count), copied, float(took)


@contextmanager
def _writing(url: str, pace: float, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _WRITER, url, str(pace), str(seconds)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield writer
    finally:
        writer.kill()
        writer.wait()
        if writer.stdout is not None:
            writer.stdout.close()
