"""One measured step in a process of its own: `python -m bench.step NAME ARGUMENTS`.

A process of its own, so that its peak memory is its own. Arguments and result are JSON;
the result is the last line on standard output. Importing is not measured.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import content, ours, peer, postgres, pushdown, raw, read_models
from bench.domain import activity_per_customer, registry
from bench.history import BATCH_SIZE
from bench.workspace import Workspace, url_of

Result = dict[str, Any]


def prepare(work: Workspace, *, events: int, streams: int) -> Result:
    work.make(events=events, streams=streams)
    return {"bytes": work.source.stat().st_size, "content": lambda: _expected(work)}


def _expected(work: Workspace) -> dict[str, str]:
    return {
        "source": content.of_store(work.source),
        "upcast": content.of_store(work.source, upcast=registry),
    }


def raw_copy(work: Workspace, *, deferred: bool) -> Result:
    target = work.store("raw")
    events = raw.copy(work.source, target, batch_size=BATCH_SIZE, deferred=deferred)
    return {"events": events, "content": lambda: {"source": content.of_store(target)}}


def upcast(work: Workspace, *, workers: int) -> Result:
    target = work.store("target")
    watch = ours.upcast(work, target, workers=workers, batch_size=BATCH_SIZE)
    return {
        "phases": watch.seconds,
        "content": lambda: {
            "upcast": content.of_store(target),
            "data": content.data_of_store(target),
        },
    }


def verify(work: Workspace, *, workers: int) -> Result:
    return {"events": ours.verify(work, work.store("target"), workers=workers)}


def finish(work: Workspace) -> Result:
    ours.finish(work, work.store("target"))
    return {}


def peer_prepare(work: Workspace) -> Result:
    return {"events": peer.prepare(url_of(work.source), peer.in_file(work.store("peer_source")))}


def peer_copy(work: Workspace) -> Result:
    target = peer.in_file(work.store("peer_target"))
    events = peer.copy(peer.in_file(work.store("peer_source")), target, batch_size=BATCH_SIZE)
    return {"events": events, "content": lambda: {"data": content.data_of_peer(target)}}


def group_by(work: Workspace) -> Result:
    target = work.store("group_by")
    raw.group_by(work.store("target"), target)
    return {"content": lambda: {"rows": _rows(target)}}


def rebuild(work: Workspace, *, source: str, workers: int) -> Result:
    target = work.store("views")
    events = ours.rebuild(work, work.store(source), target, workers=workers)
    return {"events": events, "content": lambda: {"rows": _rows(target)}}


def _rows(path: Path) -> str:
    return content.of_table(path, activity_per_customer.name)


def on_read(work: Workspace, *, sample: int, rounds: int) -> Result:
    found = ours.on_read(work.source, sample=sample, rounds=rounds)
    return {"types": [asdict(one) for one in found]}


def pushed_down(work: Workspace, *, events: int, streams: int, rounds: int) -> Result:
    return {"rounds": pushdown.seconds(work, events=events, streams=streams, rounds=rounds)}


def only_read(work: Workspace, *, source: str) -> Result:
    return {"events": read_models.only_read(url_of(work.store(source)))}


def rebuild_model(work: Workspace, *, model: str, source: str, workers: int) -> Result:
    target = work.store("models")
    events = read_models.rebuild(work, model, work.store(source), target, workers=workers)
    return {"events": events}


def peer_read(work: Workspace, *, batch_size: int) -> Result:
    source, target = peer.in_file(work.store("peer_source")), work.store("peer_views")
    return {"events": peer.read_log(source, target, batch_size=batch_size)}


def in_postgres(work: Workspace, *, events: int, streams: int, rounds: int) -> Result:
    found = read_models.in_postgres(work, events=events, streams=streams, rounds=rounds)
    return {"rounds": found}


STEPS: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (
        prepare,
        raw_copy,
        upcast,
        verify,
        finish,
        peer_prepare,
        peer_copy,
        group_by,
        rebuild,
        on_read,
        pushed_down,
        only_read,
        rebuild_model,
        peer_read,
        in_postgres,
        postgres.pg_prepare,
        postgres.pg_raw_copy,
        postgres.pg_upcast,
        postgres.pg_peer_prepare,
        postgres.pg_peer_copy,
    )
}


def main(name: str, arguments: str) -> None:
    """Run one step and print what it came to."""
    given = json.loads(arguments)
    work, compare = Workspace(Path(given.pop("folder"))), given.pop("compare")
    began = time.perf_counter()
    result = STEPS[name](work, **given)
    result.setdefault("seconds", time.perf_counter() - began)
    result["peak_mb"] = _peak_mb()
    contents = result.pop("content", dict)
    result["content"] = contents() if compare else {}
    print(json.dumps(result))


def _peak_mb() -> float:
    """The peak of this process and of the largest it started, together."""
    unit = 1 if sys.platform == "darwin" else 1024
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(who).ru_maxrss for who in whose) * unit / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
