"""VERIS 1.3.0 → 1.3.1: assets that nobody named are unknown, not other."""

from __future__ import annotations

from eventmig import upcaster
from examples.vcdb.idioms import INCIDENT, renamed, renamed_assets, schema_version

ASSET_VARIETIES = {
    "M - Other": "M - Unknown",
    "N - Other": "N - Unknown",
    "P - Other": "P - Unknown",
    "S - Other": "S - Unknown",
    "T - Other": "T - Unknown",
    "U - Other": "U - Unknown",
    "S - SCADA": "S - ICS",
}
DISCOVERY_METHODS = {"Prt - Other": "Prt - other", "Prt - Unknown": "Prt - unknown"}

STEP = upcaster(
    INCIDENT,
    1,
    schema_version("1.3.1"),
    renamed_assets(ASSET_VARIETIES),
    renamed("discovery_method", DISCOVERY_METHODS),
    why="VERIS 1.3.1: asset varieties renamed",
)
