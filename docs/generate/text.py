"""Markdown from values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence

from eventmig import codec
from eventmig.codec import Value

NOTE = "<!-- Written by `python -m docs.generate` from the code; edits here are lost. -->\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def code(text: object) -> str:
    """Inline code."""
    return f"`{text}`" if text != "" else ""


def json_code(value: Value) -> str:
    """A JSON value as inline code, its numbers with all their digits."""
    return code(codec.encode(value).decode())


def doc(thing: object) -> str:
    """A docstring as running text, its paragraphs kept."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def signature(function: Callable[..., object]) -> str:
    """A function's name and parameters, without types."""
    parts: list[str] = []
    star = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        shown = name
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
            shown = f"*{name}"
        if parameter.default is not parameter.empty:
            default = parameter.default
            value = f"ops.{default.name}" if hasattr(default, "name") else repr(default)
            shown = f"{name}={value.replace(chr(39), chr(34))}"
        parts.append(shown)
    return f"{function.__name__}({', '.join(parts)})"
