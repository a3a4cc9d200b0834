"""One typed function per command: each takes a `Project`, does its work, returns a value.

Nothing here prints; the command line (`cli`) and programs call the same functions.
Progress comes through callbacks. All errors are `EventmigError`s.
"""

from eventmig.commands.comparing import (
    DifferenceReport,
    SnapshotReport,
    check_snapshots,
    diff_read_models,
)
from eventmig.commands.completing import Completed, complete
from eventmig.commands.crossing import (
    CrossingReport,
    TypeBack,
    cutover,
    reverse,
)
from eventmig.commands.following import FollowReport, follow
from eventmig.commands.handing import OwnersSnapshots
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
from eventmig.commands.keeping import KeptDropped, drop_kept
from eventmig.commands.looking import SAMPLES_EACH, Current, Shown, current, plan, show
from eventmig.commands.naming import release_mark, source_of_rebuild
from eventmig.commands.projecting import ProjectionsReport, ProjectionStatus, projections
from eventmig.commands.rebuilding import RebuildReport, load, rebuild, rollback
from eventmig.commands.releasing import Started, check, init, release
from eventmig.commands.steering import (
    Measured,
    keep_up,
    keep_up_once,
    measure,
    resume,
    steer,
    was_announced,
    was_ready,
)
from eventmig.commands.watching import Watched, watch_copies
from eventmig.migrate.pushdown import Pushdown

__all__ = [
    "EVENTS_TRIED",
    "SAMPLES_EACH",
    "Completed",
    "CrossingReport",
    "Current",
    "DifferenceReport",
    "FollowReport",
    "Inspection",
    "JobHistory",
    "JobReport",
    "KeptDropped",
    "Measured",
    "OwnersSnapshots",
    "ProjectionStatus",
    "ProjectionsReport",
    "Pushdown",
    "RebuildReport",
    "Shown",
    "SnapshotReport",
    "Started",
    "TypeBack",
    "Watched",
    "cancel",
    "check",
    "check_snapshots",
    "complete",
    "current",
    "cutover",
    "diff_read_models",
    "drop_kept",
    "export_history",
    "follow",
    "history",
    "import_history",
    "init",
    "inspect",
    "keep_up",
    "keep_up_once",
    "load",
    "measure",
    "plan",
    "projections",
    "quarantined",
    "rebuild",
    "release",
    "release_mark",
    "resume",
    "retry_quarantined",
    "reverse",
    "rollback",
    "show",
    "source_of_rebuild",
    "status",
    "steer",
    "upcast",
    "verify",
    "was_announced",
    "was_ready",
    "watch_copies",
]
