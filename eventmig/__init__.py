"""eventmig: event-store schema evolution. The public names; nothing else is one.

Each is imported when it is first asked for: a command line that is interrupted while this
package is imported could not say so, for it is imported before the first line of `cli`.
"""

from importlib import import_module

TYPE_CHECKING = False  # as `typing` has it, which is not imported for that
if TYPE_CHECKING:
    from eventmig import errors, ops
    from eventmig.drafts import Draft
    from eventmig.events import Event, NewEvent, Origin
    from eventmig.registry import Registry
    from eventmig.routes import merge_streams, rename_streams, route
    from eventmig.schemas import EventSchema, schema
    from eventmig.steps import (
        data_downcaster,
        data_upcaster,
        downcaster,
        drop_event,
        model_downcaster,
        model_upcaster,
        part,
        rename_type,
        split_event,
        split_upcaster,
        upcaster,
    )
    from eventmig.stream_steps import Unfinished, merge, move_attribute, reorder, stream_step

__all__ = [
    "Draft",
    "Event",
    "EventSchema",
    "NewEvent",
    "Origin",
    "Registry",
    "Unfinished",
    "data_downcaster",
    "data_upcaster",
    "downcaster",
    "drop_event",
    "errors",
    "merge",
    "merge_streams",
    "model_downcaster",
    "model_upcaster",
    "move_attribute",
    "ops",
    "part",
    "rename_streams",
    "rename_type",
    "reorder",
    "route",
    "schema",
    "split_event",
    "split_upcaster",
    "stream_step",
    "upcaster",
]

_PLACES = {
    "Draft": "eventmig.drafts",
    "Event": "eventmig.events",
    "EventSchema": "eventmig.schemas",
    "NewEvent": "eventmig.events",
    "Origin": "eventmig.events",
    "Registry": "eventmig.registry",
    "Unfinished": "eventmig.stream_steps",
    "data_downcaster": "eventmig.steps",
    "data_upcaster": "eventmig.steps",
    "downcaster": "eventmig.steps",
    "drop_event": "eventmig.steps",
    "merge": "eventmig.stream_steps",
    "merge_streams": "eventmig.routes",
    "model_downcaster": "eventmig.steps",
    "model_upcaster": "eventmig.steps",
    "move_attribute": "eventmig.stream_steps",
    "part": "eventmig.steps",
    "rename_streams": "eventmig.routes",
    "rename_type": "eventmig.steps",
    "reorder": "eventmig.stream_steps",
    "route": "eventmig.routes",
    "schema": "eventmig.schemas",
    "split_event": "eventmig.steps",
    "split_upcaster": "eventmig.steps",
    "stream_step": "eventmig.stream_steps",
    "upcaster": "eventmig.steps",
}
"""The module of each name that is none itself."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'eventmig' has no attribute {name!r}")
    place = _PLACES.get(name)
    found = (
        import_module(f"eventmig.{name}") if place is None else getattr(import_module(place), name)
    )
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
