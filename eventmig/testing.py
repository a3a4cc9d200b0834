"""What users test their own upcasters and read models with, in any test runner.

    def test_a_total_becomes_an_amount() -> None:
        assert upcast(registry, "OrderPlaced", 1, {"total": 5}) == [
            ("OrderPlaced", 2, {"amount": 5})
        ]

Everything works on values; no store is needed. Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from eventmig import codec
from eventmig.check import EXAMPLES, check_registry_and_lock
from eventmig.codec import Value
from eventmig.errors import CheckError
from eventmig.events import Event, microseconds
from eventmig.rebuild.interleaving import difference
from eventmig.rebuild.read_model import ReadModel
from eventmig.registry import Registry
from eventmig.release import Lock

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def event(
    type: str,
    version: int,
    data: Value,
    *,
    metadata: Mapping[str, Value] | None = None,
    stream: str = "example-1",
    stream_position: int = 1,
    recorded_time: datetime = _MOMENT,
) -> Event:
    """A stored event with this data; its id is made from its place.

    `stream_position` is 1-based and stands for the global position too. Raises
    `CodecError` where JSON cannot carry the data.
    """
    return Event(
        global_position=stream_position,
        stream=stream,
        stream_position=stream_position,
        id=f"{stream}/{stream_position}",
        type=type,
        schema_version=version,
        data=codec.encode_checked(data),
        metadata=None if metadata is None else codec.encode_checked(metadata),
        recorded_at=microseconds(recorded_time),
    )


def upcast(
    registry: Registry,
    type: str,
    version: int,
    data: Value,
    *,
    metadata: Mapping[str, Value] | None = None,
) -> list[tuple[str, int, Value]]:
    """What one event becomes: (type, schema version, data) of each, in order.

    Both readings of the steps are taken and must agree (`AssertionError` if not: a
    fault in eventmig). Raises `UpcastError` naming the step that fails.
    """
    stored = event(type, version, data, metadata=metadata)
    fast, plain = registry.chains.upcast(stored), registry.chains.walk(stored)
    made = [(d.type, d.schema_version, codec.decode(d.data)) for d in fast]
    assert made == [(d.type, d.schema_version, codec.decode(d.data)) for d in plain]
    return made


def downcast(registry: Registry, type: str, version: int, data: Value) -> Value:
    """What the way back of the step that ends at this type and version makes of the data.

    Raises `CheckError` where that step has none, `OpError` where it refuses the data.
    """
    back = registry.downcaster((type, version))
    if back is None:
        raise CheckError(
            f"there is no way back from {type} v{version}",
            remedy="declare one with `downcaster` or `data_downcaster`, or use ops that have one",
        )
    stored = event(type, version, data)
    for op in back.ops:
        data = op.up(data, stored)
    return data


def assert_sound(registry: Registry, lock: Lock | None = None, *, examples: int = EXAMPLES) -> None:
    """All that `eventmig check` checks; raises `AssertionError` listing what to mend."""
    report = check_registry_and_lock(registry, lock or Lock(), examples=examples)
    assert report.right, "\n".join(map(str, report.findings))


def assert_order(
    model: ReadModel,
    events: Sequence[Event],
    *,
    registry: Registry | None = None,
    shuffles: int = 20,
    seed: int = 0,
) -> None:
    """That a read model needs no more order than it declares; raises `AssertionError` if not.

    `events` are stored ones in global order; `registry` upcasts them (None: they are of the
    release). They are handled in that order, then with the declared partitions one after the
    other, backwards, and in `shuffles` random interleavings; every time the same rows must
    come out. Give it events that meet: several streams or keys with rows in common.
    """
    current = [*events] if registry is None else registry.upcast_batch(events)
    found = difference(model, current, shuffles=shuffles, seed=seed)
    if found is None:
        return
    otherwise = found.error or f"{found.otherwise!r} instead of {found.in_order!r}"
    raise AssertionError(
        f'{model.name} declares order="{model.order}", and needs more than that: with '
        f"{found.order}, {found.row} comes to: {otherwise}"
    )


def assert_only_adds(model: ReadModel) -> None:
    """That a read model's handlers only add, so that they need not be called, and a store can sum.

    Raises `AssertionError` naming the handlers that do more, or may.
    """
    others = sorted({h.name for type_, h in model.handlers.items() if type_ not in model.additions})
    if others:
        raise AssertionError(
            f"{model.name} may do more than add: {', '.join(others)}. A handler that only adds is "
            "nothing but calls of rows.increment with members of its struct and constants"
        )
