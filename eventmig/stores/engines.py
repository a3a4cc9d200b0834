"""Engines of SQLAlchemy that compile a statement once per process, not once per engine.

A command opens its stores anew, and with them engines: compiling the ledger's statements for each
was two fifths of what a cut-over computes while writers wait (measured). Opens nothing.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy
from sqlalchemy import URL, Dialect, Engine
from sqlalchemy.util import LRUCache

_STATEMENTS: Final = 500
"""How many are kept, as many as SQLAlchemy keeps for one engine."""


class _Compiled(LRUCache[Any, Any]):
    """Compiled statements by their keys, which begin with the dialect of one engine."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((_kind(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__((_kind(key[0]), *key[1:]), compiled)


def _kind(dialect: Dialect) -> tuple[object, ...]:
    """Equal for dialects that compile a statement to the same text."""
    escapes = getattr(dialect, "_backslash_escapes", None)  # as the server's session has it
    return type(dialect), getattr(dialect, "server_version_info", None), escapes


_compiled: Final = _Compiled(_STATEMENTS)


def create_engine(url: str | URL, **options: Any) -> Engine:
    """SQLAlchemy's own, with the compiled statements of all engines that were made here.

    No `options` may change how a dialect compiles (such as `paramstyle`).
    """
    return sqlalchemy.create_engine(url, execution_options={"compiled_cache": _compiled}, **options)
