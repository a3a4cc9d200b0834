"""What the VERIS migrations do again and again, each as a few ops.

Stands between `eventmig.ops` and the steps. The real scripts skip a member that is
absent, null or of another type than they expect; so do these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from eventmig import ops

INCIDENT = "IncidentRecorded"
"""The one event type: an incident as an analyst recorded it."""

Op = ops.Op

ACTORS = ("external", "partner", "internal")


def schema_version(version: str) -> Op:
    """The record says itself which VERIS version it follows."""
    return ops.put_value("schema_version", version)


def renamed(path: str, table: Mapping[str, str]) -> Op:
    """Some enumerations of one member under new names, where the new name may stand already."""
    merged = {**table, **{new: new for new in table.values()}}
    return ops.map_values(path, merged, other=ops.KEEP)


def renamed_in_list(path: str, table: Mapping[str, str]) -> Op:
    """The same for every item of a list."""
    return ops.when(ops.is_kind(path, "array"), ops.each(path, renamed("", table)))


def replaced(path: str, old: str, new: str) -> Op:
    """One item of a list taken out, another put at its end, though it may stand there already."""
    return ops.when(
        ops.contains(path, old), ops.remove(path, old), ops.append(path, new, unique=False)
    )


def renamed_assets(table: Mapping[str, str]) -> Op:
    """The same for the varieties of the affected assets."""
    return ops.when(
        ops.is_kind("asset.assets", "array"),
        ops.each("asset.assets", renamed("variety", table)),
    )


def listed(path: str) -> Op:
    """One value into a list of one; a list stays."""
    return ops.when(
        ops.all_of(ops.present(path), ops.not_(ops.is_kind(path, "array"))), ops.wrap(path)
    )


def object_at(path: str) -> Op:
    """An empty object where there is none."""
    return ops.when(ops.not_(ops.is_kind(path, "object")), ops.put_value(path, {}))


def yes_no_unknown(path: str) -> Op:
    """Free text by its first letter, upper or lower case: Yes, No, Unknown, else Other."""
    answer: Op = ops.put_value(path, "Other")
    for letter, word in (("u", "Unknown"), ("n", "No"), ("y", "Yes")):
        answer = ops.when(
            ops.starts_with(path, letter), ops.put_value(path, word), otherwise=[answer]
        )
    return ops.when(ops.is_kind(path, "string"), ops.convert(path, "lower"), answer)


def first_actor(change: Callable[[str], Op]) -> Op:
    """A change to the first actor there is: external, then partner, then internal."""
    otherwise: list[Op] = []
    for actor in reversed(ACTORS):
        found = ops.is_kind(f"actor.{actor}", "object")
        otherwise = [ops.when(found, change(actor), otherwise=otherwise)]
    return otherwise[0]
