"""VERIS 1.3.6 → 1.3.7: each PCI requirement becomes an object; omission is no error any more."""

from __future__ import annotations

from eventmig import ops, upcaster
from examples.vcdb.idioms import INCIDENT, schema_version

IN_PLACE = {
    "In Place": "Yes",
    "Not In Place": "No",
    "Not Applicable": "Not Assessed",
    "Unknown": "Not Assessed",
}
REQUIREMENTS = tuple(f"req_{number}" for number in range(1, 13))

ERRORS = "action.error.variety"


def _requirement(name: str) -> list[ops.Op]:
    """`{"req_1": "In Place"}` → `{"req_1": {"in_place": "Yes"}}`."""
    return [
        ops.map_values(f"plus.pci.{name}", IN_PLACE, other="Not Assessed"),
        ops.rename(f"plus.pci.{name}", "in_place"),
        ops.nest("plus.pci.in_place", under=name),
    ]


STEP = upcaster(
    INCIDENT,
    7,
    schema_version("1.3.7"),
    ops.when(
        ops.is_kind("plus.pci", "object"),
        *[op for name in REQUIREMENTS for op in _requirement(name)],
        ops.nest(*[f"plus.pci.{name}" for name in REQUIREMENTS], under="requirements"),
        ops.default("plus.pci.requirements", {}),
    ),
    ops.when(
        ops.contains(ERRORS, "Omission"),
        ops.append(ERRORS, "Other"),
        ops.remove(ERRORS, "Omission"),
        ops.add_line("action.error.notes", "VERIS 1.3.7: Removed Omission as a legitimate option"),
    ),
    why="VERIS 1.3.7: PCI requirements as objects; Omission retired",
)
