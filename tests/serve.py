"""A process that has eventmig imported, and forks for each command: `python -m tests.serve`.

Starting Python and importing everything takes half a second, and the tests run hundreds of
commands. Each runs in a child of its own, with its own folder, environment and output, as a shell
would start it. One request per line: `{"argv": […], "folder": …, "env": {…}, "out": …, "err": …}`;
the answer is the exit code.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from typing import Any

import msgspec

import eventmig.stores.postgres.store  # noqa: F401 - imported only where a URL asks for it
from eventmig import EventSchema, Registry, ops, upcaster
from eventmig.check import check_registry_and_lock
from eventmig.cli.app import main  # not that of `eventmig.cli`, which imports when it is called
from eventmig.release import Lock


class Named(msgspec.Struct):
    """What an event may be: text, for which hypothesis makes its tables of all characters."""

    name: str


def serve() -> None:
    """Answer requests until standard input ends."""
    renamed = Registry(
        [upcaster("Named", 1, ops.rename("name", "title"))],
        schemas=[EventSchema("Named", 1, Named)],
    )
    assert check_registry_and_lock(renamed, Lock()).examples  # else each check begins with that
    gc.freeze()  # no fork looks through what is imported by now
    here = os.getcwd()
    sys.path[:] = [p for p in sys.path if p not in ("", here)] + [here]  # the folder's code first
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(request))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(request: dict[str, Any]) -> int:
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    try:
        code = int(main(request["argv"]))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would do at the end of a program
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
