"""One typed function per command: each takes a `Project`, does its work, returns a value.

Nothing here prints; the command line (`cli`) and programs call the same functions.
Progress comes through callbacks. All errors are `EventmigError`s.
"""

from eventmig.commands.following import FollowReport, follow
from eventmig.commands.histories import export_history, import_history
from eventmig.commands.inspecting import EVENTS_TRIED, Inspection, inspect
from eventmig.commands.jobs import (
    JobHistory,
    JobReport,
    cancel,
    history,
    quarantined,
    retry_quarantined,
    status,
    upcast,
    verify,
)
from eventmig.commands.looking import SAMPLES_EACH, Current, Shown, current, plan, show
from eventmig.commands.naming import release_mark, source_of_rebuild
from eventmig.commands.rebuilding import RebuildReport, load, rebuild, rollback
from eventmig.commands.releasing import Started, check, init, release
from eventmig.migrate.pushdown import Pushdown

__all__ = [
    "EVENTS_TRIED",
    "SAMPLES_EACH",
    "Current",
    "FollowReport",
    "Inspection",
    "JobHistory",
    "JobReport",
    "Pushdown",
    "RebuildReport",
    "Shown",
    "Started",
    "cancel",
    "check",
    "current",
    "export_history",
    "follow",
    "history",
    "import_history",
    "init",
    "inspect",
    "load",
    "plan",
    "quarantined",
    "rebuild",
    "release",
    "release_mark",
    "retry_quarantined",
    "rollback",
    "show",
    "source_of_rebuild",
    "status",
    "upcast",
    "verify",
]
