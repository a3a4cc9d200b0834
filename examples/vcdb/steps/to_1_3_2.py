"""VERIS 1.3.1 → 1.3.2: shared desktops are one vector; results of an action become a list."""

from __future__ import annotations

from eventmig import codec, ops, upcaster
from examples.vcdb.idioms import INCIDENT, schema_version

VECTOR = "action.hacking.vector"
ACTIONS_WITH_RESULTS = ("hacking", "malware", "social", "physical", "misuse", "unknown")
RESULTS = ("Exfiltrate", "Infiltrate", "Elevate")
FLAGS = [f"action.{action}.{result}" for action in ACTIONS_WITH_RESULTS for result in RESULTS]


def flags_to_results(data: codec.Value) -> codec.Value:
    """`{"Exfiltrate": true, "Elevate": false}` → `{"result": ["Exfiltrate"]}`, in every action."""
    assert isinstance(data, dict)
    actions = data["action"]
    assert isinstance(actions, dict)
    for name in ACTIONS_WITH_RESULTS:
        action = actions.get(name)
        if isinstance(action, dict):
            results: list[codec.Value] = [r for r in RESULTS if action.pop(r, False) is True]
            if results:
                action["result"] = results
    return data


STEP = upcaster(
    INCIDENT,
    2,
    schema_version("1.3.2"),
    ops.when(
        ops.contains(VECTOR, "3rd party desktop", "Desktop sharing"),
        ops.append(VECTOR, "Desktop sharing software", unique=False),
    ),
    # Ops could say it with a `when` for each of the 18 flags, but what those yield as a schema
    # doubles with each of them.
    ops.when(ops.any_of(*map(ops.present, FLAGS)), ops.apply(flags_to_results)),
    why="VERIS 1.3.2: desktop sharing software; results of actions",
)
