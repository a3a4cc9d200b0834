"""The errors of a rebuild: which event, which handler, which row, and what to do.

Pure; used by the folds, the bulk write and the loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from eventmig.errors import EventmigError, RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild.shape import Shape

Cause: TypeAlias = tuple[int, str | None]
"""An event that changed a row, as little as is kept: global position and type (if known)."""

NO_CAUSE: Cause = (0, None)

_MEND = (
    "mend the handler and run the same command again; the live tables are as before, and "
    "a handler that changed begins the rebuild anew"
)
_MEND_DATA = (
    "let the handler's type fit the events of the release (or take a dict), or mend the "
    "upcaster, and run the same command again; the live tables are as before"
)


def where_of(event: Event) -> Where:
    """The place of an event in its history."""
    return Where(
        stream=event.stream,
        stream_position=event.stream_position,
        global_position=event.global_position,
        event_id=event.id,
        type=event.type,
        schema_version=event.schema_version,
    )


def where_caused(cause: Cause) -> Where:
    """The place of a row's first event, as far as it was kept; see `replay` for the rest."""
    position, type_ = cause
    return Where(global_position=position, type=type_) if cause != NO_CAUSE else Where()


def handler_error(error: Exception, event: Event, handlers: Mapping[str, str]) -> RebuildError:
    """What was raised while `event` was handled, as a `RebuildError` with its place.

    `handlers` are the handlers' names by event type. An eventmig error that names
    another event (the first that touched a row) keeps its place.
    """
    place = where_of(event)
    if isinstance(error, EventmigError):
        elsewhere = error.where.global_position not in (None, event.global_position)
        where = error.where if elsewhere else error.where.within(place)
        return RebuildError(
            error.what, where=with_handler(where, handlers), remedy=error.remedy or _MEND
        )
    where = with_handler(place, handlers)
    if type(error).__module__.split(".")[0] in ("msgspec", "pydantic", "pydantic_core"):
        what = f"the data of {event.type} does not fit its handler: {error}"
        return RebuildError(what, where=where, remedy=_MEND_DATA)
    what = f"a handler raised {type(error).__name__}: {error}"
    return RebuildError(what, where=where, remedy=_MEND)


def with_handler(where: Where, handlers: Mapping[str, str]) -> Where:
    """The place with the name of the handler of its event type."""
    return where.within(Where(handler=handlers.get(where.type or "")))


def missing(shape: Shape, key: object, cause: Cause) -> RebuildError:
    """A change to a row that is not there; `cause` asked for it."""
    return RebuildError(
        f"patch of a row of {shape.table.name} that is not there",
        where=Where(key=shape.key_text(key)).within(where_caused(cause)),
        remedy="use upsert where a row may be missing, give the columns that have neither NULL "
        "nor a default, or see why the event that makes the row is not handled",
    )


def present(shape: Shape, key: object, cause: Cause) -> RebuildError:
    """An insert of a row that is there; `cause` asked for it."""
    return RebuildError(
        f"insert of a row of {shape.table.name} that is there already",
        where=Where(key=shape.key_text(key)).within(where_caused(cause)),
        remedy="use upsert where a row may be there, or see why the event comes twice",
    )
