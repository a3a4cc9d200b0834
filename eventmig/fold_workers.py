"""More processes that work on ranges of events in a rebuild, beside the one that writes.

Each gets its order on standard input, loads the same configuration, makes sure that it has
the same registry and projections, and answers each range it is given: a read model's with
what it comes to, an aggregate's with its events, upcast.
It reads only, and ends when its parent does: by the pipes that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import gc
import json
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, BinaryIO

from sqlalchemy import make_url

from eventmig.config import FILE, Config
from eventmig.errors import ConfigError, EventmigError, JobError
from eventmig.processes import CALM, Order
from eventmig.project import Project, opened
from eventmig.rebuild import gathering, ranges
from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.bookkeeping import Kind
from eventmig.rebuild.narrow import data_handlers
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay
from eventmig.rebuild.sharing import Answer, Work
from eventmig.registry import Registry
from eventmig.release import format_lock, parse_lock
from eventmig.stores.base import EventReader

_CHILD = "import gc; gc.disable(); from eventmig.fold_workers import child_main; child_main()"
_READY, _DONE, _CANNOT = 0, 1, 2
_HEAD = struct.Struct(">4q")  # kind, ticket, last global position, length of the message

Working = Callable[[int, int], "tuple[int, bytes] | None"]
"""What makes an answer of a range (after, until), and up to where; None where it cannot."""


@contextlib.contextmanager
def fold_processes(
    project: Project,
    projections: Sequence[ReadModel | Aggregate[Any]],
    *,
    count: int,
    source: str,
    max_rows: int,
) -> Iterator[FoldProcesses]:
    """`count` processes that fold or gather these projections' events of the store behind a URL.

    They run from when they are first asked for to the end of the block. Raises
    `ConfigError` where they could not load the same.
    """
    if project.given_registry is not None:
        raise ConfigError(
            "a second worker can only load a registry that the configuration names",
            remedy=f'name it in {FILE} (registry = "module:object"), or use one worker',
        )
    order = {
        "config": project.config.model_dump(mode="json", by_alias=True)
        | {"folder": str(project.config.folder)},
        "lock": format_lock(project.lock),
        "source": source,
        "max_rows": max_rows,
        "registry_fingerprint": project.registry.fingerprint(),
        "projections": [_marked(one) for one in projections],
        "path": [p for p in sys.path if p],
    }
    processes = FoldProcesses(count, json.dumps(order).encode())
    try:
        yield processes
    finally:
        processes.end()


def behind_server(url: str) -> bool:
    """Whether another process makes the pages of this store: then they are read ahead."""
    return make_url(url).get_backend_name() != "sqlite"


class FoldProcesses:
    """The parent's side: orders out, answers in (see `sharing.FoldHelpers`)."""

    def __init__(self, count: int, order: bytes) -> None:
        self.count = count
        self._order = order
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._ready = [False] * count
        self._tickets = 0
        self._received: queue.Queue[Answer | int] = queue.Queue()  # a number: a helper that ended

    def ready(self, helper: int) -> bool:
        if not self._children:
            self._start()
        return self._ready[helper]

    def ask(self, helper: int, work: Work, name: str, after: int, until: int) -> int:
        self._tickets += 1
        pipe = self._children[helper].stdin
        assert pipe is not None
        _write_line(pipe, json.dumps([self._tickets, work, name, after, until]).encode())
        return self._tickets

    def answer(self, *, wait: bool) -> Answer | None:
        try:
            found = self._received.get(block=wait)
        except queue.Empty:
            return None
        if isinstance(found, int):
            self._ready[found] = False
            raise JobError(
                f"a worker ended early (exit code {self._children[found].wait()})",
                remedy="run the same command again: it resumes; if it comes back, use --workers 1",
            )
        return found

    def end(self) -> None:
        """End the processes; harmless where none was started."""
        for child in self._children:
            child.kill()
            child.wait()
        for thread in self._threads:
            thread.join()
        for child in self._children:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()

    def _start(self) -> None:
        for number in range(self.count):
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert child.stdin is not None
            self._children.append(child)
            _write_line(child.stdin, self._order)
            thread = threading.Thread(target=self._receive, args=(number, child), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _receive(self, helper: int, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with child.stdout as pipe:
            while len(head := pipe.read(_HEAD.size)) == _HEAD.size:
                kind, ticket, reached, size = _HEAD.unpack(head)
                message = pipe.read(size)
                if len(message) < size:
                    break
                if kind == _READY:
                    self._ready[helper] = True
                else:
                    made = message if kind == _DONE else None
                    self._received.put(Answer(helper, ticket, reached, made))
        self._received.put(helper)


def _marked(one: ReadModel | Aggregate[Any]) -> list[str]:
    """A projection's kind, name and fingerprint."""
    if isinstance(one, ReadModel):
        return [Kind.READ_MODEL, one.name, one.fingerprint]
    return [Kind.AGGREGATE, one.name, one.fingerprint("")]


def _write_line(pipe: IO[bytes], line: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the end of its answers says so
        pipe.write(line + b"\n")
        pipe.flush()


# in the child --------------------------------------------------------------------------------


def child_main() -> None:
    """The child: its order and ranges on standard input, its answers on standard output."""
    out = sys.stdout.buffer
    sys.stdout = sys.stderr
    line = sys.stdin.readline()
    if not line:
        return
    order = json.loads(line)
    sys.path[:] = order["path"]
    config = Config.model_validate(order["config"])
    project = Project(config, given_lock=parse_lock(order["lock"]))
    registry = project.registry
    gc.freeze()  # what is imported by now stays
    gc.set_threshold(*CALM)
    gc.enable()
    known = {tuple(_marked(one)): one for one in project.projections}
    wanted = [*map(tuple, order["projections"])]
    same = registry.fingerprint() == order["registry_fingerprint"]
    if not same or not known.keys() >= {*wanted}:
        raise SystemExit("the code has changed just now: run the same command again, it resumes")
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt), opened(order["source"]) as source:
        works: dict[tuple[str, str], Working] = {}
        for kind, name, mark in wanted:
            works |= _works(known[kind, name, mark], source, registry, order)
        _send(out, _READY, 0, 0, b"")
        for line in sys.stdin:
            ticket, work, name, after, until = json.loads(line)
            made = works[work, name](after, until)
            if made is None:
                _send(out, _CANNOT, ticket, until, b"")
            else:
                _send(out, _DONE, ticket, *made)
            del made  # it is large, and the next is made beside it


def _works(
    one: ReadModel | Aggregate[Any], source: EventReader, registry: Registry, order: Order
) -> dict[tuple[str, str], Working]:
    """What can be done with a range of a projection's events, by kind of work and name."""
    plan = Replay(
        source=source,
        upcast=registry.upcast_batch,
        types=frozenset(registry.sources_of(one.types)),
        upto=0,  # each range says
        batch_size=order["max_rows"],
        max_rows=order["max_rows"],
        data_upcaster=registry.data_upcaster,
        read_ahead=behind_server(order["source"]),
    )

    def gathered(pages: Iterator[gathering.Gathered], until: int) -> tuple[int, bytes] | None:
        found = gathering.gather_range(pages, until)
        return None if found is None else (found[0], gathering.packed(found[1]))

    if isinstance(one, Aggregate):

        def by_stream(after: int, until: int) -> tuple[int, bytes] | None:
            return gathered(gathering.gather(one, plan, after, until), until)

        return {(Work.GATHER_STREAMS, one.name): by_stream}
    handlers = data_handlers(one.handlers, "rows")

    def fold(after: int, until: int) -> tuple[int, bytes] | None:
        try:
            found = ranges.fold_range(one, plan, after, until)
            return found.until, ranges.packed(found)
        except (EventmigError, ranges.NeedsRowsError, ValueError):
            return None

    def gather(after: int, until: int) -> tuple[int, bytes] | None:
        assert handlers is not None
        return gathered(gathering.gather_data(handlers, plan, after, until), until)

    return {(Work.FOLD, one.name): fold, (Work.GATHER, one.name): gather}


def _send(out: BinaryIO, kind: int, ticket: int, reached: int, message: bytes) -> None:
    out.write(_HEAD.pack(kind, ticket, reached, len(message)))
    out.write(message)
    out.flush()
