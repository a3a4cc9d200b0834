"""Results as JSON: what `--json` prints. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path

import msgspec

from eventmig.errors import EventmigError, Where
from eventmig.events import Event


def to_json(result: object) -> str:
    """A command's result as one line of JSON."""
    return msgspec.json.encode(_plain(result)).decode()


def in_ascii(line: str) -> str:
    """JSON with every character beyond ASCII escaped."""
    return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in line)


def error_json(error: EventmigError) -> str:
    """An error as one line of JSON: `{"error": {"kind", "what", "where", "remedy"}}`."""
    return _error(type(error).__name__, error.what, error.where.as_dict(), error.remedy)


def usage_json(what: str) -> str:
    """A wrong argument or option, in the same form."""
    return _error("UsageError", what, {}, "see `eventmig --help`")


def _error(kind: str, what: str, where: Mapping[str, str | int], remedy: str) -> str:
    content = {"kind": kind, "what": what, "where": where, "remedy": remedy}
    return json.dumps({"error": content}, ensure_ascii=False)


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return value.value
        case str() | Decimal() | Path():
            return str(value)
        case datetime():
            return value.isoformat()
        case bytes():
            return _data(value)
        case Where():
            return value.as_dict()
        case Event():
            return _event(value)
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
        extra = [n for n in ("ready", "right", "problems", "diff", "remedy") if hasattr(value, n)]
        return {n: _plain(getattr(value, n)) for n in dict.fromkeys([*names, *extra])}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _event(event: Event) -> dict[str, object]:
    return {
        "global_position": event.global_position,
        "stream": event.stream,
        "stream_position": event.stream_position,
        "id": event.id,
        "type": event.type,
        "schema_version": event.schema_version,
        "data": _data(event.data),
        "metadata": None if event.metadata is None else _data(event.metadata),
        "recorded_at": event.recorded_text,
        "origins": [origin._asdict() for origin in event.origins],
    }


def _data(data: bytes) -> object:
    """Stored JSON as it is, without the line breaks it may hold; as text where it is none."""
    try:
        json.loads(data, parse_int=str, parse_float=str, parse_constant=_no_constant)
        return msgspec.Raw(msgspec.json.format(data, indent=-1))
    except (ValueError, RecursionError):
        return data.decode("utf-8", "backslashreplace")


def _no_constant(text: str) -> None:
    raise ValueError(text)
