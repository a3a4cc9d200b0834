"""The official JSON Schemas of VERIS (draft-04) as the models of versions 2 to 8.

The files are not part of this repository. The folder they lie in is named by the
environment variable EVENTMIG_VCDB_SCHEMAS (the program sets it); without it the registry
has no models, and nothing but the comparison tells whether the upcasters are right. There
is no official schema of 1.3.0 in one file, so version 1 has no model.

The database itself was not always valid: the real migrations left values that their own
schema rejects. Each such place found in the real history is named in `LEFT_BY_REALITY`,
and the models allow it; everything else in them is the official schema's.
"""

from __future__ import annotations

import copy
import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from eventmig import EventSchema
from examples.vcdb.idioms import INCIDENT

FOLDER_VARIABLE = "EVENTMIG_VCDB_SCHEMAS"
"""Names the folder with `vcdb-merged-1.3.N.json.gz` (or `.json`)."""
WITHOUT_VARIABLE = "EVENTMIG_VCDB_WITHOUT"
"""VERIS versions to leave without a model, comma-separated: `1.3.5,1.3.6`."""

VERSIONS: Mapping[str, int] = {f"1.3.{patch}": patch + 1 for patch in range(8)}
"""VERIS version → schema version of the event."""

JsonSchema: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One thing the real history holds and the official schema of these versions rejects.

    `at` is the member; `items` are values its enumeration lacks, `member` a member of it
    that it does not know, `optional` one it requires, `repeated` that its items may be equal.
    """

    versions: tuple[str, ...]
    at: str
    items: tuple[str, ...] = ()
    member: str | None = None
    optional: str | None = None
    repeated: bool = False


_CONFIDENTIALITY = "plus.attribute.confidentiality"

LEFT_BY_REALITY = (
    Left(versions=("1.3.1",), at="asset.cloud", items=("NA",)),
    # The same asset entered twice.
    Left(versions=("1.3.1", "1.3.2"), at="asset.assets", repeated=True),
    # 1.3.3 moved and respelt the members of `plus`, and missed those of plus.attribute.
    Left(
        versions=("1.3.3", "1.3.4", "1.3.5", "1.3.6", "1.3.7"),
        at=_CONFIDENTIALITY,
        member="data_misuse",
    ),
    Left(versions=("1.3.3",), at=f"{_CONFIDENTIALITY}.data_abuse", items=("Y", "N", "U")),
    Left(versions=("1.3.3",), at="asset", member="accessibility"),
    Left(versions=("1.3.4", "1.3.5"), at="asset", optional="cloud"),
    # 1.3.5 respelt "Not applicable", and missed "Not Applicable".
    *[
        Left(
            versions=("1.3.5", "1.3.6"),
            at=f"plus.attack_difficulty_{when}",
            items=("Not Applicable",),
        )
        for when in ("initial", "legacy", "subsequent")
    ],
    # Both schemas took these values out; the records kept them.
    Left(
        versions=("1.3.5", "1.3.6", "1.3.7"),
        at="action.physical.vector",
        items=("Privileged access",),
    ),
    Left(versions=("1.3.5",), at="action.social.vector", items=("Web application",)),
    Left(versions=("1.3.5", "1.3.6", "1.3.7"), at="", optional="security_incident"),
)


def official(folder: Path, version: str) -> JsonSchema | None:
    """One official schema as it was published, or None where the folder has no such file."""
    packed = folder / f"vcdb-merged-{version}.json.gz"
    plain = folder / f"vcdb-merged-{version}.json"
    if packed.is_file():
        return msgspec.json.decode(gzip.decompress(packed.read_bytes()), type=JsonSchema)
    if plain.is_file():
        return msgspec.json.decode(plain.read_bytes(), type=JsonSchema)
    return None


def as_it_was(schema: JsonSchema, version: str) -> JsonSchema:
    """The schema with what the real history holds allowed; a new value."""
    schema = copy.deepcopy(schema)
    for left in LEFT_BY_REALITY:
        if version in left.versions:
            _allow(_below(schema, left.at), left)
    return schema


def models(folder: Path, *, without: tuple[str, ...] = ()) -> list[EventSchema]:
    """A model for every version whose schema the folder has, those in `without` left out."""
    return [
        EventSchema(INCIDENT, number, as_it_was(found, version))
        for version, number in VERSIONS.items()
        if version not in without and (found := official(folder, version)) is not None
    ]


def schemas_from_environment() -> list[EventSchema]:
    """The models that the environment variables ask for; the one place that reads them."""
    folder = os.environ.get(FOLDER_VARIABLE)
    without = os.environ.get(WITHOUT_VARIABLE, "")
    return models(Path(folder), without=tuple(without.split(","))) if folder else []


def _below(schema: JsonSchema, path: str) -> JsonSchema:
    for key in path.split(".") if path else ():
        schema = schema["properties"][key]
    return schema


def _allow(schema: JsonSchema, left: Left) -> None:
    if left.items:
        schema.get("items", schema)["enum"] += left.items
    if left.member is not None:
        schema["properties"][left.member] = {"type": "string"}
    if left.optional is not None:
        schema["required"].remove(left.optional)
    if left.repeated:
        schema["uniqueItems"] = False
