"""What a record looks like at its first version and at its last.

Version 1 is described loosely, as a JSON Schema: the archive holds whatever GitHub sent in its
time, so what is asked is only what the chain needs. Version 7 is strict: an unknown member or
another type is an error.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from eventmig import EventSchema, schema

TYPE = "GithubEvent"
"""The one event type of this history; why one: see `upcasters`."""

UNIFIED = 7
"""The schema version of a unified record."""

UtcTime = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")]


class Repository(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The repository of an event. `name` is `owner/name` until 2011, `name` alone from 2012 on."""

    id: int | str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class User(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A user or an organization; `login` is null where the record said that it is."""

    id: int | str | UnsetType = UNSET
    login: str | None | UnsetType = UNSET
    gravatar_id: str | UnsetType = UNSET
    avatar_url: str | UnsetType = UNSET
    url: str | UnsetType = UNSET


@schema(TYPE, version=UNIFIED)
class GithubEvent(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A unified record. `payload` and `other` are JSON text; members that are empty are absent."""

    payload: str
    public: bool | None
    repo: Repository | UnsetType = UNSET
    actor: User | UnsetType = UNSET
    created_at: UtcTime | UnsetType = UNSET
    id: int | str | UnsetType = UNSET
    org: User | UnsetType = UNSET
    type: str | UnsetType = UNSET
    other: str | UnsetType = UNSET


def _described(*texts: str) -> dict[str, object]:
    """An object whose id is a number or text, and whose named members are text, if there."""
    text = {"type": ["string", "null"]}
    members: dict[str, object] = {"id": {"type": ["integer", "string", "null"]}}
    return {"type": "object", "properties": members | dict.fromkeys(texts, text)}


def _or_text(described: dict[str, object]) -> dict[str, object]:
    return {"anyOf": [{"type": ["string", "null"]}, described]}


_USER = _described("login", "gravatar_id", "avatar_url", "url")
_DAY = (
    "((0[1-9]|1[0-2])[-/](0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])[-/](29|30)|(0[13578]|1[02])[-/]31)"
)
_DATE = f"([12][0-9]{{3}}[-/]{_DAY}|20(08|12|16|20|24|28)[-/]02[-/]29)"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?"
_ZONE = "(Z|UTC|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])"
_TIME = f"^{_DATE}[T ]{_CLOCK} ?{_ZONE}?$"

TIMELINE_RECORD = EventSchema(
    TYPE,
    1,
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"]},
            "id": {"type": ["integer", "string", "null"]},
            "public": {"type": ["boolean", "null"]},
            "created_at": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": _TIME}]},
            "payload": {},
            "url": {"type": ["string", "null"]},
            "actor": _or_text(_USER),
            "actor_attributes": {"anyOf": [{"type": "null"}, _USER]},
            "org": _or_text(_USER),
            "repo": _or_text(_described("url", "name")),
            "repository": _or_text(_described("url", "name", "organization")),
        },
    },
)
"""A record of the Timeline API (2012–2014), or of the old Events API (2011)."""
