"""`eventmig check`: is the registry fit to be released?

Compares it with the latest release, its steps with the schemas around them, and tries
every step on random valid events. Reads nothing but the registry and the lock; its
only randomness is hypothesis, with a fixed seed.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eventmig import codec
from eventmig.chains import Chains
from eventmig.codec import Value
from eventmig.conditions import Condition
from eventmig.drift import drift
from eventmig.errors import DataError, UpcastError
from eventmig.events import Event
from eventmig.goal import Goal
from eventmig.ops.base import Loss, Op
from eventmig.ops.schema import differences, schema_after
from eventmig.registry import Registry
from eventmig.release import Lock
from eventmig.schemas import EventSchema
from eventmig.steps import Downcaster, Parts, Rewrite, Upcaster, Version

EXAMPLES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend: what it is about (a step or schema), what is wrong, what to do."""

    about: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.about}: {self.what}\n  remedy: {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check looked at and found; `ways_back` is each step's loss by name.

    `warnings` are about read models whose code is not what made their rows.
    """

    types: int
    steps: int
    schemas: int
    examples: int
    findings: tuple[Finding, ...]
    unreleased: tuple[str, ...]
    ways_back: Mapping[str, Loss]
    warnings: tuple[Finding, ...] = ()

    @property
    def right(self) -> bool:
        """Whether nothing must be mended."""
        return not self.findings


def check_registry_and_lock(
    registry: Registry,
    lock: Lock,
    *,
    examples: int = EXAMPLES,
    on_step: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Everything `eventmig check` checks; `examples` random events per step (0: none).

    `on_step` is called with (steps checked, steps in all).
    """
    findings: list[Finding] = []
    unreleased: tuple[str, ...] = ()
    if lock.latest is not None:
        findings += [
            Finding(about=f"release {lock.latest.name}", what=line, remedy=todo)
            for what in drift(registry, lock.latest)
            for line, _, todo in [what.partition("; ")]
        ]
        now = registry.freeze("")
        unreleased = tuple(sorted(now.upcasters.keys() - lock.latest.upcasters.keys()))
    tried = 0
    steps = list(registry.upcasters.values())
    for number, step in enumerate(steps, 1):
        findings += _effects(registry, step)
        if examples:
            with _no_files_of_hypothesis():
                findings += _try_examples(registry, step, examples)
            tried += examples if step.source in registry.schemas else 0
        if on_step is not None:
            on_step(number, len(steps))
    return CheckReport(
        types=len(registry.current),
        steps=len(steps),
        schemas=len(registry.schemas),
        examples=tried,
        findings=tuple(findings),
        unreleased=unreleased,
        ways_back={step.name: _loss(registry, step) for step in steps},
    )


def _loss(registry: Registry, step: Upcaster) -> Loss:
    back = registry.downcaster(step.to) if step.to else None
    return Loss.ABSENT if back is None or back.to != step.source else back.loss


# what the ops say they do, held against the next schema --------------------------------------


def _effects(registry: Registry, step: Upcaster) -> list[Finding]:
    before = registry.schemas.get(step.source)
    if before is None:
        return []
    ends: list[tuple[Version, tuple[Op, ...], Condition | None]] = []
    match step.outcome:
        case Rewrite(ops):
            ends = [(step.to, ops, None)] if step.to else []
        case Parts(parts):
            ends = [(part.to, part.ops, part.when) for part in parts]
    found: list[Finding] = []
    for to, ops, when in ends:
        after = registry.schemas.get(to)
        effect = schema_after(ops, before.json_schema, when=when)
        if after is None or effect is None:
            continue
        found += [
            Finding(
                about=step.name,
                what=f"its ops do not lead from the schema of {before.name} to that of "
                f"{after.name}: {line}",
                remedy="change the ops or the model, so that the one yields the other",
            )
            for line in differences(after.json_schema, effect)
        ]
    return found


# random valid events -------------------------------------------------------------------------


def _try_examples(registry: Registry, step: Upcaster, examples: int) -> list[Finding]:
    before = registry.schemas.get(step.source)
    if before is None:
        return []
    goal = Goal(
        steps={step.source: step},
        schemas=registry.schemas,
        current={t: v for t, v in step.targets if t != step.source[0]}
        | {t: v for t, v in step.targets if t == step.source[0]},
        retired={} if any(t == step.source[0] for t, _ in step.targets) else dict([step.source]),
    )
    chains = Chains(goal)
    back = registry.downcaster(step.to) if step.to else None
    failed = _first_failure(before, lambda event: _try_one(chains, back, event), examples)
    if failed is None:
        return []
    example, reason = failed
    return [
        Finding(
            about=step.name,
            what=f"{reason}, for example for {example}",
            remedy="mend the step, so that every valid event of the older version becomes a "
            "valid one of the next (or narrow the older model, if no such event was ever stored)",
        )
    ]


def _try_one(chains: Chains, back: Downcaster | None, event: Event) -> str | None:
    """What is wrong with the step for this event, or None."""
    try:
        fast, slow = chains.upcast(event), chains.walk(event)
    except UpcastError as error:
        return error.what
    again = chains.upcast(event)
    if fast != again:
        return "upcasting the same event twice gave two different results"
    if [(d.version, codec.decode(d.data)) for d in fast] != [
        (d.version, codec.decode(d.data)) for d in slow
    ]:
        return "the compiled step and the plain one disagree (a fault in eventmig)"
    if back is None or len(fast) != 1 or back.to != (event.type, event.schema_version):
        return None
    value = codec.decode(fast[0].data)
    try:
        for op in back.ops:
            value = op.up(value, event)
    except DataError as error:
        return f"the way back fails: {error.what}"
    if back.loss is Loss.EXACT and not codec.same(value, codec.decode(event.data)):
        return f"the way back claims to be exact, but yields {_short(value)}"
    return None


def _first_failure(
    schema: EventSchema, attempt: Callable[[Event], str | None], examples: int
) -> tuple[str, str] | None:
    from hypothesis import HealthCheck, Phase, assume, given, seed, settings
    from hypothesis.errors import HypothesisWarning, Unsatisfiable
    from hypothesis_jsonschema import from_schema

    found: list[tuple[str, str]] = []

    @seed(0)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(from_schema(_closed(schema.json_schema)))
    def run(value: Value) -> None:
        data = codec.encode(value)
        try:
            schema.validate(data)
        except DataError:
            assume(False)
        event = Event(1, "example-1", 1, _ID, schema.type, schema.version, data, None, 0)
        reason = attempt(event)
        if reason is not None:
            found.append((_short(value), reason))
            raise _FoundError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)
            run()
    except _FoundError:
        return found[-1]
    except Unsatisfiable:
        return None
    return None


@contextmanager
def _no_files_of_hypothesis() -> Iterator[None]:
    """Let hypothesis keep what it caches out of the user's folder.

    It writes when it is imported, too: so nothing of it is imported at the top.
    """
    from hypothesis.configuration import set_hypothesis_home_dir

    with tempfile.TemporaryDirectory(prefix="eventmig-check-") as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


class _FoundError(Exception):
    """A random event for which a step fails; hypothesis then looks for a smaller one."""


_ID = "00000000-0000-4000-8000-000000000000"


def _closed(schema: object) -> Any:
    """The schema with objects closed: an old event has the members its model names."""
    if isinstance(schema, Mapping):
        closed = {key: _closed(item) for key, item in schema.items()}
        if "properties" in closed and "additionalProperties" not in closed:
            closed["additionalProperties"] = False
        return closed
    return [_closed(item) for item in schema] if isinstance(schema, list) else schema


def _short(value: object) -> str:
    text = codec.encode(value).decode()  # type: ignore[arg-type]
    return text if len(text) <= 300 else text[:297] + "…"
