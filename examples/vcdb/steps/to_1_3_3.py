"""VERIS 1.3.2 → 1.3.3: who discovered it, and who owns, hosts and manages the asset.

The richest of the migrations: every record changes.
"""

from __future__ import annotations

from eventmig import ops, upcaster
from examples.vcdb.idioms import (
    INCIDENT,
    listed,
    renamed_in_list,
    schema_version,
    yes_no_unknown,
)

MALWARE_VARIETIES = {"Click fraud": "Click fraud and cryptocurrency mining"}

DISCOVERERS = {"Ext": "external", "Int": "internal", "Prt": "partner"}

HACKING_THAT_EXPLOITS = (
    "Abuse of functionality",
    "Buffer overflow",
    "Cache poisoning",
    "Cryptanalysis",
    "CSRF",
    "Forced browsing",
    "Format string attack",
    "Fuzz testing",
    "HTTP request smuggling",
    "HTTP request splitting",
    "HTTP response smuggling",
    "HTTP Response Splitting",
    "Integer overflows",
    "LDAP injection",
    "Mail command injection",
    "MitM",
    "Null byte injection",
    "OS commanding",
    "Other",
    "Path traversal",
    "Reverse engineering",
    "RFI",
    "Routing detour",
    "Session fixation",
    "Session prediction",
    "Session replay",
    "Soap array abuse",
    "Special element injection",
    "SQLi",
    "SSI injection",
    "URL redirector abuse",
    "Virtual machine escape",
    "XML attribute blowup",
    "XML entity expansion",
    "XML external entities",
    "XML injection",
    "XPath injection",
    "XQuery injection",
    "XSS",
)
MALWARE_THAT_EXPLOITS = ("Remote injection", "Web drive-by")

HOSTING = {
    "External shared": "External - shared environment",
    "External dedicated": "External - dedicated environment",
    "External": "External - unknown environment",
}

GOVERNANCE = (  # asset.governance → one item in one of three lists
    ("3rd party owned", "ownership", "Partner"),
    ("3rd party hosted", "hosting", "External - unknown environment"),
    ("Victim governed", "management", "Internal"),
    ("3rd party managed", "management", "External"),
)
GOVERNANCE_TO_NOTES = ("Personally owned", "Internally isolated", "Other", "Unknown")
REMOVED = "Following enumerations present before veris 1.3.3 removed: "


def _discovered_by(prefix: str, who: str) -> ops.Op:
    """`"Ext - law enforcement"` → `{"external": {"variety": ["Law enforcement"]}}`."""
    return ops.when(
        ops.starts_with("discovery_method", f"{prefix} - "),
        ops.split("discovery_method", into=("prefix", "variety"), at=" - "),
        ops.drop("prefix"),
        ops.convert("variety", "capitalise"),
        ops.wrap("variety"),
        ops.nest("variety", under=who),
        ops.nest(who, under="discovery_method"),
    )


def _exploits(variety: str, exploiting: tuple[str, ...]) -> ops.Op:
    return ops.when(ops.contains(variety, *exploiting), ops.append(variety, "Exploit vuln"))


def _governance_to_notes() -> ops.Op:
    """What none of the three lists can hold, as text at the end of `asset.notes`."""
    lines = [(f"asset.removed {value}", value) for value in GOVERNANCE_TO_NOTES]
    return ops.when(
        ops.contains("asset.governance", *GOVERNANCE_TO_NOTES),
        *[
            ops.when(
                ops.contains("asset.governance", value),
                ops.add(line, f"asset.governance.{value}"),
            )
            for line, value in lines
        ],
        ops.combine(*[line for line, _ in lines], to="asset.removed", separator=", "),
        ops.when(ops.equals("asset.notes", None), ops.drop("asset.notes")),
        ops.default("asset.notes", ""),
        ops.combine("asset.notes", "asset.removed", to="asset.notes", separator=REMOVED),
        ops.add_line("asset.notes", ".", separator="", strip=False),
    )


STEP = upcaster(
    INCIDENT,
    3,
    schema_version("1.3.3"),
    renamed_in_list("action.malware.variety", MALWARE_VARIETIES),
    ops.drop("plus.public_disclosure"),
    ops.drop("plus.f500"),
    # Those of plus itself only: the real run left plus.attribute.confidentiality alone.
    ops.when(
        ops.present("plus.data_misuse"),
        ops.drop("plus.data_abuse"),
        ops.rename("plus.data_misuse", "data_abuse"),
    ),
    yes_no_unknown("plus.data_abuse"),
    ops.map_values(
        "discovery_method",
        {"Other": {"other": True}, "Unknown": {"unknown": True}},
        other=ops.KEEP,
    ),
    *[_discovered_by(prefix, who) for prefix, who in DISCOVERERS.items()],
    _exploits("action.hacking.variety", HACKING_THAT_EXPLOITS),
    _exploits("action.malware.variety", MALWARE_THAT_EXPLOITS),
    listed("asset.hosting"),
    listed("asset.ownership"),
    listed("asset.management"),
    renamed_in_list("asset.hosting", HOSTING),
    listed("asset.governance"),
    *[
        ops.when(
            ops.contains("asset.governance", value),
            ops.append(f"asset.{member}", item, create=True),
        )
        for value, member, item in GOVERNANCE
    ],
    _governance_to_notes(),
    ops.drop("asset.governance"),
    why="VERIS 1.3.3: discovery by whom; governance split into ownership, hosting, management",
)
