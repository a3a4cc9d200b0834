"""VERIS 1.3.4 → 1.3.5: web applications, monitoring services, and the victim's government."""

from __future__ import annotations

from eventmig import ops, upcaster
from examples.vcdb.idioms import (
    INCIDENT,
    object_at,
    renamed,
    renamed_assets,
    renamed_in_list,
    schema_version,
)

MALWARE_VARIETIES = {"Ram scraper": "RAM scraper"}
MALWARE_VECTORS = {
    "Web drive-by": "Web application - drive-by",
    "Web download": "Web application - download",
}
SOCIAL_VECTORS = {"Website": "Web application"}
PHYSICAL_VECTORS = {
    "Visitor privileges": "Victim work area",
    "Uncontrolled location": "Public facility",
}
ASSET_VARIETIES = {"P - End-user": "P - End-user or employee"}
ANALYSIS_STATUSES = {"Validated": "Reviewed"}
# This spelling alone: the real run left "Not Applicable" as it was.
NOT_APPLICABLE = {"Not applicable": "NA"}

EXTERNAL = "discovery_method.external.variety"
PARTNER = "discovery_method.partner.variety"
MONITORING = "Monitoring service"

STEP = upcaster(
    INCIDENT,
    5,
    schema_version("1.3.5"),
    renamed_in_list("action.malware.variety", MALWARE_VARIETIES),
    renamed_in_list("action.social.vector", SOCIAL_VECTORS),
    renamed_in_list("action.malware.vector", MALWARE_VECTORS),
    # Not for downloads: the real run missed them.
    ops.when(
        ops.contains("action.malware.vector", "Web application - drive-by"),
        ops.append("action.malware.vector", "Web application", unique=False),
    ),
    renamed_assets(ASSET_VARIETIES),
    ops.default("summary", ""),
    # A monitoring service is a partner, not an outsider.
    ops.when(
        ops.contains(EXTERNAL, MONITORING),
        object_at("discovery_method.partner"),
        ops.when(
            ops.not_(ops.contains(PARTNER, MONITORING)),
            ops.append(PARTNER, MONITORING, create=True),
            ops.remove(PARTNER, "Unknown"),
        ),
        ops.remove(EXTERNAL, MONITORING),
        ops.when(ops.equals(EXTERNAL, []), ops.drop("discovery_method.external")),
    ),
    ops.when(
        ops.contains("action.misuse.result", "Infiltrate"),
        ops.remove("action.misuse.result", "Infiltrate", drop_empty=True),
    ),
    renamed_in_list("action.physical.vector", PHYSICAL_VECTORS),
    renamed("plus.analysis_status", ANALYSIS_STATUSES),
    renamed_in_list("plus.asset_os", NOT_APPLICABLE),
    renamed("plus.attack_difficulty_initial", NOT_APPLICABLE),
    renamed("plus.attack_difficulty_legacy", NOT_APPLICABLE),
    renamed("plus.attack_difficulty_subsequent", NOT_APPLICABLE),
    ops.when(
        ops.is_kind("victim", "object"),
        ops.when(
            ops.starts_with("victim.industry", "92"),  # NAICS 92: public administration
            ops.default("victim.government", ["Unknown"]),
            otherwise=[ops.default("victim.government", ["NA"])],
        ),
    ),
    why="VERIS 1.3.5: web application vectors, monitoring services, victim.government",
)
