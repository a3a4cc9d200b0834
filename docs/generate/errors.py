"""The page about errors, from the classes."""

from __future__ import annotations

import inspect

from docs.generate.text import NOTE, code, doc, table
from eventmig import errors
from eventmig.cli.exits import exit_code
from eventmig.errors import EventmigError, Where


def page() -> str:
    """The whole page."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    rows = []
    for kind in _all(EventmigError):
        code_ = exit_code(kind("…")).value if kind is not EventmigError else ""
        parent = "" if kind is EventmigError else code(kind.__mro__[1].__name__)
        rows.append((code(kind.__name__), parent, doc(kind), str(code_)))
    where = table(
        ["field", "what it names"],
        [(code(name), _FIELDS[name]) for name in Where.__dataclass_fields__],
    )
    return "\n".join(
        [
            "# Errors\n",
            NOTE,
            "Every error that eventmig raises on purpose is an `EventmigError`, from "
            "`eventmig.errors`. Each has three parts: `what` happened, `where` (a `Where`, below), "
            "and the `remedy`: what to do now. The command line prints all three; `--json` prints "
            "them as one object.\n",
            "```text",
            inspect.cleandoc(tree),
            "```\n",
            table(["class", "below", "when", "exit code"], rows),
            "## Where\n",
            "Only what is known is set.\n",
            where,
        ]
    )


def _all(kind: type[EventmigError]) -> list[type[EventmigError]]:
    return [kind, *[below for child in kind.__subclasses__() for below in _all(child)]]


_FIELDS = {
    "store": "the store's URL, without its password",
    "file": "a file",
    "line": "a line of it, from 1",
    "stream": "a stream's name",
    "stream_position": "a position in it, as its store counts",
    "global_position": "a position over all streams",
    "event_id": "an event's id",
    "type": "an event type",
    "schema_version": "a schema version of it",
    "step": "the upcaster, stream step or route",
    "path": "a member of the data",
    "handler": "a handler of a read model or aggregate",
    "key": "a row's key",
}
