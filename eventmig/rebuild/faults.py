"""The errors of a rebuild: which event, which handler, which row, and what to do.

Pure; used by the folds, the bulk write and the loops.
"""

from __future__ import annotations

from collections.abc import Mapping

from eventmig.errors import EventmigError, RebuildError, Where
from eventmig.events import Event
from eventmig.rebuild.shape import Shape

_MEND = (
    "mend the handler and run the same command again; the live tables are as before, and "
    "a handler that changed begins the rebuild anew"
)
_MEND_DATA = (
    "let the handler's type fit the events of the release (or take a dict), or mend the "
    "upcaster, and run the same command again; the live tables are as before"
)


def where_of(event: Event | None) -> Where:
    """The place of an event in its history; empty for None."""
    if event is None:
        return Where()
    return Where(
        stream=event.stream,
        stream_position=event.stream_position,
        global_position=event.global_position,
        event_id=event.id,
        type=event.type,
        schema_version=event.schema_version,
    )


def handler_error(
    error: Exception, event: Event, handlers: Mapping[str, str], state: str | None = None
) -> RebuildError:
    """What was raised while `event` was handled, as a `RebuildError` with its place.

    `handlers` are the handlers' names by event type. An eventmig error keeps its own
    place (the first event that touched a row), the event's is added to it.
    """
    place = where_of(event)
    if isinstance(error, EventmigError):
        where = error.where if error.where.event_id else error.where.within(place)
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


def missing(shape: Shape, key: object, event: Event | None) -> RebuildError:
    """A change to a row that is not there; `event` asked for it."""
    return RebuildError(
        f"patch of a row of {shape.table.name} that is not there",
        where=Where(key=shape.key_text(key)).within(where_of(event)),
        remedy="use upsert where a row may be missing, give the columns that have neither NULL "
        "nor a default, or see why the event that makes the row is not handled",
    )


def present(shape: Shape, key: object, event: Event | None) -> RebuildError:
    """An insert of a row that is there; `event` asked for it."""
    return RebuildError(
        f"insert of a row of {shape.table.name} that is there already",
        where=Where(key=shape.key_text(key)).within(where_of(event)),
        remedy="use upsert where a row may be there, or see why the event comes twice",
    )
