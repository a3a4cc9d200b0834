"""The page about the configuration, from its model."""

from __future__ import annotations

from dataclasses import MISSING, fields

from docs.generate.text import NOTE, code, table
from eventmig.config import Config, ThrottleConfig
from eventmig.hooks import AFTER, BEFORE
from eventmig.mapping import Mapping

_KEYS = {
    "registry": "The registry of upcasters, as `module:object`. Modules are found from the "
    "configuration's folder.",
    "projections": "A list of read models and aggregates, as `module:object`.",
    "history": "For `eventmig demo`: a function that writes a first history, called with a store's "
    "URL and a number of events, as `module:function`.",
    "source": "URL of the store that jobs read. It is only read.",
    "target": "URL of the store that jobs write; made if it is not there. `{release}` in it is the "
    "release that is upcast to.",
    "read_models": "URL of the database for read models and snapshots; without it, they live "
    "beside the events they were made from.",
    "naming": "Template of the target's stream names, from `{stream}` and `{release}`.",
    "lock": "The file of the frozen releases, relative to the configuration.",
    "batch_size": "Events per transaction.",
    "workers": "1, or 2 for a second process that reads and upcasts.",
    "layouts": "Tables that describe how existing tables hold events; `?layout=NAME` in a URL "
    "names one.",
    "throttle": "A table: when a job waits; below.",
    "hooks": "A table: what is run when a job comes to a point of its life; below.",
    "import": "A table: which field of an imported record is which part of an event; below.",
}

_PARTS = {
    "stream": "The stream's name: a template such as `cart-{cart_id}`.",
    "id": "The event's id: a template. Empty, or a field that is missing: an id is made from "
    "stream, place and line (UUIDv5).",
    "type": "The event type: a template, or plain text.",
    "schema_version": "A number for all events, or a path. A missing field means 1.",
    "data": "Path of the data. Empty: the whole record, as it stands in the line.",
    "metadata": "Path of the metadata. Empty, missing or `null`: none.",
    "recorded_at": "Path of the time: ISO 8601 with an offset, or a number (`time_unit`). Empty: "
    "the time of the import.",
    "time_unit": "What a time that is a number counts: `s`, `ms` or `us` since 1970-01-01, UTC.",
    "assume_utc": "Whether a time without an offset is UTC; it is refused otherwise.",
    "stream_position": "Path of the position in the stream. Empty or missing: each stream is "
    "numbered by its lines.",
    "origins": "Path of a list of `[stream, position, ordinal]`.",
}

_THROTTLE = {
    "flag_file": "The job waits while this file is there; relative to the configuration.",
    "hours": "When the job may work, such as `22:00-06:00`; UTC, the end is exclusive.",
    "share": "The share of time it works, above 0 and at most 1.",
    "load_query": "SQL that yields one number from the source's database.",
    "load_above": "The job waits while that number is above this.",
    "replica": "URL of a replica's database.",
    "replica_query": "SQL that yields the replica's lag there, one number.",
    "replica_above": "The job waits while that number is above this.",
}


def page() -> str:
    """The whole page. Raises `KeyError` for a key or part that is not described here."""
    keys = [
        (code(info.alias or name), _default(info.get_default(call_default_factory=True)), "")
        for name, info in Config.model_fields.items()
        if name != "folder"
    ]
    _same({key.strip("`") for key, _, _ in keys}, set(_KEYS))
    parts = [
        (code(f.name), _default(None if f.default is MISSING else f.default), _PARTS[f.name])
        for f in fields(Mapping)
    ]
    _same({f.name for f in fields(Mapping)}, set(_PARTS))
    return "\n".join(
        [
            "# The configuration\n",
            NOTE,
            "A file `eventmig.toml`, or the table `[tool.eventmig]` of `pyproject.toml`, in the "
            "folder the command runs in or one above it. `--config FILE` (or `EVENTMIG_CONFIG`) "
            "names another. An unknown key is an error. Options of a command win over the file.\n",
            "```toml\n" + _EXAMPLE + "```\n",
            "Relative SQLite paths are relative to the configuration's folder. `{release}` may "
            "stand in any URL.\n",
            table(
                ["key", "default", "what it says"],
                [(k, d, _KEYS[k.strip("`")]) for k, d, _ in keys],
            ),
            "## Throttle\n",
            "`[throttle]`: any one reason makes a job that follows (`eventmig upcast --follow`) "
            "wait between two batches; `eventmig status --watch` shows which.\n",
            table(
                ["key", "default", "what it says"],
                [
                    (code(name), _default(info.default), _THROTTLE[name])
                    for name, info in ThrottleConfig.model_fields.items()
                ],
            ),
            "## Hooks\n",
            "`[hooks]` names an executable (relative to the configuration) or a `module:object` "
            "for each point. It gets the context as one JSON object: on standard input, or as its "
            "one argument. These run before a step, and stop it by another exit code than 0 or by "
            f"raising: {_list(BEFORE)}. These are told: {_list(AFTER)}. A hook may be run more "
            "than once: a call that was interrupted and is made again runs it again, and so does "
            "`cutover` or `reverse` where the application is across already (the context then has "
            "`already: true`). `after_cutover` and `after_reverse` are run at least once before "
            "such a call reports success. Where the process died behind the switch, make the same "
            "call again: a follower mends the crossing, too, but does not run its hook. One that "
            "is told and fails takes nothing back: what it said is printed, and is `hook_failed` "
            "in the JSON of `cutover`, `reverse` and `complete`; the same call runs it again.\n",
            "## Import\n",
            "`[import]` says which field of a record is which part of an event; `--map PART=FIELD` "
            "says it for one import. A **path** names a field, with dots for inner objects; a "
            "field whose own name holds dots is tried first. A **template** is text with paths in "
            "braces. The defaults read what `eventmig export` writes.\n",
            table(["part", "default", "what it says"], parts),
            "Where the field of data or metadata is missing, the field of that name with `_base64` "
            "added is read instead: the form for bytes that a line of JSON cannot hold.\n",
        ]
    )


_EXAMPLE = """\
registry = "upcasters:registry"
projections = "projections:projections"
source = "sqlite:///history.db"
target = "sqlite:///history-{release}.db"
read_models = "sqlite:///views.db"

[import]
stream = "cart-{cart_id}"
data = "payload"
"""


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(map(code, names))


def _default(value: object) -> str:
    if value is None or value == {} or isinstance(value, ThrottleConfig):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else value)


def _same(there: set[str], described: set[str]) -> None:
    if there != described:
        raise KeyError(f"describe in docs/generate/config.py: {sorted(there ^ described)}")
