"""Read models and snapshots, rebuilt from events beside the live ones and swapped in."""

from __future__ import annotations

from eventmig.rebuild.aggregate import Aggregate
from eventmig.rebuild.loading import (
    Loaded,
    SnapshotComparison,
    SnapshotMismatch,
    compare_snapshots,
    load,
)
from eventmig.rebuild.owners import EventsourcingAggregate
from eventmig.rebuild.progress import Phase, RebuildProgress, RebuildResult
from eventmig.rebuild.read_model import ReadModel, ReplayOrder
from eventmig.rebuild.rebuild_read_models import rebuild_read_models, rollback_read_models
from eventmig.rebuild.rows import Rows
from eventmig.rebuild.snapshots import rebuild_snapshots, rollback_snapshots
from eventmig.rebuild.sql import Sql

__all__ = [
    "Aggregate",
    "EventsourcingAggregate",
    "Loaded",
    "Phase",
    "ReadModel",
    "RebuildProgress",
    "RebuildResult",
    "ReplayOrder",
    "Rows",
    "SnapshotComparison",
    "SnapshotMismatch",
    "Sql",
    "compare_snapshots",
    "load",
    "rebuild_read_models",
    "rebuild_snapshots",
    "rollback_read_models",
    "rollback_snapshots",
]
