"""VERIS 1.3.3 → 1.3.4: the cloud is a list of facts, and what caused it moves to the actions."""

from __future__ import annotations

from eventmig import codec, ops, upcaster
from examples.vcdb.idioms import (
    INCIDENT,
    first_actor,
    renamed_in_list,
    schema_version,
    yes_no_unknown,
)

CLOUD = {  # every other value, and none, is Unknown
    "Hosting error": "External Cloud Asset(s)",
    "Hosting governance": "External Cloud Asset(s)",
    "No": "NA",
    "Other": "Other",
}
CLOUD_TO_ACTION = (  # asset.cloud → an item in a list of an action
    ("Hosting error", "error", "variety", "Misconfiguration"),
    ("Hosting governance", "error", "vector", "Inadequate processes"),
    ("Partner application", "hacking", "variety", "Exploit vuln"),
    ("Customer attack", "hacking", "vector", "Inter-tenant"),
    ("Hypervisor", "hacking", "vector", "Hypervisor"),
    ("User breakout", "hacking", "variety", "User breakout"),
)
CLOUD_TO_MOTIVE = ("Hosting governance", "Partner application")

DESKTOP_OR_LAPTOP = "U - Desktop or laptop"
SOCIAL_TARGETS = {"End-user": "End-user or employee"}

CREDIT_MONITORING = {"n": "No", "u": "Unknown", "unknown": "Unknown"}  # all other text: Yes
CONFIDENTIALITY = "plus.attribute.confidentiality"
AT_LEAST_ONE = ("credit_monitoring_years", "partner_number")


def _to_action(cloud: str, action: str, member: str, item: str) -> ops.Op:
    """An item into `action.<action>.<member>`; an action that is not there is made."""
    here = f"action.{action}"
    unknown = {"variety": ["Unknown"], "vector": ["Unknown"]}
    return ops.when(
        ops.equals("asset.cloud", cloud),
        ops.default("action", {}),
        ops.when(
            ops.is_kind(here, "object"),
            ops.append(f"{here}.{member}", item, create=True),
            otherwise=[ops.put_value(here, {**unknown, member: [item]})],
        ),
    )


def without_amounts_below_one(data: codec.Value) -> codec.Value:
    """No years of monitoring and no partners are said by leaving the number out."""
    assert isinstance(data, dict)
    plus = data["plus"]
    assert isinstance(plus, dict)
    attribute = plus["attribute"]
    assert isinstance(attribute, dict)
    confidentiality = attribute["confidentiality"]
    assert isinstance(confidentiality, dict)
    for name in AT_LEAST_ONE:
        amount = confidentiality.get(name)
        if codec.kind(amount) in ("integer", "number") and amount <= 0:  # type: ignore[operator]
            del confidentiality[name]
    return data


STEP = upcaster(
    INCIDENT,
    4,
    schema_version("1.3.4"),
    ops.when(
        ops.all_of(
            ops.contains("asset.assets", "U - Desktop", "U - Laptop", key="variety"),
            ops.not_(ops.contains("asset.assets", DESKTOP_OR_LAPTOP, key="variety")),
        ),
        ops.append("asset.assets", {"variety": DESKTOP_OR_LAPTOP}),
    ),
    ops.when(
        ops.all_of(ops.is_kind("asset", "object"), ops.not_(ops.is_kind("asset.cloud", "array"))),
        *[_to_action(*row) for row in CLOUD_TO_ACTION],
        ops.when(
            ops.one_of("asset.cloud", *CLOUD_TO_MOTIVE),
            first_actor(
                lambda actor: ops.append(f"actor.{actor}.motive", "Secondary", create=True)
            ),
        ),
        ops.default("asset.cloud", "Unknown"),
        ops.map_values("asset.cloud", CLOUD, other="Unknown"),
        ops.wrap("asset.cloud"),
    ),
    ops.drop("asset.accessibility"),
    renamed_in_list("action.social.target", SOCIAL_TARGETS),
    ops.when(
        ops.is_kind(f"{CONFIDENTIALITY}.credit_monitoring", "string"),
        ops.convert(f"{CONFIDENTIALITY}.credit_monitoring", "lower"),
        ops.when(
            ops.equals(f"{CONFIDENTIALITY}.credit_monitoring", ""),
            ops.drop(f"{CONFIDENTIALITY}.credit_monitoring"),
        ),
        ops.map_values(f"{CONFIDENTIALITY}.credit_monitoring", CREDIT_MONITORING, other="Yes"),
    ),
    yes_no_unknown(f"{CONFIDENTIALITY}.partner_data"),
    ops.when(
        ops.any_of(*[ops.is_kind(f"{CONFIDENTIALITY}.{name}", "number") for name in AT_LEAST_ONE]),
        ops.apply(without_amounts_below_one),
    ),
    why="VERIS 1.3.4: the cloud as a list; its causes in the actions",
)
