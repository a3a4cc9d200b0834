"""A collector for Prometheus: looks at the job and the projections whenever it is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from eventmig import commands
from eventmig.errors import EventmigError, JobError
from eventmig.monitoring import exposition
from eventmig.project import Project

KEPT_S = 5.0
"""For how long one look answers further scrapes, in seconds: a look counts events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which job and which read models; None is what the configuration says."""

    release: str | None = None
    source: str | None = None
    target: str | None = None
    read_models: str | None = None


class Meter(Collector):
    """Looks at the stores of a project: a part that it cannot look at has `eventmig_up` 0.

    `tell` is told why. A target that no job has been begun with is no failure.
    """

    def __init__(
        self, project: Project, asked: Asked, tell: Callable[[str, EventmigError], None]
    ) -> None:
        self._project = project
        self._asked = asked
        self._tell = tell
        self._seen: list[Metric] = []
        self._looked_at = float("-inf")

    def collect(self) -> list[Metric]:
        """All metrics, of now or of the last few seconds. Reads only."""
        if time.monotonic() - self._looked_at > KEPT_S:
            self._seen = list(self._look())
            self._looked_at = time.monotonic()
        return self._seen

    def registry(self) -> CollectorRegistry:
        """A registry of these metrics alone, without those of this process."""
        made = CollectorRegistry(auto_describe=False)
        made.register(self)
        return made

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry()).decode()

    def _look(self) -> Iterator[Metric]:
        parts = {"job": self._job}
        if self._project.config.projections is not None:
            parts["projections"] = self._projections
        fine = dict.fromkeys(parts, True)
        for part, look in parts.items():
            try:
                yield from look()
            except EventmigError as error:
                fine[part] = False
                self._tell(part, error)
        yield from exposition.up(fine)

    def _job(self) -> list[Metric]:
        asked = self._asked
        try:
            found = commands.measure(
                self._project, release=asked.release, source=asked.source, target=asked.target
            )
        except JobError:  # none was begun yet
            return []
        return list(exposition.of_job(found))

    def _projections(self) -> list[Metric]:
        asked = self._asked
        found = commands.projections(
            self._project, source=asked.source, read_models=asked.read_models
        )
        return list(exposition.of_projections(found))
