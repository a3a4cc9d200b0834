"""eventmig: event-store schema evolution. The public names; nothing else is one."""

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
