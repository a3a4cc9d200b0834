"""What is compared with what: each group runs its steps in turns and makes figures of them."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.measure import GROUP_BY, IN_POSTGRES, ONE, PEER, READ, TWO, Place, Run

SAMPLE = 40_000
VERIFIED = ("verify, 1 process", "verify, 2 processes")
REBUILDS = (
    ("rebuild, no upcasting, 1 process", "target", 1, 1),
    ("rebuild, no upcasting, 2 processes", "target", 2, 1.2),
    ("rebuild, upcasting, 1 process", "history", 1, None),
    ("rebuild, upcasting, 2 processes", "history", 2, 0.7),
)
"""Label, source, processes, and the least ratio aimed at."""
LOG_READERS = {
    1: "eventsourcing: its log reader, a transaction per event",
    5_000: "eventsourcing: pages and transactions of 5,000 events",
}
"""How many events are in a transaction, and what that is called."""
MODELS = (
    ("read model, 1 process", "activity_per_customer", "target", 1),
    ("read model with joins (rows.get), 1 process", "purchases", "target", 1),
    ("snapshots, 1 process", "order", "target", 1),
    ("snapshots, 2 processes", "order", "target", 2),
    ("snapshots, upcasting, 1 process", "order", "history", 1),
    ("snapshots, upcasting, 2 processes", "order", "history", 2),
)
"""Label, read model or aggregate, source, processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line: a rate beside the rate of a reference, of the same rounds of one run.

    Rates are thousand events per second, medians over the rounds; the ratio is the
    median of each round's ratio. `target` is the least ratio aimed at.
    """

    name: str
    what: str
    rate: float
    reference: str = ""
    reference_rate: float | None = None
    ratio: float | None = None
    target: float | None = None
    peak_mb: float | None = None


def copying(place: Place, rounds: int, *, on_disk: bool) -> list[Figure]:
    """The job beside `INSERT … SELECT`, with one process and with two."""
    plain, kept, one, two = [], [], [], []
    for _ in range(rounds):
        plain.append(place.run("raw_copy", "raw copy, indexes after", deferred=True))
        two.append(place.run("upcast", TWO, workers=2))
        kept.append(place.run("raw_copy", "raw copy, indexes on", deferred=False))
        one.append(place.run("upcast", ONE, workers=1))
    place.remove("raw")
    name = "disk" if on_disk else "copy"
    figures = []
    for what, runs, target in ((ONE, one, 0.45), (TWO, two, 0.85 if on_disk else 0.6)):
        for reference, others in (
            ("INSERT … SELECT, indexes after", plain),
            ("INSERT … SELECT, indexes on", kept),
        ):
            figures.append(
                _figure(
                    name,
                    f"{place.name}: {what}",
                    [run.copying for run in runs],
                    reference,
                    [run.rate for run in others],
                    target=target,
                    peak_mb=place.peaks[what],
                )
            )
    checks = [run.events / 1000 / run.found["phases"]["checking"] for run in one]
    figures.append(
        _figure(
            name,
            f"{place.name}: check of the source before it",
            checks,
            ONE,
            [run.copying for run in one],
        )
    )
    return figures


def peer(place: Place, rounds: int) -> list[Figure]:
    """The same copy with the library `eventsourcing`; none where it is not installed."""
    if importlib.util.find_spec("eventsourcing") is None:
        return []
    place.run("peer_prepare", "eventsourcing, history")
    one, two, theirs = [], [], []
    for _ in range(rounds):
        two.append(place.run("upcast", TWO, workers=2))
        theirs.append(place.run("peer_copy", "eventsourcing, copy"))
        one.append(place.run("upcast", ONE, workers=1))
    place.remove("peer_source")
    place.remove("peer_target")
    return [
        _figure(
            "peer",
            f"{place.name}: {what}",
            [run.copying for run in runs],
            "eventsourcing: recorders, mapper, upcasting",
            [run.rate for run in theirs],
            target=4,
            peak_mb=place.peaks[what],
        )
        for what, runs in ((ONE, one), (TWO, two))
    ]


def copying_in_postgres(place: Place, rounds: int, url: str) -> list[Figure]:
    """The job in PostgreSQL beside the server's own copy and the peer library's."""
    place.run("pg_prepare", "PostgreSQL, history", url=url)
    ours = {"PostgreSQL: copy, 1 process": (1, 0.45), "PostgreSQL: copy, 2 processes": (2, 0.6)}
    has_peer = importlib.util.find_spec("eventsourcing") is not None
    if has_peer:
        place.run("pg_peer_prepare", "PostgreSQL, eventsourcing, history", url=url)
    runs: dict[str, list[Run]] = {label: [] for label in ours}
    kept, after, peers = [], [], []
    for _ in range(rounds):
        kept.append(place.run("pg_raw_copy", "PostgreSQL: raw copy", url=url, deferred=False))
        for label, (workers, _) in ours.items():
            runs[label].append(place.run("pg_upcast", label, url=url, workers=workers))
        after.append(
            place.run("pg_raw_copy", "PostgreSQL: raw, indexes after", url=url, deferred=True)
        )
        if has_peer:
            peers.append(place.run("pg_peer_copy", "PostgreSQL, eventsourcing, copy", url=url))
    references = [
        ("INSERT … SELECT, 1 connection, indexes on", kept, None),
        ("INSERT … SELECT, 1 connection, indexes after", after, 0.0),
        *([("eventsourcing: recorders, mapper, upcasting", peers, 6.0)] if has_peer else []),
    ]
    return [
        _figure(
            "postgres-copy",
            label,
            [run.copying for run in runs[label]],
            reference,
            [run.rate for run in others],
            target=least if aim is None else aim or None,
            peak_mb=place.peaks[label],
        )
        for label, (_, least) in ours.items()
        for reference, others, aim in references
    ]


def verifying(place: Place, rounds: int) -> list[Figure]:
    """The verification beside the copy it verifies, with one process and with two."""
    figures = []
    runs: dict[str, list[Run]] = {what: [] for what in (ONE, TWO, *VERIFIED)}
    for _ in range(rounds):
        for copied, verified, workers in zip((ONE, TWO), VERIFIED, (1, 2), strict=True):
            runs[copied].append(place.run("upcast", copied, workers=workers))
            runs[verified].append(place.run("verify", verified, workers=workers))
    for copied, verified, target in zip((ONE, TWO), VERIFIED, (None, 0.5), strict=True):
        figures.append(
            _figure(
                "verify",
                f"{place.name}: {verified}",
                [run.rate for run in runs[verified]],
                copied,
                [run.copying for run in runs[copied]],
                target=target,
                peak_mb=place.peaks[verified],
            )
        )
    return figures


def rebuilding(place: Place, rounds: int) -> list[Figure]:
    """A read model beside the same as one SQL statement, with one process and with two."""
    place.ready_target()
    sql: list[Run] = []
    runs: dict[str, list[Run]] = {label: [] for label, *_ in REBUILDS}
    for _ in range(rounds):
        sql.append(place.run("group_by", "GROUP BY"))
        for label, source, workers, _ in REBUILDS:
            runs[label].append(place.run("rebuild", label, source=source, workers=workers))
    return [
        _figure(
            "rebuild",
            f"{place.name}: {label}",
            [run.rate for run in runs[label]],
            "one SQL GROUP BY with JSON extraction",
            [run.rate for run in sql],
            target=target,
            peak_mb=place.peaks[label],
        )
        for label, _, _, target in REBUILDS
    ]


def models(place: Place, rounds: int) -> list[Figure]:
    """Read models and snapshots beside only reading and SQL; the log reader of a library."""
    place.ready_target()
    read: list[Run] = []
    sql: list[Run] = []
    runs: dict[str, list[Run]] = {label: [] for label, *_ in MODELS}
    for _ in range(rounds):
        read.append(place.run("only_read", "only reading", source="target"))
        sql.append(place.run("group_by", "GROUP BY"))
        for label, name, source, workers in MODELS:
            run = place.run("rebuild_model", label, model=name, source=source, workers=workers)
            runs[label].append(run)
    # Each over all events, also where it is made of some types alone.
    found = [
        _figure(
            "models",
            f"{place.name}: {label}",
            [place.events / 1000 / run.seconds for run in runs[label]],
            reference,
            [run.rate for run in others],
            peak_mb=place.peaks[label],
        )
        for label, *_ in MODELS
        for reference, others in (
            ("only reading type and data of all events", read),
            ("one SQL GROUP BY with JSON extraction", sql),
        )
    ]
    if importlib.util.find_spec("eventsourcing") is None:
        return found
    place.run("peer_prepare", "eventsourcing, history")
    theirs: dict[int, list[Run]] = {size: [] for size in LOG_READERS}
    ours: dict[str, list[Run]] = {label: [] for label, *_ in REBUILDS[2:]}
    for _ in range(rounds):
        for size, label in LOG_READERS.items():
            theirs[size].append(place.run("peer_read", label, batch_size=size))
        for label, source, workers, _ in REBUILDS[2:]:
            ours[label].append(place.run("rebuild", label, source=source, workers=workers))
    place.remove("peer_source")
    place.remove("peer_views")
    return found + [
        _figure(
            "models",
            f"{place.name}: {label}",
            [run.rate for run in ours[label]],
            reference,
            [run.rate for run in theirs[size]],
            target=8 if size == 1 else None,
        )
        for label in ours
        for size, reference in LOG_READERS.items()
    ]


def models_in_postgres(place: Place, rounds: int) -> list[Figure]:
    """Read models and snapshots in PostgreSQL beside only reading and one SQL statement there."""
    run = place.run(
        "in_postgres",
        "read models in PostgreSQL",
        events=place.events,
        streams=place.streams,
        rounds=rounds,
    )
    times = run.found["rounds"]
    rates = {name: [place.events / 1000 / found[name] for found in times] for name in times[0]}
    return [
        _figure(
            "postgres",
            f"PostgreSQL: rebuild, {name}",
            rates[name],
            f"PostgreSQL: {what}",
            rates[reference],
            target=target if name in IN_POSTGRES else None,
        )
        for what, reference, target in (
            ("one SQL GROUP BY", GROUP_BY, 0.75),
            ("eventsourcing's ProjectionRunner", PEER, 60.0),
            ("only reading type and data of all events", READ, None),
        )
        if reference in rates
        for name in rates
        if name not in {GROUP_BY, PEER, READ} and (reference != PEER or name in IN_POSTGRES)
    ]


def reading(place: Place, rounds: int) -> list[Figure]:
    """Upcasting on read beside `json.loads` and hand-written functions."""
    run = place.run("on_read", "upcast on read", sample=min(SAMPLE, place.events), rounds=rounds)
    figures = []
    for found in run.found["types"]:
        for what in ("upcast", "load"):
            figures.append(
                _figure(
                    "read",
                    f"registry.{what}: {found['type']} ({found[what]:.1f} µs)",
                    [1000 / found[what]],
                    f"json.loads + functions by hand ({found['by_hand']:.1f} µs)",
                    [1000 / found["by_hand"]],
                )
            )
    return figures


def pushing_down(place: Place, rounds: int) -> list[Figure]:
    """Batches inside PostgreSQL beside `INSERT … SELECT`, over one connection and over two."""
    run = place.run(
        "pushed_down",
        "inside PostgreSQL",
        events=place.events,
        streams=place.streams,
        rounds=rounds,
    )
    times = run.found["rounds"]
    rates = {name: [place.events / 1000 / found[name] for found in times] for name in times[0]}
    plain = {name for name in rates if name.startswith("INSERT")}
    targets = {("2 connections", "INSERT … SELECT, indexes on"): 1.0}
    return [
        _figure(
            "pushdown",
            f"inside PostgreSQL: copy, {name}" if "conn" in name else f"PostgreSQL: copy, {name}",
            rates[name],
            reference,
            rates[reference],
            target=targets.get((name, reference)),
        )
        for name in rates
        if name not in plain
        for reference in sorted(plain)
    ]


def memory(place: Place, quarter: Place) -> list[tuple[str, float, float]]:
    """The peak of each kind of step, with the whole history and with a quarter of it, in MB."""
    steps: list[tuple[str, str, Mapping[str, object]]] = [
        (TWO, "upcast", {"workers": 2}),
        (ONE, "upcast", {"workers": 1}),
        *((label, "verify", {"workers": n}) for n, label in enumerate(VERIFIED, 1)),
        *(
            (label, "rebuild", {"source": source, "workers": workers})
            for label, source, workers, _ in REBUILDS
        ),
    ]
    for at in (place, quarter):
        for label, step, arguments in steps:
            if label in at.peaks:
                continue
            if step == "rebuild":
                at.ready_target()
            at.run(step, label, **arguments)
    return [(label, place.peaks[label], quarter.peaks[label]) for label, _, _ in steps]


def unequal(places: Iterable[Place]) -> list[str]:
    """Which copies differ in content from others of the same events; none is right."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for place in places:
        for kind, digests in place.contents.items():
            of_kind = found.setdefault((place.events, kind), {})
            of_kind.update({f"{place.name}: {label}": d for label, d in digests.items()})
    return [
        f"{kind} of {events} events: " + ", ".join(f"{k} = {d}" for k, d in digests.items())
        for (events, kind), digests in found.items()
        if len(set(digests.values())) > 1
    ]


def _figure(
    name: str,
    what: str,
    rates: Sequence[float],
    reference: str,
    reference_rates: Sequence[float],
    *,
    target: float | None = None,
    peak_mb: float | None = None,
) -> Figure:
    ratios = [ours / theirs for ours, theirs in zip(rates, reference_rates, strict=True)]
    return Figure(
        name=name,
        what=what,
        rate=statistics.median(rates),
        reference=reference,
        reference_rate=statistics.median(reference_rates),
        ratio=statistics.median(ratios),
        target=target,
        peak_mb=peak_mb,
    )
