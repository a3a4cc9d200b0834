"""VERIS 1.3.5 → 1.3.6: the value chain behind an attack, told from its actions."""

from __future__ import annotations

from eventmig import codec, ops, upcaster
from examples.vcdb.idioms import (
    INCIDENT,
    first_actor,
    object_at,
    renamed,
    replaced,
    schema_version,
)

MALWARE = "action.malware.variety"
HACKING = "action.hacking.variety"
BACKDOOR_OR_C2 = "Use of backdoor or C2"
ANALYSIS_STATUSES = {"Needs review": "Ready for review"}

VALUE_CHAIN = (  # an action's list and item → a link of the chain and its variety, and why
    (
        "action.social.variety",
        "Phishing",
        "targeting",
        "Email addresses",
        "targeting.variety.Email addresses added because action.social.vector.Email exists.",
    ),
    (
        "action.social.variety",
        "Phishing",
        "development",
        "Email",
        "development.variety.Email added because action.social.vector.Email exists.",
    ),
    (
        "action.malware.vector",
        "C2",
        "non-distribution services",
        "C2",
        "non-distribution services.variety.C2 added because action.malware.vector.C2 exists.",
    ),
    (
        "action.malware.variety",
        "Ransomware",
        "cash-out",
        "Cryptocurrency",
        "development.variety.Cryptocurrency added because action.malware.variety.Ransomware "
        "exists.",
    ),
    (
        "action.social.vector",
        "Email",
        "distribution",
        "Email",
        "distribution.variety.Email added because action.social.vector.Email exists.",
    ),
)


def _secondary_motive(actor: str) -> ops.Op:
    """Who floods a service wants something else; `Unknown` alone gives way to it."""
    motive = f"actor.{actor}.motive"
    return ops.when(
        ops.not_(ops.contains(motive, "Secondary")),
        ops.when(ops.equals(motive, ["Unknown"]), ops.put_value(motive, [])),
        ops.append(motive, "Secondary", create=True),
        ops.add_line(
            f"actor.{actor}.notes",
            f"VERIS 1.3.6: {motive}.Secondary added because action.malware.variety.DoS exists.",
        ),
    )


def _link(path: str, item: str, link: str, variety: str, why: str) -> ops.Op:
    """A link of the value chain, with a note why, where it does not stand already."""
    here = f"value_chain.{link}"
    return ops.when(
        ops.contains(path, item),
        ops.default("value_chain", {}),
        ops.default(here, {}),
        ops.when(
            ops.not_(ops.contains(f"{here}.variety", variety)),
            ops.append(f"{here}.variety", variety, create=True),
            ops.add_line(f"{here}.notes", f"VERIS 1.3.6: value_chain.{why}"),
            ops.when(ops.equals("value_chain.NA", True), ops.put_value("value_chain.NA", False)),
        ),
    )


def _as_many_as_are_named(secondary: codec.Value) -> codec.Value:
    """`amount` is at least the number of secondary victims listed."""
    assert isinstance(secondary, dict)
    names = secondary.get("victim_id")
    named = len(names) if isinstance(names, list) else 0
    if named > (secondary.get("amount") or 0):  # type: ignore[operator]
        return {**secondary, "amount": named}
    return secondary


STEP = upcaster(
    INCIDENT,
    6,
    schema_version("1.3.6"),
    ops.when(ops.contains(MALWARE, "DoS"), first_actor(_secondary_motive)),
    ops.when(ops.contains(MALWARE, "C2", "Backdoor"), ops.append(MALWARE, "Backdoor or C2")),
    replaced("action.hacking.vector", "Backdoor or C2", "Backdoor"),
    ops.when(
        ops.contains(HACKING, BACKDOOR_OR_C2),
        ops.remove(HACKING, BACKDOOR_OR_C2),
        ops.when(
            ops.equals(HACKING, []),
            ops.append(HACKING, "Unknown"),
            ops.add_line(
                "action.hacking.notes",
                "VERIS 1.3.6: Moved 'Use of backdoor or C2' to 'backdoor' in hacking.vectors "
                "causing hacking.variety to be empty.  So adding hacking.variety.Unknown for "
                "schema compliance.",
            ),
        ),
        ops.append("action.hacking.vector", "Backdoor", create=True),
    ),
    replaced(HACKING, "HTTP Response Splitting", "HTTP response splitting"),
    replaced("action.social.vector", "Website", "Web application"),
    renamed("plus.analysis_status", ANALYSIS_STATUSES),
    ops.when(
        ops.is_kind("victim.secondary", "object"),
        ops.convert(
            "victim.secondary", ops.conversion("as_many_as_are_named", _as_many_as_are_named)
        ),
    ),
    *[_link(*row) for row in VALUE_CHAIN],
    replaced(HACKING, "Footprinting", "Profile host"),
    # SQL injection is hacking, not malware; malware without any other variety goes.
    ops.when(
        ops.contains(MALWARE, "SQL injection"),
        object_at("action.hacking"),
        ops.append(HACKING, "SQLi", create=True),
        ops.default("action.hacking.vector", ["Unknown"]),
        ops.remove(MALWARE, "SQL injection"),
        ops.when(
            ops.one_of(MALWARE, [], ["Unknown"]),
            ops.drop("action.malware"),
            ops.add_line(
                "action.hacking.notes",
                "VERIS 1.3.6: Removed 'malware' section while moving malware.variety.SQL "
                "injection to hacking.variety.SQLi",
            ),
        ),
    ),
    why="VERIS 1.3.6: the value chain; backdoors and C2 told apart",
)
