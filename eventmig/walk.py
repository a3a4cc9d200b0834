"""The slow, obvious reading of chains: op by op on whole values, each step by itself.

The verifier derives a target by it, so as not to trust the compiled reading; what fails in
the compiled one is walked again, to name the step that did. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, cast

from eventmig import codec
from eventmig.codec import Value
from eventmig.conversions import NAMED, Conversion
from eventmig.drafts import Draft, unchanged
from eventmig.errors import OpError, UpcastError
from eventmig.events import Event
from eventmig.goal import Goal, failed, placed
from eventmig.ops.base import BaseOp, Op
from eventmig.ops.control import reads_event, run
from eventmig.steps import Parts, Rewrite, SplitFunction, Upcaster, Version


class _NoEvent:
    """Stands for the event where nothing looks at it: whoever does, fails."""


NO_EVENT = cast(Event, _NoEvent())


class Straight(NamedTuple):
    """A chain walked from end to end on the same values: one event stays one event.

    `new_data` is None where there is no step: the event stays as it is. `many` is `new_data` for
    the data of several events, up to `codec.AT_ONCE` at once; None where it takes more of an event
    than its data. Both raise anything where `Walk.step_by_step` is to tell what fails, or takes
    what they do not.
    """

    type: str
    schema_version: int
    new_data: Callable[[Event], bytes] | None
    many: Callable[[Sequence[bytes]], list[bytes]] | None = None


class Walk:
    """Walks the chains towards one goal. Validates where they end."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self._straight: dict[Version, Straight | None] = {}

    def walk(self, event: Event) -> list[Draft]:
        """The drafts that stand for one event; raises `UpcastError` naming the step."""
        straight = self.straight((event.type, event.schema_version))
        if straight is not None and straight.new_data is not None:
            try:
                data = straight.new_data(event)
            except Exception:  # noqa: BLE001 - step by step it is found out
                pass
            else:
                end = straight.type, straight.schema_version
                return [Draft((event,), *end, data, event.metadata, event.recorded_at)]
        return self.step_by_step(unchanged(event), whole=False)

    def straight(self, version: Version) -> Straight | None:
        """All steps from a version on, in a row on the same values.

        That is the same as encoding and decoding between them, in half the time. None where
        a step may yield what JSON would change, or several events, or where no path leads on.
        """
        if version not in self._straight:
            self._straight[version] = self._on_values(version)
        return self._straight[version]

    def _on_values(self, version: Version) -> Straight | None:
        try:
            path = self.goal.path(version)
        except UpcastError:
            return None
        if not path:
            return Straight(*version, None)
        ops = tuple(
            op for step in path if isinstance(step.outcome, Rewrite) for op in step.outcome.ops
        )
        end = path[-1].to
        rewrites = all(isinstance(step.outcome, Rewrite) for step in path)
        if end is None or not ops or not rewrites or not _keeps_to_json(ops):
            return None
        ups = [op.up for op in ops]
        schema = self.goal.schemas.get(end)
        parse = schema.parse if schema is not None else None
        parse_lines = schema.parse_lines if schema is not None else None

        def new_data(event: Event) -> bytes:
            data = codec.encode(run(ops, codec.decode_strict(event.data), event))
            if parse is not None:
                parse(data)
            return data

        def many(data: Sequence[bytes]) -> list[bytes]:
            made: list[Value] = []
            for value in codec.decode_strict_many(data):
                for up in ups:
                    value = up(value, NO_EVENT)
                made.append(value)
            lines = codec.encode_lines(made)
            if parse_lines is not None:
                parse_lines(lines)
            return lines.split(b"\n")[:-1]

        return Straight(*end, new_data, None if reads_event(ops) else many)

    def step_by_step(self, draft: Draft, *, whole: bool) -> list[Draft]:
        """`walk` of a draft; `whole`: validate at every version on the way, not only at the end."""
        event = draft.sources[0]
        step: Upcaster | None = None
        try:
            step = self.goal.step_from(draft.version)
            if step is None:
                return [draft]
            drafts = self._take(step, draft)
            for made in drafts:
                schema = self.goal.schemas.get(made.version)
                if schema is not None and (whole or self.goal.arrived(made.version)):
                    schema.validate(made.data)
        except UpcastError as error:
            raise placed(error, event) from None
        except Exception as error:
            raise failed(event, step, error) from error
        out = [after for made in drafts for after in self.step_by_step(made, whole=whole)]
        if step.to is None:
            out = [d._replace(ordinal=n, split=True) for n, d in enumerate(out)]
        return out

    def _take(self, step: Upcaster, draft: Draft) -> list[Draft]:
        data, event = draft.data, draft.sources[0]
        ends: list[tuple[Version, bytes]] = []
        match step.outcome:
            case Rewrite(ops):
                assert step.to is not None
                ends = [(step.to, _run(ops, data, event))]
            case Parts(parts):
                ends = [
                    (part.to, _run(part.ops, data, event))
                    for part in parts
                    if part.when is None or part.when.holds(codec.decode_strict(data))
                ]
            case SplitFunction():
                made = split_values(step.outcome, codec.decode_strict(data))
                ends = [(to, codec.encode_checked(values)) for to, values in made]
        return [draft._replace(type=t, schema_version=v, data=new) for (t, v), new in ends]

    def before_and_after(self, event: Event) -> list[tuple[str, list[Draft]]]:
        """Each step's name with the drafts after it; for people to look at.

        Raises `UpcastError` at the step that fails.
        """
        shown: list[tuple[str, list[Draft]]] = []
        drafts = [unchanged(event)]
        while True:
            step = next(
                (s for d in drafts if (s := self.goal.step_from(d.version)) is not None), None
            )
            if step is None:
                return shown
            after: list[Draft] = []
            for draft in drafts:
                if draft.version != step.source:
                    after.append(draft)
                    continue
                try:
                    after += self._take(step, draft)
                except Exception as error:
                    raise failed(event, step, error) from error
            drafts = after
            shown.append((step.name, drafts))


def _keeps_to_json(part: object) -> bool:
    """Whether what ops make is always what decoding would make, as no user's code comes between."""
    if isinstance(part, tuple):
        return all(map(_keeps_to_json, part))
    if isinstance(part, Conversion):
        return part.name.removesuffix(" (back)") in NAMED
    if isinstance(part, BaseOp) and type(part).__module__.startswith("eventmig.ops."):
        return all(_keeps_to_json(getattr(part, field.name)) for field in fields(cast(Any, part)))
    return not hasattr(part, "up")


def _run(ops: tuple[Op, ...], data: bytes, event: Event) -> bytes:
    """The slow, obvious reading of some ops; none leave the very bytes."""
    return codec.encode_checked(run(ops, codec.decode_strict(data), event)) if ops else data


def split_values(outcome: SplitFunction, values: Value) -> list[tuple[Version, Value]]:
    """What a split function yields, each type checked against `into`."""
    versions = dict(outcome.into)
    result = outcome.function(values)
    if result is None:
        raise OpError(
            f"{outcome.function.__qualname__} returned nothing",
            remedy="return a list of (type, data) pairs; an empty one drops the event",
        )
    made: list[tuple[Version, Value]] = []
    for type_, data in result:
        if type_ not in versions:
            raise OpError(
                f"{outcome.function.__qualname__} yielded the type {type_!r}, "
                f"which is not in `into` ({', '.join(versions)})",
                remedy="name every type it can yield in `into`",
            )
        made.append(((type_, versions[type_]), codec.decode(codec.encode_checked(data))))
    return made
