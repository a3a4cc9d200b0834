"""Steps on the store: which stream a target event goes to.

One kind of step says all of them: a route takes the events of streams whose name
fits a pattern (and, if asked, only some types, or those a condition holds for) to a
stream named by a template. Renaming, splitting and merging streams, routing by data
and moving an event to another stream are routes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from eventmig import codec, fingerprint
from eventmig.conditions import Condition
from eventmig.drafts import Draft
from eventmig.errors import OpError, RegistryError, Where
from eventmig.paths import ABSENT, get, parse

_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Events of streams like `streams` go to the stream `to`.

    `streams` is a pattern such as `cart-{id}`; `to` a template such as `basket-{id}`,
    which may also use `{data.region}`, `{type}` and `{stream}`.
    """

    name: str
    streams: str
    to: str
    types: tuple[str, ...] = ()
    when: Condition | None = None
    why: str = ""
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pattern", _pattern_of(self.streams, self.name))
        known = set(self._pattern.groupindex) | {"type", "stream"}
        for found in _FIELD.findall(self.to):
            if found not in known and not found.startswith("data."):
                raise RegistryError(
                    f"the template {self.to!r} uses {{{found}}}, which {self.streams!r} does not "
                    "name",
                    where=Where(step=self.name),
                    remedy="use the pattern's own fields, {data.…}, {type} or {stream}",
                )

    def fingerprint(self) -> str:
        """Equal for routes that mean the same; name and `why` do not count."""
        return fingerprint.of_value(
            ["route", self.streams, self.to, *sorted(self.types), repr(self.when)]
        )

    def takes(self, draft: Draft) -> str | None:
        """The stream this draft goes to by this route, or None where it does not fit.

        Raises `OpError` where the data lacks what the template needs.
        """
        if self.types and draft.type not in self.types:
            return None
        found = self._pattern.fullmatch(draft.stream)
        if found is None or (self.when is not None and not self.when.holds(draft.values())):
            return None
        fields = found.groupdict() | {"type": draft.type, "stream": draft.stream}
        return _FIELD.sub(lambda m: fields.get(m[1]) or self._from_data(m[1], draft), self.to)

    def back(self, stream: str) -> str | None:
        """The stream this route would have led to `stream`; None where the name does not tell."""
        fields = set(_FIELD.findall(self.to))
        if fields != set(self._pattern.groupindex):
            return None
        found = _pattern_of(self.to, self.name).fullmatch(stream)
        return None if found is None else self.streams.format_map(found.groupdict())

    def _from_data(self, name: str, draft: Draft) -> str:
        path = parse(name.removeprefix("data."))
        found = get(draft.values(), path)
        if isinstance(found, str) and found:
            return found
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        what = "is absent" if found is ABSENT else f"is of type {codec.kind(found)}"
        raise OpError(
            f"the stream name needs {name}, which {what}",
            where=Where(step=self.name, path=name),
            remedy="guard the route with when=ops.present(…), or add the member in an upcaster",
        )


def _pattern_of(streams: str, name: str) -> re.Pattern[str]:
    out = ""
    last = 0
    for found in _FIELD.finditer(streams):
        if not found[1].isidentifier():
            raise RegistryError(
                f"{found[0]} in {streams!r} is not a field name",
                where=Where(step=name),
                remedy="name fields like {id}",
            )
        out += re.escape(streams[last : found.start()]) + f"(?P<{found[1]}>.+)"
        last = found.end()
    return re.compile(out + re.escape(streams[last:]), re.DOTALL)


def route(
    name: str,
    streams: str,
    *,
    to: str,
    types: Sequence[str] = (),
    when: Condition | None = None,
    why: str = "",
) -> Route:
    """Events of streams like `streams` (only `types`, only where `when` holds) go to `to`.

    The first route that takes an event decides.
    """
    return Route(name=name, streams=streams, to=to, types=tuple(types), when=when, why=why)


def rename_streams(name: str, streams: str, *, to: str, why: str = "") -> Route:
    """Streams like `cart-{id}` go on as `basket-{id}`."""
    return route(name, streams, to=to, why=why)


def merge_streams(name: str, *streams: str, to: str, why: str = "") -> tuple[Route, ...]:
    """Streams of several patterns flow together into one, in the source's global order."""
    return tuple(
        route(f"{name} ({index})", pattern, to=to, why=why)
        for index, pattern in enumerate(streams, 1)
    )
