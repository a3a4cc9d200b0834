"""Running the measured steps: each in its own process, each on a fresh target.

Nothing here imports the engine: a process inherits the peak memory of the one that
started it, so that one stays small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WRITES = {
    "raw_copy": "raw",
    "upcast": "target",
    "peer_copy": "peer_target",
    "group_by": "group_by",
    "rebuild": "views",
    "rebuild_model": "models",
    "peer_read": "peer_views",
}
"""The store each step writes, which must not be there before."""


class StepError(Exception):
    """A step did not run; the message is what it wrote to standard error."""


def process(step: str, arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `bench.step` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "bench.step", step, arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one step."""

    events: int
    seconds: float
    peak_mb: float
    found: dict[str, Any]

    @property
    def rate(self) -> float:
        """Thousand events per second."""
        return self.events / self.seconds / 1000

    @property
    def copying(self) -> float:
        """The rate of a job's copying: without the check of the source before it."""
        checking: float = self.found["phases"]["checking"]
        return self.events / (self.seconds - checking) / 1000


@dataclass(slots=True)
class Place:
    """A folder with a history of so many events, where steps are run."""

    name: str
    folder: Path
    events: int
    streams: int
    compare: bool
    say: Callable[[str], None]
    ready: bool = False
    peaks: dict[str, float] = field(default_factory=dict)
    contents: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def run(self, step: str, label: str, **arguments: object) -> Run:
        """Run a step; its peak memory and content are kept under the label."""
        if step in WRITES:
            self.remove(WRITES[step])
        given = {"folder": str(self.folder), "compare": self.compare, **arguments}
        done = process(step, json.dumps(given))
        if done.returncode:
            raise StepError(f"the step {label} failed:\n{done.stderr or done.stdout}")
        found = json.loads(done.stdout.splitlines()[-1])
        run = Run(
            events=found.get("events", self.events),
            seconds=found["seconds"],
            peak_mb=found["peak_mb"],
            found=found,
        )
        if step == "upcast":
            self.ready = False
        self.peaks[label] = max(self.peaks.get(label, 0), run.peak_mb)
        for kind, digest in found["content"].items():
            self.contents[kind][label] = digest
        self.say(f"{self.name}: {label}: {run.seconds:.2f} s, {run.rate:.0f} k/s")
        return run

    def prepare(self) -> None:
        """Write configuration and history."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run("prepare", "history", events=self.events, streams=self.streams)

    def remove(self, store: str) -> None:
        """Delete a store with what lies beside it."""
        for path in self.folder.glob(f"{store}.db*"):
            path.unlink()

    def ready_target(self) -> None:
        """See to it that there is a target whose job is ready."""
        if not self.ready:
            if not list(self.folder.glob("target.db")):
                self.run("upcast", ONE, workers=1)
            self.run("finish", "make the target ready")
            self.ready = True


GROUP_BY, PEER, READ = "GROUP BY", "ProjectionRunner", "only reading"
IN_POSTGRES = {
    "no upcasting, 1 process": ("current", 1),
    "no upcasting, 2 processes": ("current", 2),
    "upcasting, 1 process": ("old", 1),
    "upcasting, 2 processes": ("old", 2),
}
"""The read model in PostgreSQL: schema of the events and processes, by label."""
ONE, TWO = "copy, 1 process", "copy, 2 processes"
