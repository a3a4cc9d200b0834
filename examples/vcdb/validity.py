"""The official schemas held against the real records of their own versions.

Says how far reality follows its own schema, before a job is judged by it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eventmig import EventSchema, codec
from eventmig.codec import Value
from eventmig.errors import ValidationError
from examples.vcdb.history import Chain
from examples.vcdb.idioms import INCIDENT
from examples.vcdb.schemas import VERSIONS, as_it_was, official


@dataclass(slots=True, kw_only=True)
class Validity:
    """What the official schema of one VERIS version says of the real records of that version.

    `rejected` by the schema as published; `refused` even by the model the job uses, which
    allows what `LEFT_BY_REALITY` names. `first` is one of the reasons, a refusal's if any.
    """

    records: int = 0
    rejected: int = 0
    refused: int = 0
    first: str | None = None


def validity(chains: Sequence[Chain], folder: Path) -> dict[str, Validity]:
    """By VERIS version, for those whose schema the folder has."""
    found: dict[str, Validity] = {}
    for version, number in VERSIONS.items():
        schema = official(folder, version)
        if schema is not None:
            published = EventSchema(INCIDENT, number, schema)
            model = EventSchema(INCIDENT, number, as_it_was(schema, version))
            records = ((c.incident, c.records[version]) for c in chains if version in c.records)
            found[version] = _judged(records, published, model)
    return found


def _judged(
    records: Iterable[tuple[str, Value]], published: EventSchema, model: EventSchema
) -> Validity:
    said = Validity()
    for incident, record in records:
        data = codec.encode(record)
        said.records += 1
        reason = _reason(published, data)
        if reason is None:
            continue
        said.rejected += 1
        refusal = _reason(model, data)
        said.refused += refusal is not None
        if said.first is None or (refusal is not None and said.refused == 1):
            said.first = f"{incident}: {refusal or reason}"
    return said


def _reason(schema: EventSchema, data: bytes) -> str | None:
    try:
        schema.validate(data)
    except ValidationError as error:
        what = error.what.split(": ", 1)[-1]
        return f"{error.where.path}: {what}" if error.where.path else what
    return None
