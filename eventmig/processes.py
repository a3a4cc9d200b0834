"""A second process of eventmig's own: it is given orders, and answers in messages.

SQLite has one writer and Python one interpreter lock: a thread gains nothing where values
are made, a process does. The child is started at once, to import while the parent still
does something else. Orders go to its standard input as lines of JSON, messages come back
over a pipe, some of them under way at a time. It loads the same configuration, makes sure
that it has the same registry, only reads stores, and ends when its parent does: by the
pipes that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, Final

import msgspec

from eventmig import errors
from eventmig.config import FILE, Config
from eventmig.errors import ConfigError, EventmigError, JobError, Where
from eventmig.project import Project
from eventmig.release import format_lock, parse_lock

CALM = (200_000, 20, 20)
"""Thresholds of the garbage collector for work in batches: many values, no cycles."""

TURN_S = 0.0005
"""How long a thread that computes may keep one waiting whose server has answered, in seconds.

Python's own 5 ms would be added to every statement that is run beside the upcasting.
"""

Order = dict[str, Any]
Working = Callable[[Project, Order], Iterator[bytes]]
"""What the child does: a project and an order in, messages out."""

# What is imported stays: the collector would look through it again and again.
_CHILD: Final = (
    "import gc, sys; gc.disable(); from eventmig.processes import run_child; run_child(sys.argv[1])"
)
_UNDER_WAY: Final = 6
_PIPE_BYTES: Final = 1 << 20
_MESSAGE, _END, _ERROR = b"m", b"e", b"x"


class Child:
    """The parent's end of one process. Close it; it dies with the parent in any case."""

    def __init__(self, project: Project, working: str) -> None:
        """Start it: `working` names a `Working` as "module:function".

        Raises `ConfigError` for a project whose registry no other process could load.
        """
        if project.given_registry is not None:
            raise ConfigError(
                "a second worker can only load a registry that the configuration names",
                remedy=f'name it in {FILE} (registry = "module:object"), or use one worker',
            )
        self._project = {
            "config": project.config.model_dump(mode="json", by_alias=True)
            | {"folder": str(project.config.folder)},
            "lock": format_lock(project.lock),
            "registry_fingerprint": project.registry.fingerprint(),
            "path": [p for p in sys.path if p],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, working],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._received: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue(_UNDER_WAY)
        self._stopped = threading.Event()
        self._reader: threading.Thread | None = None

    def ask(self, order: Order) -> Answers:
        """Give it an order. Orders are answered one after the other: what answers the one
        before must be taken to its end first.
        """
        assert self._process.stdin is not None
        lines = [order]
        if self._reader is None:
            assert self._process.stdout is not None
            _widen(self._process.stdout)
            _widen(self._process.stdin)  # an order may wait there while another is worked on
            self._reader = threading.Thread(
                target=self._receive, args=(self._process.stdout,), daemon=True
            )
            self._reader.start()
            lines = [self._project, order]
        with contextlib.suppress(BrokenPipeError):  # the end of its answers says so
            for line in lines:
                self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        return Answers(self._next)

    def close(self) -> None:
        """End it; harmless twice."""
        self._stopped.set()
        self._process.kill()
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _next(self, *, wait: bool) -> bytes | None:
        """The next message; None at the end, or (without waiting) where none is there."""
        try:
            found = self._received.get(block=wait)
        except queue.Empty:
            return b""
        if found is None:
            raise JobError(
                f"the second worker ended early (exit code {self._process.wait()})",
                remedy="run the same command again: it resumes; if it comes back, use --workers 1",
            )
        kind, content = found
        if kind == _ERROR:
            raise error_of(msgspec.msgpack.decode(content))
        return content if kind == _MESSAGE else None

    def _receive(self, pipe: BinaryIO) -> None:
        found: tuple[bytes, bytes] | None = (b"", b"")
        while found is not None and not self._stopped.is_set():
            head = pipe.read(9)
            size = int.from_bytes(head[1:], "big")
            content = pipe.read(size) if len(head) == 9 else b""
            found = (head[:1], content) if len(head) == 9 and len(content) == size else None
            while not self._stopped.is_set():
                try:
                    self._received.put(found, timeout=0.2)
                    break
                except queue.Full:
                    continue


class Answers:
    """The messages that answer one order. Raises what the child raised, and `JobError`
    where it is gone.
    """

    def __init__(self, receive: Callable[..., bytes | None]) -> None:
        self._receive = receive
        self._taken: deque[bytes] = deque()
        self._ended = False

    def there(self) -> bool:
        """Whether all of them are there; takes in those that are."""
        while not self._ended:
            message = self._receive(wait=False)
            if message is None:
                self._ended = True
            elif message:
                self._taken.append(message)
            else:
                return False
        return True

    def rest(self) -> Iterator[bytes]:
        """All that are left; waits for them."""
        while self._taken:
            yield self._taken.popleft()
        while not self._ended:
            message = self._receive(wait=True)
            if message is None:
                self._ended = True
            else:
                yield message


def _widen(pipe: IO[bytes]) -> None:
    """A larger buffer in the pipe, where the system has that: fewer changes of process."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux has it, up to a limit
        fcntl = importlib.import_module("fcntl")
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


# in the child --------------------------------------------------------------------------------


def run_child(working: str) -> None:
    """The child: the project and its orders on standard input, messages on standard output."""
    out = sys.stdout.buffer
    sys.stdout = sys.stderr
    module, _, name = working.partition(":")
    work: Working = getattr(importlib.import_module(module), name)
    gc.freeze()  # what is imported by now stays
    gc.set_threshold(*CALM)
    gc.enable()
    sys.setswitchinterval(TURN_S)
    project: Project | None = None
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        for line in sys.stdin:
            given = json.loads(line)
            try:
                if project is None:
                    project = _load(given)
                else:
                    for message in work(project, given):
                        _send(out, _MESSAGE, message)
                    _send(out, _END, b"")
            except EventmigError as error:
                _send(out, _ERROR, msgspec.msgpack.encode(fault_of(error)))
                return


def _load(given: Order) -> Project:
    sys.path[:] = given["path"]
    project = Project(Config.model_validate(given["config"]), given_lock=parse_lock(given["lock"]))
    if project.registry.fingerprint() != given["registry_fingerprint"]:
        raise JobError(
            "the second worker loaded another registry",
            remedy="did the code change just now? run the same command again: it resumes",
        )
    return project


def _send(out: BinaryIO, kind: bytes, content: bytes) -> None:
    out.write(kind + len(content).to_bytes(8, "big"))
    out.write(content)
    out.flush()


# errors between processes ----------------------------------------------------------------------


def fault_of(error: EventmigError) -> tuple[str, str, dict[str, Any], str]:
    """An error as plain values."""
    return (type(error).__name__, error.what, error.where.as_dict(), error.remedy)


def error_of(fault: tuple[str, str, dict[str, Any], str]) -> EventmigError:
    """What `fault_of` made plain."""
    name, what, where, remedy = fault
    kind = getattr(errors, name, EventmigError)
    error: EventmigError = kind(what, where=Where(**where), remedy=remedy)
    return error
