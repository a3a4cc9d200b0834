"""What a second process does for a job: it reads the source and upcasts, or verifies its share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from eventmig.errors import UpcastError
from eventmig.events import Columns, Event, Kept, Origin
from eventmig.migrate import ledger
from eventmig.migrate.batch import Transformed, Transformer
from eventmig.migrate.copying import Transforming
from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.tally import Tally
from eventmig.migrate.verify import Compared, Hashed, Share, VerifyHelper
from eventmig.migrate.verify.derivation import Derivation
from eventmig.migrate.verify.hashes import hash_block
from eventmig.processes import Answers, Child, Order, error_of, fault_of
from eventmig.project import Project, job_of, opened
from eventmig.stores.base import JobTarget
from eventmig.transform import Pipeline

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_kept_decoder = msgspec.msgpack.Decoder(Kept)
_compared_decoder = msgspec.msgpack.Decoder(Compared)
_hashed_decoder = msgspec.msgpack.Decoder(Hashed)


# transforming ------------------------------------------------------------------------------------


def transforming_process(project: Project) -> Child:
    """A second process for `transform_in`; to be started before what it can be started beside."""
    return Child(project, f"{__name__}:transforming")


def transform_in(
    child: Child,
    *,
    release: str,
    source: str,
    steps_done: tuple[str, ...],
    naming: str,
    keep_source_ids: bool,
    quarantine: bool,
    batch_size: int,
) -> Transforming:
    """What yields transformed batches from a second process; the arguments are a job's own.

    Its batches can be asked for once.
    """
    order = {
        "release": release,
        "source": source,
        "steps_done": list(steps_done),
        "naming": naming,
        "keep_source_ids": keep_source_ids,
        "quarantine": quarantine,
        "batch_size": batch_size,
    }

    def make(
        after: int, until: int, settled: int, keeping: bool
    ) -> Generator[Transformed, None, None]:
        span = {"after": after, "until": until, "settled": settled, "keeping": keeping}
        messages = child.ask(order | span).rest()
        for small in messages:
            yield _unpacked(_decoder.decode(small), next(messages))

    return make


def transforming(project: Project, order: Order) -> Iterator[bytes]:
    """In the child: two messages per batch."""
    with opened(order["source"]) as source:

        def read_stream(stream: str) -> list[Event]:
            events = source.read_stream(stream)
            return [e for e in events if e.global_position <= order["until"]]

        transformer = Transformer(
            _pipeline(project, order),
            read_stream,
            keep_source_ids=order["keep_source_ids"],
            quarantine=order["quarantine"],
            settled=order["settled"],
            written=order["after"],
            keeping=order["keeping"],
        )
        for made in transformer.all(
            source, after=order["after"], until=order["until"], batch_size=order["batch_size"]
        ):
            yield from _packed(made)


def _pipeline(project: Project, order: Order) -> Pipeline:
    return project.registry.at(
        project.release(order["release"]), done=order["steps_done"], naming=order["naming"]
    )


def _packed(made: Transformed) -> tuple[bytes, bytes]:
    """A batch in two messages: what is small and of many forms, and the columns.

    The columns go as MessagePack, which packs them twice as fast as `marshal` does.
    """
    failed = [(tuple(event)[:-1], fault_of(error)) for event, error in made.failed]
    if made.kept is not None:
        small = (made.until, asdict(made.tally), None, failed, made.kept_bytes)
        return _encoder.encode(small), _encoder.encode(made.kept)
    streams, *others, origin_streams, positions, ordinals, globals_, merged = made.columns
    origins = None if origin_streams is streams else origin_streams
    several = {n: tuple(map(tuple, origins)) for n, origins in merged.items()}
    small_ones = (made.until, asdict(made.tally), several, failed, 0)
    columns = (streams, *others, origins, positions, ordinals, globals_)
    return _encoder.encode(small_ones), _encoder.encode(columns)


def _unpacked(small: tuple[Any, ...], packed: bytes) -> Transformed:
    until, tally, merged, failed, kept_bytes = small
    if merged is None:
        kept = _kept_decoder.decode(packed)
        return Transformed(until=until, tally=Tally(**tally), kept=kept, kept_bytes=kept_bytes)
    streams, *others, origin_streams, positions, ordinals, globals_ = _decoder.decode(packed)
    several = {n: tuple(Origin(*o) for o in origins) for n, origins in merged.items()}
    return Transformed(
        until=until,
        tally=Tally(**tally),
        columns=Columns._make(
            [streams, *others, origin_streams or streams, positions, ordinals, globals_, several]
        ),
        failed=[(Event(*row), cast(UpcastError, error_of(fault))) for row, fault in failed],
    )


# verifying ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def verify_in_process(
    project: Project,
    *,
    release: str,
    source: str,
    target: str,
    steps_done: tuple[str, ...],
    naming: str,
) -> Iterator[VerifyHelper]:
    """A helper for verifying a target, in a process that runs as long as the block."""
    order = {
        "release": release,
        "source": source,
        "target": target,
        "steps_done": list(steps_done),
        "naming": naming,
    }
    with Child(project, f"{__name__}:verifying") as child:
        yield _VerifyProcess(child, order)


class _VerifyProcess:
    """The parent's end: a `VerifyHelper`."""

    def __init__(self, child: Child, order: Order) -> None:
        self._child = child
        self._order = order

    def derive(self, numbers: list[int], *, linking: bool) -> Share[Compared]:
        answers = self._child.ask(self._order | {"derive": numbers, "linking": linking})
        return _Answer(answers, _compared_decoder.decode)

    def hash(self, streams: list[str]) -> Share[Hashed]:
        answers = self._child.ask(self._order | {"hash": streams})
        return _Answer(answers, _hashed_decoder.decode)


class _Answer(Generic[T]):
    """One decoded answer."""

    def __init__(self, answers: Answers, decode: Callable[[bytes], T]) -> None:
        self._answers = answers
        self._decode = decode

    def there(self) -> bool:
        return self._answers.there()

    def result(self) -> T:
        (message,) = self._answers.rest()
        return self._decode(message)


class _Verifying:
    """In the child: one message per order. The stores stay open until the process ends."""

    def __init__(self) -> None:
        self._open: _Opened | None = None

    def __call__(self, project: Project, order: Order) -> Iterator[bytes]:
        here = self._open = self._open or _Opened.of(project, order)
        if "hash" in order:
            yield _encoder.encode(hash_block(here.target, here.target, here.job, order["hash"]))
            return
        marks = [here.marks[number] for number in order["derive"]]
        yield _encoder.encode(here.derivation.compare(marks, linking=order["linking"]))


class _Opened(NamedTuple):
    target: JobTarget
    job: Job
    marks: dict[int, Batch]
    derivation: Derivation

    @classmethod
    def of(cls, project: Project, order: Order) -> _Opened:
        stores = contextlib.ExitStack()
        source = stores.enter_context(opened(order["source"]))
        target = stores.enter_context(opened(order["target"]))
        job = job_of(target)
        with target.reading() as connection:
            marks = {mark.number: mark for mark in ledger.batches(connection, job)}
        pipeline = _pipeline(project, order)
        stores.pop_all()
        return cls(target, job, marks, Derivation(source, target, pipeline, job))


verifying = _Verifying()
