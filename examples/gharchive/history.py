"""Records as events: which stream, which id, which version; and the file `import` takes.

Streams. One per repository, so that what happened to a repository is read in its order:

    repository-<id>           the record names a repository by id (nearly all do)
    repository-<owner>/<name> it has only a name: in `repo` or `repository`, or in the payload
                              (some records of 2011 call their repository "/")
    gist-<id>                 a GistEvent: gists were no repositories of the timeline
    user-<login>              a FollowEvent: the user who is followed
    actor-<login>             anything else: who did it
    unknown                   not even that (a gist without id by nobody)

The name comes from the record alone, never from other records of the file: the next hour must
find the same streams. So a repository that some records name by id and others by name alone
has two.

Ids. The record's own, where it has one; else, and where an id comes twice, UUIDv5 of the line.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from eventmig import codec
from eventmig.codec import Value
from eventmig.errors import CodecError
from eventmig.paths import get
from examples.gharchive.conversions import github_time
from examples.gharchive.models import TYPE, UNIFIED

_NAMESPACE = uuid.UUID("0f6c1b9e-5a7c-5d53-9a0e-6b3f5a0d4c11")


class BadLineError(ValueError):
    """A line of a file that is no record; `line` is 1-based."""

    def __init__(self, file: str, line: int, why: str) -> None:
        self.file, self.line = file, line
        super().__init__(f"{file}, line {line}: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a file: its number (1-based), its bytes as they stand, and its members."""

    line: int
    raw: bytes
    members: dict[str, Value]


def records(lines: list[bytes], *, file: str) -> Iterator[Record]:
    """The lines as records; raises `BadLineError` for the first that is none."""
    for number, raw in enumerate(lines, 1):
        try:
            members = codec.decode_strict(raw)
        except CodecError as error:
            raise BadLineError(file, number, error.what) from error
        if not isinstance(members, dict):
            raise BadLineError(
                file, number, f"a JSON {codec.kind(members)}, and a record is an object"
            )
        yield Record(line=number, raw=raw, members=members)


def events(history: Iterator[Record]) -> Iterator[bytes]:
    """Each record as a line of the file that `eventmig import` takes, without line end.

    The data is the record's line, byte for byte; the metadata says which line it was. A record
    that does not say when it happened gets the time of the one before it (the archive stands
    nearly in the order of time), at the beginning of a file that of 1970.
    """
    seen: set[str] = set()
    time = "1970-01-01T00:00:00Z"
    for record in history:
        time = recorded_at(record.members) or time
        parts: dict[str, Value] = {
            "stream": stream_of(record.members),
            "id": _new_id(record, seen),
            "type": TYPE,
            "schema_version": version_of(record.members),
            "recorded_at": time,
            "metadata": {"line": record.line},
        }
        yield codec.encode(parts)[:-1] + b',"data":' + record.raw + b"}"


_UNIFIED_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\Z")


def version_of(record: Value) -> int:
    """The schema version that a record has: the last one where it is unified already, else 1."""
    payload, time = get(record, ("payload",)), get(record, ("created_at",))
    if not (isinstance(payload, str) and isinstance(time, str) and _UNIFIED_TIME.match(time)):
        return 1
    old = ("repository", "actor_attributes")
    return 1 if isinstance(record, dict) and any(key in record for key in old) else UNIFIED


def recorded_at(record: Value) -> str | None:
    """When GitHub says that it happened, as ISO 8601 in UTC; None where it does not say."""
    found = get(record, ("created_at",))
    try:
        time = github_time(found if isinstance(found, int | float | str) else None)
    except (ValueError, ArithmeticError):
        return None
    return f"{str(time).replace(' ', 'T')}Z"


def stream_of(record: Value) -> str:
    """The stream of a record, as the docstring of this module says."""
    if number := _identifier(record, "repository", "id") or _identifier(record, "repo", "id"):
        return f"repository-{number}"
    if name := _repository_name(record):
        return f"repository-{name}"
    if gist := _gist(record):
        return f"gist-{gist}"
    if followed := _text(record, "payload", "target", "login"):
        return f"user-{followed}"
    for path in (("actor_attributes", "login"), ("actor", "login"), ("actor",)):
        if login := _text(record, *path):
            return f"actor-{login}"
    return "unknown"


_NAMES = (("repository", "name"), ("repository",), ("repo", "name"), ("repo",), ("payload", "repo"))


def _repository_name(record: Value) -> str:
    """The name of the repository, with its owner where that is known; empty without one."""
    for path in _NAMES:
        name = _text(record, *path)
        owner = _text(record, "repository", "owner") if path == ("repository", "name") else ""
        if name and owner and "/" not in name:
            return f"{owner}/{name}"
        if name.strip("/"):
            return name
    return ""


_GIST = re.compile(r"gist\.github\.com/(?:[^/]+/)?(\w+)/?\Z")


def _gist(record: Value) -> str:
    """The id of the gist that a GistEvent is about; empty for anything else."""
    if _text(record, "type") != "GistEvent":
        return ""
    if known := _identifier(record, "payload", "gist", "id") or _identifier(
        record, "payload", "id"
    ):
        return known
    for path in (("payload", "url"), ("url",)):
        if found := _GIST.search(_text(record, *path)):
            return found.group(1)
    return ""


def _text(record: Value, *path: str) -> str:
    """The text at a path; empty where there is no text."""
    found = get(record, path)
    return found if isinstance(found, str) else ""


def _identifier(record: Value, *path: str) -> str:
    """The number or text at a path, as text; empty where there is neither."""
    found = get(record, path)
    return str(found) if isinstance(found, int | str) and not isinstance(found, bool) else ""


def _new_id(record: Record, seen: set[str]) -> str:
    candidate, count = _identifier(record.members, "id"), 0
    while not candidate or candidate in seen:
        name = record.raw.decode() + (f"\n{count}" if count else "")
        candidate, count = str(uuid.uuid5(_NAMESPACE, name)), count + 1
    seen.add(candidate)
    return candidate
