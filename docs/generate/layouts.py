"""The page about layouts, from the description's model and the presets."""

from __future__ import annotations

import ast
import inspect
import itertools
from enum import Enum
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generate.text import NOTE, code, doc, table
from eventmig.stores.layouts import Layout, presets
from eventmig.stores.layouts.parts import (
    Counter,
    Guard,
    Heads,
    Identity,
    Join,
    Lost,
    Payload,
    Stream,
    Tail,
    Time,
    Transaction,
    Type,
    Version,
)

_PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("transaction", Transaction),
    ("stream", Stream),
    ("id", Identity),
    ("type", Type),
    ("version", Version),
    ("data, metadata", Payload),
    ("time", Time),
    ("heads", Heads),
    ("joins", Join),
    ("counter", Counter),
    ("lost", Lost),
)
_VALUES: tuple[tuple[str, type[Enum]], ...] = (("tail", Tail), ("guard", Guard))
_SAID_BY_THE_URL = ("name", "dialect")


def page() -> str:
    """The whole page."""
    parts = [
        "# Layouts\n",
        NOTE,
        "A layout says how the tables of another library hold events. A store's URL names one: "
        "`?layout=NAME`, a preset or a table `[layouts.NAME]` of the "
        "[configuration](config.md) (`[tool.eventmig.layouts.NAME]` in `pyproject.toml`). "
        "How to use them: [migrate the store you have](../how-to/migrate-the-store-you-have.md).\n",
        "## The URL\n",
        table(["option", "what it says"], _OPTIONS),
        "## Presets\n",
        _presets(),
        "## An own description\n",
        "Column types are read from the database. `preset` takes everything from a preset that the "
        "table does not say itself:\n",
        "```toml\n" + _EXAMPLE + "```\n",
        _table(Layout, skip=_SAID_BY_THE_URL),
    ]
    for name, model in _PARTS:
        names = " and ".join(code(part) for part in name.split(", "))
        parts += [f"### {names}\n", doc(model) + "\n", _table(model)]
    for name, values in _VALUES:
        parts += [f"### {code(name)}\n", doc(values) + "\n"]
        parts.append(table(["value", "what it means"], _meanings(values)))
    return "\n".join(parts)


_OPTIONS = (
    ("`layout`", "A preset's name, or that of a description in the configuration."),
    ("`table`", "The events' table, where it has another name than the layout says."),
    ("`schema`", "PostgreSQL: the schema of the tables (default: the user's own)."),
    (
        "`release`",
        "A target in the same table: the new streams belong to this release, and reading the table "
        "without it leaves them out.",
    ),
)

_EXAMPLE = """\
# eventmig.toml
source = "postgresql://shop@db/shop?layout=shop"

[layouts.shop]
preset = "message-db"

[layouts.shop.version]
name = "schema_version"
text = false
"""


def _presets() -> str:
    rows = []
    for layout in presets():
        writes = layout.read_only or "yes"
        rows.append(
            (
                code(layout.name),
                {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[layout.dialect],
                layout.system,
                _version(layout),
                layout.tail.value,
                "yes" if not layout.read_only else f"no: {writes}",
                layout.side_by_side,
                layout.proof,
            )
        )
    head = [
        "preset",
        "database",
        "of",
        "schema version",
        "tail",
        "a job writes it",
        "old and new side by side",
        "who read a migrated one back",
    ]
    return table(head, rows)


def _version(layout: Layout) -> str:
    place = layout.version
    match place.place:
        case "none":
            return "nowhere; of events a job wrote: beside the table"
        case "type":
            return f"behind the type: `T{layout.type.suffix}2`"
        case "column":
            return f"column `{place.name}`"
    return f"`{place.name}` in the {place.place}"


def _table(model: type[BaseModel], *, skip: tuple[str, ...] = ()) -> str:
    texts = _below(model)
    rows = [
        (code(name), _kind(info), _default(info), texts.get(name, ""))
        for name, info in model.model_fields.items()
        if name not in skip
    ]
    assert all(text for *_, text in rows), f"a key of {model.__name__} is not described"
    return table(["key", "value", "default", "what it says"], rows)


def _kind(info: FieldInfo) -> str:
    return " or ".join(_named(info.annotation))


def _named(kind: object) -> list[str]:
    if get_origin(kind) is Literal:
        return [code(value) for value in get_args(kind)]
    if get_origin(kind) is tuple:
        return ["list"]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return ["table"]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [code(member.value) for member in kind]
    names = {str: "text", int: "number", bool: "yes or no", NoneType: ""}
    if kind in names:
        return [names[kind]] if names[kind] else []  # type: ignore[index]
    if get_origin(kind) is dict:
        return ["table"]
    return [name for part in get_args(kind) for name in _named(part)]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Enum):
        return code(value.value)
    if value in (None, "", (), {}) or isinstance(value, BaseModel):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else value)


def _meanings(values: type[Enum]) -> list[tuple[str, str]]:
    """Each value with what it means."""
    texts = _below(values)
    return [(code(member.value), texts[member.name]) for member in values]


def _below(described: type) -> dict[str, str]:
    """The text below each field or value in the code of its class, by name."""
    body = ast.parse(inspect.getsource(described)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for item, text in itertools.pairwise(body.body):
        target = item.targets[0] if isinstance(item, ast.Assign) else None
        target = item.target if isinstance(item, ast.AnnAssign) else target
        match target, text:
            case ast.Name(name), ast.Expr(ast.Constant(str(said))):
                texts[name] = inspect.cleandoc(said)
    return texts
