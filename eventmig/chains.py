"""Chains: the steps from one (type, version) on, compiled into one function each.

Compiled once per (type, version) and kept. An event nothing applies to comes out as
the same bytes. When a compiled chain fails, the chain is walked again step by step to
name the one that did. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Never, cast

from eventmig import codec
from eventmig.codec import Value
from eventmig.drafts import Draft, unchanged
from eventmig.errors import (
    CodecError,
    DataError,
    NewerEventError,
    OpError,
    UpcastError,
    Where,
)
from eventmig.events import Event
from eventmig.ops.base import Op
from eventmig.ops.compiled import compile_many, compile_ops
from eventmig.ops.control import reads_event, run
from eventmig.schemas import EventSchema
from eventmig.steps import Parts, Rewrite, SplitFunction, Upcaster, Version

Upcast = Callable[[Event], list[Draft]]
"""One event to the drafts that stand for it (none, one, or several)."""

NewData = Callable[[Event], bytes]
"""One event to its new data, validated."""


_AT_ONCE = 200  # events: their values fit into a processor's cache


class Simple(NamedTuple):
    """A chain that leaves one event one event: where it ends, and its new data.

    `new_data` is None where the event stays as it is. `from_data` is the same from the
    data alone, where the chain looks at nothing else, else None; it raises anything. So does
    `from_many`, which is `from_data` for several events at once.
    """

    type: str
    schema_version: int
    new_data: NewData | None
    from_data: Callable[[bytes], bytes] | None = None
    from_many: Callable[[Sequence[bytes]], list[bytes]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What chains lead to: the steps, the schemas, and each type's current version.

    `current` holds every type the registry knows and does not retire; a type that is
    in none of them is unregistered and passes through.
    """

    steps: Mapping[Version, Upcaster]
    schemas: Mapping[Version, EventSchema]
    current: Mapping[str, int]
    retired: Mapping[str, int]

    def arrived(self, version: Version) -> bool:
        """Whether an event of this version needs no step."""
        type_, number = version
        current = self.current.get(type_)
        return number == current if current is not None else type_ not in self.retired

    def step_from(self, version: Version) -> Upcaster | None:
        """The next step, or None where the goal is reached.

        Raises `NewerEventError`, or `UpcastError` for a version below all that are known.
        """
        if self.arrived(version):
            return None
        type_, number = version
        newest = max(self.current.get(type_, 0), self.retired.get(type_, 0))
        step = self.steps.get(version)
        where = Where(type=type_, schema_version=number)
        if number > newest:
            raise NewerEventError(
                f"{type_} v{number} is newer than what is known (v{newest})",
                where=where,
                remedy="deploy the release that wrote it, or upcast to that release",
            )
        if step is None:
            raise UpcastError(
                f"no upcaster starts at {type_} v{number}",
                where=where,
                remedy="write the upcaster for the events of that version",
            )
        return step

    def path(self, version: Version) -> list[Upcaster]:
        """The steps from a version on, as long as they lead to one version each."""
        steps: list[Upcaster] = []
        while (step := self.step_from(version)) is not None:
            steps.append(step)
            if step.to is None:
                break
            version = step.to
        return steps


class Chains:
    """Every chain towards one goal, compiled when first needed.

    `walk` is the slow, obvious reading: op by op on whole values. The verifier uses it, so
    as not to trust the compiled one. Both validate where the chain ends; only to explain
    a failure each version on the way is validated, too.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
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
            raise _at(error, event) from None

    def chain_from(self, version: Version) -> Simple | Upcast:
        """The compiled chain from a version on; raises `UpcastError` where none leads on."""
        chain = self._compiled.get(version)
        if chain is None:
            chain = self._compiled[version] = self._compile(version)
        return chain

    def walk(self, event: Event) -> list[Draft]:
        """The same as `upcast`, step by step."""
        return self._walk(unchanged(event), whole=False)

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
            data = rewrite(data, _NO_EVENT)
            try:
                validate(data)
            except Exception:
                if schema is not None:
                    schema.validate(data)  # the same, but it names the member
                raise
            return data

        if reads_event(ops):
            return Simple(*end, new_data)
        rewrite_many = compile_many(ops)
        validate_lines = schema.parse_lines if schema else _accept

        def from_many(data: Sequence[bytes]) -> list[bytes]:
            made: list[bytes] = []
            for start in range(0, len(data), _AT_ONCE):
                some = data[start : start + _AT_ONCE]
                lines = rewrite_many(some)
                if lines is None:
                    made += map(from_data, some)
                else:
                    validate_lines(lines)
                    made += lines.split(b"\n")[:-1]
            return made

        return Simple(*end, new_data, from_data, from_many)

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
                    for to, values in _split_values(outcome, codec.decode(data))
                ]
        return lambda data, event: []

    # the slow, obvious reading -----------------------------------------------------------

    def _walk(self, draft: Draft, *, whole: bool) -> list[Draft]:
        """`whole`: validate at every version on the way, not only at the end."""
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
            raise _at(error, event) from None
        except Exception as error:
            raise _failed(event, step, error) from error
        out = [after for made in drafts for after in self._walk(made, whole=whole)]
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
                made = _split_values(step.outcome, codec.decode_strict(data))
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
                    raise _failed(event, step, error) from error
            drafts = after
            shown.append((step.name, drafts))

    def _explain(self, event: Event, error: Exception) -> Never:
        """Raise the error of the step that failed, found by walking (else the one given)."""
        try:
            self._walk(unchanged(event), whole=True)
        except UpcastError as found:
            raise found from error
        if isinstance(error, UpcastError):
            raise error
        path = self.goal.path((event.type, event.schema_version))
        raise _failed(event, path[-1] if path else None, error) from error


class _NoEvent:
    """Stands for the event where nothing looks at it: whoever does, fails."""


_NO_EVENT = cast(Event, _NoEvent())


def _ops(step: Upcaster) -> tuple[Op, ...]:
    assert isinstance(step.outcome, Rewrite)
    return step.outcome.ops


def _same(data: bytes, event: Event) -> bytes:
    return data


def _run(ops: tuple[Op, ...], data: bytes, event: Event) -> bytes:
    """The slow, obvious reading of some ops; none leave the very bytes."""
    return codec.encode_checked(run(ops, codec.decode_strict(data), event)) if ops else data


def _accept(data: bytes) -> None:
    return None


def _split_values(outcome: SplitFunction, values: Value) -> list[tuple[Version, Value]]:
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


def place_of(event: Event) -> Where:
    """Where an event stands, for errors."""
    return Where(
        stream=event.stream,
        stream_position=event.stream_position,
        global_position=event.global_position or None,
        event_id=event.id,
        type=event.type,
        schema_version=event.schema_version,
    )


def _at(error: UpcastError, event: Event) -> UpcastError:
    return type(error)(error.what, where=error.where.within(place_of(event)), remedy=error.remedy)


def _failed(event: Event, step: Upcaster | None, error: Exception) -> UpcastError:
    name = step.name if step else None
    if isinstance(error, DataError):
        where = Where(step=name, path=error.where.path).within(place_of(event))
        return UpcastError(error.what, where=where, remedy=error.remedy)
    return UpcastError(
        f"the step raised {type(error).__name__}: {error}",
        where=Where(step=name).within(place_of(event)),
        remedy="mend the upcaster (it must take every stored event), try it with "
        "`eventmig show`, then run the same command again",
    )
