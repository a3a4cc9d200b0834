"""One struct per shape: where it is taken, it means what the reference means."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from eventmig import codec, ops
from eventmig.codec import Value
from eventmig.errors import CodecError, OpError
from eventmig.ops import Op, fused
from eventmig.ops.compiled import _edit as compiled_op
from eventmig.ops.compiled import compile_many, compile_ops
from eventmig.ops.control import reads_event, run
from tests.unit.json_and_ops import EVENT, Program, with_data


@given(with_data(most=4))
@settings(max_examples=1500)
def test_a_program_for_one_shape_means_what_the_reference_means(
    example: tuple[Program, Value],
) -> None:
    program, before = example
    assert isinstance(before, dict)
    stored = codec.encode(before)
    try:
        made = fused.program(program, tuple(before), compiled_op).one(stored, EVENT)
    except Exception:  # noqa: BLE001 - whatever it is, the other reading is taken
        made = None
    event("read another way" if made is None else "taken")
    if made is not None:
        assert made == codec.encode(run(program, codec.decode(stored), EVENT))


@given(st.lists(with_data(most=3), min_size=1, max_size=1), st.data())
@settings(max_examples=500)
def test_many_at_once_mean_what_one_by_one_means(
    example: list[tuple[Program, Value]], data: st.DataObject
) -> None:
    """Members that no op looks at differ from event to event, and their spellings."""
    program, before = example[0]
    assert isinstance(before, dict)
    spellings = st.sampled_from([b"1.10", b'"\xc3\xa9"', b'"\xff"', b"[1,\n2]", b"[1, 2]", b"0"])
    others = data.draw(st.lists(spellings, min_size=1, max_size=5))
    stored = [
        b'{"untouched":%s%s%s' % (other, b"," if before else b"", codec.encode(before)[1:])
        for other in others
    ]
    lines = None if reads_event(program) else compile_many(program)(stored)
    event("one by one" if lines is None else "at once")
    if lines is not None:
        rewrite = compile_ops(program)
        assert lines.split(b"\n") == [*(rewrite(one, EVENT) for one in stored), b""]


@given(
    with_data(most=3), st.lists(st.sampled_from([b"1.10", b'"\xc3\xa9"', b"[1,{}]"]), min_size=1)
)
@settings(max_examples=300)
def test_sound_data_may_have_spaces(example: tuple[Program, Value], others: list[bytes]) -> None:
    """As `jsonb` spells it; then the result may have some, too."""
    program, before = example
    assert isinstance(before, dict)
    comma = b"," if before else b""
    compact = [b'{"untouched":%s%s%s' % (o, comma, codec.encode(before)[1:]) for o in others]
    stored = [msgspec.json.format(one, indent=0) for one in compact]
    lines = None if reads_event(program) else compile_many(program, sound=True)(stored)
    event("one by one" if lines is None else "at once")
    if lines is not None:
        made = [codec.decode(line) for line in lines.split(b"\n")[:-1]]
        expected = [run(program, codec.decode(one), EVENT) for one in compact]
        assert [*map(codec.canonical, made)] == [*map(codec.canonical, expected)]


@pytest.mark.parametrize(
    "odd", [b'{"a":1,"a":2}', b'{"a":"\xff"}', b'{ "a":1}', b'{"b":1}', b'{"a":[\n]}', b""]
)
def test_what_is_of_another_shape_or_spelling_is_left_to_one_by_one(odd: bytes) -> None:
    rewrite = compile_many((ops.rename("a", "b"),))
    assert rewrite([b'{"a":1}', b'{"a":[2]}']) == b'{"b":1}\n{"b":[2]}\n'
    for several in ([odd, b'{"a":1}'], [b'{"a":1}', odd]):
        assert rewrite(several) is None
    assert rewrite([b'{"a":3}']) == b'{"b":3}\n'


def test_too_many_shapes_end_it() -> None:
    rewrite = compile_many((ops.rename("a", "b"),))
    for n in range(300):
        assert rewrite([b'{"a":1}', b'{"a":1,"k%d":2}' % n]) is None


def rewritten(data: bytes, *program: Op) -> bytes:
    return compile_ops(program)(data, EVENT)


@pytest.mark.parametrize(
    "data", [b'{"a":1.10,"b":"7"}', b'{ "a" : 1.10, "b":"7" }', b'{"b":"7","a":1.10}', b'{"b":"7"}']
)
def test_shapes_and_spellings_take_turns(data: bytes) -> None:
    program = (ops.convert("b", "text_to_integer"), ops.rename("b", "n"))
    rewrite = compile_ops(program)
    for _ in range(3):
        for one in (data, b'{"a":1.10,"b":"7"}'):
            expected = codec.encode(run(program, codec.decode(one), EVENT))
            assert rewrite(one, EVENT) == expected


def test_more_shapes_than_are_kept_are_read_the_other_way() -> None:
    rewrite = compile_ops((ops.rename("n", "number"),))
    for n in range(300):
        assert rewrite(b'{"n":1,"k%d":2}' % n, EVENT) == b'{"number":1,"k%d":2}' % n
    assert rewrite(b'{"n":1,"k0":2}', EVENT) == b'{"number":1,"k0":2}'


@pytest.mark.parametrize("last", [ops.drop("a"), ops.put_value("a", 1)])
def test_what_a_dropped_value_refuses_is_still_refused(last: Op) -> None:
    with pytest.raises(OpError, match="plain digits"):
        rewritten(b'{"a":"x"}', ops.convert("a", "text_to_integer"), last)


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":2}', b'{"a":"\xff"}', b"[1]", b"", b'{"a":1', b'{"a":1,"b":{"c":"\xff"}}']
)
def test_what_would_be_lost_is_refused_by_name(data: bytes) -> None:
    rewrite = compile_ops((ops.rename("a", "b2"),))
    assert rewrite(b'{"a":1}', EVENT) == b'{"b2":1}'
    with pytest.raises(CodecError):
        rewrite(data, EVENT)


def test_keys_that_no_struct_can_have() -> None:
    assert rewritten(b'{"a\\"b":1,"c":2}', ops.rename("c", "d")) == b'{"a\\"b":1,"d":2}'


def test_metadata_is_looked_at_only_where_an_op_says_so() -> None:
    deep = ops.when(ops.present("a"), ops.each("a", ops.add("b", ops.from_metadata("c"))))
    assert reads_event((ops.drop("x"), deep))
    assert not reads_event((ops.add("b", ops.ref("a")), ops.map_values("a", {"c": "d"})))


@pytest.mark.parametrize("name", ["text_to_integer", "text_to_number", "text_to_hundredths"])
@pytest.mark.parametrize(
    "value",
    [
        *(b'"12"', b'"-3"', b'"12.50"', b"null", b"12", b'"007"', b'"-0"', b'"ab"', b'"\xc3\xa9"'),
        *(b'"1\\u0032"', b'"12\\u002e50"', b'"999999999999999999"', b'"12345678901234567890"'),
        *(b'"-9223372036854775809"', b"[]", b'"\\ud800"', b'"12\xff"'),
    ],
)
def test_a_member_that_is_read_as_text_is_converted_as_the_reference_does(
    name: str, value: bytes
) -> None:
    program = (ops.convert("a", name), ops.rename("a", "b"), ops.nest("b", under="c"))
    stored = b'{"x":1.10,"a":%s}' % value
    wanted: bytes | None
    try:
        wanted = codec.encode(run(program, codec.decode(stored), EVENT))
    except (CodecError, OpError):
        wanted = None
    for some in ([stored], [b'{"x":[],"a":"5.00"}', stored], [b'{"x":[],"a":"5"}', stored]):
        lines = compile_many(program)(some)
        if lines is not None:
            assert lines.split(b"\n")[-2] == wanted
    try:
        made = compile_ops(program)(stored, EVENT)
    except (CodecError, OpError):
        made = None
    assert made == wanted


def test_text_is_converted_without_being_read_as_json_first() -> None:
    program = (ops.convert("a", "text_to_integer"),)
    some = [b'{"a":"%d"}' % n for n in range(5)]
    assert compile_many(program)(some) == b"".join(b'{"a":%d}\n' % n for n in range(5))
    assert compile_many(program)([*some, b'{"a":"\\u0031"}']) is None
