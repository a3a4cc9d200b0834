"""What Prometheus is told of a job, its read models and snapshots: names, labels and values.

Read anew from the ledgers for each scrape, by a process of its own: what it says of a job is
true also where the job's process is gone. Names follow prometheus.io/docs/practices/naming
(base units, `_total` for what only grows).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from eventmig.commands import Measured, ProjectionsReport, ProjectionStatus
from eventmig.migrate.states import Side, State


def up(parts: Mapping[str, bool]) -> Iterator[Metric]:
    """Whether each part could be looked at."""
    gauge = GaugeMetricFamily(
        "eventmig_up", "1 where this part could be looked at", labels=["part"]
    )
    for part, fine in parts.items():
        gauge.add_metric([part], fine)
    yield gauge


def of_job(found: Measured) -> Iterator[Metric]:
    """A job at one moment."""
    job, release = found.job, found.job.release
    info = GaugeMetricFamily(
        "eventmig_job_info",
        "Always 1; the labels name the job",
        labels=["release", "job", "target"],
    )
    info.add_metric([release, job.job_id, found.target], 1)
    yield info
    yield _one_of("job_state", "1 for the job's state", release, "state", job.state, State)
    about = "1 for the side that the application uses"
    yield _one_of("live_side", about, release, "side", found.live, Side)
    throttled = GaugeMetricFamily(
        "eventmig_throttled", "1 while the job waits, by the reason", labels=["release", "reason"]
    )
    if found.throttled:
        throttled.add_metric([release, found.throttled], 1)
    yield throttled
    gauges = {
        "running": ("1 while a process works on the job", found.running),
        "paused": ("1 while the job is asked to wait", found.controls.paused),
        "events": ("Events on the side that is copied from", found.total),
        "copied_events": ("Those of them that are copied", found.done),
        "lag_events": ("Those of them that are not", found.lag_events),
        "lag_seconds": ("Age of the oldest event that is not copied", found.lag_s),
        "checkpoint_age_seconds": ("Time since the last checkpoint", found.checkpoint_s),
        "quarantined_events": ("Events that the job set aside", found.quarantined),
        "mismatches": ("What verification found wrong", found.mismatches),
        "unsafe_events": ("Events of the new side without a way back", found.unsafe),
        "writers_stalled_seconds": (
            "How long the last crossing kept writers out",
            found.stood_still_s,
        ),
    }
    for name, (about, value) in gauges.items():
        if value is not None:
            yield _of_release(GaugeMetricFamily, name, about, release, value)
    counters = {
        "copied_bytes": ("Bytes of data copied", found.copied_bytes),
        "verified_events": ("Events that verification derived anew", found.verified),
    }
    for name, (about, value) in counters.items():
        yield _of_release(CounterMetricFamily, name, about, release, value)


def of_projections(found: ProjectionsReport) -> Iterator[Metric]:
    """Read models and aggregates."""
    gauges = {
        "lag_events": "Events it handles that its live rows do not have",
        "events": "Events that its live rows were made from",
        "position": "Global position of the last event in its live rows",
        "generation": "Number of the live generation; 0 where there is none",
        "kept": "1 while the generation before is kept for a rollback",
        "building": "1 while a rebuild builds a new generation",
        "quarantined_events": "Events that its rebuild set aside",
        "stale": "1 where other code, or another store, made its live rows",
    }
    for name, about in gauges.items():
        gauge = GaugeMetricFamily(
            f"eventmig_projection_{name}", about, labels=["projection", "kind"]
        )
        for one in found.results:
            value = _of_projection(one)[name]
            if value is not None:
                gauge.add_metric([one.name, one.kind.value], value)
        yield gauge


def _of_projection(one: ProjectionStatus) -> Mapping[str, float | None]:
    return {
        "lag_events": one.lag_events,
        "events": one.events_folded,
        "position": one.position,
        "generation": one.live or 0,
        "kept": one.kept is not None,
        "building": one.building is not None,
        "quarantined_events": one.quarantined,
        "stale": bool(one.stale),
    }


def _one_of(
    name: str, about: str, release: str, label: str, now: str | None, all_: type[State] | type[Side]
) -> Metric:
    gauge = GaugeMetricFamily(f"eventmig_{name}", about, labels=["release", label])
    for one in all_:
        gauge.add_metric([release, one.value], one == now)
    return gauge


def _of_release(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    about: str,
    release: str,
    value: float,
) -> Metric:
    family = kind(f"eventmig_{name}", about, labels=["release"])
    family.add_metric([release], value)
    return family
