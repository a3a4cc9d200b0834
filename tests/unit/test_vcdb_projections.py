"""The read models of examples/vcdb: what each handler counts for one record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from eventmig.rebuild import Rows
from examples.vcdb import projections
from examples.vcdb.projections import Incident

RECORD = {
    "action": {"hacking": {}, "social": {}},
    "actor": {"external": {}},
    "discovery_method": {"external": {"variety": ["Customer", "Audit"]}, "other": True},
    "schema_version": "1.3.7",
    "timeline": {"incident": {"year": 2014}, "exfiltration": {"unit": "Days"}},
    "victim": {"country": ["US", "CA"], "industry": "622110", "secondary": {"amount": 3}},
}


class Counted:
    """Stands in for the rows: notes every increment."""

    def __init__(self) -> None:
        self.rows: dict[tuple[object, ...], dict[str, int]] = {}

    def increment(self, table: object, /, key: dict[str, object], **amounts: int) -> None:
        row = self.rows.setdefault(tuple(key.values()), dict.fromkeys(amounts, 0))
        for name, amount in amounts.items():
            row[name] += amount


def counted(handler: Callable[[Incident, Rows], None], record: object) -> dict[Any, Any]:
    rows = Counted()
    handler(msgspec.convert(record, Incident), cast(Rows, rows))
    return rows.rows


@pytest.mark.parametrize(
    ("handler", "keys"),
    [
        (projections.count_actors, [("external",)]),
        (projections.count_actions, [("hacking",), ("social",)]),
        (projections.count_countries, [("US",), ("CA",)]),
        (projections.count_years, [(2014,)]),
        (
            projections.count_discovery,
            [("external", "Customer"), ("external", "Audit"), ("other", "")],
        ),
    ],
)
def test_an_incident_counts_once_under_each(
    handler: Callable[[Incident, Rows], None], keys: list[tuple[object, ...]]
) -> None:
    assert counted(handler, RECORD) == {key: {"incidents": 1} for key in keys}


def test_victims_and_those_hit_through_them() -> None:
    assert counted(projections.count_victims, RECORD) == {
        ("62",): {"victims": 1, "secondary_victims": 3}
    }


def test_a_record_that_says_nothing_is_counted_where_everything_must_be() -> None:
    assert counted(projections.count_years, {}) == {(0,): {"incidents": 1}}
    assert counted(projections.count_victims, {}) == {
        ("00",): {"victims": 1, "secondary_victims": 0}
    }
    assert counted(projections.count_actors, {}) == {}


def test_the_configuration_lists_every_table() -> None:
    tables = [table for model in projections.projections for table in model.tables]
    assert {table.name for table in tables} == set(projections.metadata.tables)
