"""Chains: the steps from one (type, version) on, compiled into one function each.

Compiled once per (type, version) and kept. An event nothing applies to comes out as
the same bytes. When a compiled chain fails, the chain is walked again step by step to
name the one that did. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Never

import msgspec

from eventmig import codec
from eventmig.drafts import Draft, unchanged
from eventmig.errors import CodecError, UpcastError
from eventmig.events import Event
from eventmig.goal import Goal, failed, placed
from eventmig.ops.base import Op
from eventmig.ops.compiled import compile_many, compile_ops
from eventmig.ops.control import reads_event
from eventmig.ops.fused import RewriteMany
from eventmig.schemas import ModelClass
from eventmig.steps import Parts, Rewrite, SplitFunction, Upcaster, Version
from eventmig.walk import NO_EVENT, Walk, split_values

Upcast = Callable[[Event], list[Draft]]
"""One event to the drafts that stand for it (none, one, or several)."""

NewData = Callable[[Event], bytes]
"""One event to its new data, validated."""


Many = Callable[[Sequence[bytes]], list[bytes]]
"""Several events' data to their new data, validated."""


NewModels = Callable[[Sequence[bytes]], "list[Any] | None"]
"""Up to `codec.AT_ONCE` events' data to instances of a model."""


class DataChain(NamedTuple):
    """What upcasts events of one type and version where their data is all that is needed.

    `type` is that of the release. `new_data` makes one event's data of the stored data (None:
    it stays); `new_lines` that of up to `codec.AT_ONCE` events as lines, each ended by a newline;
    `new_models` makes instances of `model` of them, which validation makes anyway. Those of
    several events give None where they have to be taken one by one. `sound_lines` and
    `sound_models` are the same for data known to be JSON in UTF-8, on one line, with no key twice
    in an object; its spaces may stay. They raise anything.
    """

    type: str
    new_data: Callable[[bytes], bytes] | None = None
    new_lines: RewriteMany | None = None
    model: ModelClass | None = None
    new_models: NewModels | None = None
    sound_lines: RewriteMany | None = None
    sound_models: NewModels | None = None


class Simple(NamedTuple):
    """A chain that leaves one event one event: where it ends, and its new data.

    `new_data` is None where the event stays as it is. `from_data` is the same from the
    data alone, where the chain looks at nothing else, else None; it raises anything. So do
    `from_many`, which is `from_data` for several events; `from_few`, `from_models`, `sound_lines`
    and `sound_models`, which are `DataChain`'s (the first two `new_lines` and `new_models`);
    and `from_sound`, which is `from_many` for data known to be JSON in UTF-8, on one line, with
    no key twice in an object: of such data it may keep the spaces.
    """

    type: str
    schema_version: int
    new_data: NewData | None
    from_data: Callable[[bytes], bytes] | None = None
    from_many: Many | None = None
    from_few: RewriteMany | None = None
    from_sound: Many | None = None
    model: ModelClass | None = None
    from_models: NewModels | None = None
    sound_lines: RewriteMany | None = None
    sound_models: NewModels | None = None


class Chains:
    """Every chain towards one goal, compiled when first needed.

    `walk` is the slow, obvious reading: op by op on whole values. The verifier uses it, so
    as not to trust the compiled one. Both validate where the chain ends; only to explain
    a failure each version on the way is validated, too.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.walker = Walk(goal)
        self._compiled: dict[Version, Simple | Upcast] = {}

    def upcast(self, event: Event) -> list[Draft]:
        """The drafts that stand for one event; raises `UpcastError` naming the step."""
        chain = self.chain(event)
        if not isinstance(chain, Simple):
            return chain(event)
        type_, version, new_data = chain[:3]
        if new_data is None:
            return [unchanged(event)]
        data = new_data(event)
        return [Draft((event,), type_, version, data, event.metadata, event.recorded_at)]

    def chain(self, event: Event) -> Simple | Upcast:
        """The compiled chain for events of this one's type and version."""
        version = (event.type, event.schema_version)
        try:
            return self._compiled.get(version) or self.chain_from(version)
        except UpcastError as error:
            raise placed(error, event) from None

    def chain_from(self, version: Version) -> Simple | Upcast:
        """The compiled chain from a version on; raises `UpcastError` where none leads on."""
        chain = self._compiled.get(version)
        if chain is None:
            chain = self._compiled[version] = self._compile(version)
        return chain

    def walk(self, event: Event) -> list[Draft]:
        """The same as `upcast`, step by step."""
        return self.walker.walk(event)

    def plain(self, event: Event) -> list[Draft]:
        """`walk`, and for an event that it cannot hold whole the compiled reading.

        Such are a key that stands twice, or the like, in a member that no step touches.
        """
        try:
            return self.walk(event)
        except UpcastError as error:
            if not isinstance(error.__cause__, CodecError):
                raise
            return self.upcast(event)

    # compiled reading ------------------------------------------------------------------

    def _compile(self, version: Version) -> Simple | Upcast:
        steps = self.goal.path(version)
        if not steps:
            return Simple(*version, None)
        rewrites = steps if steps[-1].to is not None else steps[:-1]
        ops = tuple(op for step in rewrites for op in _ops(step))
        end = version if not rewrites else rewrites[-1].to
        assert end is not None
        if steps[-1].to is not None:
            return self._compile_rewrite(ops, end)
        return self._compile_last(ops, end, steps[-1])

    def _compile_rewrite(self, ops: tuple[Op, ...], end: Version) -> Simple:
        schema = self.goal.schemas.get(end)
        validate = schema.parse if schema else _accept
        rewrite = compile_ops(ops) if ops else _same

        def new_data(event: Event) -> bytes:
            try:
                data = rewrite(event.data, event)
                validate(data)
            except Exception as error:
                self._explain(event, error)
            return data

        def from_data(data: bytes) -> bytes:
            data = rewrite(data, NO_EVENT)
            try:
                validate(data)
            except Exception:
                if schema is not None:
                    schema.validate(data)  # the same, but it names the member
                raise
            return data

        if reads_event(ops):
            return Simple(*end, new_data)
        validate_lines = schema.parse_lines if schema else _accept
        many = compile_many(ops)
        from_few = _checked(many, validate_lines)
        many_sound = compile_many(ops, sound=True)
        sound = _checked(many_sound, validate_lines)
        from_many = _at_once(from_few, from_data)
        from_sound = _at_once(sound, lambda data: from_data(codec.compact(data)))
        chain = Simple(
            *end, new_data, from_data, from_many, from_few, from_sound, sound_lines=sound
        )
        if schema is None or (model := schema.struct) is None:
            return chain
        return chain._replace(
            model=model,
            from_models=_models(many, model),
            sound_models=_models(many_sound, model),
        )

    def _compile_last(self, ops: tuple[Op, ...], version: Version, last: Upcaster) -> Upcast:
        rewrite = compile_ops(ops) if ops else _same
        ends = self._ends(last)
        validates = {
            to: schema.validate
            for to in last.targets
            if (schema := self.goal.schemas.get(to)) and self.goal.arrived(to)
        }

        def upcast(event: Event) -> list[Draft]:
            drafts: list[Draft] = []
            try:
                data = rewrite(event.data, event)
                for to, part in ends(data, event):
                    if to in validates:
                        validates[to](part)
                    before = event._replace(type=to[0], schema_version=to[1], data=part)
                    drafts += self.upcast(before)
            except Exception as error:
                self._explain(event, error)
            return [
                draft._replace(sources=(event,), ordinal=ordinal, split=True)
                for ordinal, draft in enumerate(drafts)
            ]

        return upcast

    def _ends(self, last: Upcaster) -> Callable[[bytes, Event], list[tuple[Version, bytes]]]:
        match last.outcome:
            case Parts(parts):
                made = [(part, compile_ops(part.ops) if part.ops else _same) for part in parts]

                def by_parts(data: bytes, event: Event) -> list[tuple[Version, bytes]]:
                    values = None
                    out = []
                    for part, rewrite in made:
                        if part.when is not None:
                            values = codec.decode(data) if values is None else values
                            if not part.when.holds(values):
                                continue
                        out.append((part.to, rewrite(data, event)))
                    return out

                return by_parts
            case SplitFunction():
                outcome = last.outcome
                return lambda data, event: [
                    (to, codec.encode(values))
                    for to, values in split_values(outcome, codec.decode(data))
                ]
        return lambda data, event: []

    def _explain(self, event: Event, error: Exception) -> Never:
        """Raise the error of the step that failed, found by walking (else the one given)."""
        try:
            self.walker.step_by_step(unchanged(event), whole=True)
        except UpcastError as found:
            raise found from error
        if isinstance(error, UpcastError):
            raise error
        path = self.goal.path((event.type, event.schema_version))
        raise failed(event, path[-1] if path else None, error) from error


def _checked(rewrite: RewriteMany, validate: Callable[[bytes], object]) -> RewriteMany:
    def few(data: Sequence[bytes]) -> bytes | None:
        lines = rewrite(data)
        if lines is not None:
            validate(lines)
        return lines

    return few


def _models(rewrite: RewriteMany, model: ModelClass) -> NewModels:
    decode_lines: Callable[[bytes], list[Any]] = msgspec.json.Decoder(model).decode_lines

    def models(data: Sequence[bytes]) -> list[Any] | None:
        lines = rewrite(data)
        return None if lines is None else decode_lines(lines)

    return models


def _at_once(few: RewriteMany, one: Callable[[bytes], bytes]) -> Many:
    def many(data: Sequence[bytes]) -> list[bytes]:
        made: list[bytes] = []
        for start in range(0, len(data), codec.AT_ONCE):
            some = data[start : start + codec.AT_ONCE]
            lines = few(some)
            made += map(one, some) if lines is None else lines.split(b"\n")[:-1]
        return made

    return many


def _ops(step: Upcaster) -> tuple[Op, ...]:
    assert isinstance(step.outcome, Rewrite)
    return step.outcome.ops


def _same(data: bytes, event: Event) -> bytes:
    return data


def _accept(data: bytes) -> None:
    return None
