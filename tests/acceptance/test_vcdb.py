"""The real migrations of the VERIS Community Database, and the program that tells them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from eventmig import Event, EventSchema, Registry, codec, upcaster
from eventmig.errors import ValidationError
from examples.vcdb import schemas
from examples.vcdb.compare import differences
from examples.vcdb.history import Chain, read_chains
from examples.vcdb.idioms import INCIDENT
from examples.vcdb.schemas import VERSIONS, as_it_was, models, official
from examples.vcdb.upcasters import CHAIN
from examples.vcdb.validity import validity

ROOT = Path(__file__).resolve().parents[2]
CHAINS = "chains_1.3.0_to_1.3.7.jsonl.gz"

RealHistory = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def _let_go() -> Iterator[None]:
    """The chains are read once for the tests of this file, and not kept for those of others."""
    yield
    real_chains.cache_clear()


@lru_cache
def registry(folder: Path) -> Registry:
    return Registry(CHAIN, schemas=models(folder / "schemas"))


def stored(version: int, data: bytes) -> Event:
    return Event(1, "incident-1", 1, "id-1", INCIDENT, version, data, None, 0)


def pairs(file: Path) -> Iterator[tuple[str, codec.Value, codec.Value]]:
    with gzip.open(file) as lines:
        for line in lines:
            pair = codec.decode(line)
            assert isinstance(pair, dict)
            yield str(pair["incident"]), pair["from"], pair["to"]


@pytest.mark.parametrize("number", range(1, 8))
def test_every_real_pair_of_a_step(number: int, real_history: RealHistory) -> None:
    """One step alone, both readings, each result also valid under its model."""
    folder = real_history("vcdb")
    (file,) = (folder / "steps").glob(f"{number + 2:02d}_*.pairs.jsonl.gz")
    earlier = [upcaster(INCIDENT, version) for version in range(1, number)]
    step = Registry([*earlier, CHAIN[number - 1]]).chains
    model = registry(folder).schemas[INCIDENT, number + 1]
    count, wrong = 0, []
    for incident, before, real in pairs(file):
        count += 1
        event = stored(number, codec.encode(before))
        (fast,), (slow,) = step.upcast(event), step.walk(event)
        assert fast.data == slow.data
        if found := differences(codec.decode(fast.data), real):
            wrong.append((incident, found[:3]))
        try:
            model.validate(fast.data)
        except ValidationError as error:
            wrong.append((incident, error))
    assert count > 300
    assert not wrong, (len(wrong), wrong[:5])


def test_every_real_chain_through_both_readings(real_history: RealHistory) -> None:
    folder = real_history("vcdb")
    chains = registry(folder).chains
    count, wrong = 0, []
    for chain in real_chains(folder):
        count += 1
        event = stored(VERSIONS[chain.first], codec.encode(chain.records[chain.first]))
        (fast,), (slow,) = chains.upcast(event), chains.walk(event)
        assert fast.data == slow.data
        assert fast.schema_version == 8
        if found := differences(codec.decode(fast.data), chain.records["1.3.7"]):
            wrong.append((chain.incident, found[:3]))
    assert count > 0
    assert not wrong, (len(wrong), wrong[:5])


def test_reality_follows_its_own_schemas_but_for_what_is_named(real_history: RealHistory) -> None:
    """A few real records are not valid under the schema of their own version, as published."""
    folder = real_history("vcdb")
    said = validity(real_chains(folder), folder / "schemas")
    assert set(said) == {f"1.3.{patch}" for patch in range(1, 8)}
    assert {v: s.rejected for v, s in said.items() if s.rejected} == {
        "1.3.1": 3,
        "1.3.5": 2,
        "1.3.6": 1,
        "1.3.7": 1,
    }
    assert not any(s.refused for s in said.values())


@pytest.mark.parametrize("version", [*VERSIONS][1:])
def test_the_models_allow_every_real_record_and_no_more(
    version: str, real_history: RealHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each exception to the official schema is needed by a real record, and together they do."""
    folder = real_history("vcdb")
    published = official(folder / "schemas", version)
    assert published is not None

    def rejected(schema: Mapping[str, Any], records: Iterable[bytes]) -> list[bytes]:
        model = EventSchema(INCIDENT, 1, schema)
        return [record for record in records if not _valid(model, record)]

    real = rejected(published, records_of(version, folder))
    assert not rejected(as_it_was(published, version), real)
    for left in schemas.LEFT_BY_REALITY:
        if version in left.versions:
            others = tuple(other for other in schemas.LEFT_BY_REALITY if other is not left)
            with monkeypatch.context() as without:
                without.setattr(schemas, "LEFT_BY_REALITY", others)
                assert rejected(as_it_was(published, version), real), left


@pytest.mark.slow
def test_the_program_end_to_end(real_history: RealHistory, tmp_path: Path) -> None:
    """Import, release, check, plan, upcast, verify, rebuild through the CLI; all must match."""
    result = program(real_history("vcdb") / CHAINS, "--json", "--work", str(tmp_path / "work"))
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["incidents"] == told["matched"] > 1_000
    assert told["mismatched"] == 0
    assert told["differences"] == []
    assert told["unvalidated"] == []
    models_read = told["read_models"]
    assert set(models_read) == {
        "incidents_by_actor",
        "incidents_by_action",
        "incidents_by_country",
        "incidents_by_year",
        "incidents_by_discovery",
        "victims_by_industry",
    }
    chains = real_chains(real_history("vcdb"))
    in_us = sum(_country(chain.records["1.3.7"]) == ["US"] for chain in chains)
    assert {"country": "US", "incidents": in_us} in models_read["incidents_by_country"]
    assert sum(row["incidents"] for row in models_read["incidents_by_year"]) == len(chains)


@pytest.mark.slow
def test_the_program_tells_a_mismatch(real_history: RealHistory, tmp_path: Path) -> None:
    """Two incidents, one of them with another ending; and no schemas beside the file."""
    with gzip.open(real_history("vcdb") / CHAINS) as lines:
        good, other = next(lines), json.loads(next(lines))
    other["versions"][-1]["data"]["summary"] = "told otherwise"
    (tmp_path / "two.jsonl").write_bytes(good + json.dumps(other).encode() + b"\n")
    result = program(tmp_path / "two.jsonl", "--json")
    assert result.returncode == 1, result.stderr
    told = json.loads(result.stdout)
    assert (told["matched"], told["mismatched"]) == (1, 1)
    (found,) = told["differences"]
    assert (found["incident"], found["path"]) == (other["incident"], "summary")
    assert told["schemas"] is None
    assert "nothing is validated" in result.stderr


@lru_cache
def real_chains(folder: Path) -> list[Chain]:
    return list(read_chains(folder / CHAINS))


def records_of(version: str, folder: Path) -> Iterator[bytes]:
    """Every real record of one VERIS version: from the chains, and both sides of the pairs."""
    for chain in real_chains(folder):
        yield codec.encode(chain.records[version])
    for side, step in ((2, VERSIONS[version] + 1), (1, VERSIONS[version] + 2)):
        for file in (folder / "steps").glob(f"{step:02d}_*.pairs.jsonl.gz"):
            for pair in pairs(file):
                yield codec.encode(pair[side])


def _valid(model: EventSchema, record: bytes) -> bool:
    try:
        model.validate(record)
    except ValidationError:
        return False
    return True


def program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.vcdb", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _country(record: codec.Value) -> object:
    assert isinstance(record, dict)
    victim = record.get("victim")
    return victim.get("country") if isinstance(victim, dict) else None
