"""The comparison with reality: an upcast record against what the database really held.

Exact, JSON types included, but for two things: the order of members, and the order of what
the real scripts made from sets (ownership, hosting and management of the asset, and the
list in the note that 1.3.3 left there). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from eventmig import codec
from eventmig.codec import Value

SETS = ("ownership", "hosting", "management")
_NOTE = re.compile(r"(Following enumerations present before veris 1\.3\.3 removed: )(.*)\.\Z", re.S)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One member that is not as it was; None stands for null, `<absent>` for no member."""

    path: str
    upcast: Value
    real: Value


def differences(upcast: Value, real: Value) -> list[Difference]:
    """Every difference, path by path; empty where the two are the same record."""
    return list(_between(_without_order(upcast), _without_order(real), ""))


def _between(upcast: object, real: object, path: str) -> Iterator[Difference]:
    if isinstance(upcast, dict) and isinstance(real, dict):
        for key in dict.fromkeys([*upcast, *real]):
            below = f"{path}.{key}" if path else key
            yield from _between(upcast.get(key, _MISSING), real.get(key, _MISSING), below)
    elif isinstance(upcast, list) and isinstance(real, list) and len(upcast) == len(real):
        for index, (ours, theirs) in enumerate(zip(upcast, real, strict=True)):
            yield from _between(ours, theirs, f"{path}[{index}]")
    elif _spelt(upcast) != _spelt(real):
        yield Difference(path, _shown(upcast), _shown(real))


def _spelt(value: object) -> bytes:
    """One spelling per value and type: 1, 1.0, true and "1" all differ."""
    return b"" if value is _MISSING else codec.canonical(value)  # type: ignore[arg-type]


def _shown(value: object) -> Value:
    return "<absent>" if value is _MISSING else value  # type: ignore[return-value]


def _without_order(record: Value) -> Value:
    asset = record.get("asset") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(asset, dict):
        return record
    asset = dict(asset)
    for name in SETS:
        items = asset.get(name)
        if isinstance(items, list):
            asset[name] = sorted(items, key=codec.canonical)
    notes = asset.get("notes")
    if isinstance(notes, str):
        asset["notes"] = _NOTE.sub(_sorted_note, notes)
    return {**record, "asset": asset}


def _sorted_note(note: re.Match[str]) -> str:
    return f"{note[1]}{', '.join(sorted(note[2].split(', ')))}."
