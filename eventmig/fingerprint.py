"""Fingerprints: short, stable names for what a release froze.

A fingerprint must be equal on every machine and every supported Python, and
must change when the meaning may have changed. Values are hashed over canonical
JSON; functions over the shape of their syntax tree, so that comments,
docstrings, blank lines and formatting do not count, and a Python upgrade does
not either. What a function calls is not followed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence

Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]

_LENGTH = 16
_UNSTABLE_FIELDS = {"ctx", "kind", "type_comment", "type_params", "type_ignores", "decorator_list"}


def of_value(value: Plain) -> str:
    """16 hex digits over a value's canonical JSON (keys sorted, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def of_function(function: Callable[..., object]) -> str:
    """16 hex digits over a function's syntax tree.

    Decorators, comments and docstrings do not count. Without its source (a
    builtin, a function typed into a console) its qualified name is used.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return of_value(f"{function.__module__}:{function.__qualname__}")
    return of_value(_shape(tree.body))


def _shape(node: object) -> Plain:
    if isinstance(node, ast.AST):
        parts: list[Plain] = [type(node).__name__]
        for name, child in ast.iter_fields(node):
            if name in _UNSTABLE_FIELDS or child is None or child == []:
                continue
            if name == "body" and isinstance(child, list):
                child = _without_docstring(child)
            parts.append([name, _shape(child)])
        return parts
    if isinstance(node, list):
        return [_shape(item) for item in node]
    return repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return body[1:]
    return body
