"""The page about ops, from the functions that build them; each example is run here."""

from __future__ import annotations

import json
from typing import Any

from docs.generate.op_examples import CONDITIONS, CONVERSIONS, EXAMPLES, Example
from docs.generate.text import NOTE, code, doc, json_code, signature, table
from eventmig import codec, ops
from eventmig.conversions import NAMED
from eventmig.events import Event
from eventmig.ops import Op
from eventmig.ops.schema import schema_after
from eventmig.ops.sql import NoSql, read
from eventmig.ops.sql_conditions import KNOWN

_HEAD = f"""\
# Ops

{NOTE}
An op is one declarative change to an event's data: `from eventmig import ops`. It can be read in
several ways: **up** (what an upcaster does), **down** (the way back, with its class: exact, lossy
or absent), **schema** (what it does to a JSON Schema, which `eventmig check` compares with the next
version's model) and **SQL** (an expression that `eventmig upcast --pushdown` runs inside the
database; see [Inside the database](#inside-the-database)).

Rules that hold for every op:

- A member that is absent stays absent. A null is a value like any other, unless the op says
  otherwise.
- An op never overwrites: where its place is taken, it raises `OpError` naming the path. `put_value`
  and `default` say in their names that they do otherwise.
- A value that no op touches keeps its bytes; members keep their order.

A **path** is dotted text (`"address.city"`), or a tuple for what dotted text cannot say: a key that
holds a dot, or an index (`("lines", 0, "sku")`). `""` is the value itself.

In the examples, *schema* shows the members' schemas before and after; a `?` marks one that may be
absent.
"""

_IN_SQL = """\
## Inside the database

A step runs inside the database if all its ops have SQL there; the line *SQL* of each example
says where. The SQL means what `up` means, or it is NULL for an event, and that event's batch goes
through Python: an op that refuses an event refuses it there, with its own error. So do values
that a database would read otherwise:

- in both: numbers of more than 200 digits, and those that Python would spell with an exponent,
  where a conversion reads them; text that is not ASCII in `lower` and `capitalise`;
- in SQLite, whose JSON is text: data in which a key stands twice, an escape of an ASCII character,
  of NUL or of a surrogate; integers of more than 18 digits as hundredths; a number of more than 15
  characters that is compared with another one. Keys that hold `"` or `\\`, a list or object other
  than an empty one to compare with, and chains too deep for SQLite's parser have no SQL;
- in PostgreSQL, whose `jsonb` has already settled keys, numbers and escapes: nothing more. A
  constant that holds a NUL has no SQL.

Members keep their order in SQLite; `jsonb` has an order of its own, whoever writes.
"""

_EVENT = Event(1, "example-1", 1, "id", "Example", 1, b"{}", b'{"channel":"app"}', 0)
_SOURCES = ("ref", "from_metadata", "conversion")


def page() -> str:
    """The whole page. Raises `KeyError` for an op without an example."""
    builders = [name for name in ops.__all__ if callable(getattr(ops, name)) and name.islower()]
    conditions = [n for n in builders if n in CONDITIONS]
    changes = [n for n in builders if n not in CONDITIONS and n not in _SOURCES]
    order = sorted(changes, key=list(EXAMPLES).index)
    index = ", ".join(f"[`{n}`](#{n})" for n in order)
    parts = [_HEAD, index + "\n"]
    for name in order:
        parts += [f"## `{name}`\n", code(f"ops.{signature(getattr(ops, name))}") + "\n"]
        parts.append(doc(getattr(ops, name)) + "\n")
        parts += [_shown(example) for example in EXAMPLES[name]]
    parts.append("## Where an added value comes from\n")
    parts.append(
        table(
            ["source", "what it is"],
            [
                (code(f"ops.{signature(getattr(ops, n))}"), doc(getattr(ops, n)))
                for n in _SOURCES[:2]
            ],
        )
    )
    parts.append("## Conditions\n")
    parts.append(
        table(
            ["condition", "holds where", "example", "for"],
            [_condition(name) for name in sorted(conditions, key=list(CONDITIONS).index)],
        )
    )
    parts.append("## Conversions\n")
    parts.append(
        "For `convert`, by name. Null and absent members are left alone. A conversion refuses what "
        "it could not take back, so that those called exact are exact: `text_to_integer` takes "
        '`"7"`, not `"007"`. One of your own: '
        f"{code('ops.' + signature(ops.conversion))}. {doc(ops.conversion)}\n"
    )
    parts.append(table(["name", "before", "after", "way back", "SQL"], map(_conversion, NAMED)))
    parts.append(_IN_SQL)
    return "\n".join(parts)


def _shown(example: Example) -> str:
    text, before = example
    op = eval(text, {"ops": ops})
    after = op.up(_values(before), _EVENT)
    back = op.inverse()
    rows: list[tuple[str, str]] = [("before", json_code(_values(before))), ("up", json_code(after))]
    if back is None:
        rows.append(("down", f"none ({op.loss})"))
    else:
        rows.append(("down", f"{json_code(back.up(after, _EVENT))} ({op.loss})"))
    schema = _schema_of(before)
    effect = schema_after((op,), schema)
    shown = code(_members(effect)) if effect is not None else "cannot be told: it is a function"
    rows.append(("schema", f"{code(_members(schema))} → {shown}"))
    rows.append(("SQL", _databases(op)))
    return table(["", code(text)], rows)


def _databases(op: Op) -> str:
    """The databases that can run an op, or why none can."""
    names = []
    for dialect, name in (("postgresql", "PostgreSQL"), ("sqlite", "SQLite")):
        try:
            read((op,), dialect, data="e.data")
        except NoSql as error:
            reason = str(error.args[0]).removeprefix(f"{op}: ")
        else:
            names.append(name)
    return ", ".join(names) or f"none: {reason}"


def _values(value: object) -> Any:
    return codec.decode(json.dumps(value).encode())


def _schema_of(value: object) -> dict[str, Any]:
    """A schema that this example fits: its members, all required, and no others."""
    match value:
        case dict():
            return {
                "type": "object",
                "properties": {key: _schema_of(item) for key, item in value.items()},
                "required": list(value),
                "additionalProperties": False,
            }
        case list():
            return {"type": "array", "items": _schema_of(value[0])} if value else {"type": "array"}
        case None:
            return {"type": "null"}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
    return {"type": "string"}


def _members(schema: Any) -> str:
    """A schema in short: `{email: string, phone?: string}`."""
    if isinstance(schema, bool):
        return "anything" if schema else "nothing"
    if "properties" in schema:
        required = schema.get("required", ())
        members = [
            f"{key}{'' if key in required else '?'}: {_members(item)}"
            for key, item in schema["properties"].items()
            if item is not False
        ]
        return "{" + ", ".join(members) + "}"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(_members(item) for item in schema[choice])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if schema.get("type") == "array" and schema.get("items"):
        return f"list of {_members(schema['items'])}"
    kind = schema.get("type", "anything")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _condition(name: str) -> tuple[str, str, str, str]:
    text, value = CONDITIONS[name]
    found = eval(text, {"ops": ops})
    holds = "holds" if found.holds(_values(value)) else "does not"
    function = getattr(ops, name)
    return (
        code(f"ops.{signature(function)}"),
        doc(function),
        code(text),
        f"{json_code(_values(value))}: {holds}",
    )


def _conversion(name: str) -> tuple[str, ...]:
    conversion = NAMED[name]
    before = CONVERSIONS[name]
    after = conversion.apply(_values(before))
    back = conversion.inverse()
    if back is None:
        way = "the result stays (lossy)"
    else:
        way = f"{json_code(back.apply(after))} ({'exact' if conversion.exact else 'lossy'})"
    return (
        code(name),
        json_code(_values(before)),
        json_code(after),
        way,
        "yes" if name in KNOWN else "no",
    )
