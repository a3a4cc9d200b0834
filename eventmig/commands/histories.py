"""Import and export: whole histories in and out, as JSON Lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eventmig.export import export_jsonl
from eventmig.mapping import Mapping
from eventmig.project import (
    Project,
    opened,
)
from eventmig.transfer import ImportResult, import_jsonl


def import_history(
    project: Project,
    path: Path,
    *,
    store: str | None = None,
    mapping: Mapping | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Append a JSON Lines file to a store, all or nothing. Creates the store if need be."""
    name = project.lock.latest.name if project.lock.latest else None
    url = project.url("source", store, name)
    with opened(url, "create") as target:
        return import_jsonl(
            str(path), target, mapping or project.config.mapping(), progress=on_progress
        )


def export_history(project: Project, path: Path, *, store: str | None = None) -> int:
    """Write a store's events to a JSON Lines file, atomically; returns how many."""
    name = project.lock.latest.name if project.lock.latest else None
    with opened(project.url("source", store, name)) as reader:
        return export_jsonl(reader, str(path))
