"""The folder a benchmark works in: a configuration, a frozen release, a source store.

What lies here is what a user has: the steps of the benchmark open it as a project.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import history
from eventmig import commands
from eventmig.config import FILE
from eventmig.project import Project

CONFIG = """\
registry = "bench.domain:registry"
projections = "bench.domain:projections"
source = "sqlite:///history.db"
target = "sqlite:///target.db"
"""
RELEASE = "2"


@dataclass(frozen=True, slots=True)
class Workspace:
    """One folder with a history in it."""

    folder: Path

    @property
    def source(self) -> Path:
        """The file of the source store."""
        return self.folder / "history.db"

    def store(self, name: str) -> Path:
        """The file of another store here."""
        return self.folder / f"{name}.db"

    def project(self) -> Project:
        """The project of this folder."""
        return Project.open(self.folder / FILE)

    def remove(self, name: str) -> None:
        """Delete a store with what lies beside it."""
        for path in self.folder.glob(f"{name}.db*"):
            path.unlink()

    def make(self, *, events: int, streams: int) -> None:
        """Write configuration, release and history; the folder must be there."""
        (self.folder / FILE).write_text(CONFIG, "utf-8")
        commands.release(self.project(), RELEASE)
        history.write(url_of(self.source), events, streams)


def url_of(path: Path) -> str:
    """A SQLite file as a URL."""
    return f"sqlite:///{path}"
