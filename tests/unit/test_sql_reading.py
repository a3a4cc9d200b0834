"""The SQL reading of ops means what `Op.up` means, in both databases, or says nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, event, given, settings

from eventmig import codec, ops
from eventmig.codec import Value
from eventmig.conditions import Condition
from eventmig.conversions import NAMED
from eventmig.errors import CodecError, OpError
from eventmig.ops import Op
from eventmig.ops.base import BaseOp
from eventmig.ops.control import run
from eventmig.ops.sql import _READINGS, NoSql, read
from eventmig.ops.sql_conditions import KNOWN
from eventmig.ops.values import Convert
from tests.postgres import Server
from tests.unit.json_and_ops import EVENT, Program, with_data
from tests.unit.sql_databases import Database, in_postgres, in_sqlite, rewritten

many = settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param == "sqlite":
        with in_sqlite() as small:
            yield small
    else:
        server: Server = request.getfixturevalue("postgres_server")
        with in_postgres(server.url) as large:
            yield large


def up(program: Program, data: bytes) -> Value | None:
    """What Python makes of the data, or None where it refuses it."""
    try:
        return run(program, codec.decode(data), EVENT)
    except (OpError, CodecError):
        return None


def canonical(data: bytes) -> bytes:
    return codec.canonical(codec.decode_strict(data))


def agree(database: Database, program: Program, data: bytes) -> str:
    """Compare both readings; returns how the database came out."""
    stored = database.stored(data)
    if stored is None:
        return "not stored"
    try:
        made = rewritten(database, program, stored)
    except NoSql:
        return "no SQL"
    except sqlite3.OperationalError as error:
        if "parser stack overflow" not in str(error):
            raise
        return "too deep"
    expected = up(program, stored)
    if made is None:
        return "refused" if expected is None else "left to Python"
    assert expected is not None
    kept = database.stored(codec.encode(expected))
    assert kept is not None
    assert canonical(made) == canonical(kept)
    if database.dialect == "sqlite":
        assert made == kept
    return "in the database"


@many
@given(example=with_data(own_code=False))
def test_both_readings_mean_the_same(database: Database, example: tuple[Program, Value]) -> None:
    program, before = example
    event(agree(database, program, codec.encode(before)))


ADDRESS = {"street": "Weg 1", "city": "Köln", "zip": "50667"}
TAKEN = [
    (ops.rename("a", "b"), {"x": 1, "a": 1.50, "y": None}),
    (ops.rename("a.b", "c"), {"a": {"b": 1, "z": "ü"}}),
    (ops.add("a", {"b": [1, "x"]}), {"z": 1}),
    (ops.add("a", ops.ref("b")), {"b": [1, {"c": 2}]}),
    (ops.add("a.b", None), {"a": {}}),
    (ops.default("a", 1), {"a": None}),
    (ops.put_value("a", "x"), {"a": [1]}),
    (ops.drop("a"), {"a": 1, "b": 2}),
    (ops.drop("a"), {"b": 2}),
    (ops.drop(("a", 0, "b")), {"a": [{"b": 1, "c": 2}, 3]}),
    (ops.move("a", "b.c"), {"a": 1, "b": {}}),
    (ops.nest("street", "city", under="address"), {"x": 1, **ADDRESS}),
    (ops.nest("street", under="address"), {"street": 1, "address": {"zip": 2}}),
    (ops.unnest("address", "city"), {"address": ADDRESS, "z": 1}),
    (ops.unnest("address", "street", "city", "zip"), {"address": ADDRESS}),
    (ops.wrap("a"), {"a": "x"}),
    (ops.wrap("a"), {"a": None}),
    (ops.unwrap("a"), {"a": [{"b": 1}]}),
    (ops.unwrap("a"), {"a": []}),
    (ops.map_values("a", {"N": "new", "P": "paid"}), {"a": "P"}),
    (ops.map_values("a", [(True, 1), (1, "one"), (None, [])]), {"a": True}),
    (ops.split("name", into=["first", "last"], at=" "), {"name": "Ada King Lovelace"}),
    (ops.split("name", into=["name", "last"], at=", "), {"name": "Ada"}),
    (ops.combine("a", "b", "c", to="d", separator="-"), {"a": "x", "c": "z", "b": None}),
    (ops.append("a", "x"), {"a": ["y"]}),
    (ops.append("a", "x", create=True), {}),
    (ops.remove("a", 1), {"a": [1, 2, True, 1.0, "1"]}),
    (ops.remove("a", "x", drop_empty=True), {"a": ["x"], "b": 1}),
    (ops.add_line("a", "new"), {"a": "  old "}),
    (ops.each("lines", ops.rename("sku", "product")), {"lines": [{"sku": "a"}, {}]}),
    (ops.each("lines", ops.wrap(())), {"lines": [None, 1, [2]]}),
    (ops.when(ops.present("a"), ops.drop("a"), otherwise=[ops.add("a", 1)]), {"b": 1}),
    (ops.when(ops.equals("a", 1), ops.drop("a")), {"a": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "before"), TAKEN, ids=lambda p: str(p) if isinstance(p, BaseOp) else ""
)
def test_each_op_is_done_in_the_database(database: Database, op: Op, before: Value) -> None:
    assert agree(database, (op,), codec.encode(before)) == "in the database"


HOLD = [
    ops.present("a"),
    ops.absent("b"),
    ops.equals("a", "x-1"),
    ops.one_of("a", None, False, "x-1"),
    ops.starts_with("a", "x"),
    ops.is_kind("a", "string"),
    ops.is_kind("n", "number"),
    ops.is_kind("n", "integer"),
    ops.contains("l", 2, "z"),
    ops.contains("m", "v", key="k"),
    ops.all_of(ops.present("a"), ops.not_(ops.equals("a", True))),
    ops.any_of(ops.present("b"), ops.present("a")),
]


@pytest.mark.parametrize("condition", HOLD, ids=str)
def test_each_condition_is_asked_in_the_database(database: Database, condition: Condition) -> None:
    data = {"a": "x-1", "n": 7, "l": [1, 2.0], "m": [{}, {"k": "v"}]}
    for asked in (condition, ops.not_(condition)):
        program = (ops.when(asked, ops.add("yes", 1), otherwise=[ops.add("no", 1)]),)
        assert agree(database, program, codec.encode(data)) == "in the database"


VALUES = (
    '"7"', '"-7"', '"007"', '"-0"', '"+1"', '"1.10"', '"1.1.1"', '"-0.05"', '"-0.00"', '"0.00"',
    '"12.50"', '"1e5"', '"0.0000001"', '"0.000001"', '""', '"-"', '"."', '"1."', '".5"', '" 1"',
    '"1\\n"', '"true"', '"TRUE"', '" ä b\\u2003 "', '"ÄRGER"', '"hELLO wORLD"',
    '"99999999999999999999"', '"99999999999999999999.99"', "0", "7", "-7", "-5", "1.10", "-0.05",
    "1.005", "1e5", "1.5E-3", "0.0000001", "99999999999999999999", "99999999999999999999.99",
    "1234567890123456.78", "true", "false", "null", "[]", '{"a":1}', "-0", "-0.0",
)  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_conversions_make_what_python_makes(database: Database, name: str) -> None:
    conversion = NAMED[name]
    back = conversion.inverse()
    seen = set()
    for one in (conversion, *([back] if back else [])):
        for value in VALUES:
            data = f'{{"a":{value},"b":1}}'.encode()
            seen.add(agree(database, (Convert(("a",), one),), data))
    assert "in the database" in seen
    assert "no SQL" not in seen


def test_numbers_keep_their_digits(database: Database) -> None:
    data = b'{"a": 1.10, "b": 12345678901234567890, "c": {"d": 0.1000}, "e": [2.50, true]}'
    made = rewritten(database, (ops.rename("a", "z"),), data)
    assert made is not None
    found = json.loads(made, parse_float=str, parse_int=str)
    assert found == {
        "z": "1.10", "b": "12345678901234567890", "c": {"d": "0.1000"}, "e": ["2.50", True]
    }  # fmt: skip


@pytest.mark.parametrize(
    "key",
    ["o'brien", 'a"b', "a.b", "a\\b", "$", "ключ", "a b", "0", "1 OR 1=1; --", "?", ":v0", "%s"],
)
def test_keys_cannot_break_out(database: Database, key: str) -> None:
    program = (ops.rename((key,), key + "2"), ops.add((key + "3",), key), ops.drop(("x", key)))
    data = codec.encode({key: 1, "x": {key: 1, "y": 2}, "0": [1]} if key != "0" else {"0": 1})
    found = agree(database, program, data)
    odd = database.dialect == "sqlite" and set(key) & {'"', "\\"}
    assert found == ("no SQL" if odd else "in the database")


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"b":{"a":1,"a":2},"a":1}',
        b'{"\\u0061":1}',
        b'{"a":"\\u0000"}',
        b'{"a":"\\ud800"}',
        b"[1]",
        b'{"a":1',
        b"",
    ],
)
def test_what_sqlite_would_read_otherwise_is_left_to_python(data: bytes) -> None:
    with in_sqlite() as database:
        assert rewritten(database, (ops.rename("a", "z"),), data) is None


@pytest.mark.parametrize(
    "op",
    [
        ops.apply(lambda data: data),
        ops.add("a", ops.from_metadata("b")),
        ops.convert("a", "time_to_iso"),
        ops.convert("a", ops.conversion("mine", lambda v: v)),
        ops.each("a", ops.when(ops.present("b"), ops.convert("b", "json_text_to_value"))),
    ],
    ids=str,
)
def test_what_sql_cannot_say_is_said(database: Database, op: Op) -> None:
    with pytest.raises(NoSql) as found:
        read((ops.drop("x"), op), database.dialect, data="s.data")
    assert str(found.value).count(":") >= 1
    assert "SQL" in str(found.value) or "your" in str(found.value) or "it " in str(found.value)


def test_every_op_has_a_reading() -> None:
    def below(kind: type[BaseOp]) -> set[type[BaseOp]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    kinds = below(BaseOp) - {BaseOp}
    own = {k.__qualname__ for k in kinds if k.__module__.startswith("eventmig.")}
    assert own == {kind.__qualname__ for kind in _READINGS}
