"""What holds for every op and every program of ops, on random data."""

from __future__ import annotations

import copy

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from eventmig import codec
from eventmig.codec import Value
from eventmig.errors import CodecError, OpError
from eventmig.ops import Loss, Op
from eventmig.ops.base import worst
from eventmig.ops.compiled import compile_ops
from eventmig.ops.control import inverses, run
from tests.unit.json_and_ops import EVENT, Program, some_op, with_data


def up(ops: Program, value: Value) -> Value | None:
    """The data after the ops, or None where they refuse it."""
    try:
        return run(ops, value, EVENT)
    except (OpError, CodecError):
        return None


@given(with_data())
@settings(max_examples=800)
def test_the_compiled_program_means_what_the_reference_means(
    example: tuple[Program, Value],
) -> None:
    program, before = example
    stored = codec.encode(before)
    expected = up(program, codec.decode(stored))
    try:
        actual = compile_ops(program)(stored, EVENT)
    except (OpError, CodecError):
        actual = None
    event("refused" if expected is None else "taken")
    assert actual == (None if expected is None else codec.encode(expected))


@given(with_data())
@settings(max_examples=150)
def test_a_compiled_program_keeps_nothing_from_one_event_to_the_next(
    example: tuple[Program, Value],
) -> None:
    program, before = example
    rewrite, stored = compile_ops(program), codec.encode(before)
    results = []
    for _ in range(2):
        try:
            results.append(rewrite(stored, EVENT))
        except (OpError, CodecError) as error:
            results.append(str(error).encode())
    assert results[0] == results[1]


@given(with_data())
@settings(max_examples=150)
def test_the_reference_leaves_its_input_alone(example: tuple[Program, Value]) -> None:
    program, before = example
    kept = copy.deepcopy(before)
    up(program, before)
    assert repr(before) == repr(kept)


@given(with_data(most=1))
@settings(max_examples=800)
def test_the_way_back_of_one_op_is_as_good_as_it_says(
    example: tuple[Program, Value],
) -> None:
    check_way_back(*example)


@given(with_data())
@settings(max_examples=400)
def test_the_way_back_of_a_program_is_as_good_as_its_worst_op(
    example: tuple[Program, Value],
) -> None:
    check_way_back(*example)


def check_way_back(program: Program, before: Value) -> None:
    loss, back = worst([op.loss for op in program]), inverses(program)
    assert (back is None) == (loss is Loss.ABSENT)
    after = up(program, before)
    assume(after is not None)
    event(loss.value)
    if loss is Loss.EXACT and back is not None:
        assert codec.same(run(back, after, EVENT), before)


@given(some_op())
@settings(max_examples=150)
def test_ops_are_values(op: Op) -> None:
    twin = copy.deepcopy(op)
    assert twin == op
    assert hash(twin) == hash(op)
    assert twin.fingerprint() == op.fingerprint()
    assert str(op) == str(twin)


@given(st.lists(some_op(), min_size=2, max_size=2))
@settings(max_examples=150)
def test_different_ops_have_different_fingerprints(pair: list[Op]) -> None:
    one, other = pair
    assert (one == other) == (one.fingerprint() == other.fingerprint())
