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
_TRIES = 100
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
    function = inspect.unwrap(function)
    try:
        if function.__name__ == "<lambda>":
            return of_value(_shape(_lambda(function)))
        source = textwrap.dedent(inspect.getsource(function))
        tree = _parsed(source)
    except (OSError, TypeError, SyntaxError, ValueError, AttributeError):
        return of_value(f"{function.__module__}:{function.__qualname__}")
    return of_value(_shape(tree.body))


def _parsed(source: str) -> ast.Module:
    # Two threads that parse at once fail now and then (github.com/python/cpython/issues/106905).
    for _ in range(_TRIES):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)


def _lambda(function: Callable[..., object]) -> ast.Lambda:
    """The lambda itself, told from others on its line by where its code stands.

    Raises `ValueError` where the interpreter keeps no columns (`-X no_debug_ranges`).
    """
    tree = _parsed("".join(inspect.findsource(function)[0]))
    known = [p for p in function.__code__.co_positions() if None not in p and p[2:] != (0, 0)]
    start = min((line, column) for line, _, column, _ in known)
    end = max((line, column) for _, line, _, column in known)
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda)
        and (node.body.lineno, node.body.col_offset) <= start
        and end <= (node.body.end_lineno or 0, node.body.end_col_offset or 0)
    ]
    return max(around, key=lambda node: (node.body.lineno, node.body.col_offset))


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
