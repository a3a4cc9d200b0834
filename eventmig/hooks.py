"""Hooks: what a user has run when a job comes to a point of its life.

`[hooks]` names an executable (a path, relative to the configuration) or a `module:object` for
each point. It gets the context as one JSON object: an executable on standard input, an
object as its one argument. A hook that runs before a step stops it by ending with another
exit code than 0, or by raising.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Final, cast

from eventmig.config import Config, load_object
from eventmig.errors import ConfigError, EventmigError, HookError, Where

BEFORE: Final = ("before_copy", "before_cutover", "before_reverse", "before_complete")
"""Points whose hook can stop the step."""

AFTER: Final = (
    "ready",
    "after_cutover",
    "after_reverse",
    "window_unsafe",
    "needs_operator",
    "failed",
    "completed",
)
"""Points whose hook is told, and cannot change anything."""

_SECONDS: Final = 60.0


def run_hook(config: Config, point: str, context: Mapping[str, object]) -> str:
    """Run the hook of a point, if there is one; returns what went wrong with one that is told.

    Raises `HookError` where a hook of `BEFORE` said no, `ConfigError` for one that is not there.
    """
    unknown = config.hooks.keys() - {*BEFORE, *AFTER}
    if unknown:
        raise ConfigError(
            f"there is no hook {', '.join(sorted(unknown))}",
            remedy=f"there are: {', '.join((*BEFORE, *AFTER))}",
        )
    name = config.hooks.get(point)
    if name is None:
        return ""
    text = json.dumps({"point": point, **context}, ensure_ascii=False)
    try:
        _call(config, name, point, text)
    except EventmigError as error:
        if point in BEFORE:
            raise
        return error.what
    return ""


def _call(config: Config, name: str, point: str, text: str) -> None:
    where = Where(handler=name)
    if ":" in name and not (config.folder / name).exists():
        hook = cast(
            "Callable[[dict[str, object]], object]",
            load_object(config, name, key=f"hooks.{point}", kind=object),
        )
        try:
            hook(json.loads(text))
        except EventmigError:
            raise
        except Exception as error:
            raise HookError(
                f"the hook {point} raised {type(error).__name__}: {error}",
                where=where,
                remedy="do what it asks for, then run the same command again",
            ) from error
        return
    path = config.folder / name
    try:
        ended = subprocess.run(
            [path],
            input=text,
            text=True,
            capture_output=True,
            cwd=config.folder,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HookError(
            f"the hook {point} could not be run: {error}",
            where=where,
            remedy="mend hooks in the configuration: an executable, or module:object",
        ) from error
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip()
        raise HookError(
            f"the hook {point} ended with {ended.returncode}" + (f": {said}" if said else ""),
            where=where,
            remedy="do what it asks for, then run the same command again",
        )
