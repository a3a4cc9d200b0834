"""The VERIS upcasters of examples/vcdb on small records written by hand, in both readings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventmig import Event, Registry, codec, upcaster
from examples.vcdb.idioms import INCIDENT
from examples.vcdb.upcasters import CHAIN

Record = dict[str, Any]
Upcast = Callable[[Record], Record]


def through(number: int) -> Upcast:
    """One step alone, `number` being the schema version it starts from."""
    before = [upcaster(INCIDENT, version) for version in range(1, number)]
    registry = Registry([*before, CHAIN[number - 1]])

    def upcast(record: Record) -> Record:
        data = codec.encode(record)
        event = Event(1, "incident-1", 1, "id-1", INCIDENT, number, data, None, 0)
        (fast,), (slow,) = registry.chains.upcast(event), registry.chains.walk(event)
        assert fast.schema_version == slow.schema_version == number + 1
        result = codec.decode(fast.data)
        assert result == codec.decode(slow.data)
        assert isinstance(result, dict)
        assert result.pop("schema_version") == f"1.3.{number}"
        return result

    return upcast


def test_the_chain_has_no_gap_and_takes_an_almost_empty_record() -> None:
    registry = Registry(CHAIN)
    assert registry.current == {INCIDENT: 8}
    event = Event(1, "incident-1", 1, "id-1", INCIDENT, 1, b"{}", None, 0)
    (draft,) = registry.chains.upcast(event)
    assert codec.decode(draft.data) == {"schema_version": "1.3.7", "summary": ""}


class TestTo131:
    up = staticmethod(through(1))

    def test_assets_nobody_named_are_unknown(self) -> None:
        assets = [{"variety": "S - Other"}, {"variety": "S - Unknown", "amount": 2}, {"amount": 1}]
        assert self.up({"asset": {"assets": assets}})["asset"]["assets"] == [
            {"variety": "S - Unknown"},
            {"variety": "S - Unknown", "amount": 2},
            {"amount": 1},
        ]

    def test_a_record_without_assets_stays(self) -> None:
        assert self.up({"asset": {"assets": None}}) == {"asset": {"assets": None}}


class TestTo132:
    up = staticmethod(through(2))

    def test_desktop_sharing_gets_its_software(self) -> None:
        record = {"action": {"hacking": {"vector": ["3rd party desktop"]}}}
        assert self.up(record)["action"]["hacking"]["vector"] == [
            "3rd party desktop",
            "Desktop sharing software",
        ]

    def test_flags_become_results(self) -> None:
        record = {"action": {"social": {"Elevate": True, "Infiltrate": False, "Exfiltrate": True}}}
        assert self.up(record) == {"action": {"social": {"result": ["Exfiltrate", "Elevate"]}}}


class TestTo133:
    up = staticmethod(through(3))

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("Ext - law enforcement", {"external": {"variety": ["Law enforcement"]}}),
            ("Int - NIDS", {"internal": {"variety": ["Nids"]}}),
            ("Int - IT review", {"internal": {"variety": ["It review"]}}),
            ("Prt - a - b", {"partner": {"variety": ["A - b"]}}),
            ("Unknown", {"unknown": True}),
            ("Other", {"other": True}),
            (None, None),
        ],
    )
    def test_who_discovered_it(self, before: object, after: object) -> None:
        assert self.up({"discovery_method": before}) == {"discovery_method": after}

    def test_governance_becomes_three_lists_and_a_note(self) -> None:
        governance = ["Unknown", "3rd party owned", "3rd party managed", "Personally owned"]
        asset = {"governance": governance, "ownership": "Victim", "notes": "old"}
        assert self.up({"asset": asset})["asset"] == {
            "ownership": ["Victim", "Partner"],
            "management": ["External"],
            "notes": "oldFollowing enumerations present before veris 1.3.3 removed: "
            "asset.governance.Personally owned, asset.governance.Unknown.",
        }

    def test_the_note_is_made_where_there_is_none(self) -> None:
        for asset in ({}, {"notes": None}):
            after = self.up({"asset": {**asset, "governance": "Other"}})["asset"]
            assert after == {
                "notes": "Following enumerations present before veris 1.3.3 removed: "
                "asset.governance.Other."
            }

    def test_only_what_plus_itself_holds_is_respelt(self) -> None:
        nested = {"confidentiality": {"data_misuse": "Y"}}
        plus = {"f500": "N", "public_disclosure": "Y", "data_misuse": "yes", "attribute": nested}
        assert self.up({"plus": plus})["plus"] == {"data_abuse": "Yes", "attribute": nested}

    def test_exploiting_varieties_say_so_once(self) -> None:
        for variety in (["XSS", "CSRF"], ["XSS", "CSRF", "Exploit vuln"]):
            record = {"action": {"hacking": {"variety": variety}}}
            after = self.up(record)["action"]["hacking"]["variety"]
            assert after == ["XSS", "CSRF", "Exploit vuln"]


class TestTo134:
    up = staticmethod(through(4))

    def test_no_cloud_is_an_unknown_one(self) -> None:
        assert self.up({"asset": {}}) == {"asset": {"cloud": ["Unknown"]}}
        assert self.up({"asset": {"cloud": ["NA"]}}) == {"asset": {"cloud": ["NA"]}}

    def test_a_hosting_error_is_an_action(self) -> None:
        after = self.up({"asset": {"cloud": "Hosting error"}})
        assert after == {
            "asset": {"cloud": ["External Cloud Asset(s)"]},
            "action": {"error": {"variety": ["Misconfiguration"], "vector": ["Unknown"]}},
        }

    def test_the_first_actor_there_is_gets_the_motive(self) -> None:
        actor = {"internal": {}, "partner": {"motive": ["Fun"]}}
        after = self.up({"actor": actor, "asset": {"cloud": "Partner application"}, "action": {}})
        assert after["actor"] == {"internal": {}, "partner": {"motive": ["Fun", "Secondary"]}}

    def test_desktops_and_laptops_are_one_more_asset(self) -> None:
        assets = [{"variety": "U - Laptop"}]
        after = self.up({"asset": {"assets": assets, "cloud": ["NA"]}})
        assert after["asset"]["assets"] == [*assets, {"variety": "U - Desktop or laptop"}]
        assert self.up(after) == after

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ({"credit_monitoring": "u"}, {"credit_monitoring": "Unknown"}),
            ({"credit_monitoring": "N"}, {"credit_monitoring": "No"}),
            ({"credit_monitoring": "ID Experts"}, {"credit_monitoring": "Yes"}),
            ({"credit_monitoring": ""}, {}),
            ({"credit_monitoring_years": 0, "partner_number": 1}, {"partner_number": 1}),
            ({"credit_monitoring_years": 2, "partner_number": -1}, {"credit_monitoring_years": 2}),
            ({"partner_data": "Y"}, {"partner_data": "Yes"}),
        ],
    )
    def test_confidentiality(self, before: Record, after: Record) -> None:
        def record(confidentiality: Record) -> Record:
            return {"plus": {"attribute": {"confidentiality": confidentiality}}}

        assert self.up(record(before)) == record(after)


class TestTo135:
    up = staticmethod(through(5))

    @pytest.mark.parametrize(
        ("industry", "government"),
        [("923140", ["Unknown"]), ("92", ["Unknown"]), ("519200", ["NA"])],
    )
    def test_the_victims_government(self, industry: str, government: list[str]) -> None:
        after = self.up({"victim": {"industry": industry}})
        assert after["victim"] == {"industry": industry, "government": government}

    def test_a_monitoring_service_is_a_partner(self) -> None:
        method = {
            "external": {"variety": ["Monitoring service"]},
            "partner": {"variety": ["Unknown"]},
        }
        after = self.up({"discovery_method": method})["discovery_method"]
        assert after == {"partner": {"variety": ["Monitoring service"]}}

    def test_only_one_spelling_of_not_applicable_is_changed(self) -> None:
        plus = {
            "attack_difficulty_initial": "Not applicable",
            "attack_difficulty_legacy": "Not Applicable",
        }
        assert self.up({"plus": plus})["plus"] == {
            "attack_difficulty_initial": "NA",
            "attack_difficulty_legacy": "Not Applicable",
        }

    def test_drive_bys_come_over_web_applications(self) -> None:
        record = {"action": {"malware": {"vector": ["Web drive-by", "Web download"]}}}
        assert self.up(record)["action"]["malware"]["vector"] == [
            "Web application - drive-by",
            "Web application - download",
            "Web application",
        ]


class TestTo136:
    up = staticmethod(through(6))

    def test_the_value_chain_of_a_phishing_mail(self) -> None:
        record = {"action": {"social": {"variety": ["Phishing"], "vector": ["Email"]}}}
        chain = self.up({**record, "value_chain": {"NA": True}})["value_chain"]
        assert chain["NA"] is False
        assert {link: chain[link]["variety"] for link in chain if link != "NA"} == {
            "targeting": ["Email addresses"],
            "development": ["Email"],
            "distribution": ["Email"],
        }
        assert chain["distribution"]["notes"] == (
            "VERIS 1.3.6: value_chain.distribution.variety.Email added because "
            "action.social.vector.Email exists."
        )

    def test_there_are_at_least_as_many_secondary_victims_as_are_named(self) -> None:
        def amount(secondary: Record) -> object:
            return self.up({"victim": {"secondary": secondary}})["victim"]["secondary"].get(
                "amount"
            )

        assert amount({"victim_id": ["A", "B"]}) == 2
        assert amount({"victim_id": ["A", "B"], "amount": 1}) == 2
        assert amount({"victim_id": ["A", "B"], "amount": 9}) == 9
        assert amount({"notes": "some"}) is None

    def test_flooding_has_another_motive(self) -> None:
        record = {
            "action": {"malware": {"variety": ["DoS"]}},
            "actor": {"external": {"motive": ["Unknown"]}},
        }
        assert self.up(record)["actor"]["external"] == {
            "motive": ["Secondary"],
            "notes": "VERIS 1.3.6: actor.external.motive.Secondary added because "
            "action.malware.variety.DoS exists.",
        }

    def test_sql_injection_leaves_malware(self) -> None:
        after = self.up({"action": {"malware": {"variety": ["SQL injection", "Unknown"]}}})
        assert after["action"].keys() == {"hacking"}
        assert after["action"]["hacking"]["variety"] == ["SQLi"]
        assert after["action"]["hacking"]["vector"] == ["Unknown"]

    def test_a_backdoor_alone_leaves_an_unknown_variety(self) -> None:
        after = self.up({"action": {"hacking": {"variety": ["Use of backdoor or C2"]}}})
        assert after["action"]["hacking"]["variety"] == ["Unknown"]
        assert after["action"]["hacking"]["vector"] == ["Backdoor"]
        assert "schema compliance" in after["action"]["hacking"]["notes"]


class TestTo137:
    up = staticmethod(through(7))

    def test_each_requirement_becomes_an_object(self) -> None:
        pci = {"req_1": "In Place", "req_12": "Not Applicable", "notes": "n"}
        assert self.up({"plus": {"pci": pci}})["plus"]["pci"] == {
            "notes": "n",
            "requirements": {"req_1": {"in_place": "Yes"}, "req_12": {"in_place": "Not Assessed"}},
        }

    def test_omission_is_retired(self) -> None:
        error = {"variety": ["Omission", "Loss"], "notes": "Web"}
        assert self.up({"action": {"error": error}})["action"]["error"] == {
            "variety": ["Loss", "Other"],
            "notes": "Web\nVERIS 1.3.7: Removed Omission as a legitimate option",
        }
