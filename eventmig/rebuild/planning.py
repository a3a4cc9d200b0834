"""Whether a rebuild goes on with a half-built generation, or begins a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from eventmig.rebuild import bookkeeping
from eventmig.rebuild.bookkeeping import Generation, Hold, KeptTable, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The generation to build; `restarted` says why a half-built one was thrown away."""

    generation: Generation
    resumed: bool = False
    restarted: str | None = None


def plan_generation(
    connection: Connection,
    hold: Hold,
    *,
    version: int,
    fingerprint: str,
    release: str,
    source: str,
    upto: int,
    tables: tuple[KeptTable, ...] = (),
    discard: Callable[[Generation], None],
) -> Planned:
    """Go on with the building generation if it is of the same making, else begin anew.

    Writes, in the caller's transaction. `discard` removes what a generation built.
    """
    hold.fence(connection)
    found = bookkeeping.generation(connection, hold.kind, hold.name, State.BUILDING)
    reason = None
    if found is not None:
        reason = _changed(found, fingerprint, release, source, upto)
        if reason is None:
            return Planned(generation=found, resumed=True)
        discard(found)
        bookkeeping.remove(connection, hold, found.number)
    made = Generation(
        number=bookkeeping.next_number(connection, hold.kind, hold.name),
        state=State.BUILDING,
        version=version,
        fingerprint=fingerprint,
        release=release,
        source=source,
        tables=tables,
    )
    bookkeeping.add(connection, hold, made)
    return Planned(generation=made, restarted=reason)


def _changed(
    found: Generation, fingerprint: str, release: str, source: str, upto: int
) -> str | None:
    if found.source != source:
        return "it was built from another source"
    if found.release != release:
        return f"it was built for the release {found.release}"
    if found.fingerprint != fingerprint:
        return "its tables, handlers or version have changed"
    if found.position > upto:
        return f"it was built up to position {found.position}, and only {upto} is asked for"
    return None
