"""Every op as a specification: what it makes of data, what it refuses, what its way back is."""

from __future__ import annotations

from typing import Any

import pytest

from eventmig import codec, ops
from eventmig.codec import Value
from eventmig.errors import OpError
from eventmig.ops import Loss, Op
from eventmig.ops.compiled import compile_ops
from eventmig.ops.control import inverses, run
from tests.unit.json_and_ops import EVENT

EXACT, LOSSY, ABSENT = Loss.EXACT, Loss.LOSSY, Loss.ABSENT


@pytest.mark.parametrize(
    ("op", "before", "after", "loss"),
    [
        # add
        (ops.add("a", "EUR"), {"b": 1}, {"b": 1, "a": "EUR"}, EXACT),
        (ops.add("a.b", 1), {}, {}, EXACT),
        (ops.add("b", ops.ref("a")), {"a": [1]}, {"a": [1], "b": [1]}, EXACT),
        (ops.add("b", ops.ref("a")), {}, {}, EXACT),
        (ops.add("a", ops.from_metadata("c")), {}, {"a": "meta"}, EXACT),
        (ops.add("a", ops.from_metadata("z")), {}, {}, EXACT),
        (ops.add("a", ops.from_metadata("z", otherwise=0)), {}, {"a": 0}, EXACT),
        # default, put, drop
        (ops.default("a", 1), {}, {"a": 1}, LOSSY),
        (ops.default("a", 1), {"a": None}, {"a": None}, LOSSY),
        (ops.put_value("a", 1), {"a": 2}, {"a": 1}, LOSSY),
        (ops.drop("a"), {"a": 1, "b": 2}, {"b": 2}, ABSENT),
        (ops.drop("a", restore=0), {"a": 1}, {}, LOSSY),
        # rename and move
        (ops.rename("a", "z"), {"a": 1, "b": 2}, {"z": 1, "b": 2}, EXACT),
        (ops.rename("a", "z"), {"b": 2}, {"b": 2}, EXACT),
        (ops.rename("a.b", "z"), {"a": {"b": 1}}, {"a": {"z": 1}}, EXACT),
        (ops.move("a.b", "b"), {"a": {"b": 1}}, {"a": {}, "b": 1}, EXACT),
        (ops.move(("a", 0, "b"), "b"), {"a": [{"b": 1}]}, {"a": [{}], "b": 1}, EXACT),
        # nest and unnest
        (ops.nest("a", "b", under="n"), {"a": 1, "c": 3}, {"c": 3, "n": {"a": 1}}, EXACT),
        (ops.nest("a", under="n"), {"a": 1, "n": {"b": 2}}, {"n": {"b": 2, "a": 1}}, EXACT),
        (ops.nest("a", under="n"), {"b": 1}, {"b": 1}, EXACT),
        (ops.unnest("n", "a"), {"n": {"a": 1}}, {"a": 1}, EXACT),
        (ops.unnest("n", "a"), {"n": {"a": 1, "b": 2}}, {"n": {"b": 2}, "a": 1}, EXACT),
        # wrap and unwrap
        (ops.wrap("a"), {"a": 1}, {"a": [1]}, EXACT),
        (ops.wrap("a"), {"a": None}, {"a": []}, EXACT),
        (ops.unwrap("a"), {"a": [1]}, {"a": 1}, EXACT),
        (ops.unwrap("a"), {"a": []}, {"a": None}, EXACT),
        # convert and map
        (ops.convert("a", "text_to_integer"), {"a": "7"}, {"a": 7}, EXACT),
        (ops.convert("a", "text_to_integer"), {"a": None}, {"a": None}, EXACT),
        (ops.convert("a", "lower"), {"a": "X"}, {"a": "x"}, LOSSY),
        (ops.map_values("a", {"x": "y"}), {"a": "x"}, {"a": "y"}, EXACT),
        (ops.map_values("a", {"x": "y"}, other=ops.KEEP), {"a": "z"}, {"a": "z"}, EXACT),
        (ops.map_values("a", {"x": "y"}, other="?"), {"a": "z"}, {"a": "?"}, LOSSY),
        (ops.map_values("a", {"x": "y", "z": "y"}), {"a": "z"}, {"a": "y"}, LOSSY),
        (ops.map_values("a", [(None, 0), (True, 1)]), {"a": True}, {"a": 1}, EXACT),
        # split and combine
        (ops.split("a", into=("b", "c"), at=" "), {"a": "x y z"}, {"b": "x", "c": "y z"}, EXACT),
        (ops.split("a", into=("b", "c"), at=" "), {"a": "x"}, {"b": "x"}, EXACT),
        (ops.split("a", into=("a", "b"), at="-"), {"a": "x-y"}, {"a": "x", "b": "y"}, EXACT),
        (ops.split("a", into=("b", "c"), at=" "), {"a": None}, {"a": None}, EXACT),
        (ops.combine("b", "c", to="a", separator=" "), {"b": "x", "c": "y"}, {"a": "x y"}, LOSSY),
        (ops.combine("b", "c", to="a", separator=" "), {"c": "y"}, {"a": "y"}, LOSSY),
        # lists and lines
        (ops.append("a", 1), {"a": [0]}, {"a": [0, 1]}, LOSSY),
        (ops.append("a", 1), {"a": [1.0]}, {"a": [1.0]}, LOSSY),
        (ops.append("a", 1, unique=False), {"a": [1]}, {"a": [1, 1]}, LOSSY),
        (ops.append("a", 1), {}, {}, LOSSY),
        (ops.append("a", 1, create=True), {}, {"a": [1]}, LOSSY),
        (ops.remove("a", 1), {"a": [1, 0, 1]}, {"a": [0]}, LOSSY),
        (ops.remove("a", 1), {"a": [1]}, {"a": []}, LOSSY),
        (ops.remove("a", 1, drop_empty=True), {"a": [1]}, {}, LOSSY),
        (ops.add_line("a", "two"), {"a": "one"}, {"a": "one\ntwo"}, LOSSY),
        (ops.add_line("a", "one"), {}, {"a": "one"}, LOSSY),
        # each, when, apply
        (ops.each("a", ops.rename("b", "c")), {"a": [{"b": 1}]}, {"a": [{"c": 1}]}, EXACT),
        (ops.each("a", ops.convert("", "integer_to_text")), {"a": [1]}, {"a": ["1"]}, EXACT),
        (ops.each("a", ops.wrap(""), ops.each("", ops.wrap(""))), {"a": [1]}, {"a": [[[1]]]},
         EXACT),
        (ops.each("a", ops.wrap("")), {}, {}, EXACT),
        (ops.when(ops.equals("a", 1), ops.wrap("b")), {"a": 1, "b": 2}, {"a": 1, "b": [2]}, EXACT),
        (ops.when(ops.equals("a", 1), ops.wrap("b")), {"a": 2, "b": 2}, {"a": 2, "b": 2}, EXACT),
        (ops.when(ops.absent("a"), ops.add("a", 1)), {}, {"a": 1}, ABSENT),
        (
            ops.when(ops.present("a"), ops.drop("b", restore=0), otherwise=[ops.wrap("b")]),
            {"b": 1}, {"b": [1]}, LOSSY,
        ),
        (ops.apply(lambda data: data | {"n": 1}), {}, {"n": 1}, ABSENT),
        (
            ops.apply(lambda data: {"d": data}, back=lambda data: data["d"], exact=True),
            {"a": 1}, {"d": {"a": 1}}, EXACT,
        ),
    ],
    ids=str,
)  # fmt: skip
def test_an_op(op: Op, before: dict[str, Any], after: dict[str, Any], loss: Loss) -> None:
    assert run((op,), before, EVENT) == after
    assert compile_ops((op,))(codec.encode(before), EVENT) == codec.encode(after)
    assert op.loss is loss
    back = inverses((op,))
    assert (back is None) == (loss is ABSENT)
    if loss is EXACT and back is not None:
        assert run(back, after, EVENT) == before


@pytest.mark.parametrize(
    ("op", "data", "why"),
    [
        (ops.add("a", 1), {"a": None}, "there is a member at a already"),
        (ops.add("a.b", 1), {"a": 1}, "a is of type integer, not object"),
        (ops.put_value("a.b", 1), {}, "no object at a"),
        (ops.rename("a", "b"), {"a": 1, "b": 2}, "a member at b already"),
        (ops.move("a", "b.c"), {"a": 1}, "no object at b"),
        (ops.nest("a", under="n"), {"a": 1, "n": 1}, "a member at n already"),
        (ops.nest("a", under="n"), {"a": 1, "n": {}}, "a member at n already"),
        (ops.nest("a", under="n"), {"n": {"a": 1}}, r"a member at n\.a already"),
        (ops.unnest("n", "a"), {"n": {"a": 1}, "a": 2}, "a member at a already"),
        (ops.unnest("n", "a"), {"n": [1]}, "n is of type array, not object"),
        (ops.unwrap("a"), {"a": [1, 2]}, "the list at a holds 2 values"),
        (ops.unwrap("a"), {"a": [None]}, "holds a null"),
        (ops.unwrap("a"), {"a": "x"}, "a is of type string, not array"),
        (ops.convert("a", "text_to_integer"), {"a": "007"}, "cannot convert '007'"),
        (ops.map_values("a", {"x": "y"}), {"a": "z"}, 'no entry for "z"'),
        (ops.map_values("a", {"x": "y"}, other=ops.KEEP), {"a": "y"}, '"y" is there already'),
        (ops.split("a", into=("b", "c"), at=" "), {"a": "x", "c": 1}, "a member at c already"),
        (ops.split("a", into=("b", "c"), at=" "), {"a": 1}, "a is of type integer, not string"),
        (ops.combine("a", "b", to="c", separator=" "), {"a": "x", "c": 1}, "a member at c already"),
        (ops.append("a", 1), {"a": 1}, "a is of type integer, not array"),
        (ops.add_line("a", "x"), {"a": 1}, "a is of type integer, not string"),
        (ops.each("a", ops.wrap("")), {"a": {}}, "a is of type object, not array"),
        (ops.apply(lambda data: None), {}, "returned nothing"),
    ],
    ids=str,
)  # fmt: skip
def test_an_op_refuses_what_it_could_not_take_back(op: Op, data: Any, why: str) -> None:
    with pytest.raises(OpError, match=why) as reference:
        run((op,), data, EVENT)
    with pytest.raises(OpError, match=why) as compiled:
        compile_ops((op,))(codec.encode(data), EVENT)
    assert str(compiled.value) == str(reference.value)
    assert reference.value.remedy


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: ops.rename("a..b", "c"), "empty part"),
        (lambda: ops.add("", 1), "does not name a member"),
        (lambda: ops.nest("a", "b.c", under="d"), "one and the same object"),
        (lambda: ops.nest("a", "a", under="d"), "different members"),
        (lambda: ops.unnest("a"), "the keys to lift"),
        (lambda: ops.convert("a", "nope"), "no conversion 'nope'; there are: text_to_integer"),
        (lambda: ops.conversion("lower", str), "taken by one of eventmig's own"),
        (lambda: ops.map_values("a", [(1, 2), (1, 3)]), "names a value twice"),
        (lambda: ops.split("a", into=("b",), at=" "), "at least two"),
        (lambda: ops.append(("a", 0), 1, create=True), "does not name a member"),
        (lambda: ops.remove("", 1, drop_empty=True), "a member to drop"),
        (lambda: ops.is_kind("a", "str"), "not a JSON type"),
    ],
)
def test_what_makes_no_sense_cannot_be_built(build: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build()


@pytest.mark.parametrize(
    ("condition", "holds", "does_not"),
    [
        (ops.present("a.b"), [{"a": {"b": None}}], [{}, {"a": None}, {"a": {}}]),
        (ops.absent("a"), [{}], [{"a": None}]),
        (ops.equals("a", 1), [{"a": 1}, {"a": 1.0}], [{"a": True}, {"a": "1"}, {}]),
        (ops.one_of("a", 1, None), [{"a": None}], [{}, {"a": 0}]),
        (ops.contains("a", 1, 2), [{"a": [0, 2]}], [{"a": [3]}, {"a": 1}, {}]),
        (ops.contains("a", 1, key="k"), [{"a": [{"k": 1}]}], [{"a": [1, {"j": 1}]}]),
        (ops.starts_with("a", "x"), [{"a": "xy"}], [{"a": "yx"}, {"a": ["x"]}, {}]),
        (ops.is_kind("a", "number"), [{"a": 1}, {"a": 1.5}], [{"a": True}, {"a": "1"}, {}]),
        (ops.is_kind("a", "integer"), [{"a": 1}], [{"a": 1.0}]),
        (ops.not_(ops.present("a")), [{}], [{"a": 1}]),
        (ops.all_of(ops.present("a"), ops.present("b")), [{"a": 1, "b": 1}], [{"a": 1}, {}]),
        (ops.any_of(ops.present("a"), ops.present("b")), [{"a": 1}, {"b": 1}], [{}]),
    ],
    ids=str,
)
def test_a_condition(condition: Any, holds: list[Any], does_not: list[Any]) -> None:
    rewrite = compile_ops((ops.when(condition, ops.put_value("met", True)),))
    for expected, examples in ((True, holds), (False, does_not)):
        for data in examples:
            assert condition.holds(data) is expected
            assert (b'"met"' in rewrite(codec.encode(data), EVENT)) is expected


def test_ops_read_like_sentences() -> None:
    program = [
        ops.rename("name", "full_name"),
        ops.add("currency", "EUR"),
        ops.each("lines", ops.convert("price", "text_to_hundredths")),
        ops.when(ops.equals("kind", "b2b"), ops.drop("vat", restore=None)),
    ]
    assert [str(op) for op in program] == [
        "rename name to full_name",
        'add currency: "EUR"',
        "each item of lines: convert price: text_to_hundredths",
        'when kind = "b2b": drop vat',
    ]


@pytest.mark.parametrize(
    ("renames", "after"),
    [
        (["a b", "b c"], {"c": 1}),
        (["a t", "z a", "t z"], {"z": 1, "a": 26}),
        (["a b", "z a"], {"b": 1, "a": 26}),
        (["a b", "b a"], {"a": 1}),
    ],
)
def test_renames_in_a_row_mean_what_each_means_in_turn(
    renames: list[str], after: dict[str, int]
) -> None:
    program = tuple(ops.rename(*pair.split()) for pair in renames)
    before: dict[str, Value] = {"a": 1, "z": 26} if len(after) == 2 else {"a": 1}
    assert run(program, before, EVENT) == after
    assert compile_ops(program)(codec.encode(before), EVENT) == codec.encode(after)


@pytest.mark.parametrize("changed", ["a", "a.b", "a.b.c"])
def test_a_condition_on_what_its_ops_change_has_no_way_back(changed: str) -> None:
    op = ops.when(ops.equals("a.b", 1), ops.wrap(changed))
    assert op.loss is ABSENT
    assert op.inverse() is None


def test_a_program_can_be_run_again_and_shares_nothing_between_events() -> None:
    rewrite = compile_ops((ops.add("a", {"b": []}), ops.append("a.b", 1)))
    assert rewrite(b"{}", EVENT) == rewrite(b"{}", EVENT) == b'{"a":{"b":[1]}}'
