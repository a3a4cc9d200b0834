"""A second process that reads the source and upcasts, while this one writes.

SQLite has one writer and Python one interpreter lock: a thread gains nothing, a process
does. The child is started at once, to import while the parent still checks. It gets its
order on standard input, loads the same configuration, makes sure that it has the same
registry, and sends transformed batches over a pipe; a few are under way at a time. It
reads only, and ends when its parent does: by the pipes that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import marshal
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any, BinaryIO

import msgspec

from eventmig import errors
from eventmig.config import FILE, Config
from eventmig.errors import ConfigError, EventmigError, JobError, UpcastError, Where
from eventmig.events import Columns, Event, Kept, Origin
from eventmig.migrate.batch import Transformed, Transformer
from eventmig.migrate.job import Transforming
from eventmig.migrate.tally import Tally
from eventmig.project import Project, opened
from eventmig.release import format_lock, parse_lock

CALM = (200_000, 20, 20)
"""Thresholds of the garbage collector for work in batches: many values, no cycles."""

_UNDER_WAY = 6  # messages; a batch is two
_PIPE_BYTES = 1 << 20
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_CHILD = "from eventmig.workers import child_main; child_main()"


@contextlib.contextmanager
def transform_in_process(
    project: Project,
    *,
    release: str,
    source: str,
    steps_done: tuple[str, ...],
    naming: str,
    keep_source_ids: bool,
    quarantine: bool,
    batch_size: int,
) -> Iterator[Transforming]:
    """What yields transformed batches from a second process; the arguments are a job's own.

    The process runs as long as the block; its batches can be asked for once.
    """
    if project.given_registry is not None:
        raise ConfigError(
            "a second worker can only load a registry that the configuration names",
            remedy=f'name it in {FILE} (registry = "module:object"), or use one worker',
        )

    def make(after: int, until: int, settled: int, keeping: bool) -> Iterator[Transformed]:
        order = {
            "config": project.config.model_dump(mode="json", by_alias=True)
            | {"folder": str(project.config.folder)},
            "lock": format_lock(project.lock),
            "release": release,
            "source": source,
            "steps_done": list(steps_done),
            "naming": naming,
            "keep_source_ids": keep_source_ids,
            "quarantine": quarantine,
            "batch_size": batch_size,
            "after": after,
            "until": until,
            "settled": settled,
            "keeping": keeping,
            "registry_fingerprint": project.registry.fingerprint(),
            "path": [p for p in sys.path if p],
        }
        yield from _from_child(child, order)

    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield make
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


# in the parent -------------------------------------------------------------------------------


def _from_child(child: subprocess.Popen[bytes], order: dict[str, Any]) -> Iterator[Transformed]:
    assert child.stdin is not None
    assert child.stdout is not None
    received: queue.Queue[bytes | None] = queue.Queue(_UNDER_WAY)
    stopped = threading.Event()
    reader = threading.Thread(target=_receive, args=(child.stdout, received, stopped), daemon=True)
    try:
        _widen(child.stdout)
        with contextlib.suppress(BrokenPipeError), child.stdin:
            child.stdin.write(json.dumps(order).encode())
        reader.start()
        while (message := received.get()) is not None:
            kind, content = marshal.loads(message)
            if kind == "error":
                raise _error(content)
            if kind == "end":
                return
            columns = received.get()
            if columns is None:
                break
            yield _unpacked(content, columns)
        raise JobError(
            f"the second worker ended early (exit code {child.wait()})",
            remedy="run the same command again: it resumes; if it comes back, use --workers 1",
        )
    finally:
        stopped.set()
        child.kill()
        child.wait()
        if reader.is_alive():
            reader.join()


def _widen(pipe: IO[bytes]) -> None:
    """A larger buffer in the pipe, where the system has that: fewer changes of process."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux has it, up to a limit
        fcntl = importlib.import_module("fcntl")
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _receive(pipe: BinaryIO, received: queue.Queue[bytes | None], stopped: threading.Event) -> None:
    message: bytes | None = b""
    while message is not None and not stopped.is_set():
        size = pipe.read(8)
        length = int.from_bytes(size, "big")
        message = pipe.read(length) if len(size) == 8 else None
        if message is not None and len(message) < length:
            message = None
        while not stopped.is_set():
            try:
                received.put(message, timeout=0.2)
                break
            except queue.Full:
                continue


def _unpacked(content: tuple[Any, ...], packed: bytes) -> Transformed:
    until, tally, merged, failed = content
    if merged is None:
        kept = Kept._make(_decoder.decode(packed))
        return Transformed(until=until, tally=Tally(**tally), kept=kept)
    streams, *others, origin_streams, positions, ordinals = _decoder.decode(packed)
    several = {n: tuple(Origin(*o) for o in origins) for n, origins in merged.items()}
    return Transformed(
        until=until,
        tally=Tally(**tally),
        columns=Columns._make(
            [streams, *others, origin_streams or streams, positions, ordinals, several]
        ),
        failed=[(Event(*row), _upcast_error(fault)) for row, fault in failed],
    )


def _error(fault: tuple[str, str, dict[str, Any], str]) -> EventmigError:
    name, what, where, remedy = fault
    kind = getattr(errors, name, EventmigError)
    error: EventmigError = kind(what, where=Where(**where), remedy=remedy)
    return error


def _upcast_error(fault: tuple[str, str, dict[str, Any], str]) -> UpcastError:
    error = _error(fault)
    assert isinstance(error, UpcastError)
    return error


# in the child --------------------------------------------------------------------------------


def child_main() -> None:
    """The child: its order on standard input, its batches on standard output."""
    out = sys.stdout.buffer
    sys.stdout = sys.stderr
    text = sys.stdin.read()
    if not text:  # the parent ended, or needs no batches
        return
    order = json.loads(text)
    gc.freeze()  # what is imported by now stays
    gc.set_threshold(*CALM)
    sys.path[:] = order["path"]
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            for made in _transformed(order):
                small, columns = _packed(made)
                _send(out, marshal.dumps(("batch", small)))
                _send(out, columns)
            _send(out, marshal.dumps(("end", None)))
        except EventmigError as error:
            _send(out, marshal.dumps(("error", _fault(error))))


def _transformed(order: dict[str, Any]) -> Iterator[Transformed]:
    config = Config.model_validate(order["config"])
    project = Project(config, given_lock=parse_lock(order["lock"]))
    if project.registry.fingerprint() != order["registry_fingerprint"]:
        raise JobError(
            "the second worker loaded another registry",
            remedy="did the code change just now? run the same command again: it resumes",
        )
    pipeline = project.registry.at(
        project.release(order["release"]), done=order["steps_done"], naming=order["naming"]
    )
    with opened(order["source"]) as source:

        def read_stream(stream: str) -> list[Event]:
            events = source.read_stream(stream)
            return [e for e in events if e.global_position <= order["until"]]

        transformer = Transformer(
            pipeline,
            read_stream,
            keep_source_ids=order["keep_source_ids"],
            quarantine=order["quarantine"],
            settled=order["settled"],
            written=order["after"],
            keeping=order["keeping"],
        )
        yield from transformer.all(
            source, after=order["after"], until=order["until"], batch_size=order["batch_size"]
        )


def _packed(made: Transformed) -> tuple[tuple[Any, ...], bytes]:
    """A batch in two messages: what is small and of many forms, and the columns."""
    if made.kept is not None:
        return (made.until, asdict(made.tally), None, []), _encoder.encode(made.kept)
    streams, *others, origin_streams, positions, ordinals, merged = made.columns
    origins = None if origin_streams is streams else origin_streams
    small = (
        made.until,
        asdict(made.tally),
        {n: tuple(map(tuple, several)) for n, several in merged.items()},
        [(tuple(event)[:-1], _fault(error)) for event, error in made.failed],
    )
    return small, _encoder.encode((streams, *others, origins, positions, ordinals))


def _fault(error: EventmigError) -> tuple[str, str, dict[str, Any], str]:
    return (type(error).__name__, error.what, error.where.as_dict(), error.remedy)


def _send(out: BinaryIO, message: bytes) -> None:
    out.write(len(message).to_bytes(8, "big"))
    out.write(message)
    out.flush()
