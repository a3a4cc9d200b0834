"""The read models: incidents by actor, action, country, year, discovery; victims by industry."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import Column, Integer, MetaData, String, Table

from eventmig.rebuild import ReadModel, Rows
from examples.vcdb.idioms import INCIDENT


class Year(Struct, frozen=True):
    """When it happened; the schema wants a year, but 0 stands where there is none."""

    year: int = 0


class Timeline(Struct, frozen=True):
    """Only the incident itself counts here."""

    incident: Year = Year()


class Secondary(Struct, frozen=True):
    """Victims hit through the first one."""

    amount: int = 0


class Victim(Struct, frozen=True):
    """Who was hit: countries as ISO codes, industry as NAICS code."""

    country: list[str] = []
    industry: str = "00"
    secondary: Secondary = Secondary()


class Incident(Struct, frozen=True):
    """The part of a VERIS 1.3.7 record that the read models look at."""

    actor: dict[str, Any] = {}
    action: dict[str, Any] = {}
    discovery_method: dict[str, Any] = {}
    timeline: Timeline = Timeline()
    victim: Victim = Victim()


metadata = MetaData()


def _count() -> Column[int]:
    return Column("incidents", Integer, nullable=False)


by_actor = Table(
    "incidents_by_actor", metadata, Column("actor", String, primary_key=True), _count()
)
by_action = Table(
    "incidents_by_action", metadata, Column("action", String, primary_key=True), _count()
)
by_country = Table(
    "incidents_by_country", metadata, Column("country", String, primary_key=True), _count()
)
by_year = Table(
    "incidents_by_year",
    metadata,
    Column("year", Integer, primary_key=True, autoincrement=False),
    _count(),
)
by_discovery = Table(
    "incidents_by_discovery",
    metadata,
    Column("discovered_by", String, primary_key=True),
    Column("how", String, primary_key=True),
    _count(),
)
victims_by_industry = Table(
    "victims_by_industry",
    metadata,
    Column("sector", String, primary_key=True),  # the first two digits of the NAICS code
    Column("victims", Integer, nullable=False),
    Column("secondary_victims", Integer, nullable=False),
)

actors = ReadModel("incidents_by_actor", version=1, tables=[by_actor], order="stream")
actions = ReadModel("incidents_by_action", version=1, tables=[by_action], order="stream")
countries = ReadModel("incidents_by_country", version=1, tables=[by_country], order="stream")
years = ReadModel("incidents_by_year", version=1, tables=[by_year], order="stream")
discovery = ReadModel("incidents_by_discovery", version=1, tables=[by_discovery], order="stream")
industries = ReadModel(
    "victims_by_industry", version=1, tables=[victims_by_industry], order="stream"
)


@actors.on(INCIDENT)
def count_actors(incident: Incident, rows: Rows) -> None:
    """An incident with several kinds of actors counts once under each."""
    for actor in incident.actor:
        rows.increment(by_actor, key={"actor": actor}, incidents=1)


@actions.on(INCIDENT)
def count_actions(incident: Incident, rows: Rows) -> None:
    """Once under each kind of action."""
    for action in incident.action:
        rows.increment(by_action, key={"action": action}, incidents=1)


@countries.on(INCIDENT)
def count_countries(incident: Incident, rows: Rows) -> None:
    """Once under each country of the victim."""
    for country in dict.fromkeys(incident.victim.country):
        rows.increment(by_country, key={"country": country}, incidents=1)


@years.on(INCIDENT)
def count_years(incident: Incident, rows: Rows) -> None:
    """Under the year the incident began."""
    rows.increment(by_year, key={"year": incident.timeline.incident.year}, incidents=1)


@discovery.on(INCIDENT)
def count_discovery(incident: Incident, rows: Rows) -> None:
    """Once under each way it was discovered; `how` is empty where nobody knows more."""
    for who, found in incident.discovery_method.items():
        varieties = found.get("variety", []) if isinstance(found, dict) else []
        for how in dict.fromkeys(varieties or [""]):
            rows.increment(by_discovery, key={"discovered_by": who, "how": how}, incidents=1)


@industries.on(INCIDENT)
def count_victims(incident: Incident, rows: Rows) -> None:
    """Under the sector of the first victim; the others by their number."""
    victim = incident.victim
    rows.increment(
        victims_by_industry,
        key={"sector": victim.industry[:2]},
        victims=1,
        secondary_victims=victim.secondary.amount,
    )


projections: list[ReadModel] = [
    actors,
    actions,
    countries,
    years,
    discovery,
    industries,
]
