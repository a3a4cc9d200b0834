"""Heads: streams without holes, as many events as accounted for, batches that tile both sides."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from eventmig.migrate.ledger import Batch, Job
from eventmig.migrate.states import CROSSED
from eventmig.migrate.tally import Tally
from eventmig.migrate.verify.findings import Mismatch, Verification
from eventmig.stores.base import Capability, JobTarget


def check_heads(
    target: JobTarget,
    job: Job,
    marks: list[Batch],
    windows: Mapping[int, int],
    found: Verification,
) -> None:
    """Look at every stream and every batch; `windows` as the ledger has them."""
    for damage in target.preflight():
        where = damage.where
        found.add(
            Mismatch(
                kind="hole",
                stream=where.stream or "",
                stream_position=where.stream_position,
                expected="positions without holes or repeats",
                found=damage.what,
            )
        )
    foreign = target.count(until=marks[0].target_after) if marks else 0
    written = target.count(until=job.target_position if job.state in CROSSED else None) - foreign
    wanted = job.tally.written + sum(windows.values())
    if written != wanted:
        found.add(Mismatch(kind="count", expected=f"{wanted} events", found=f"{written} events"))
    for before, after in itertools.pairwise(marks):
        whole = before.source_until == after.source_after
        if not whole or before.target_until != after.target_after:
            found.add(
                Mismatch(
                    kind="tiling",
                    expected=f"batch {after.number} to begin where batch {before.number} ended",
                    found=f"source {before.source_until} and {after.source_after}, "
                    f"target {before.target_until} and {after.target_after}",
                )
            )
    recorded = sum((mark.tally for mark in marks), Tally())
    if recorded != job.tally:
        found.add(
            Mismatch(
                kind="count",
                expected=f"{job.tally.read} events read and {job.tally.written} written",
                found=f"{recorded.read} and {recorded.written} in the recorded batches",
            )
        )


def check_heads_of(target: JobTarget, streams: Collection[str], found: Verification) -> None:
    """Look at these streams only: their positions must count from the first without a hole.

    Where the store cannot promise that, its server sees to the order within streams.
    """
    if Capability.CONTIGUOUS not in target.capabilities:
        return
    for head in target.heads(streams):
        if head.first != target.first_position or head.last - head.first + 1 != head.count:
            found.add(
                Mismatch(
                    kind="hole",
                    stream=head.stream,
                    stream_position=head.last,
                    expected=f"{head.last - target.first_position + 1} events",
                    found=f"{head.count} events, the first at {head.first}",
                )
            )
